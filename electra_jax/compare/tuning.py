"""Choose the learning rate and the warm-up of each variant of a comparison from its trials, all on the same grid.

A trial is a pre-training of its own at a share of the budget, with a seed that no compared pre-training has, fine-tuned
on the primary task: a held-out loss says nothing about detection, whose loss rises as its generator gets better.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from electra_jax.compare.compared_item import TUNING
from electra_jax.compare.records import Records
from electra_jax.compare.spread import tuning_scores
from electra_jax.config.comparison import ComparisonRun, GridPoint
from electra_jax.finetuning.results import rank


def trials(run: ComparisonRun, records: Records) -> dict[str, list[dict[str, Any]]]:
    """Return what is known of each variant's trials, in the order of the grid.

    Returns:
        By variant, for each trial whose score is known, its `learning_rate`, `warmup`, `steps`, `flops`, the `metric`
        of its scores, those of its fine-tunings, `by_seed`, and their mean `score`.
    """
    found: dict[str, list[dict[str, Any]]] = {entry.name: [] for entry in run.named_variants}
    for item in records.items:
        if item.role != TUNING or item.task is None or item.name not in records.done:
            continue
        results = records.results(item)
        by_seed = tuning_scores(results, run.seeds)
        found[item.variant].append(
            {
                **item.point._asdict(),
                "steps": item.steps,
                "flops": item.flops,
                "metric": results["main_metric"],
                "by_seed": by_seed,
                "score": statistics.fmean(by_seed.values()),
            }
        )
    return found


def at_the_edge(run: ComparisonRun, point: GridPoint) -> bool:
    """Return whether a learning rate is the lowest or the highest of several that were tried."""
    rates = run.tune[0]
    return len(rates) > 1 and point.learning_rate in (rates[0], rates[-1])


def chosen(run: ComparisonRun, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, GridPoint]:
    """Return the pair of the best score of each variant whose trials are all known; of equal ones the first."""
    best = {}
    for variant, entries in found.items():
        if run.grid and len(entries) == len(run.grid):
            top = max(entries, key=lambda entry: rank(entry["score"], entry["metric"]))
            best[variant] = GridPoint(top["learning_rate"], top["warmup"])
    return best

"""Choose the learning rate and the warm-up of each variant of a comparison from its trials, all on the same grid.

A trial is a pre-training of its own on a share of the budget, with a seed that no compared pre-training has. It is
fine-tuned on the primary task, because the held-out detection loss rises as a variant's generator gets better.
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
    """Return the results of each variant's finished trials, in the order of the grid.

    Returns:
        By variant, for each trial whose score is known: its `learning_rate`, `warmup`, `steps` and `flops`, the
        `metric` of its scores, the scores of its fine-tunings as `by_seed`, and their mean as `score`.
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
    """Return the pair with the best score for each variant whose trials are all done; the first of equal ones."""
    best = {}
    for variant, entries in found.items():
        if run.grid and len(entries) == len(run.grid):
            top = max(entries, key=lambda entry: rank(entry["score"], entry["metric"]))
            best[variant] = GridPoint(top["learning_rate"], top["warmup"])
    return best

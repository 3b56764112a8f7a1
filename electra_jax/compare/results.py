"""Collect the results of a comparison: the scores of every seed by variant, fraction and task, as JSON values."""

import os
import re
import shlex
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from electra_jax.compare.compared_item import COMPARED, TUNING, WorkItem
from electra_jax.compare.plan import Plan, own_work
from electra_jax.compare.records import Records
from electra_jax.compare.spread import ahead_of, cells_of, main_scores, statistics_of, void_at
from electra_jax.compare.tuning import at_the_edge, chosen, trials
from electra_jax.config.comparison import PAIRS, RANDOM, TRIGRAM, ComparisonRun
from electra_jax.config.selection import selection_of
from electra_jax.reports.page import counted

# Used instead of a task's name for the mean over all tasks.
MEAN = "mean of the tasks"
# Kinds of results that no fine-tuning wrote.
NOT_TUNED = ("probe", "trigram", "pairs")


def comparison_of(
    run: ComparisonRun, plan: Plan, records: Records, *, failures: Mapping[str, str], config: str
) -> dict[str, Any]:
    """Return the contents of comparison.json: everything done so far, without any path of this machine.

    Args:
        run: the comparison's settings.
        plan: its items.
        records: the records of the items that are done.
        failures: what went wrong since the last start, by item name.
        config: the comparison's Gin.
    """
    done = [item for item in plan.items if item.name in records.done]
    # Minimal pairs leave a single file and no run.json.
    recorded = [item for item in done if item.task is None or not item.task.startswith(PAIRS)]
    made = records.run_record(recorded[-1]) if recorded else {"machine": {}, "versions": {}}
    tasks = {entry.name: [*entry.files, *entry.bindings] for entry in run.named_tasks}
    scores = [
        score_of(item, records.done[item.name], records.results(item), run.seeds)
        for item in done
        if item.task is not None and item.role == COMPARED
    ]
    means = means_of(scores, averaged(tasks)) if len(averaged(tasks)) > 1 else []
    cells = cells_of([*scores, *means], run.pretraining_seeds)
    void = void_by_fraction(run, plan, cells)
    checkpoints = [
        {**checkpoint_of(item, records.done[item.name]), "held_out": records.held_out(item)}
        for item in done
        if item.task is None and item.role != TUNING
    ]
    return published(
        {
            "command": shlex.join(["electra", *sys.argv[1:]]),
            "date": max((records.done[item.name]["date"] for item in done), default=""),
            "flops": run.flops,
            "fractions": list(run.fractions),
            "seeds": list(run.seeds),
            "pretraining_seeds": list(run.seeds_of_pretraining),
            "cool_down": run.cool_down,
            "primary": run.primary,
            "random_baseline": run.random_baseline,
            "tasks": tasks,
            "variants": variants_of(run, plan),
            "pieces": {"done": len(done), "all": len(plan.items) + len(plan.pending), "failed": dict(failures)},
            "tuning": tuning_of(run, records),
            "spent_flops": spent_flops(done),
            "scores": scores,
            "means": means,
            "cells": cells,
            "void": void,
            "ahead": ahead_by_fraction(run, cells, void),
            "checkpoints": checkpoints,
            "machine": {name: value for name, value in made["machine"].items() if name != "host"},
            "versions": made["versions"],
            "config": config,
        },
        os.path.abspath(run.model_dir),
    )


def variants_of(run: ComparisonRun, plan: Plan) -> dict[str, dict[str, Any]]:
    """Return each variant's overrides, and the cost and number of its steps."""
    return {
        entry.name: {
            "overrides": [*entry.files, *entry.bindings],
            "step_flops": plan.step_flops[entry.name],
            "total_steps": plan.total_steps[entry.name],
        }
        for entry in run.named_variants
    }


def tuning_of(run: ComparisonRun, records: Records) -> dict[str, Any]:
    """Return each variant's trials, their cost, and the chosen pair once all are done; {} without a grid."""
    if not run.grid:
        return {}
    found = trials(run, records)
    best = chosen(run, found)
    return {
        variant: {
            "trials": entries,
            "flops": sum(entry["flops"] for entry in entries),
            "chosen": {**best[variant]._asdict(), "at_the_edge": at_the_edge(run, best[variant])}
            if variant in best
            else None,
        }
        for variant, entries in found.items()
    }


def spent_flops(done: Sequence[WorkItem]) -> dict[str, dict[str, float]]:
    """Return the pre-training FLOPs that each variant's finished items took in total, with tuning counted separately.

    An item that resumes another one counts only the FLOPs that it added.
    """
    work = own_work(done)
    found: dict[str, dict[str, float]] = {}
    for item in done:
        if item.task is None:
            kind = "tuning" if item.role == TUNING else "pretraining"
            spent = found.setdefault(item.variant, {"tuning": 0.0, "pretraining": 0.0})
            spent[kind] += work[item.name]
    return found


def void_by_fraction(
    run: ComparisonRun, plan: Plan, cells: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, bool]] | None:
    """Return, as far as known, which variants are void at each fraction; None without a trigram model."""
    words = next((item.task for item in plan.items if item.variant == TRIGRAM), None)
    if words is None:
        return None
    num_scores = run.pretraining_seeds if run.pretraining_seeds > 1 else run.num_seeds
    return {
        f"{fraction:g}": void_at(cells, words=words, fraction=fraction, num_scores=num_scores)
        for fraction in run.fractions
    }


def ahead_by_fraction(
    run: ComparisonRun, cells: Sequence[Mapping[str, Any]], void: Mapping[str, Mapping[str, bool]] | None
) -> dict[str, dict[str, list[str]]]:
    """Return which variants are ahead of which at each fraction; {} with one pre-training each, which cannot tell."""
    if run.pretraining_seeds == 1:
        return {}
    return {
        f"{fraction:g}": ahead_of(
            cells,
            primary=run.primary,
            fraction=fraction,
            num_pretrainings=run.pretraining_seeds,
            void=None if void is None else void[f"{fraction:g}"],
        )
        for fraction in run.fractions
    }


def published(value: Any, model_dir: str) -> Any:
    """Return JSON values without this machine's folders.

    MODEL_DIR's own path becomes "MODEL_DIR"; any other absolute path is cut to its last part.

    Args:
        value: JSON values. Within a text, everything that begins at the root is a path; in quotes it may hold spaces.
        model_dir: the comparison's directory, absolute.
    """
    if isinstance(value, Mapping):
        return {name: published(one, model_dir) for name, one in value.items()}
    if isinstance(value, list):
        return [published(one, model_dir) for one in value]
    if not isinstance(value, str):
        return value
    text = re.sub(rf"(?<![\w.]){re.escape(model_dir)}(?![\w.+-])", "MODEL_DIR", value)
    text = re.sub(r"""(['"])/[^'"\n]*/([^'"\n/]+)(?=['"])""", r"\1.../\2", text)
    return re.sub(r"(?<![\w.:/*\\-])/(?:[^\s/'\",;()]+/)+(?=[^\s/'\",;()])", ".../", text)


def score_of(item: WorkItem, record: Mapping[str, Any], results: Mapping[str, Any], seeds: Sequence[int]) -> dict:
    """Return the scores of a fine-tuned checkpoint.

    A failed seed counts with its score: leaving it out would favour variants that fail more often.

    Args:
        item: the fine-tuning.
        record: its record.
        results: results.json of `electra finetune`.
        seeds: the requested seeds; there may be more.
    """
    asked = [seed for seed in results["seeds"] if seed["seed"] in set(seeds)]
    by_seed = main_scores(results, seeds)
    return {
        "variant": item.variant,
        "pretraining_seed": item.seed,
        "fraction": item.fraction,
        "steps": item.steps,
        "flops": item.flops,
        "task": item.task,
        "metric": results["main_metric"],
        **statistics_of(by_seed),
        "by_seed": by_seed,
        "failed_seeds": [seed["seed"] for seed in asked if seed["failed"] is not None],
        "num_examples": results["num_examples"],
        "split": results.get("split", "dev"),
        # Without fine-tuning there are no checkpoints to select.
        **({} if results.get("kind") in NOT_TUNED else {"selection": results.get("selection")}),
        **made_by(record),
    }


def checkpoint_of(item: WorkItem, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a pre-training's cost, the checksum of its parameters, and its command."""
    return {
        "variant": item.variant,
        "role": item.role,
        "pretraining_seed": item.seed,
        "fraction": item.fraction,
        "steps": item.steps,
        "flops": item.flops,
        "directory": item.name,
        "parameters_sha256": record["sha256"],
        **made_by(record),
    }


def made_by(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the command and seconds of an item; no seconds if it was killed and resumed."""
    return {"seconds": record["seconds"] if record["share"] == 1.0 else None, "command": record["command"]}


def means_of(scores: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> list[dict[str, Any]]:
    """Return the mean over the tasks, seed by seed, of every pre-training that has been fine-tuned on all of them."""
    found, shared = [], ("variant", "pretraining_seed", "fraction", "steps", "flops")
    for checkpoint in dict.fromkeys((one["variant"], one["pretraining_seed"], one["fraction"]) for one in scores):
        own = [
            one
            for one in scores
            if (one["variant"], one["pretraining_seed"], one["fraction"]) == checkpoint and one["task"] in tasks
        ]
        if {score["task"] for score in own} != set(tasks):
            continue
        by_seed = {seed: statistics.fmean(score["by_seed"][seed] for score in own) for seed in own[0]["by_seed"]}
        found.append(
            {
                **{name: own[0][name] for name in shared},
                "task": MEAN,
                "metric": "mean of the main metrics",
                **statistics_of(by_seed),
                "by_seed": by_seed,
                "failed_seeds": sorted({seed for score in own for seed in score["failed_seeds"]}),
            }
        )
    return found


def of_checkpoint(cells: Sequence[Mapping[str, Any]], variant: str, fraction: float) -> dict[str, Mapping[str, Any]]:
    """Return the cells of a variant at a fraction by task, their mean included; `RANDOM` is at fraction 0."""
    return {cell["task"]: cell for cell in cells if (cell["variant"], cell["fraction"]) == (variant, fraction)}


def tasks_of(comparison: Mapping[str, Any]) -> list[str]:
    """Return the columns of the table: every task, and their mean if there are several."""
    tasks = list(comparison["tasks"])
    return [*tasks, MEAN] if len(averaged(tasks)) > 1 else tasks


def averaged(tasks: Iterable[str]) -> list[str]:
    """Return the tasks that count in the mean: not pairs, which different variants score in different ways."""
    return [task for task in tasks if not task.startswith(PAIRS)]


def table_of(comparison: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Return a row for each checkpoint: its name and the text of each cell, "" if unknown so far; see `heading_of`.

    Void variants are marked.
    """
    lines, asked = [], len(comparison["pretraining_seeds"])
    baselines = {RANDOM: "random weights", TRIGRAM: "trigram model"}
    checkpoints = [
        *([(RANDOM, 0.0)] if comparison["random_baseline"] else []),
        *([(TRIGRAM, 0.0)] if comparison["void"] is not None else []),
        *((variant, fraction) for variant in comparison["variants"] for fraction in comparison["fractions"]),
    ]
    for variant, fraction in checkpoints:
        found = of_checkpoint(comparison["cells"], variant, fraction)
        mark = " (void)" if is_void(comparison, variant, fraction) else ""
        name = baselines.get(variant, f"{variant}, {fraction:g}{mark}")
        wanted = asked if variant not in baselines and asked > 1 else None
        lines.append((name, [text_of(found.get(task), wanted) for task in tasks_of(comparison)]))
    return lines


def is_void(comparison: Mapping[str, Any], variant: str, fraction: float) -> bool:
    """Return whether it is known that a variant predicts masked words less often than the trigram model."""
    return comparison["void"] is not None and comparison["void"].get(f"{fraction:g}", {}).get(variant, False)


def text_of(cell: Mapping[str, Any] | None, wanted: int | None) -> str:
    """Return the center of a cell and, if it has several scores, their standard deviation; "" for None.

    Args:
        cell: see `spread.cells_of`.
        wanted: the number of pre-trainings that a whole cell covers; None if cells are over fine-tunings.
    """
    if cell is None:
        return ""
    failed = f" ({len(cell['failed_seeds'])} failed)" if cell["failed_seeds"] else ""
    part = f" ({cell['n']} of {wanted} pre-trainings)" if wanted is not None and cell["n"] < wanted else ""
    spread = f" ± {cell['sd']:.2f}" if cell["n"] > 1 else ""
    return f"{cell['center']:.2f}{spread}{failed}{part}"


def heading_of(comparison: Mapping[str, Any]) -> str:
    """Describe in words the contents of a cell of the table."""
    seeds, pretrainings = len(comparison["seeds"]), len(comparison["pretraining_seeds"])
    if pretrainings == seeds == 1:
        return "one fine-tuning of one pre-training"
    if pretrainings == 1:
        return f"median ± standard deviation over {counted(seeds, 'fine-tuning')} of one pre-training"
    each = "" if seeds == 1 else f", each the mean of {counted(seeds, 'fine-tuning')}"
    return f"mean ± standard deviation over {counted(pretrainings, 'pre-training')}{each}"


def checkpoints_counted(comparison: Mapping[str, Any]) -> str:
    """Describe in words which checkpoint of each fine-tuning is scored."""
    return "; ".join(sorted({selection_of(score) for score in comparison["scores"] if "selection" in score}))

"""What a comparison found: the scores of every seed by variant, fraction and task, as JSON values."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from electra_jax.comparison import RANDOM, Piece

# Stands for the mean over all tasks where a task's name does.
MEAN = "mean of the tasks"


def score_of(piece: Piece, record: Mapping[str, Any], results: Mapping[str, Any], seeds: Sequence[int]) -> dict:
    """The scores of a fine-tuned checkpoint.

    A seed that failed counts with its score: to leave it out would favour what fails more often.

    Args:
        piece: the fine-tuning.
        record: of it.
        results: results.json of `electra finetune`.
        seeds: those asked for; there may be more.
    """
    chosen = [seed for seed in results["seeds"] if seed["seed"] in set(seeds)]
    by_seed = {str(seed["seed"]): seed["metrics"][results["main_metric"]] for seed in chosen}
    return {
        "variant": piece.variant,
        "fraction": piece.fraction,
        "steps": piece.steps,
        "flops": piece.flops,
        "task": piece.task,
        "metric": results["main_metric"],
        **statistics_of(by_seed),
        "by_seed": by_seed,
        "failed_seeds": [seed["seed"] for seed in chosen if seed["failed"] is not None],
        "num_examples": results["num_examples"],
        "seconds": record["seconds"],
        "command": record["command"],
    }


def statistics_of(by_seed: Mapping[str, float]) -> dict[str, float]:
    """Median, mean, deviation of the sample (0 of one), lowest and highest."""
    values = list(by_seed.values())
    return {
        "median": statistics.median(values),
        "mean": statistics.fmean(values),
        "sd": statistics.stdev(values) if len(values) > 1 else 0.0,
        "lowest": min(values),
        "highest": max(values),
        "n": len(values),
    }


def means_of(scores: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> list[dict[str, Any]]:
    """The mean over the tasks, seed by seed, of every checkpoint that has been fine-tuned on all of them."""
    found = []
    for checkpoint in dict.fromkeys((score["variant"], score["fraction"]) for score in scores):
        own = [score for score in scores if (score["variant"], score["fraction"]) == checkpoint]
        if {score["task"] for score in own} != set(tasks):
            continue
        by_seed = {seed: statistics.fmean(score["by_seed"][seed] for score in own) for seed in own[0]["by_seed"]}
        found.append(
            {
                **{name: own[0][name] for name in ("variant", "fraction", "steps", "flops")},
                "task": MEAN,
                "metric": "mean of the main metrics",
                **statistics_of(by_seed),
                "by_seed": by_seed,
                "failed_seeds": sorted({seed for score in own for seed in score["failed_seeds"]}),
            }
        )
    return found


def of_checkpoint(scores: Sequence[Mapping[str, Any]], variant: str, fraction: float) -> dict[str, Mapping[str, Any]]:
    """The scores of one checkpoint by task, the mean among them; random weights are `RANDOM` at fraction 0."""
    return {score["task"]: score for score in scores if (score["variant"], score["fraction"]) == (variant, fraction)}


def checkpoints_of(pieces: Sequence[Piece], records: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every pre-training that is done: what it cost, the hash of its parameters, and the command that made it."""
    return [
        {
            "variant": piece.variant,
            "fraction": piece.fraction,
            "steps": piece.steps,
            "flops": piece.flops,
            "directory": piece.name,
            "parameters_sha256": records[piece.name]["sha256"],
            "seconds": records[piece.name]["seconds"],
            "command": records[piece.name]["command"],
        }
        for piece in pieces
        if piece.task is None and piece.name in records
    ]


def tasks_of(comparison: Mapping[str, Any]) -> list[str]:
    """The columns of the table: every task, and their mean where there are several."""
    tasks = list(comparison["tasks"])
    return [*tasks, MEAN] if len(tasks) > 1 else tasks


def table_of(comparison: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """A line for each checkpoint: its name, and median ± deviation of each column; "" where nothing is known yet."""
    scores = [*comparison["scores"], *comparison["means"]]
    lines = []
    checkpoints = [
        *([(RANDOM, 0.0)] if comparison["random_baseline"] else []),
        *((variant, fraction) for variant in comparison["variants"] for fraction in comparison["fractions"]),
    ]
    for variant, fraction in checkpoints:
        found = of_checkpoint(scores, variant, fraction)
        name = "random weights" if variant == RANDOM else f"{variant}, {fraction:g}"
        lines.append((name, [cell(found.get(task)) for task in tasks_of(comparison)]))
    return lines


def cell(score: Mapping[str, Any] | None) -> str:
    """Median and spread of a checkpoint on a task."""
    if score is None:
        return ""
    failed = f" ({len(score['failed_seeds'])} failed)" if score["failed_seeds"] else ""
    return f"{score['median']:.2f} ± {score['sd']:.2f}{failed}"

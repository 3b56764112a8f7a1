"""What a comparison found: the scores of every seed by variant, fraction and task, as JSON values."""

import os
import re
import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from electra_jax.compare.pieces import Piece
from electra_jax.compare.plan import Plan
from electra_jax.compare.records import Records
from electra_jax.config.comparison import RANDOM, ComparisonRun

# Stands for the mean over all tasks where a task's name does.
MEAN = "mean of the tasks"


def comparison_of(
    run: ComparisonRun, plan: Plan, records: Records, *, failures: Mapping[str, str], config: str
) -> dict[str, Any]:
    """All that comparison.json holds: what is done so far, and nothing that only this machine can follow.

    Args:
        run: what is compared.
        plan: its pieces.
        records: of those that are done.
        failures: what went wrong since the last start, by the pieces' names.
        config: the comparison's Gin.
    """
    done = [piece for piece in plan.pieces if piece.name in records.done]
    made = records.made(done[-1]) if done else {"machine": {}, "versions": {}}
    tasks = {entry.name: [*entry.files, *entry.bindings] for entry in run.named_tasks}
    scores = [
        score_of(piece, records.done[piece.name], records.results(piece), run.seeds)
        for piece in done
        if piece.task is not None
    ]
    variants = {
        entry.name: {
            "overrides": [*entry.files, *entry.bindings],
            "step_flops": plan.step_flops[entry.name],
            "total_steps": plan.total_steps[entry.name],
        }
        for entry in run.named_variants
    }
    return published(
        {
            "command": shlex.join(["electra", *sys.argv[1:]]),
            "date": max((records.done[piece.name]["date"] for piece in done), default=""),
            "flops": run.flops,
            "fractions": list(run.fractions),
            "seeds": list(run.seeds),
            "random_baseline": run.random_baseline,
            "tasks": tasks,
            "variants": variants,
            "pieces": {"done": len(done), "all": len(plan.pieces), "failed": dict(failures)},
            "scores": scores,
            "means": means_of(scores, list(tasks)) if len(tasks) > 1 else [],
            "checkpoints": [
                {**checkpoint_of(piece, records.done[piece.name]), "held_out": records.held_out(piece)}
                for piece in done
                if piece.task is None
            ],
            "machine": {name: value for name, value in made["machine"].items() if name != "host"},
            "versions": made["versions"],
            "config": config,
        },
        os.path.abspath(run.model_dir),
    )


def published(value: Any, model_dir: str) -> Any:
    """JSON values without the places of a machine: MODEL_DIR's is called so, of any other the last part is left.

    Args:
        value: of any shape; in its texts a path from the root on is taken for one, in quotes also with blanks.
        model_dir: from the root on.
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
        **made_by(record),
    }


def made_by(record: Mapping[str, Any]) -> dict[str, Any]:
    """Command and seconds of a piece; no seconds of one that was killed and gone on with."""
    return {"seconds": record["seconds"] if record.get("share", 1.0) == 1.0 else None, "command": record["command"]}


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


def checkpoint_of(piece: Piece, record: Mapping[str, Any]) -> dict[str, Any]:
    """A pre-training: what it cost, the hash of its parameters, and the command that made it."""
    return {
        "variant": piece.variant,
        "fraction": piece.fraction,
        "steps": piece.steps,
        "flops": piece.flops,
        "directory": piece.name,
        "parameters_sha256": record["sha256"],
        **made_by(record),
    }


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

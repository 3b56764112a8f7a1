"""Collect what a comparison found: the scores of every seed by variant, fraction and task, as JSON values."""

import os
import re
import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from electra_jax.compare.plan import Plan, WorkItem
from electra_jax.compare.records import Records
from electra_jax.config.comparison import RANDOM, ComparisonRun
from electra_jax.config.selection import selection_of

# Stands for the mean over all tasks where a task's name does.
MEAN = "mean of the tasks"


def comparison_of(
    run: ComparisonRun, plan: Plan, records: Records, *, failures: Mapping[str, str], config: str
) -> dict[str, Any]:
    """Return the contents of comparison.json: all that is done so far, with no path of this machine.

    Args:
        run: the comparison's settings.
        plan: its items.
        records: the records of the items that are done.
        failures: what went wrong since the last start, by the items' names.
        config: the comparison's Gin.
    """
    done = [item for item in plan.items if item.name in records.done]
    made = records.run_record(done[-1]) if done else {"machine": {}, "versions": {}}
    tasks = {entry.name: [*entry.files, *entry.bindings] for entry in run.named_tasks}
    scores = [
        score_of(item, records.done[item.name], records.results(item), run.seeds)
        for item in done
        if item.task is not None
    ]
    variants = {
        entry.name: {
            "overrides": [*entry.files, *entry.bindings],
            "step_flops": plan.step_flops[entry.name],
            "total_steps": plan.total_steps[entry.name],
        }
        for entry in run.named_variants
    }
    checkpoints = [
        {**checkpoint_of(item, records.done[item.name]), "held_out": records.held_out(item)}
        for item in done
        if item.task is None
    ]
    return published(
        {
            "command": shlex.join(["electra", *sys.argv[1:]]),
            "date": max((records.done[item.name]["date"] for item in done), default=""),
            "flops": run.flops,
            "fractions": list(run.fractions),
            "seeds": list(run.seeds),
            "random_baseline": run.random_baseline,
            "tasks": tasks,
            "variants": variants,
            "pieces": {"done": len(done), "all": len(plan.items), "failed": dict(failures)},
            "scores": scores,
            "means": means_of(scores, list(tasks)) if len(tasks) > 1 else [],
            "checkpoints": checkpoints,
            "machine": {name: value for name, value in made["machine"].items() if name != "host"},
            "versions": made["versions"],
            "config": config,
        },
        os.path.abspath(run.model_dir),
    )


def published(value: Any, model_dir: str) -> Any:
    """Return JSON values without the folders of this machine.

    MODEL_DIR's own path becomes "MODEL_DIR"; of any other absolute path the last part is left.

    Args:
        value: JSON values. In a text, whatever begins at the root counts as a path; in quotes it may hold blanks.
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

    A seed that failed counts with its score: to leave it out would favour what fails more often.

    Args:
        item: the fine-tuning.
        record: its record.
        results: results.json of `electra finetune`.
        seeds: the seeds that are asked for; there may be more.
    """
    chosen = [seed for seed in results["seeds"] if seed["seed"] in set(seeds)]
    by_seed = {str(seed["seed"]): seed["metrics"][results["main_metric"]] for seed in chosen}
    return {
        "variant": item.variant,
        "fraction": item.fraction,
        "steps": item.steps,
        "flops": item.flops,
        "task": item.task,
        "metric": results["main_metric"],
        **statistics_of(by_seed),
        "by_seed": by_seed,
        "failed_seeds": [seed["seed"] for seed in chosen if seed["failed"] is not None],
        "num_examples": results["num_examples"],
        "split": results.get("split", "dev"),
        "selection": results.get("selection"),
        **made_by(record),
    }


def checkpoint_of(item: WorkItem, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a pre-training cost, the checksum of its parameters, and the command that did it."""
    return {
        "variant": item.variant,
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


def statistics_of(by_seed: Mapping[str, float]) -> dict[str, float]:
    """Return median, mean, sample standard deviation (0 of one value), lowest and highest."""
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
    """Return the mean over the tasks, seed by seed, of every checkpoint that has been fine-tuned on all of them."""
    found = []
    for variant, fraction in dict.fromkeys((score["variant"], score["fraction"]) for score in scores):
        own = list(of_checkpoint(scores, variant, fraction).values())
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
    """Return a checkpoint's scores by task, the mean among them; random weights are `RANDOM` at fraction 0."""
    return {score["task"]: score for score in scores if (score["variant"], score["fraction"]) == (variant, fraction)}


def tasks_of(comparison: Mapping[str, Any]) -> list[str]:
    """Return the columns of the table: every task, and their mean if there are several."""
    tasks = list(comparison["tasks"])
    return [*tasks, MEAN] if len(tasks) > 1 else tasks


def checkpoints_counted(comparison: Mapping[str, Any]) -> str:
    """Return, in words, which checkpoint of each fine-tuning the scores are of."""
    return "; ".join(sorted({selection_of(score) for score in comparison["scores"]}))


def table_of(comparison: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Return a line for each checkpoint: its name, and median ± deviation in each column, "" if not known yet."""
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
    """Return the median and standard deviation of a checkpoint on a task, "" for None."""
    if score is None:
        return ""
    failed = f" ({len(score['failed_seeds'])} failed)" if score["failed_seeds"] else ""
    return f"{score['median']:.2f} ± {score['sd']:.2f}{failed}"

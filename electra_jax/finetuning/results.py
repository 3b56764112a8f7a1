"""Summarize a fine-tuning run: scores of every seed and their spread, failures, and predictions with gold answers."""

import functools
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from electra_jax.config.selection import selection_of
from electra_jax.files import replace_file
from electra_jax.json_files import json_text
from electra_jax.monitoring.console import PlainConsole
from electra_jax.run_directory import PREDICTIONS
from electra_jax.tasks.protocol import DownstreamTask, Prediction
from electra_jax.tasks.text.metrics import LOWER_IS_BETTER

# A line of the terminal's table, a seed, a fold or a statistic: its name, its style, and its scores.
Line = tuple[str, str, Mapping[str, float]]

# With more scores than this, as SQuAD 2.0 has, each score is a line of the table rather than a column.
MOST_COLUMNS = 6

# A regression whose values spread over less than this share of the gold values' spread counts as constant.
LEAST_SPREAD = 0.01


def collapse(task: DownstreamTask, examples: Sequence[Any], predictions: Sequence[Prediction]) -> str | None:
    """Return why a run counts as failed: it predicts the same for every example; None if it does not.

    A split whose gold answers are all the same cannot show a failure.
    """
    if task.kind == "retrieval":
        # If all vectors are the same, they find nothing, and the scores show it.
        return None
    if task.kind in ("regression", "similarity"):
        values = [prediction.to_json()["value"] for prediction in predictions]
        spread, wanted = (max(of) - min(of) for of in (values, [example.label for example in examples]))
        flat = wanted > 0 and spread < LEAST_SPREAD * wanted
        return f"every example gets about the value {statistics.median(values):.3g}" if flat else None
    said = {json.dumps(answer_of(task, prediction.to_json())) for prediction in predictions}
    gold = {json.dumps(gold_of(task, example)) for example in examples}
    if len(said) > 1 or len(gold) <= 1:
        return None
    names = {
        "classification": "every example gets the class",
        "prompt": "every example gets the label",
        "multi_label_classification": "every example gets the labels",
        "multiple_choice": "every example gets the choice at the place",
        "tagging": "every sentence gets",
        "question_answering": "every question gets the answer",
    }
    return f"{names[task.kind]} {said.pop()}"


def answer_of(task: DownstreamTask, prediction: Mapping[str, Any]) -> Any:
    """Return the part of a prediction to compare: the class, labels, place of a choice, tags or answer."""
    if task.kind in ("classification", "prompt", "multiple_choice"):
        return prediction["label"]
    if task.kind == "multi_label_classification":
        return list(prediction["labels"])
    if task.kind == "tagging":
        return "no entity" if set(prediction["tags"]) <= {"O"} else prediction["tags"]
    return prediction["answer"]


def gold_of(task: DownstreamTask, example: Any) -> Any:
    """Return an example's gold class, labels, value, place, tags, or accepted answers ([] if there is none)."""
    if task.kind in ("classification", "prompt"):
        return task.labels[example.label]
    if task.kind == "multi_label_classification":
        return [task.labels[number] for number in example.label]
    if task.kind in ("regression", "similarity", "multiple_choice"):
        return example.label
    if task.kind == "retrieval":
        return example.text_b
    return list(example.tags if task.kind == "tagging" else example.gold_texts)


def record_of(task: DownstreamTask, example: Any, prediction: Prediction) -> dict[str, Any]:
    """Return an example with its gold answer and its prediction, as JSON values."""
    if task.kind == "tagging":
        shown = {"words": list(example.words)}
    elif task.kind == "question_answering":
        shown = {"id": example.example_id, "question": example.question, "context": example.context}
    else:
        shown = {"index": example.index, "text_a": example.text_a, "text_b": example.text_b}
        shown |= {"choices": list(example.choices)} if task.kind == "multiple_choice" else {}
    return {**shown, "gold": gold_of(task, example), "prediction": prediction.to_json()}


def summary(seeds: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return each score's median, mean, sample standard deviation and best, over the seeds that did not fail.

    A NaN score does not count; `n` is the number of scores that do. The standard deviation of one score is 0.
    """
    worked = [seed["metrics"] for seed in seeds if seed["failed"] is None]
    if not worked:
        return {}
    found = {}
    for name in worked[0]:
        values = [scores[name] for scores in worked if not math.isnan(scores[name])]
        found[name] = {
            "median": statistics.median(values) if values else math.nan,
            "mean": statistics.fmean(values) if values else math.nan,
            "std": statistics.stdev(values) if len(values) > 1 else 0.0,
            "best": max(values, default=math.nan, key=functools.partial(rank, metric=name)),
            "n": len(values),
        }
    return found


def rank(score: float, metric: str) -> float:
    """Return a number that ranks a score, the larger the better; NaN ranks below all others.

    Args:
        score: the score.
        metric: its name, which tells whether small or large ones are good.
    """
    if math.isnan(score):
        return -math.inf
    return -score if metric in LOWER_IS_BETTER else score


def best_seed(seeds: Sequence[Mapping[str, Any]], main_metric: str) -> int:
    """Return the seed with the best main score on the part that chooses checkpoints; a failed one only if all did."""

    def order(seed: Mapping[str, Any]) -> tuple[bool, float]:
        (score,) = seed.get("chosen_by", {main_metric: seed["metrics"][main_metric]}).values()
        return seed["failed"] is None, rank(score, main_metric)

    return max(seeds, key=order)["seed"]


def selection_of_all(seeds: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the SELECTION of a run's seeds; None if an earlier version, which reported another score, trained any."""
    found = {seed.get("selection") for seed in seeds}
    return None if None in found else found.pop()


def on_split(seeds: Sequence[Mapping[str, Any]], split: str) -> list[dict[str, Any]]:
    """Return the seeds with their scores on another split; those of earlier versions have none and are left out."""
    return [
        {**seed, "metrics": seed["scores_by_split"][split]}
        for seed in seeds
        if split in seed.get("scores_by_split", {})
    ]


def write_predictions(
    directory: Path, task: DownstreamTask, examples: Sequence[Any], predictions: Sequence[Prediction]
) -> None:
    """Write predictions.jsonl, a line per example of the split that is reported."""
    lines = (
        json_text(record_of(task, example, prediction), indent=None, ensure_ascii=False)
        for example, prediction in zip(examples, predictions, strict=True)
    )
    replace_file(directory / PREDICTIONS, "".join(lines))


def show(results: Mapping[str, Any]) -> None:
    """Print every seed's or fold's scores and their spread, in one table per split, as wide as it needs to be."""
    entries = results.get("folds", results["seeds"])
    tables = {results["split"]: (entries, results["summary"])}
    for name, found in results["other_splits"].items():
        tables[name] = on_split(entries, name), found
    console = PlainConsole()
    for split, (shown, found) in tables.items():
        table = table_of(results, split, shown, found)
        needed = console.measure(table, options=console.options.update(width=1000)).maximum
        (console if needed <= console.width else PlainConsole(width=needed)).print(table)
    for entry in entries:
        if entry["failed"] is not None:
            console.print(f"{name_of(entry)} failed and is not averaged: {entry['failed']}", soft_wrap=True)


def name_of(entry: Mapping[str, Any]) -> str:
    """Return the name of an entry of results.json: a fold or a seed, with its number."""
    return f"fold {entry['fold']}" if "fold" in entry else f"seed {entry['seed']}"


def table_of(
    results: Mapping[str, Any],
    split: str,
    entries: Sequence[Mapping[str, Any]],
    found: Mapping[str, Mapping[str, float]],
) -> Table:
    """Return the table of a split, whose title says which checkpoint has these scores."""
    names, lines = list(entries[0]["metrics"]), []
    for entry in entries:
        step = f", step {entry['best_step']}" if "best_step" in entry else ""
        failed = "" if entry["failed"] is None else ", failed"
        lines.append((f"{name_of(entry)}{step}{failed}", "red" if failed else "", entry["metrics"]))
    # One number has no spread.
    if sum(entry["failed"] is None for entry in entries) > 1:
        for statistic in ("median", "mean", "std", "best"):
            lines.append((statistic, "", {name: found[name][statistic] for name in names}))
    title = f"{results['task']} ({results['num_examples'][split]} {split} examples), {selection_of(results)}"
    make = table_of_many_scores if len(names) > MOST_COLUMNS else table_of_few_scores
    return make(title, names, lines, results["main_metric"])


def table_of_few_scores(title: str, names: Sequence[str], lines: Sequence[Line], main: str) -> Table:
    """Return a table with a line for each seed, or fold, and statistic, and a column for each score."""
    table = Table(title=title)
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right", style="bold" if name == main else "")
    for label, style, values in lines:
        table.add_row(label, *(f"{values[name]:.2f}" for name in names), style=style)
    return table


def table_of_many_scores(title: str, names: Sequence[str], lines: Sequence[Line], main: str) -> Table:
    """Return a table with a column for each seed, or fold, and statistic, and a line for each score."""
    table = Table(title=title)
    table.add_column("")
    for label, style, _ in lines:
        table.add_column(label.replace(", ", "\n"), justify="right", style=style)
    for name in names:
        table.add_row(name, *(f"{values[name]:.2f}" for *_, values in lines), style="bold" if name == main else "")
    return table

"""What a fine-tuning run reports: scores of every seed and their spread, failures, and predictions with their gold."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from electra_jax.run_record import replace_text
from electra_jax.tasks.downstream import DownstreamTask, Prediction

RESULTS = "results.json"
PREDICTIONS = "predictions.jsonl"


def collapse(task: DownstreamTask, examples: Sequence[Any], predictions: Sequence[Prediction]) -> str | None:
    """Why a run counts as failed: it says the same of every example, whatever it reads; None if it does not.

    A split whose gold answers are all the same cannot tell.
    """
    said = {json.dumps(answer_of(task, prediction.to_json())) for prediction in predictions}
    gold = {json.dumps(gold_of(task, example)) for example in examples}
    if len(said) > 1 or len(gold) <= 1:
        return None
    names = {
        "classification": "every example gets the class",
        "regression": "every example gets the value",
        "tagging": "every sentence gets",
        "question_answering": "every question gets the answer",
    }
    return f"{names[task.kind]} {said.pop()}"


def answer_of(task: DownstreamTask, prediction: Mapping[str, Any]) -> Any:
    """What a prediction comes down to: a class, a value to three digits, whether there are entities, an answer."""
    if task.kind == "classification":
        return prediction["label"]
    if task.kind == "regression":
        return round(prediction["value"], 3)
    if task.kind == "tagging":
        return "no entity" if set(prediction["tags"]) <= {"O"} else prediction["tags"]
    return prediction["answer"]


def gold_of(task: DownstreamTask, example: Any) -> Any:
    """What is right: a class, a value, tags, or the accepted answers (none: [])."""
    if task.kind == "classification":
        return task.labels[example.label]
    if task.kind == "regression":
        return example.label
    return list(example.tags if task.kind == "tagging" else example.gold_texts)


def record_of(task: DownstreamTask, example: Any, prediction: Prediction) -> dict[str, Any]:
    """An example with its gold and its prediction, as JSON values."""
    if task.kind == "tagging":
        shown = {"words": list(example.words)}
    elif task.kind == "question_answering":
        shown = {"id": example.example_id, "question": example.question, "context": example.context}
    else:
        shown = {"index": example.index, "text_a": example.text_a, "text_b": example.text_b}
    return {**shown, "gold": gold_of(task, example), "prediction": prediction.to_json()}


def summary(seeds: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Of each score: median, mean, standard deviation (of the sample; 0 of one) and best, over seeds that worked."""
    worked = [seed["metrics"] for seed in seeds if seed["failed"] is None]
    if not worked:
        return {}
    found = {}
    for name in worked[0]:
        values = [scores[name] for scores in worked]
        found[name] = {
            "median": statistics.median(values),
            "mean": statistics.fmean(values),
            "std": statistics.stdev(values) if len(values) > 1 else 0.0,
            "best": max(values),
            "n": len(values),
        }
    return found


def best_seed(seeds: Sequence[Mapping[str, Any]], main_metric: str) -> int:
    """The seed with the best main score; one that failed only if all did."""
    ranked = max(seeds, key=lambda seed: (seed["failed"] is None, seed["metrics"][main_metric]))
    return ranked["seed"]


def write_predictions(
    directory: Path, task: DownstreamTask, examples: Sequence[Any], predictions: Sequence[Prediction]
) -> None:
    """Writes predictions.jsonl, a line per example of the dev split."""
    lines = (
        json.dumps(record_of(task, example, prediction), ensure_ascii=False)
        for example, prediction in zip(examples, predictions, strict=True)
    )
    replace_text(directory / PREDICTIONS, "".join(f"{line}\n" for line in lines))


def show(results: Mapping[str, Any]) -> None:
    """The table of every seed's scores on the terminal, and their spread."""
    names = list(results["seeds"][0]["metrics"])
    table = Table(title=f"{results['task']} ({results['num_examples'][results['split']]} {results['split']} examples)")
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right", style="bold" if name == results["main_metric"] else "")
    for seed in results["seeds"]:
        failed = "" if seed["failed"] is None else ", failed"
        cells = (f"{seed['metrics'][name]:.2f}" for name in names)
        table.add_row(f"seed {seed['seed']}, step {seed['best_step']}{failed}", *cells, style="red" if failed else "")
    table.add_section()
    for statistic in ("median", "mean", "std", "best"):
        if results["summary"]:
            table.add_row(statistic, *(f"{results['summary'][name][statistic]:.2f}" for name in names))
    console = Console()
    console.print(table)
    for seed in results["seeds"]:
        if seed["failed"] is not None:
            console.print(
                f"seed {seed['seed']} failed and is not averaged: {seed['failed']}", soft_wrap=True, markup=False
            )

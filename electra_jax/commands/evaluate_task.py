"""`electra evaluate` on a task: scores a fine-tuned model, a file of predictions, or a model on minimal pairs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

import electra_jax
from electra_jax.config.prediction import EvaluationRun
from electra_jax.distributed.processes import print_on_leader
from electra_jax.errors import UserError
from electra_jax.files import path_of, replace_file
from electra_jax.inference.minimal_pairs import overall, score_pairs
from electra_jax.inference.network import Network
from electra_jax.inference.prediction import predict_examples
from electra_jax.inference.task_data import open_task, splits_of
from electra_jax.json_files import json_text
from electra_jax.monitoring.console import PlainConsole
from electra_jax.run_directory import EVALUATION, PAIRS, PROMPT_SCORES
from electra_jax.runtime import keep_compilations
from electra_jax.tasks.long_texts import CutCount
from electra_jax.tasks.outputs import left_out
from electra_jax.tasks.parts import has_gold, warn_of_few
from electra_jax.tasks.protocol import DownstreamTask
from electra_jax.tasks.qa.files import read_predictions
from electra_jax.tasks.qa.metrics import gold_of, unanswered
from electra_jax.tasks.qa.sources import QA_TASKS, qa_sources
from electra_jax.tasks.scoring import score_predictions, tagged_file
from electra_jax.tasks.tagging.task import TAGGING_TASKS
from electra_jax.tasks.text.minimal_pairs import MINIMAL_PAIRS, read_minimal_pairs
from electra_jax.tasks.text.prompts import PROMPT

Scores = dict[str, float]


def run(configuration: EvaluationRun) -> None:
    """Score a model or a file, print the metrics as a table, and save them.

    Raises:
        UserError: if there is nothing to score, or it cannot be read.
    """
    if configuration.task.task == MINIMAL_PAIRS:
        score_minimal_pairs(configuration)
    elif configuration.predictions is not None:
        score_file(configuration, configuration.predictions)
    elif configuration.model_dir is not None:
        score_model(configuration, configuration.model_dir)
    else:
        raise UserError(
            "nothing to score: set MODEL_DIR to a fine-tuned model, or PREDICTIONS to a file of predictions"
        )


def score_minimal_pairs(configuration: EvaluationRun) -> None:
    """Score a pre-trained model on a folder of minimal pairs: how often the grammatical sentence is more likely.

    Raises:
        UserError: if the model or the folder is not named, or one of them cannot be used.
    """
    model_dir, folder = configuration.model_dir, configuration.task.data_dir
    if model_dir is None or folder is None:
        raise UserError(
            "minimal pairs are scored by a pre-trained model: set MODEL_DIR to it, and DATA_DIR to the pairs"
        )
    files = read_minimal_pairs(folder)
    keep_compilations()
    model = electra_jax.load(model_dir)
    scores = score_pairs(model, files, batch_size=configuration.batch_size)
    whole = overall(scores)
    result = {"task": MINIMAL_PAIRS, "step": model.step, **whole, "files": scores}
    columns = [(way, by) for way in whole if way != "num_pairs" for by in ("sum", "mean")]
    table = Table(
        "pairs of",
        "number",
        *(f"{way}, {by}" for way, by in columns),
        title=f"minimal pairs, step {model.step}, per cent",
    )
    for name, found in {**scores, "all files": whole}.items():
        table.add_row(name, str(found["num_pairs"]), *(f"{found[way][by]:.2f}" for way, by in columns))
    PlainConsole().print(table)
    save(result, configuration.output or path_of(model_dir) / PAIRS)


def score_model(configuration: EvaluationRun, model_dir: str) -> None:
    """Score a fine-tuned model on every example of a split."""
    keep_compilations()
    model = electra_jax.load(model_dir)
    task = open_task(model, configuration.task)
    splits = {
        split: score_split(model, task, split, batch_size=configuration.batch_size)
        for split in splits_of(task, configuration.split)
    }
    first = next(iter(splits.values()))
    result = {"task": task.name, "split": configuration.split, "step": model.step, **first, "splits": splits}
    show({split: found["metrics"] for split, found in splits.items()}, f"{task.name}, step {model.step}")
    # In a pre-training directory, evaluation.json holds the pre-training's own held-out metrics.
    name = PROMPT_SCORES if model.description.task is None and task.kind == PROMPT else EVALUATION
    save(result, configuration.output or path_of(model_dir) / name)


def score_split(model: Network, task: DownstreamTask, split: str, *, batch_size: int) -> dict[str, Any]:
    """Return the number of examples in a split, the numbers left out (by reason) and cut, and the official metrics.

    Raises:
        UserError: if the split has no labels.
    """
    found = task.examples(split)
    if not any(has_gold(example) for example in found.examples):
        raise UserError(
            f"the {split} split of {task.name} has no labels to score against: predict it (electra predict with "
            f"SPLIT={split!r}), or name another SPLIT"
        )
    print_on_leader(f"{task.name}, {split}: {len(found.examples)} examples{left_out(found.skipped)}")
    warn_of_few(len(found.examples), split)
    count = CutCount(task.length)
    predictions = predict_examples(model, task, found.examples, batch_size=batch_size, count=count)
    if count.texts:
        print_on_leader(f"{split}: {count}")
    return {
        "num_examples": len(found.examples),
        "skipped": dict(found.skipped),
        "cut": count.to_json(),
        "metrics": task.score(found.examples, predictions),
    }


def score_file(configuration: EvaluationRun, predictions: str) -> None:
    """Score a file of predictions as the official script of its task does."""
    options, split = configuration.task, configuration.split
    if not options.task:
        raise UserError(f"{predictions} does not say its task: set TASK, and DATA_DIR to where its gold answers are")
    metrics = score_predictions(options, split, predictions, null_odds_file=configuration.null_odds)
    if options.task in TAGGING_TASKS:
        print(tagged_file(predictions, rules=options.rules).report(), end="")
    if options.task in QA_TASKS:
        note_unanswered(configuration, predictions)
    show({split: metrics}, f"{options.task}, {predictions}")
    result = {"task": options.task, "split": split, "predictions": predictions, "metrics": metrics}
    save(result, configuration.output or f"{predictions}.metrics.json")


def note_unanswered(configuration: EvaluationRun, predictions: str) -> None:
    """Print how many questions a file leaves unanswered; the official scripts score the file all the same."""
    sources = qa_sources(configuration.task)
    examples: Sequence[Any] = sources.read(configuration.task.task, configuration.split).examples
    missing = unanswered(gold_of(examples), read_predictions(predictions))
    if missing:
        print_on_leader(
            f"{predictions} has no answer to {len(missing)} of {len(examples)} questions, such as {missing[0]!r}"
        )


def show(splits: dict[str, Scores], title: str) -> None:
    """Print the metrics as a table, with every digit."""
    # Wide enough for the title on one line.
    table = Table("metric", *splits, title=title, min_width=len(title) + 2)
    for name in next(iter(splits.values())):
        table.add_row(name, *(str(metrics[name]) for metrics in splits.values()))
    PlainConsole().print(table)


def save(result: dict[str, Any], path: str | Path) -> None:
    """Write the metrics.

    Raises:
        UserError: if the file cannot be written.
    """
    try:
        replace_file(path_of(path), json_text(result, ensure_ascii=False))
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}): name another OUTPUT") from error
    print_on_leader(f"metrics: {path}")

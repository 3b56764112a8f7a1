"""Write the predictions of a split: GLUE's submissions, SQuAD's answers, columns of tags, JSON lines."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from electra_jax.errors import UserError
from electra_jax.files import replace_file
from electra_jax.tasks.multiple_choice.examples import ChoiceExample
from electra_jax.tasks.protocol import DownstreamTask, Prediction
from electra_jax.tasks.qa.task import QATask
from electra_jax.tasks.tagging.task import TaggingTask
from electra_jax.tasks.text.glue import GLUE, GlueTask, write_submission
from electra_jax.tasks.text.tables import TextExample


def write_outputs(
    task: DownstreamTask, split: str, examples: Sequence[Any], predictions: Sequence[Prediction], directory: str
) -> list[Path]:
    """Write predictions as the task's leaderboard takes them, or in the format of its own files.

    Question answering yields predictions.json, nbest.json and, if questions may have no answer, null_odds.json.
    Tagging yields `<task>_<split>.txt`, which conlleval reads: a word a line with its gold tag, if it has one, and the
    predicted tag. A split for GLUE's leaderboard yields `CoLA.tsv` and the like. Every other task yields
    `<task>_<split>.jsonl`, an object per example.

    Returns:
        The files.

    Raises:
        UserError: if the directory cannot be written.
    """
    folder = Path(directory)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(task, QATask):
            return task.write_predictions(examples, predictions, directory)
        if task.name in GLUE and (submitted := submitted_split(GLUE[task.name], split)) is not None:
            numbers = {
                example.index: number_of(task, prediction)
                for example, prediction in zip(examples, predictions, strict=True)
            }
            return [write_submission(GLUE[task.name], submitted, numbers, directory=folder)]
        tagging = isinstance(task, TaggingTask)
        path = folder / f"{task.name}_{split}{'.txt' if tagging else '.jsonl'}"
        replace_file(path, columns(examples, predictions) if tagging else lines(examples, predictions))
    except OSError as error:
        raise UserError(f"{directory} cannot be written ({error.strerror}): name another OUTPUT_DIR") from error
    return [path]


def left_out(skipped: Mapping[str, int]) -> str:
    """Describe how many records of a split were left out, by reason, to follow their number; "" if none were."""
    reasons = "; ".join(f"{number} left out: {reason}" for reason, number in skipped.items())
    return f" ({reasons})" if reasons else ""


def submitted_split(task: GlueTask, split: str) -> str | None:
    """Return GLUE's own name of the split, or None if its leaderboard takes no predictions for it."""
    own = "diagnostic" if task.name == "ax" else split
    return own if own in task.submissions else None


def number_of(task: DownstreamTask, prediction: Any) -> int | float:
    """Return the number of the predicted class, or the predicted value."""
    return prediction.value if task.kind == "regression" else task.labels.index(prediction.label)


def columns(examples: Sequence[Any], predictions: Sequence[Any]) -> str:
    """Lay out a word a line, with its tags, and a blank line between sentences."""
    sentences = []
    for example, prediction in zip(examples, predictions, strict=True):
        gold = (example.tags,) if example.tags else ()
        rows = zip(example.words, *gold, prediction.tags, strict=True)
        sentences.append("".join(" ".join(row) + "\n" for row in rows))
    return "\n".join(sentences)


def lines(examples: Sequence[Any], predictions: Sequence[Prediction]) -> str:
    """Lay out a JSON object an example, with the number of its row, or of the example if rows are not known."""
    records = (
        {
            "index": example.index if isinstance(example, (TextExample, ChoiceExample)) else number,
            **prediction.to_json(),
        }
        for number, (example, prediction) in enumerate(zip(examples, predictions, strict=True))
    )
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)

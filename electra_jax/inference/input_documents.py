"""Read files whose inputs are not single lines: arrays of JSON, SQuAD's questions, and sentences with a word a line."""

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from electra_jax.checkpoints.model_record import TASK_KINDS
from electra_jax.errors import UserError
from electra_jax.files import regular
from electra_jax.inference.inputs import as_input
from electra_jax.inference.items import InputColumns, Item, item_of
from electra_jax.inference.network import Network
from electra_jax.tasks.qa.files import read_mrqa, read_squad
from electra_jax.tasks.tagging.columns import column_sentences

logger = logging.getLogger(__name__)

JSON_ENDS = (".jsonl", ".json")
COLUMN_ENDS = (".conll", ".conllu", ".bio", ".iob", ".iob2")

# The number of bytes that show whether the lines of a file are words.
HEAD_BYTES = 1 << 16

# The fields of SQuAD's and MRQA's files that lead to their questions.
FIELDS_OF_QUESTIONS = frozenset({"data", "paragraphs", "qas", "header"})


def document_items(path: str, model: Network, columns: InputColumns) -> Iterator[Item] | None:
    """Return the inputs of a file that are not its lines; None if each line is one.

    Raises:
        UserError: if the file cannot be read, or holds malformed questions.
    """
    kind = TASK_KINDS.get(model.description.kind, model.description.kind)
    end = Path(path).suffix.lower()
    if end in JSON_ENDS:
        first, is_all = first_value(path)
        if kind == "question_answering" and holds_questions(first):
            return question_items(path, model, columns, mrqa="header" in first)
        # A single object, over several lines.
        values = [first] if is_all and isinstance(first, dict) else first
        return entry_items(values, model, columns) if is_several(values) and end == ".json" else None
    if kind == "tagging" and (end in COLUMN_ENDS or holds_columns(path, model.labels)):
        return sentence_items(path, model, columns)
    return None


def first_value(path: str) -> tuple[Any, bool]:
    """Return a file's first line as JSON, or the whole file if that line is not JSON, and whether it is the whole file.

    The value is None if neither is JSON.

    Raises:
        UserError: if the file cannot be read.
    """
    try:
        with open(regular(Path(path)), encoding="utf-8-sig", errors="replace") as file:
            line = file.readline()
            with contextlib.suppress(ValueError, RecursionError):
                return json.loads(line), False
            if Path(path).suffix.lower() != ".jsonl":
                with contextlib.suppress(ValueError, RecursionError):
                    return json.loads(line + file.read()), True
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    return None, False


def is_several(value: Any) -> bool:
    """Return whether a JSON value is a list of objects, each of which is an input."""
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def entry_items(values: Sequence[Any], model: Network, columns: InputColumns) -> Iterator[Item]:
    """Yield the inputs of JSON objects."""
    for index, value in enumerate(values):
        try:
            yield item_of(value, model, columns, f"entry {index + 1}", index)
        except UserError as error:
            yield Item(index, error=str(error))


def holds_questions(value: Any) -> bool:
    """Return whether a JSON value, or the first of a list, leads to questions as in SQuAD's and MRQA's files."""
    first = value[0] if is_several(value) else value
    return isinstance(first, dict) and not FIELDS_OF_QUESTIONS.isdisjoint(first)


def question_items(path: str, model: Network, columns: InputColumns, *, mrqa: bool) -> Iterator[Item]:
    """Yield the questions of a file in SQuAD's or MRQA's format, with their ids.

    Raises:
        UserError: as `read_squad`.
    """
    found = (read_mrqa if mrqa else read_squad)(path, skip_bad_rows=columns.skip_bad_rows)
    if found.skipped:
        logger.warning("%s: %d malformed records were left out", path, found.skipped.total())
    for index, example in enumerate(found.examples):
        value = as_input(model, {"question": example.question, "context": example.context}, f"question {index + 1}")
        yield Item(index, example.example_id if columns.identifier is not None else None, value=value)


def holds_columns(path: str, labels: tuple[str, ...]) -> bool:
    """Return whether a file's first lines are words with a tag of the model, or single words with blank lines between.

    Lines of ordinary text are sentences, and almost never either.

    Raises:
        UserError: if the file cannot be read.
    """
    try:
        with open(regular(Path(path)), "rb") as file:
            head, more = file.read(HEAD_BYTES), file.read(1)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    lines = head.decode(errors="replace").split("\n")
    rows = [line.split() for line in (lines[:-1] if more else lines)]
    words = [row for row in rows if row and not row[0].startswith(("#", "-DOCSTART-"))]
    if not words or len({len(row) for row in words}) > 1:
        return False
    if len(words[0]) == 1:
        blank = [place for place, row in enumerate(rows) if not row]
        inner = [place for place in blank if 0 < place < len(rows) - 1]
        return bool(inner) and len(words) > len(inner) + 1
    types = {label[2:] for label in labels if label[1:2] == "-"}
    tags = {row[-1] for row in words}
    return all(
        tag == "O" or tag in labels or tag.partition("-")[2] in types or tag.rpartition("-")[0] in types for tag in tags
    )


def sentence_items(path: str, model: Network, columns: InputColumns) -> Iterator[Item]:
    """Yield the sentences of a file with a word a line.

    Raises:
        UserError: if the file cannot be read, or a line lacks the column of words.
    """
    sentences = list(column_sentences(path))
    logger.warning(
        "%s is read as a word a line, a sentence until the blank line: %d sentences",
        os.path.basename(path),
        len(sentences),
    )
    for index, rows in enumerate(sentences):
        short = next((number for number, cells in rows if not -len(cells) <= columns.word < len(cells)), None)
        if short is not None:
            yield Item(index, error=f"line {short}: no column {columns.word} of words (WORD_COLUMN, from 0)")
            continue
        words = [cells[columns.word] for _, cells in rows]
        yield Item(index, value=as_input(model, words, f"sentence {index + 1}"))

"""Read what a user gives a model: texts, pairs, questions, sentences of words or token ids, in a call or in files."""

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from electra_jax.checkpoints.model_record import TASK_KINDS
from electra_jax.errors import UserError
from electra_jax.inference.network import Network

# The arguments of `Network.logits`.
FIELDS = ("input_ids", "attention_mask", "token_type_ids")

# Names of the second text of a pair.
SECOND = ("text_pair", "text_b")

# Batches that are read before they are sorted by length.
SORTED_BATCHES = 32

# An input of one of these ends is meant to be a file.
FILE_ENDS = (".npz", ".txt", ".json", ".jsonl", ".tsv", ".csv")


class Item(NamedTuple):
    """An input: arrays of token ids by the names of `FIELDS`, or what `as_input` returned."""

    ids: dict[str, Any] | None
    value: Any


def read_items(source: str | None, model: Network) -> Iterator[Item]:
    """Yield the inputs of a file, of an .npz, of standard input (None or "-"), or the text itself.

    Raises:
        UserError: if a file or a line cannot be read.
    """
    # Not Path.is_file, which fails on a text that is longer than a name may be.
    if source is not None and source != "-" and not os.path.isfile(source):
        if source.endswith(FILE_ENDS) or (os.sep in source and not any(map(str.isspace, source))):
            raise UserError(f"{source} cannot be read (No such file): a text to predict is told by its spaces")
        yield read_line(source.strip(), model, "the input")
    elif source is not None and source.endswith(".npz"):
        yield from read_arrays(Path(source))
    else:
        yield from read_lines(None if source == "-" else source, model)


def read_lines(path: str | None, model: Network) -> Iterator[Item]:
    """Yield the inputs of a file's lines, or of standard input's where the path is None; blank lines are skipped.

    Raises:
        UserError: if the file is not UTF-8 or cannot be read, or a line is no input of the model.
    """
    name = path or "standard input"
    try:
        with nullcontext(sys.stdin) if path is None else open(path, encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield read_line(line.strip(), model, f"{name}, line {number}")
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not UTF-8 ({error})") from error
    except OSError as error:
        raise UserError(f"{name} cannot be read ({error.strerror})") from error


def read_arrays(path: Path) -> Iterator[Item]:
    """Yield the rows of an .npz with `input_ids` and, if it has them, the other arrays of `FIELDS`.

    Raises:
        UserError: if the file cannot be read, or has no `input_ids`.
    """
    try:
        with np.load(path) as arrays:
            found = {name: arrays[name] for name in FIELDS if name in arrays.files}
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error})") from error
    if "input_ids" not in found:
        raise UserError(f"{path} has no array input_ids")
    for row in range(len(found["input_ids"])):
        yield Item({name: values[row] for name, values in found.items()}, None)


def read_line(line: str, model: Network, where: str) -> Item:
    """Return one input from a JSON object or list, or from plain text.

    Raises:
        UserError: if the line is not JSON though it begins as an object, or is no input of the model.
    """
    value: Any = line
    if line[:1] in ("{", "["):
        try:
            value = json.loads(line)
        except ValueError as error:
            # "[" also begins plain text, such as "[MASK] is here".
            if line[0] == "{":
                raise UserError(f"{where}: not JSON ({error})") from error
    if isinstance(value, list) and not (value and all(isinstance(one, str) for one in value)):
        value = {"input_ids": value}
    if isinstance(value, dict) and "input_ids" in value:
        ids = {name: value[name] for name in FIELDS if name in value}
        check_integers(ids, where)
        return Item(ids, None)
    return Item(None, as_input(model, value, where))


def check_integers(ids: Mapping[str, Any], where: str) -> None:
    """Check that every value is a rectangular list of integers.

    Raises:
        UserError: if one is ragged, empty or of other values.
    """
    for name, values in ids.items():
        try:
            array = np.asarray(values)
        except ValueError as error:
            raise UserError(f"{where}: {name} is ragged") from error
        if array.dtype.kind != "i" or not array.size:
            raise UserError(f"{where}: {name} is no list of integers")


def as_list(inputs: Any) -> list[Any]:
    """Return the inputs of one call: a list holds many, and a text, a tuple (a pair) or a mapping is one.

    Raises:
        UserError: if `inputs` is none of these.
    """
    if isinstance(inputs, (str, tuple, Mapping)):
        return [inputs]
    if isinstance(inputs, Sequence):
        return list(inputs)
    raise UserError(f"the input is of type {type(inputs).__name__}: give a text, a tuple, a dict, or a list of them")


def as_input(model: Network, value: Any, where: str) -> Any:
    """Return what a user gave in the form that the model reads: see `canonical`.

    Raises:
        UserError: if the value is of another form, or the model reads no text. The message begins with `where`.
    """
    kind = model.description.kind
    if kind == "multiple_choice":
        raise UserError(f"{where} is text, which a model of multiple choice does not read: give input_ids")
    pair = model.description.facts.get("task", {}).get("pair")
    found = canonical(value, TASK_KINDS.get(kind, kind), pair, where)
    if model.vocabulary is None:
        raise UserError(f"{where} is text, but the model has no vocabulary: give input_ids")
    return found


def canonical(value: Any, kind: str, pair: bool | None, where: str) -> Any:
    """Return one input in the form that a kind of task takes.

    Args:
        value: what the user gave.
        kind: of `protocol.KINDS`; a model of any other kind reads texts and pairs.
        pair: whether the input must be two texts, or must not; None where it may.
        where: for messages, such as "input 3".

    Returns:
        Question answering: {"question", "context"} and the user's "id", if any. Tagging: a list of words. Else a text,
        or a tuple of two.

    Raises:
        UserError: if the value is of another form.
    """
    if kind == "question_answering":
        return question(value, where)
    if kind == "tagging":
        return words(value, where)
    found = texts(value, where)
    if pair is not None and pair != isinstance(found, tuple):
        expected = 'two texts, as in {"text": ..., "text_pair": ...}' if pair else "one text"
        raise UserError(f"{where} is {shown(value)}: this model reads {expected}")
    return found


def question(value: Any, where: str) -> dict[str, str]:
    """Return a question and its context.

    Raises:
        UserError: if one of them is missing or is no text.
    """
    missing = [name for name in ("question", "context") if not (isinstance(value, Mapping) and name in value)]
    if missing:
        raise UserError(
            f'{where} has no {" and no ".join(missing)}: this model answers {{"question": ..., "context": ...}}'
        )
    found = {name: value[name] for name in ("id", "question", "context") if name in value}
    for name, text in found.items():
        if not isinstance(text, str):
            raise UserError(f"{where}: {name} is {shown(text)}, and must be a text")
    return found


def words(value: Any, where: str) -> list[str]:
    """Return the words of a sentence; a text is split at white space.

    Raises:
        UserError: if the value is neither a text nor a list of words.
    """
    if isinstance(value, Mapping):
        value = value.get("words", value.get("text"))
    if isinstance(value, str):
        return value.split()
    if isinstance(value, Sequence) and all(isinstance(word, str) and word.strip() for word in value):
        return list(value)
    raise UserError(f'{where} is {shown(value)}: this model tags a text, a list of words, or {{"words": [...]}}')


def texts(value: Any, where: str) -> str | tuple[str, str]:
    """Return a text, or a pair of texts.

    Raises:
        UserError: if the value is neither.
    """
    if isinstance(value, Mapping):
        if "text" not in value:
            raise UserError(f'{where} is an object with neither input_ids nor text: give {{"text": ...}}')
        parts = [value[name] for name in ("text", *SECOND) if value.get(name) is not None]
    else:
        parts = [value] if isinstance(value, str) else list(value) if isinstance(value, (list, tuple)) else []
    if len(parts) not in (1, 2) or not all(isinstance(part, str) for part in parts):
        raise UserError(f"{where} is {shown(value)}: this model reads a text, or a pair of texts")
    return parts[0] if len(parts) == 1 else (parts[0], parts[1])


def shown(value: Any) -> str:
    """Return a value as a message shows it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."

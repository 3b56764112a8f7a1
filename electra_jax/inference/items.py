"""Convert one input of `electra predict`, `embed`, `score` or `serve` from a text or a JSON value.

Each input keeps its place: one that cannot be read becomes an `Item` that says why, and the inputs after it are read.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from electra_jax.errors import UserError
from electra_jax.inference.inputs import FIELDS, SECOND, as_input
from electra_jax.inference.network import Network


class Item(NamedTuple):
    """One input, with its place.

    Attributes:
        index: its number, from 0.
        identifier: the content of its id column or field; None if there is none.
        ids: arrays of token ids, or None.
        value: if there are no `ids`, a value for `prediction.answers`.
        error: why it cannot be read; None if it can.
    """

    index: int
    identifier: Any = None
    ids: dict[str, Any] | None = None
    value: Any = None
    error: str | None = None


@dataclasses.dataclass(frozen=True)
class InputColumns:
    """Name the parts of an input: the columns of a table, or the fields of JSON objects.

    Attributes:
        text, text_pair: the texts, as in training; None for "text", and for "text_pair" or "text_b".
        choices: the choices of multiple choice, as in training; None for "choices", which holds lists.
        identifier: the ids, which are repeated in the output; None for none.
        word: the number of the column of words in a file with a word a line, from 0.
        skip_bad_rows: whether malformed records of a file of questions are left out and counted.
    """

    text: str | None
    text_pair: str | None
    choices: str | tuple[str, ...] | None
    identifier: str | None
    word: int = 0
    skip_bad_rows: bool = False


def read_value(text: str, model: Network, columns: InputColumns, where: str, index: int) -> Item:
    """Return the input of a text that may also be a JSON object or list.

    Raises:
        UserError: if it is JSON of another form than the model reads.
    """
    value: Any = text
    if text.lstrip()[:1] in ("{", "["):
        try:
            value = read_json(text, where)
        except UserError:
            # "[" and "{" also begin plain text, such as "[MASK] is here".
            if not reads_plain_text(model):
                raise
    return item_of(value, model, columns, where, index)


def reads_plain_text(model: Network) -> bool:
    """Return whether a line of plain text can be an input of the model."""
    kind, task = model.description.kind, model.description.task or {}
    reads_text = model.vocabulary is not None and kind not in ("question_answering", "multiple_choice")
    return reads_text and task.get("pair") is not True


def read_json(text: str, where: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        UserError: if it is not JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: {f'not JSON ({error})' if text.strip() else 'an empty line'}") from error


def item_of(value: Any, model: Network, columns: InputColumns, where: str, index: int) -> Item:
    """Return the input of a text, or of a JSON value: an object, or a list of texts or of token ids.

    Raises:
        UserError: if the model does not read it.
    """
    identifier = None
    if isinstance(value, dict):
        identifier = value.get(columns.identifier) if columns.identifier is not None else None
        value = with_own_names({name: one for name, one in value.items() if name != columns.identifier}, columns)
    if isinstance(value, list) and any(isinstance(one, dict) for one in value):
        raise UserError(f"{where} is a list of objects, and one input is expected: give each object by itself")
    if isinstance(value, list) and not (value and all(isinstance(one, str) for one in value)):
        value = {"input_ids": value}
    try:
        if isinstance(value, dict) and "input_ids" in value:
            ids = {name: value[name] for name in FIELDS if name in value}
            check_integers(ids, where)
            return Item(index, identifier, ids)
        return Item(index, identifier, value=as_input(model, value, where))
    except UserError as error:
        if identifier is None:
            raise
        return Item(index, identifier, error=str(error))


def with_own_names(record: dict[str, Any], columns: InputColumns) -> dict[str, Any]:
    """Return a record with the fields that training named as "text", "text_pair" and "choices".

    A field missing under its training name may have its own, so {"text": ..., "text_pair": ...} is always a pair.
    """
    if columns.text is None or columns.text not in record:
        return record
    pair, choices = {}, with_choices(record, columns)
    if columns.text_pair is not None:
        named = next((name for name in (columns.text_pair, *SECOND) if name in record), None)
        pair = {} if named is None else {"text_pair": record[named]}
    if not choices and "choices" in record:
        choices = {"choices": record["choices"]}
    return {"text": record[columns.text]} | pair | choices


def with_choices(record: Mapping[str, Any], columns: InputColumns) -> dict[str, Any]:
    """Return the choices of a record under "choices": a list, or the value of the column of lists; {} without any."""
    names = choice_names(columns)
    if len(names) == 1:
        return {"choices": record[names[0]]} if names[0] in record else {}
    found = [record.get(name) for name in names]
    # Records with fewer choices leave the last columns empty.
    while found and found[-1] in (None, ""):
        found.pop()
    return {"choices": found} if found else {}


def choice_names(columns: InputColumns) -> tuple[str, ...]:
    """Return the names of the choice columns: one column of lists, or one column for each choice."""
    names = columns.choices or "choices"
    return (names,) if isinstance(names, str) else tuple(names)


def check_integers(ids: dict[str, Any], where: str) -> None:
    """Check that fields are lists of integers.

    Raises:
        UserError: if one is not.
    """
    for name, values in ids.items():
        try:
            array = np.asarray(values)
        except ValueError as error:
            raise UserError(f"{where}: {name} is ragged") from error
        if array.dtype.kind != "i" or not array.ndim or not array.size:
            raise UserError(f"{where}: {name} is no list of integers")

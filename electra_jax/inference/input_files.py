"""Read the input of `electra predict` and `electra score`: a file, standard input, arrays, or the text itself.

Each input keeps its place: what cannot be read becomes an `Item` that says why, and the inputs after it are read.
"""

import dataclasses
import itertools
import json
import os
import re
import sys
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from electra_jax.checkpoints.model_record import TASK_KINDS
from electra_jax.errors import UserError
from electra_jax.inference.inputs import FIELDS, SECOND, as_input
from electra_jax.inference.network import Network
from electra_jax.tasks.rows import BadRows
from electra_jax.tasks.text.records import column_names, records

# Number of batches that are read, where they are there, before their inputs are sorted by length.
SORTED_BATCHES = 32

# The most bytes that are read before the lines in them are answered.
READ_BYTES = 1 << 20

# An input with one of these endings is meant to be a file, and so is any other word that ends as a file does.
FILE_ENDS = (".npz", ".txt", ".json", ".jsonl", ".tsv", ".csv")
FILE_NAME = re.compile(r"\S*\w\.[A-Za-z]\w{1,7}")

TABLE_ENDS = (".csv", ".tsv")
JSON_ENDS = (".jsonl", ".json")

# What NumPy meets where the bytes of an .npz are not those of its format.
NOT_AN_ARCHIVE = (zipfile.BadZipFile, zlib.error, tokenize.TokenError)


class Item(NamedTuple):
    """One input, by its place.

    Attributes:
        index: its number, from 0.
        identifier: what its column or field of ids holds; None where there is none.
        ids: arrays of token ids, or None.
        value: where there are no `ids`, a value for `prediction.answers`.
        error: why it cannot be read; None where it can.
    """

    index: int
    identifier: Any = None
    ids: dict[str, Any] | None = None
    value: Any = None
    error: str | None = None


@dataclasses.dataclass(frozen=True)
class InputColumns:
    """Names of the columns of a table, or of the fields of JSON objects.

    Attributes:
        text, text_pair: the texts, as in training; None for "text", and for "text_pair" or "text_b".
        choices: those of multiple choice, as in training; None for "choices", which holds lists.
        identifier: the ids, which are repeated in the output; None for none.
    """

    text: str | None
    text_pair: str | None
    choices: str | tuple[str, ...] | None
    identifier: str | None


def read_items(source: str | None, model: Network, columns: InputColumns, *, most: int) -> Iterator[list[Item]]:
    """Yield the inputs of a file, of standard input (None or "-"), or else the text itself, in lists.

    A list holds the inputs that have arrived, so that what is typed is answered at once.

    Args:
        source: a .csv or a .tsv, whose first line names its columns; a .jsonl; an .npz; any other file holds a text a
            line, but JSON where the model reads no plain text. On standard input an object or a list is JSON, and
            every other line a text.
        model: what is to read the inputs.
        columns: names in tables and JSON objects.
        most: the most inputs of a list.

    Raises:
        UserError: if a file cannot be read or lacks a column, or `source` is neither a file nor an input.
    """
    if source is None or source == "-":
        yield from read_lines(None, model, columns, most)
        return
    end = Path(source).suffix.lower()
    # Not Path.is_file, which fails on a text that is longer than a name may be.
    if not os.path.isfile(source):
        check_is_text(source)
        yield [read_value(source, model, columns, "the input", 0)]
    elif end in TABLE_ENDS:
        yield from in_lists(read_table(source, model, columns), most)
    elif end == ".npz":
        yield from in_lists(read_arrays(Path(source)), most)
    else:
        yield from read_lines(source, model, columns, most)


def check_is_text(source: str) -> None:
    """Check that what is no file does not look like one.

    Raises:
        UserError: if it looks like the path of a file, or is a folder.
    """
    if os.path.isdir(source):
        raise UserError(f"{source} is a folder: name a file in it")
    spaced = any(map(str.isspace, source))
    if source.lower().endswith(FILE_ENDS) or (not spaced and (os.sep in source or FILE_NAME.fullmatch(source))):
        raise UserError(f"{source} cannot be read (No such file): if it is a text, give it on standard input")


def in_lists(items: Iterator[Item], most: int) -> Iterator[list[Item]]:
    """Yield items in lists of `most`, the last one of the rest."""
    while found := list(itertools.islice(items, most)):
        yield found


def read_lines(path: str | None, model: Network, columns: InputColumns, most: int) -> Iterator[list[Item]]:
    """Yield the inputs of a file's lines, or of standard input's, in lists.

    Raises:
        UserError: if the file cannot be read.
    """
    end = "" if path is None else Path(path).suffix.lower()
    plain = path is not None and end not in JSON_ENDS and reads_plain_text(model)
    numbers = itertools.count(1)
    try:
        with nullcontext(sys.stdin.buffer) if path is None else open(path, "rb") as stream:
            for lines in arriving_lines(stream, most):
                yield [
                    read_line(line, model, columns, next(numbers), plain=plain, json_only=end in JSON_ENDS)
                    for line in lines
                ]
    except OSError as error:
        raise UserError(f"{path or 'standard input'} cannot be read ({error.strerror})") from error


def reads_plain_text(model: Network) -> bool:
    """Return whether a line of plain text can be an input of the model."""
    kind, task = model.description.kind, model.description.task or {}
    reads_text = model.vocabulary is not None and kind not in ("question_answering", "multiple_choice")
    return reads_text and task.get("pair") is not True


def arriving_lines(stream: BinaryIO, most: int) -> Iterator[list[bytes]]:
    """Yield the lines of a stream that have arrived, at most `most` at a time; only line feeds separate lines."""
    rest = b""
    while read := stream.read1(READ_BYTES):
        *lines, rest = (rest + read).split(b"\n")
        for start in range(0, len(lines), most):
            yield lines[start : start + most]
    if rest:
        yield [rest]


def read_line(line: bytes, model: Network, columns: InputColumns, number: int, *, plain: bool, json_only: bool) -> Item:
    """Return the input of a line, or why it is none.

    Args:
        line: UTF-8, without its line feed.
        model: what is to read it.
        columns: names in JSON objects.
        number: the line's, from 1.
        plain: whether it is a text whatever it begins with.
        json_only: whether it is JSON whatever it begins with.
    """
    where, index = f"line {number}", number - 1
    try:
        text = line.removesuffix(b"\r").decode("utf-8-sig" if number == 1 else "utf-8")
        if plain:
            return Item(index, value=as_input(model, text, where))
        if json_only:
            return item_of(read_json(text, where), model, columns, where, index)
        return read_value(text, model, columns, where, index)
    except UnicodeDecodeError as error:
        return Item(index, error=f"{where}: not UTF-8 ({error.reason})")
    except UserError as error:
        return Item(index, error=str(error))


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
            # Both also begin plain text, such as "[MASK] is here".
            if not reads_plain_text(model):
                raise
    return item_of(value, model, columns, where, index)


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
    """Return a record with the names of training under "text", "text_pair" and "choices".

    A field without its name of training may have its own, so that {"text": ..., "text_pair": ...} always is a pair.
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
    """Return the choices of a record under "choices": a list, or what the column of lists holds; {} without any."""
    names = choice_names(columns)
    if len(names) == 1:
        return {"choices": record[names[0]]} if names[0] in record else {}
    found = [record.get(name) for name in names]
    # Records of fewer choices leave the last columns empty.
    while found and found[-1] in (None, ""):
        found.pop()
    return {"choices": found} if found else {}


def choice_names(columns: InputColumns) -> tuple[str, ...]:
    """Return the names of the columns of choices: one of lists, or one for each choice."""
    names = columns.choices or "choices"
    return (names,) if isinstance(names, str) else tuple(names)


def read_table(path: str, model: Network, columns: InputColumns) -> Iterator[Item]:
    """Yield the inputs of a .csv's or a .tsv's rows.

    Raises:
        UserError: if the file cannot be read, is empty, or lacks a column.
    """
    header = column_names(path)
    fields = table_fields(model, columns, header)
    chooses = model.description.kind == "multiple_choice"
    needed = [*fields.values(), *(choice_names(columns) if chooses else ())]
    missing = [name for name in needed if name not in header]
    if missing:
        raise UserError(
            f"{path} has no column {', '.join(map(repr, missing))}: its first line names "
            f"{', '.join(map(repr, header))}; set TEXT_COLUMN and TEXT_B_COLUMN to those of the texts"
            f"{', CHOICE_COLUMNS to those of the choices' if chooses else ''}, or rename them"
        )
    identified = columns.identifier in header
    problems = RowProblems(path)
    used = [*needed, *([columns.identifier] if columns.identifier is not None and identified else [])]
    for index, (line, record) in enumerate(records(path, used, problems)):
        if record is None:
            yield Item(index, error=problems.by_line.pop(line, f"line {line}: an empty line"))
            continue
        identifier = record[columns.identifier] if columns.identifier is not None and identified else None
        try:
            named = {name: record[column] for name, column in fields.items()}
            if chooses:
                named |= with_choices(record, columns)
            value = as_input(model, named, f"line {line}")
            yield Item(index, identifier, value=value)
        except UserError as error:
            yield Item(index, identifier, error=str(error))


class RowProblems(BadRows):
    """Keep what is wrong with rows, by line, instead of stopping."""

    def __init__(self, path: str) -> None:
        """Begin without problems."""
        super().__init__(path, skip=True)
        self.by_line: dict[int, str] = {}

    def report(self, line: int, problem: str, expected: str) -> None:
        """Keep a problem."""
        self.by_line[line] = f"line {line}: {problem}; expected {expected}"


def table_fields(model: Network, columns: InputColumns, header: list[str]) -> dict[str, str]:
    """Return the columns that hold the fields of an input of the model, by the names of the fields."""
    kind = TASK_KINDS.get(model.description.kind, model.description.kind)
    if kind == "question_answering":
        return {name: name for name in ("question", "context")}
    if kind == "tagging":
        return {"text": columns.text or ("words" if "words" in header else "text")}
    first = {"text": columns.text or "text"}
    if kind == "multiple_choice" and columns.text is not None and columns.text_pair is None:
        return first
    pair = (model.description.task or {}).get("pair")
    second = columns.text_pair or next((name for name in SECOND if name in header), None)
    if pair is False or (pair is None and second not in header):
        return first
    return first | {"text_pair": second or SECOND[0]}


def read_arrays(path: Path) -> Iterator[Item]:
    """Yield the rows of an .npz with `input_ids` and, if it has them, the other two.

    Raises:
        UserError: if the file cannot be read, has no `input_ids`, or its arrays have not as many rows each.
    """
    try:
        with np.load(path) as arrays:
            found = {name: arrays[name] for name in FIELDS if name in arrays.files}
    # A file that is cut off, that is no archive, or that is an array alone.
    except (*NOT_AN_ARCHIVE, OSError, ValueError, TypeError, EOFError, KeyError, MemoryError) as error:
        raise UserError(f"{path} cannot be read ({error}): write it with numpy.savez") from error
    if "input_ids" not in found:
        raise UserError(f"{path} has no array input_ids")
    if () in (rows := {values.shape[:1] for values in found.values()}) or len(rows) > 1:
        raise UserError(f"the arrays of {path} must have as many rows each: {', '.join(found)}")
    for row in range(len(found["input_ids"])):
        yield Item(row, ids={name: values[row] for name, values in found.items()})


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

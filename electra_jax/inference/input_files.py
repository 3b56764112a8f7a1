"""Read the input of `electra predict` and `electra score`: a file, standard input, arrays, or the text itself.

Each input keeps its place: one that cannot be read becomes an `Item` that says why, and the inputs after it are read.
"""

import itertools
import os
import re
import sys
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO

import numpy as np

from electra_jax.errors import UserError
from electra_jax.inference.input_documents import JSON_ENDS, document_items
from electra_jax.inference.input_tables import read_table
from electra_jax.inference.inputs import FIELDS, as_input
from electra_jax.inference.items import InputColumns, Item, item_of, read_json, read_value, reads_plain_text
from electra_jax.inference.network import Network
from electra_jax.tasks.rows import format_of_no_text

# The most batches that are read ahead, as far as inputs have arrived, to sort their inputs by length.
SORTED_BATCHES = 32

# The most bytes that are read before the lines in them are answered.
READ_BYTES = 1 << 20

# An input with one of these endings is meant to be a file, and so is any other word that ends as a file name does.
FILE_ENDS = (".npz", ".txt", ".json", ".jsonl", ".tsv", ".csv", ".parquet")
FILE_NAME = re.compile(r"\S*\w\.[A-Za-z]\w{1,7}")

TABLE_ENDS = (".csv", ".tsv", ".parquet")

# The errors that NumPy raises if the bytes of an .npz are not in its format.
NOT_AN_ARCHIVE = (zipfile.BadZipFile, zlib.error, tokenize.TokenError)


def read_items(source: str | None, model: Network, columns: InputColumns, *, most: int) -> Iterator[list[Item]]:
    """Yield the inputs of a file, of standard input (None or "-"), or else the text itself, in lists.

    A list holds the inputs that have arrived, so that what is typed is answered at once.

    Args:
        source: a .csv or a .tsv, whose first line names its columns; a .parquet; a .jsonl; an .npz; or a file of
            `document_items`; any other file holds a text a line, or JSON if the model reads no plain text. On standard
            input an object or a list is JSON, and every other line a text.
        model: the model that is to read the inputs.
        columns: names in tables and JSON objects.
        most: the most inputs of a list.

    Raises:
        UserError: if a file cannot be read or lacks a column, or `source` is neither a file nor an input.
    """
    if source is None or source == "-":
        yield from read_lines(None, model, columns, most)
        return
    end = Path(source).suffix.lower()
    # Path.is_file would fail on a text that is longer than a file name may be.
    if not os.path.isfile(source):
        check_is_text(source)
        yield [read_value(source, model, columns, "the input", 0)]
    elif end in TABLE_ENDS:
        yield from in_lists(read_table(source, model, columns), most)
    elif end == ".npz":
        yield from in_lists(read_arrays(Path(source)), most)
    elif (found := document_items(source, model, columns)) is not None:
        yield from in_lists(found, most)
    else:
        yield from read_lines(source, model, columns, most)


def check_is_text(source: str) -> None:
    """Check that an input which is not a file does not look like one.

    Raises:
        UserError: if it looks like the path of a file, or is a folder.
    """
    if os.path.isdir(source):
        raise UserError(f"{source} is a folder: name a file in it")
    spaced = any(map(str.isspace, source))
    if source.lower().endswith(FILE_ENDS) or (not spaced and (os.sep in source or FILE_NAME.fullmatch(source))):
        raise UserError(f"{source} cannot be read (No such file): if it is a text, give it on standard input")


def in_lists(items: Iterator[Item], most: int) -> Iterator[list[Item]]:
    """Yield items in lists of `most`; the last list holds the rest."""
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
            separator = b"\n"
            if path is not None:
                separator = separator_of(path, stream.read(READ_BYTES))
                stream.seek(0)
            for lines in arriving_lines(stream, most, separator):
                yield [
                    read_line(line, model, columns, next(numbers), plain=plain, json_only=end in JSON_ENDS)
                    for line in lines
                ]
    except OSError as error:
        raise UserError(f"{path or 'standard input'} cannot be read ({error.strerror})") from error


def separator_of(path: str, head: bytes) -> bytes:
    """Return the line separator of a file: a line feed, or a carriage return if there is none, as on an old Macintosh.

    Raises:
        UserError: if its first bytes are those of a format that is not text.
    """
    if what := format_of_no_text(head):
        raise UserError(f"{path} is {what}: save what it holds as text in UTF-8, as a .csv, a .tsv or a .jsonl")
    return b"\r" if b"\r" in head and b"\n" not in head else b"\n"


def arriving_lines(stream: BinaryIO, most: int, separator: bytes = b"\n") -> Iterator[list[bytes]]:
    """Yield the lines of a stream that have arrived, at most `most` at a time, without their separators."""
    rest = b""
    while read := stream.read1(READ_BYTES):
        *lines, rest = (rest + read).split(separator)
        for start in range(0, len(lines), most):
            yield lines[start : start + most]
    if rest:
        yield [rest]


def read_line(line: bytes, model: Network, columns: InputColumns, number: int, *, plain: bool, json_only: bool) -> Item:
    """Return the input of a line, or an item that says why it is none.

    Args:
        line: UTF-8, without its line feed.
        model: the model that is to read it.
        columns: names in JSON objects.
        number: the line's number, from 1.
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


def read_arrays(path: Path) -> Iterator[Item]:
    """Yield the rows of an .npz with `input_ids` and, if present, `attention_mask` and `token_type_ids`.

    Raises:
        UserError: if the file cannot be read, has no `input_ids`, or its arrays differ in their number of rows.
    """
    try:
        with np.load(path) as arrays:
            found = {name: arrays[name] for name in FIELDS if name in arrays.files}
    # The file is truncated, is not an archive, or is a single array.
    except (*NOT_AN_ARCHIVE, OSError, ValueError, TypeError, EOFError, KeyError, MemoryError) as error:
        raise UserError(f"{path} cannot be read ({error}): write it with numpy.savez") from error
    if "input_ids" not in found:
        raise UserError(f"{path} has no array input_ids")
    if () in (rows := {values.shape[:1] for values in found.values()}) or len(rows) > 1:
        raise UserError(f"the arrays of {path} must have as many rows each: {', '.join(found)}")
    for row in range(len(found["input_ids"])):
        yield Item(row, ids={name: values[row] for name, values in found.items()})

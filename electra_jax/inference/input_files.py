"""Read the input of `electra predict` and `electra score`: a file, standard input, arrays, or the text itself."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from electra_jax.errors import UserError
from electra_jax.inference.inputs import FIELDS, as_input
from electra_jax.inference.network import Network

# Number of batches that are read before their inputs are sorted by length.
SORTED_BATCHES = 32

# An input with one of these endings is meant to be a file.
FILE_ENDS = (".npz", ".txt", ".json", ".jsonl", ".tsv", ".csv")


class Item(NamedTuple):
    """One input: arrays of token ids, or else a value for `prediction.answers`."""

    ids: dict[str, Any] | None
    value: Any


def read_items(source: str | None, model: Network) -> Iterator[Item]:
    """Yield the inputs of a text file, an .npz, or standard input (None or "-"), or else the text itself.

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
    """Yield the inputs of a file's lines, or of standard input's; blank lines are left out."""
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
    """Yield the rows of an .npz with `input_ids` and, if it has them, the other two.

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
    """Return the input of a line: a JSON object or list, or plain text.

    Raises:
        UserError: if it is JSON of another form than the model reads.
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
        if array.dtype.kind != "i" or not array.size:
            raise UserError(f"{where}: {name} is no list of integers")

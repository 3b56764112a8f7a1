"""Read JSON that may be damaged or another program's, with one-sentence errors; write JSON that every program reads.

JSON has no NaN and no infinity: they are written as null, and null scores are read as NaN.
"""

import json
import math
import reprlib
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from electra_jax.errors import UserError
from electra_jax.files import regular
from electra_jax.ranges import fits

if TYPE_CHECKING:
    from etils import epath

# The types that hold other values, in words.
NAMES = {dict: "an object", list: "a list"}

REMEDY = "restore the file, or make it again"

# The fields of a record of scores that hold the scores, at any depth below.
SCORES = ("metrics", "chosen_by", "scores_by_split", "summary", "other_splits")
# No record of scores is nested deeper.
_DEPTH = 8


def json_text(value: Any, *, indent: int | None = 1, ensure_ascii: bool = True) -> str:
    """Return a value as JSON, with null for each number that is not finite, and a newline at the end."""
    return json.dumps(_finite(value), indent=indent, ensure_ascii=ensure_ascii, allow_nan=False) + "\n"


class RepeatedNameError(ValueError):
    """A JSON object has a name twice."""


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object from its names and values, as a `hook` of `parse_json`.

    Raises:
        RepeatedNameError: if a name occurs twice.
    """
    record: dict[str, Any] = {}
    for name, value in pairs:
        if name in record:
            raise RepeatedNameError(f"the field {name!r} twice")
        record[name] = value
    return record


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


def with_nan(record: Any, *, depth: int = _DEPTH, within: bool = False) -> Any:
    """Restore a record of scores from JSON written by `json_text`: NaN for null in the fields of `SCORES`."""
    if record is None and within:
        return math.nan
    if not depth or not isinstance(record, dict | list):
        return record
    if isinstance(record, list):
        return [with_nan(one, depth=depth - 1, within=within) for one in record]
    return {name: with_nan(one, depth=depth - 1, within=within or name in SCORES) for name, one in record.items()}


def read_json(path: "Path | epath.Path", kind: Any, *, remedy: str = REMEDY) -> Any:
    """Read a JSON file.

    Args:
        path: local or remote.
        kind: the type of the value, see `parse_json`.
        remedy: what a user can do if the file is not as it should be.

    Raises:
        UserError: if the file cannot be read, or does not hold a value of that type as JSON.
    """
    return parse_json(read_text(path, remedy=remedy), kind, path, remedy=remedy)


def read_text(path: "Path | epath.Path", *, remedy: str = REMEDY) -> str:
    """Read a text file, local or remote; `remedy` is what a user can do if it cannot be read.

    Raises:
        UserError: if the file cannot be read, or is not UTF-8.
    """
    try:
        return regular(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}): {remedy}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 at byte {error.start}: {remedy}") from error


def parse_json(
    text: str,
    kind: Any,
    place: object,
    *,
    remedy: str = REMEDY,
    hook: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """Return the value of a JSON text.

    Args:
        text: the text.
        kind: the type of the value: `Any`, a number, `str`, `bool`, None, a list or dict of such, a union of such, or a
            `TypedDict`, whose keys are those that are read; the object may have others.
        place: the file, and the line if the file has a JSON value a line, for the message.
        remedy: what a user can do if the text is not as it should be.
        hook: makes the value of an object from its names and values, or raises a ValueError that says what is wrong.

    Raises:
        UserError: if the text is not JSON, nests too deeply or has a number of too many digits to be read, or the value
            is of another type.
    """
    try:
        value = json.loads(text, object_pairs_hook=hook)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        raise UserError(f"{place} is not JSON ({error.msg}, {where}): {remedy}") from error
    except RecursionError as error:
        raise UserError(f"{place} is JSON that nests too deeply to be read: {remedy}") from error
    # A number of more than 4,300 digits, or an object that the hook refuses.
    except ValueError as error:
        raise UserError(f"{place} cannot be read ({error}): {remedy}") from error
    wrong = fault_of(value, kind, "")
    if wrong is not None:
        raise UserError(f"{place}: {wrong}: {remedy}")
    return value


def fault_of(value: Any, kind: Any, name: str) -> str | None:
    """Describe the first part of a value that does not have its type; None if all parts do.

    Args:
        value: a JSON value.
        kind: a type, see `parse_json`.
        name: the value's place in the whole, "" for the whole itself.
    """
    if kind is Any:
        return None
    if isinstance(kind, types.UnionType):
        faults = [fault_of(value, one, name) for one in typing.get_args(kind)]
        return None if None in faults else faults[0]
    outer = dict if typing.is_typeddict(kind) else typing.get_origin(kind) or kind
    if not (isinstance(value, outer) if outer in NAMES else fits(value, outer)):
        return f"{name or 'it'} is {reprlib.repr(value)}, and must be {NAMES.get(outer, outer.__name__)}"
    parts: list[tuple[str, Any, Any]] = []
    if typing.is_typeddict(kind):
        missing = sorted(kind.__required_keys__ - value.keys())
        if missing:
            return f"{name or 'it'} has no {', '.join(missing)}"
        parts = [(key, value[key], one) for key, one in typing.get_type_hints(kind).items() if key in value]
    elif inner := typing.get_args(kind):
        items = value.items() if outer is dict else enumerate(value)
        parts = [(str(key), one, inner[-1]) for key, one in items]
    faults = (fault_of(one, of, f"{name}.{key}" if name else key) for key, one, of in parts)
    return next((fault for fault in faults if fault is not None), None)

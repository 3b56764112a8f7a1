"""Extract the text of records: JSON objects, rows of Parquet and Arrow files."""

import collections
import functools
import json
from collections.abc import Iterator
from typing import BinaryIO

from electra_jax.errors import UserError
from electra_jax.tasks.corpora.corpus import joined_lines
from electra_jax.tasks.rows import without_surrogates

# Largest value of a JSON array in characters, so that memory stays bounded if a bracket is not closed.
_LONGEST_VALUE = 1 << 27
_CHUNK_BYTES = 1 << 16
_NAMES = {dict: "an object", list: "a list", bool: "true or false", int: "a number", float: "a number"}


def text_of(record: object, field: str, *, place: str, skipped: collections.Counter[str]) -> str:
    """Return the text of a record, its lines stripped; "" if its text is null, which is counted.

    Args:
        record: a JSON value; only an object has fields.
        field: a name, or several joined by dots, which lead into nested records and lists of them; see `_has_field`. A
            list of strings, even in nested lists, is joined by line ends.
        place: the record's place, for the error.
        skipped: the counter for nulls.

    Raises:
        UserError: if the record has no such field, or the field holds no text.
    """
    if not isinstance(record, dict):
        raise UserError(f"{place}: no text in the field {field!r} (fields: none, it is no JSON object).")
    if not _has_field(record, field):
        raise UserError(
            f"{place}: no text in the field {field!r} (fields: {', '.join(map(repr, _fields(record)))}); "
            "name the one that holds the text with --gin.TEXT_FIELD."
        )
    text = _field(record, field)
    if isinstance(text, list):
        text = _flat(text)
    if text is None:
        skipped["null texts"] += 1
        return ""
    if isinstance(text, list) and all(isinstance(part, str | None) for part in text):
        text = "\n".join(filter(None, text))
    if not isinstance(text, str):
        raise UserError(
            f"{place}: no text in the field {field!r}, which holds {_NAMES.get(type(text), type(text).__name__)}; "
            f"name one that holds text with --gin.TEXT_FIELD (fields: {', '.join(map(repr, _fields(record)))})."
        )
    return joined_lines(without_surrogates(text).split("\n"))


class RepeatedFieldError(ValueError):
    """A JSON object has the field of the text twice."""


def object_with_one(field: str, pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return a JSON object from its names and values.

    Raises:
        RepeatedFieldError: if a name that leads to the field occurs twice, so that a text would be lost.
    """
    record = dict(pairs)
    if len(record) != len(pairs):
        counts = collections.Counter(name for name, _ in pairs)
        twice = next((name for name in (field, *field.split(".")) if counts[name] > 1), None)
        if twice is not None:
            raise RepeatedFieldError(f"the field {twice!r} occurs twice in one object")
    return record


def json_values(stream: BinaryIO, field: str, place: str) -> Iterator[object]:
    """Yield the elements of a JSON array, or consecutive JSON values, as they are read.

    Raises:
        UserError: if something is not JSON, breaks off, or has the text field twice.
    """
    buffer, at_end, number = _Text(stream, field, place), False, 0
    in_array = buffer.skip(" \t\r\n\ufeff") == "["
    if in_array:
        buffer.drop(1)
    while True:
        first = buffer.skip(" \t\r\n," if number else " \t\r\n")
        if not first:
            break
        if in_array and first == "]":
            buffer.drop(1)
            at_end = True
            if buffer.skip(" \t\r\n"):
                raise UserError(f"{place} goes on after the end of its JSON array: write one object a line.")
            break
        number += 1
        yield buffer.value(number)
    if in_array and not at_end:
        raise UserError(f"{place} is truncated: its JSON array breaks off after {number} elements; fetch it again.")


class _Text:
    """Decode a stream piece by piece, and the JSON values in it."""

    def __init__(self, stream: BinaryIO, field: str, place: str) -> None:
        self._stream, self._place = stream, place
        self._decoder = json.JSONDecoder(object_pairs_hook=functools.partial(object_with_one, field))
        self._bytes, self._text, self._start = b"", "", 0
        self._ended = False

    def skip(self, characters: str) -> str:
        """Skip these characters, and return the first other one; "" at the end."""
        while True:
            while self._start < len(self._text):
                if self._text[self._start] not in characters:
                    return self._text[self._start]
                self._start += 1
            if not self._more(_CHUNK_BYTES):
                return ""

    def drop(self, count: int) -> None:
        self._start += count

    def value(self, number: int) -> object:
        """Return the next value; `number` counts them, for the error."""
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._start)
            except RecursionError as error:
                raise UserError(f"{self._place}, element {number}: JSON that nests too deeply to be read.") from error
            except RepeatedFieldError as error:
                raise UserError(f"{self._place}, element {number}: {error}; remove or rename one.") from error
            except ValueError as error:
                # A value that is cut off is parsed again with twice as much text.
                left = len(self._text) - self._start
                if left < _LONGEST_VALUE and self._more(max(left, _CHUNK_BYTES)):
                    continue
                reason = error.msg if isinstance(error, json.JSONDecodeError) else error
                raise UserError(
                    f"{self._place}, element {number}: truncated, or not JSON ({reason}); fetch or repair the file; "
                    "if it is plain text, set --gin.TEXT_FORMAT='\"documents\"'."
                ) from error
            self._start = end
            return value

    def _more(self, size: int) -> bool:
        """Read more text; return whether there was more."""
        if self._ended:
            return False
        found = self._stream.read(size)
        self._ended = not found
        self._bytes += found
        # A character may be split between two reads.
        cut = len(self._bytes) if self._ended else _whole_characters(self._bytes)
        try:
            text = self._bytes[:cut].decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{self._place} is JSON that is not UTF-8 ({error.reason}); convert the file.") from error
        self._text, self._start, self._bytes = self._text[self._start :] + text, 0, self._bytes[cut:]
        return bool(found)


def _whole_characters(data: bytes) -> int:
    """Return the number of bytes before a last, incomplete character; all if it is complete."""
    end = len(data)
    while end and len(data) - end < 3 and data[end - 1] & 0xC0 == 0x80:
        end -= 1
    return end - 1 if end and data[end - 1] & 0x80 else len(data)


def _flat(values: list[object]) -> list[object]:
    """Return the items of a list and of the lists nested in it."""
    return [one for value in values for one in (_flat(value) if isinstance(value, list) else [value])]


def _fields(record: object, outer: str = "") -> list[str]:
    """Return a record's field names, nested ones after a dot; a list has those of its first record."""
    if isinstance(record, list):
        return _fields(record[0], outer) if record else []
    found: list[str] = []
    for name, value in record.items() if isinstance(record, dict) else ():
        nested = _fields(value, f"{outer}{name}.")
        found += nested or [f"{outer}{name}"]
    return found


def _has_field(record: object, name: str) -> bool:
    """Return whether a record has a field; a dot leads into a nested record unless a field's own name contains it.

    A nested record that is null has all fields, which are null; a list has those that all of its records have.
    """
    if isinstance(record, list):
        return all(_has_field(one, name) for one in record)
    if not isinstance(record, dict):
        return False
    outer, dot, inner = name.partition(".")
    if name in record:
        return True
    return bool(dot) and outer in record and (record[outer] is None or _has_field(record[outer], inner))


def _field(record: object, name: str) -> object:
    """Return the value of a field (see `_has_field`), or None; for a list, the values of its records."""
    if isinstance(record, list):
        return [_field(one, name) for one in record]
    if not isinstance(record, dict) or not _has_field(record, name):
        return None
    outer, _, inner = name.partition(".")
    return record[name] if name in record else _field(record[outer], inner)

"""Read an example of multiple choice from a record: its texts, its choices, and which of them is right."""

import ast
import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from electra_jax.tasks.text.tables import is_missing

# A table written by pandas may spell the number of a choice as a float.
_NUMBER = re.compile(r"(\d{1,3})(?:\.0)?")
_LETTER = re.compile(r"[A-Za-z]")


class ChoiceExample(NamedTuple):
    """A text, optionally a question on it, and choices of which one is right.

    `index`: the number of the record, from 0, also counting skipped records. `text_b`: the question; None if there is
    none. `label`: the index of the right choice, from 0; None if it is not known.
    """

    index: int
    text_a: str
    text_b: str | None
    choices: tuple[str, ...]
    label: int | None


@dataclasses.dataclass(frozen=True)
class ChoiceColumns:
    """Names of a table's columns.

    `text_b`: None without a question; `choices`: names of columns that hold one choice each, or of one column of lists;
    `label`: None for a file without labels.
    """

    text_a: str
    text_b: str | None
    choices: str | tuple[str, ...]
    label: str | None

    @property
    def used(self) -> list[str]:
        """Return the names of the columns that a table must have."""
        choices = (self.choices,) if isinstance(self.choices, str) else self.choices
        return [name for name in (self.text_a, self.text_b, *choices, self.label) if name is not None]


class BadRecordError(ValueError):
    """A record is not an example: the arguments are the problem and what is expected."""


def example_of(index: int, record: Mapping[str, object], columns: ChoiceColumns) -> ChoiceExample:
    """Return the example of a record.

    Raises:
        BadRecordError: if a text or the label is missing, there are fewer than two choices, or the label is none of
            them.
    """
    texts = [name for name in (columns.text_a, columns.text_b) if name is not None]
    missing = [name for name in texts if is_missing(record.get(name), label=False)]
    if columns.label is not None and is_missing(record.get(columns.label), label=True):
        missing.append(columns.label)
    if missing:
        raise BadRecordError(f"no {', '.join(map(repr, missing))}", f"the columns {', '.join(columns.used)}")
    choices = choices_of(record, columns.choices)
    label = None if columns.label is None else place_of(record[columns.label], choices)
    text_b = None if columns.text_b is None else str(record[columns.text_b])
    return ChoiceExample(index, str(record[columns.text_a]), text_b, choices, label)


def choices_of(record: Mapping[str, object], columns: str | Sequence[str]) -> tuple[str, ...]:
    """Return the choices of a record; if they are in several columns, the last ones may be empty.

    Args:
        record: the record.
        columns: the name of a column of lists, in JSON or as Python prints them; or names of columns that hold one
            choice each.

    Raises:
        BadRecordError: if there are fewer than two, or one is empty or not a text.
    """
    found = _listed(record.get(columns)) if isinstance(columns, str) else [record.get(name) for name in columns]
    if found is None:
        raise BadRecordError(f"{columns!r} is {_shown(record.get(columns))}", "a list of choices")
    there = [not is_missing(one, label=False) and bool(str(one).strip()) for one in found]
    while not isinstance(columns, str) and there and not there[-1]:
        there.pop()
    if len(there) < 2 or not all(there):
        number = f"{len(there)} choice{'' if len(there) == 1 else 's'}"
        problem = number if all(there) else f"an empty choice, number {there.index(False)} of {number}"
        raise BadRecordError(problem, "at least 2 choices, none of them empty")
    return tuple(map(str, found[: len(there)]))


def place_of(label: object, choices: Sequence[str]) -> int:
    """Return the index of a choice, from 0, given its number from 0, its letter or its text.

    Raises:
        BadRecordError: if it is none of them, or means one choice by its number or letter and another by its text.
    """
    said = str(label).strip()
    places = [place for place, choice in enumerate(choices) if choice.strip() == said]
    if number := _NUMBER.fullmatch(said):
        places.append(int(number[1]))
    elif _LETTER.fullmatch(said):
        places.append(ord(said.upper()) - ord("A"))
    places = [place for place in dict.fromkeys(places) if place < len(choices)]
    last = len(choices) - 1
    letters = f"A to {chr(ord('A') + min(last, 25))}"
    if len(places) > 1:
        raise BadRecordError(
            f"the label {said!r}, by which {len(places)} choices can be meant", f"a letter that is no choice, {letters}"
        )
    if not places:
        raise BadRecordError(
            f"the label {said!r}", f"the number of a choice (0 to {last}), its letter ({letters}) or its text"
        )
    return places[0]


def _listed(value: object) -> list[object] | None:
    """Return a list, possibly one that a table spells out; None for any other value."""
    if isinstance(value, str):
        for read in (json.loads, ast.literal_eval):
            try:
                value = read(value.strip())
                break
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
    if not isinstance(value, (list, tuple)) or not all(isinstance(one, (str, int, float)) for one in value):
        return None
    return list(value)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."

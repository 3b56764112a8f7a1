"""Read an example of multiple choice from a record: its texts, its choices, and which of them is right."""

import ast
import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from electra_jax.tasks.text.tables import is_missing

# A table that pandas has written may spell the number of a choice as a float.
_NUMBER = re.compile(r"(\d{1,3})(?:\.0)?")
_LETTER = re.compile(r"[A-Za-z]")


class ChoiceExample(NamedTuple):
    """A text, perhaps a question on it, and texts of which one is right.

    `index`: the number of the record, from 0, also where records before it were skipped. `text_b`: the question; None
    where there is none. `label`: the place of the right choice, from 0; None where it is not known.
    """

    index: int
    text_a: str
    text_b: str | None
    choices: tuple[str, ...]
    label: int | None


@dataclasses.dataclass(frozen=True)
class ChoiceColumns:
    """Names of a table's columns.

    `text_b`: None without a question; `choices`: names of columns that hold a choice each, or of one that holds lists;
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
    """A record is no example: its arguments are what is wrong, and what is expected."""


def example_of(index: int, record: Mapping[str, object], columns: ChoiceColumns) -> ChoiceExample:
    """Return the example of a record.

    Raises:
        BadRecordError: if a text or the label is missing, there are no two choices, or the label is none of them.
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
    """Return the choices of a record; of several columns the last ones may be empty.

    Args:
        record: the record.
        columns: the name of a column of lists, in JSON or as a table spells what Python prints; or names of columns
            that hold a choice each.

    Raises:
        BadRecordError: if there are fewer than two, or one is empty or no text.
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
    """Return the place of a choice, from 0, by its number from 0, its letter or its text.

    Raises:
        BadRecordError: if it is none of them, or one choice is meant by its number or letter and another by its text.
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
    """Return a list, also one that a table spells; None for what is none."""
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

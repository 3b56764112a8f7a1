"""Read a user's own tables of texts with a class or a number, and turn texts into word pieces."""

import collections
import dataclasses
import math
import os
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from electra_jax.errors import UserError
from electra_jax.tasks.long_texts import token_windows
from electra_jax.tasks.protocol import Examples
from electra_jax.tasks.records import column_names, records
from electra_jax.tasks.rows import BadRows, row_name
from electra_jax.tasks.text.label_sets import (
    LabelSets,
    as_list,
    is_indicator,
    labels_of_columns,
    number_of,
    plain_label,
    warn_of_joined_labels,
    warn_of_single_labels,
)
from electra_jax.tasks.vocabulary import Vocabulary

# How pandas.read_csv spells a missing value (its na_values by default, pandas 2).
_MISSING = {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"} | {
    *("N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null")
}

# A column with at least this share of 0 and 1 is that of a label, and its other values are mistakes.
_INDICATOR_SHARE = 0.9


class TextExample(NamedTuple):
    """A text or a pair of texts.

    `index`: the row's number in its file, from 0 without the header, also counting skipped rows. `label`: the class
    number, the numbers of several labels, or the value of a regression as in the file; None if there is none.
    """

    index: int
    text_a: str
    text_b: str | None
    label: int | float | tuple[int, ...] | None


@dataclasses.dataclass(frozen=True)
class Classes:
    """The labels of a classification; a label's index is its number.

    Labels of a training file are `plain_label`s; those that an earlier version recorded may have white space around.
    """

    labels: tuple[str, ...]

    def parse(self, label: str) -> int:
        """Return the label's number, or raise ValueError."""
        return number_of(label, self.labels)

    @property
    def expected(self) -> str:
        """Describe the allowed labels of a row."""
        return f"one of {', '.join(map(repr, self.labels))}"


@dataclasses.dataclass(frozen=True)
class Interval:
    """The values of a regression: from `low` to `high`, both included; without bounds, a model's outputs unchanged."""

    low: float
    high: float

    def parse(self, label: str) -> float:
        """Return the number; raise ValueError if it is not a number or is outside."""
        value = float(label)
        if not (math.isfinite(value) and self.low <= value <= self.high):
            raise ValueError(label)
        return value

    @property
    def expected(self) -> str:
        """Describe the allowed values of a row."""
        return "a number" if math.isinf(self.high - self.low) else f"a number from {self.low:g} to {self.high:g}"

    def normalised(self, value: float) -> float:
        """Return the value that the model learns, from 0 to 1."""
        return (value - self.low) / (self.high - self.low)

    def denormalised(self, prediction: float) -> float:
        """Return the value for a model's output, which may lie outside the interval."""
        if math.isinf(self.high - self.low):
            return prediction
        return self.low + prediction * (self.high - self.low)

    def nearest(self, value: float) -> float:
        """Return the value of the interval that is nearest to a given value."""
        return min(max(value, self.low), self.high)


Target = Classes | Interval | LabelSets


class RawRow(NamedTuple):
    """A row as it was read, before its label, or its list of labels, is parsed; `line` is for messages."""

    line: int
    index: int
    text_a: str
    text_b: str | None
    label: str | tuple[str, ...] | None


@dataclasses.dataclass(frozen=True)
class Columns:
    """Names of a table's columns.

    `text_b`: None without a second text; `label`: a name, the names of columns that say for one label each whether a
    text has it, or None for a file without labels.
    """

    text_a: str
    text_b: str | None
    label: str | tuple[str, ...] | None

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the names of the columns of labels."""
        return (self.label,) if isinstance(self.label, str) else self.label or ()

    @property
    def used(self) -> list[str]:
        """Return the names of the columns that every row must have."""
        return [name for name in (self.text_a, self.text_b, *self.labels) if name is not None]


def read_table(path: str | os.PathLike[str], *, columns: Columns, target: Target, skip_bad_rows: bool) -> Examples:
    """Read a user's own file; see `records`.

    Tables begin with a line of column names. A label that pandas would read as missing is missing.

    Args:
        path: the file, UTF-8.
        columns: the names of the columns.
        target: the allowed labels; `discover_target` finds them in the training file.
        skip_bad_rows: whether to leave out and count a row with other columns than the header's, or with a missing or
            unknown label, instead of stopping.

    Raises:
        UserError: if the file is missing, empty or of another format, lacks a column or has it twice, has a bad row or,
            if each text has one label, a list as a label, or has no usable row.
    """
    bad_rows = BadRows(path, skip=skip_bad_rows)
    rows = _table_rows(path, columns, bad_rows, lists=isinstance(target, LabelSets))
    return understood(rows, target, bad_rows, path)


def discover_target(
    path: str | os.PathLike[str], *, columns: Columns, regression: bool, multi_label: bool | None, skip_bad_rows: bool
) -> Target:
    """Return the labels of a training file, sorted (numbers by value), or the interval of its numbers.

    Args:
        path: the file.
        columns: the names of the columns. Labels with a column each keep the order of `columns`.
        regression: whether labels are numbers.
        multi_label: whether a text may have several labels, or none; None to assume it if a label is a list, or the
            labels have a column each.
        skip_bad_rows: see `read_table`.

    Raises:
        UserError: if `read_table` refuses the file, `columns.label` is None, there is only one label or one number
            (with several labels a text: none), or lists and `multi_label` disagree.
    """
    if columns.label is None:
        raise UserError(f"{path} is to be trained on: name the column of its labels")
    bad_rows = BadRows(path, skip=skip_bad_rows)
    if isinstance(columns.label, tuple):
        if regression or multi_label is False:
            raise UserError(
                f"LABEL_COLUMN names {len(columns.label)} columns, one for each of several labels, and "
                f"{'a regression has one' if regression else 'MULTI_LABEL is False'}: name one column"
            )
        return LabelSets(columns.label)
    if regression:
        rows = _table_rows(path, columns, bad_rows, lists=False)
        file = understood(rows, Interval(-math.inf, math.inf), bad_rows, path)
        values = [example.label for example in file.examples if example.label is not None]
        target: Target = Interval(min(values), max(values))
        different = len(set(values))
    else:
        found = [row.label for row in _table_rows(path, columns, bad_rows, lists=multi_label is not False)]
        target = _target_of_labels(found, path, multi_label)
        warn_of_single_labels(found, path)
        if isinstance(target, Classes):
            warn_of_joined_labels(target.labels, path)
        different = len(target.labels)
    least = 1 if isinstance(target, LabelSets) else 2
    if different < least:
        are = "is" if least == 1 else "are"
        raise UserError(
            f"{path}: {different} different labels in the column {columns.label!r}; at least {least} {are} needed"
        )
    return target


def _target_of_labels(
    found: Iterable[str | tuple[str, ...] | None], path: str | os.PathLike[str], multi_label: bool | None
) -> Classes | LabelSets:
    """Return the labels of a column, sorted: one for each text, or several if there are lists."""
    rows = [label for label in found if label is not None]
    lists = [label for label in rows if isinstance(label, tuple)]
    if multi_label and not lists:
        raise UserError(
            f"{path}: MULTI_LABEL is True, and no label is a list: write lists, or one column of 0 and 1 for each "
            "label and name all of them by LABEL_COLUMN"
        )
    labels = set(map(plain_label, (name for label in lists for name in label) if lists else rows))
    names = tuple(sorted(labels, key=_number_or_text))
    return LabelSets(names) if lists else Classes(names)


def indicator_columns(path: str | os.PathLike[str], *, texts: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of a table, apart from those of texts, in which every row has 0 or 1.

    Missing values and rows that cannot be read are ignored, because `read_table` will report them. A column with a few
    values that are neither 0 nor 1 still counts: `read_table` will report those too.
    """
    names = [name for name in column_names(path) if name not in texts]
    seen: collections.Counter[str] = collections.Counter()
    others: collections.Counter[str] = collections.Counter()
    for _, record in records(path, texts, BadRows(path, skip=True)):
        if record is None:
            continue
        there = [name for name in names if not is_missing(record.get(name), label=True)]
        seen.update(there)
        others.update(name for name in there if not is_indicator(record[name]))
    return tuple(
        dict.fromkeys(name for name in names if seen[name] and others[name] <= (1 - _INDICATOR_SHARE) * seen[name])
    )


def understood(rows: Iterable[RawRow], target: Target, bad_rows: BadRows, path: str | os.PathLike[str]) -> Examples:
    """Give each row its label's number; report those whose label is invalid."""
    examples = []
    for row in rows:
        label = None
        if row.label is not None:
            try:
                label = target.parse(row.label)
            except ValueError:
                said = list(row.label) if isinstance(row.label, tuple) else row.label
                bad_rows.report(row.line, f"the label {said!r}", target.expected)
                continue
        examples.append(TextExample(row.index, row.text_a, row.text_b, label))
    if not examples:
        raise UserError(f"{path} holds no row that can be used")
    return Examples(examples, bad_rows.skipped)


class TextFeatures(NamedTuple):
    """`[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]` without padding; token types 0 before B."""

    input_ids: list[int]
    token_type_ids: list[int]


class TextWindows(NamedTuple):
    """The rows of a text or a pair, and the number of its word pieces that are in none of them."""

    rows: list[TextFeatures]
    num_tokens: int
    num_cut: int


def text_windows(
    texts: Sequence[tuple[str, str | None]],
    *,
    vocabulary: Vocabulary,
    length: int,
    long_texts: str,
    read_mask: bool = False,
) -> list[TextWindows]:
    """Turn texts into word pieces.

    Args:
        texts: texts or pairs; a second text without word pieces counts as none.
        vocabulary: tokenises the texts.
        length: largest number of tokens of a row.
        long_texts: "cut": a row each; the longer text of a pair is cut first. "windows": as many rows as needed; each
            row of a pair has the shorter text, cut to half of the row, and a window of the other.
        read_mask: whether "[MASK]" in a text is the mask token.
    """
    firsts = vocabulary.encode_batch([text_a for text_a, _ in texts], read_mask=read_mask)
    seconds = vocabulary.encode_batch([text_b or "" for _, text_b in texts], read_mask=read_mask)
    made = []
    for a, b in zip(firsts, seconds, strict=True):
        between = vocabulary.between_ids if b else []
        parts, num_cut = _parts(a, b, length - 2 - len(between), long_texts)
        rows = []
        for part_a, part_b in parts:
            first = [vocabulary.cls_id, *part_a, *(between if b else (vocabulary.sep_id,))]
            second = [*part_b, vocabulary.sep_id] if b else []
            rows.append(TextFeatures(first + second, [0] * len(first) + [1] * len(second)))
        made.append(TextWindows(rows, len(a) + len(b), num_cut))
    return made


def _parts(a: list[int], b: list[int], room: int, long_texts: str) -> tuple[list[tuple[list[int], list[int]]], int]:
    """Return the parts of two texts in each row (the second may be empty), and the number of tokens in no row."""
    if long_texts == "cut" or len(a) + len(b) <= room:
        kept_a, kept_b = pair_lengths(len(a), len(b), room) if b else (min(len(a), room), 0)
        return [(a[:kept_a], b[:kept_b])], len(a) + len(b) - kept_a - kept_b
    shorter = min(len(a), len(b))
    kept = min(shorter, room // 2)
    spans = token_windows(max(len(a), len(b)), room - kept)
    if len(a) >= len(b):
        parts = [(a[start : start + size], b[:kept]) for start, size in spans]
    else:
        parts = [(a[:kept], b[start : start + size]) for start, size in spans]
    return parts, shorter - kept


def pair_lengths(length_a: int, length_b: int, room: int) -> tuple[int, int]:
    """Return how many tokens are kept of two texts, cut one by one from the longer, from the second if equal."""
    kept_b = min(length_b, max(room // 2, room - length_a))
    return min(length_a, room - kept_b), kept_b


def _number_or_text(label: str) -> tuple[bool, float, str]:
    """Order numbers by value and before texts; a total order, in which what is not a number is a text."""
    try:
        value = float(label)
    except ValueError:
        value = math.nan
    return (True, 0.0, label) if math.isnan(value) else (False, value, label)


def _table_rows(path: str | os.PathLike[str], columns: Columns, bad_rows: BadRows, *, lists: bool) -> Iterator[RawRow]:
    """Yield the rows of a table; `lists`: whether a list means several labels, and is not a mistake."""
    for index, (line, record) in enumerate(records(path, columns.used, bad_rows)):
        if record is None:
            continue
        try:
            label = None if columns.label is None else _label(record, columns.label)
        except ValueError as error:
            raise UserError(
                f"{path}, {row_name(path, line)}: the label {record[columns.labels[0]]} is neither one label nor a "
                "list of labels: write one of these"
            ) from error
        if isinstance(columns.label, str) and isinstance(label, tuple) and not lists:
            raise UserError(
                f"{path}, {row_name(path, line)}: the label {record[columns.label]} is a list, and here each row has "
                "one label: give it one, or fine-tune on lists, with MULTI_LABEL = None or True"
            )
        missing = [name for name in columns.used if is_missing(record.get(name), label=name in columns.labels)]
        if missing:
            bad_rows.report(line, f"no {', '.join(map(repr, missing))}", f"the columns {', '.join(columns.used)}")
            continue
        nested = [name for name in (columns.text_a, columns.text_b) if isinstance(record.get(name), (list, dict, bool))]
        if nested:
            bad_rows.report(line, f"no text in {nested[0]!r}", f"a text, not {reprlib.repr(record[nested[0]])}")
            continue
        if label is None and columns.label is not None:
            values = ", ".join(f"{name} {record[name]!r}" for name in columns.labels if not is_indicator(record[name]))
            bad_rows.report(line, values, "0 or 1 in each column of LABEL_COLUMN, which names those of the labels")
            continue
        text_b = None if columns.text_b is None else str(record[columns.text_b])
        yield RawRow(line, index, str(record[columns.text_a]), text_b, label)


def _label(record: Mapping[str, object], column: str | tuple[str, ...]) -> str | tuple[str, ...] | None:
    """Return the label of a row, or its labels; None if label columns hold anything other than 0 and 1."""
    if isinstance(column, str):
        value = record.get(column)
        found = as_list(value)
        return str(value) if found is None else found
    return None if any(name not in record for name in column) else labels_of_columns(record, column)


def is_missing(value: object, *, label: bool) -> bool:
    """Return whether a value is missing: null, NaN, or an empty label or one spelt as missing; an empty text is not."""
    if label and isinstance(value, str):
        return value.strip() in _MISSING
    return value is None or (isinstance(value, float) and math.isnan(value))

"""Read a user's own tables of texts with a class or a number, and turn texts into word pieces."""

import csv
import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from electra_jax.errors import UserError
from electra_jax.tasks.protocol import Examples
from electra_jax.tasks.rows import BadRows, numbered_lines
from electra_jax.tasks.vocabulary import Vocabulary

TABLE_SUFFIXES = (".tsv", ".csv", ".jsonl")


class TextExample(NamedTuple):
    """A text or a pair of texts.

    `index`: the row's number in its file, from 0 and without the header, also where rows before it were skipped.
    `label`: the class's number, or the value of a regression as the file has it; None where there is none.
    """

    index: int
    text_a: str
    text_b: str | None
    label: int | float | None


@dataclasses.dataclass(frozen=True)
class Classes:
    """The labels of a classification; a label's place is its number."""

    labels: tuple[str, ...]

    def parse(self, label: str) -> int:
        """Return the label's number, or raise ValueError."""
        return self.labels.index(label)

    @property
    def expected(self) -> str:
        """Say what a row may have."""
        return f"one of {', '.join(map(repr, self.labels))}"


@dataclasses.dataclass(frozen=True)
class Interval:
    """The values of a regression: from `low` to `high`, both included; without bounds, what a model says as it is."""

    low: float
    high: float

    def parse(self, label: str) -> float:
        """Return the number, or raise ValueError if it is none or outside."""
        value = float(label)
        if not (math.isfinite(value) and self.low <= value <= self.high):
            raise ValueError(label)
        return value

    @property
    def expected(self) -> str:
        """Say what a row may have."""
        return f"a number from {self.low:g} to {self.high:g}"

    def normalised(self, value: float) -> float:
        """Return the value that the model learns, from 0 to 1."""
        return (value - self.low) / (self.high - self.low)

    def denormalised(self, prediction: float) -> float:
        """Return the value of a model's output, brought into the interval."""
        if math.isinf(self.high - self.low):
            return prediction
        return min(max(self.low + prediction * (self.high - self.low), self.low), self.high)


class RawRow(NamedTuple):
    """A row as it was read, before its label is understood; `line` is for messages."""

    line: int
    index: int
    text_a: str
    text_b: str | None
    label: str | None


@dataclasses.dataclass(frozen=True)
class Columns:
    """Names of a table's columns. `text_b`: None without a second text; `label`: None for a file without labels."""

    text_a: str
    text_b: str | None
    label: str | None

    @property
    def used(self) -> list[str]:
        """Return the names of the columns that every row must have."""
        return [name for name in (self.text_a, self.text_b, self.label) if name is not None]


def read_table(
    path: str | os.PathLike[str], *, columns: Columns, target: Classes | Interval, skip_bad_rows: bool
) -> Examples:
    """Read a user's own file: .tsv (no quoting), .csv (quoted as spreadsheets do) or .jsonl (an object a line).

    Tables begin with a line of column names.

    Args:
      path: the file, UTF-8.
      columns: which columns hold what.
      target: what a label may be; `discover_target` finds it in the training file.
      skip_bad_rows: leave out a row that lacks a column or has another label and count it, rather than stop.

    Raises:
      UserError: if the file is missing, empty or of another format, lacks a column, has a bad row, or has no row that
        can be used.
    """
    bad_rows = BadRows(path, skip=skip_bad_rows)
    return understood(_table_rows(path, columns, bad_rows), target, bad_rows, path)


def column_names(path: str | os.PathLike[str]) -> list[str]:
    """Return the names of a table's columns: its first line, or the fields of the first object of a .jsonl.

    Raises:
      UserError: if the file is missing, empty or of another format, or the first line of a .jsonl is not a JSON object.
    """
    suffix = _checked_suffix(path)
    first = next(text for _, text in numbered_lines(path) if text)
    if suffix != ".jsonl":
        return first.split("\t") if suffix == ".tsv" else next(csv.reader([first]))
    try:
        record = json.loads(first)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise UserError(f"{path}: its first line is not a JSON object")
    return list(record)


def discover_target(
    path: str | os.PathLike[str], *, columns: Columns, regression: bool, skip_bad_rows: bool
) -> Classes | Interval:
    """Return the labels of a training file, sorted (numbers by value), or the interval of its numbers.

    Raises:
      UserError: if `read_table` refuses the file, `columns.label` is None, or there is only one label or one number.
    """
    if columns.label is None:
        raise UserError(f"{path} is to be trained on: name the column of its labels")
    bad_rows = BadRows(path, skip=skip_bad_rows)
    if regression:
        file = understood(_table_rows(path, columns, bad_rows), Interval(-math.inf, math.inf), bad_rows, path)
        values = [example.label for example in file.examples if example.label is not None]
        target: Classes | Interval = Interval(min(values), max(values))
        different = len(set(values))
    else:
        labels = {row.label for row in _table_rows(path, columns, bad_rows) if row.label is not None}
        target = Classes(tuple(sorted(labels, key=_number_or_text)))
        different = len(labels)
    if different < 2:
        raise UserError(f"{path}: {different} different labels in the column {columns.label!r}; at least 2 are needed")
    return target


def understood(
    rows: Iterable[RawRow], target: Classes | Interval, bad_rows: BadRows, path: str | os.PathLike[str]
) -> Examples:
    """Give each row its label's number; report those whose label is none."""
    examples = []
    for row in rows:
        label = None
        if row.label is not None:
            try:
                label = target.parse(row.label)
            except ValueError:
                bad_rows.report(row.line, f"the label {row.label!r}", target.expected)
                continue
        examples.append(TextExample(row.index, row.text_a, row.text_b, label))
    if not examples:
        raise UserError(f"{path} holds no row that can be used")
    return Examples(examples, bad_rows.skipped)


class TextFeatures(NamedTuple):
    """`[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]` without padding; token types 0 before B."""

    input_ids: list[int]
    token_type_ids: list[int]


def text_features(
    texts: Sequence[tuple[str, str | None]], *, vocabulary: Vocabulary, length: int, read_mask: bool = False
) -> list[TextFeatures]:
    """Turn texts into word pieces.

    Args:
        texts: texts or pairs; a second text without word pieces counts as none.
        vocabulary: tokenises the texts.
        length: largest number of tokens of a row; the longer text of a pair is cut first.
        read_mask: whether "[MASK]" in a text is the mask.
    """
    firsts = vocabulary.encode_batch([text_a for text_a, _ in texts], read_mask=read_mask)
    seconds = vocabulary.encode_batch([text_b or "" for _, text_b in texts], read_mask=read_mask)
    between = vocabulary.between_ids
    features = []
    for a, b in zip(firsts, seconds, strict=True):
        room_a, room_b = pair_lengths(len(a), len(b), length - 2 - len(between)) if b else (length - 2, 0)
        first = [vocabulary.cls_id, *a[:room_a], *(between if b else (vocabulary.sep_id,))]
        second = [*b[:room_b], vocabulary.sep_id] if b else []
        features.append(TextFeatures(first + second, [0] * len(first) + [1] * len(second)))
    return features


def pair_lengths(length_a: int, length_b: int, room: int) -> tuple[int, int]:
    """Return how many tokens are kept of two texts, cut one by one from the longer, from the second if equal."""
    kept_b = min(length_b, max(room // 2, room - length_a))
    return min(length_a, room - kept_b), kept_b


def _number_or_text(label: str) -> tuple[bool, float, str]:
    try:
        return False, float(label), label
    except ValueError:
        return True, 0.0, label


def _checked_suffix(path: str | os.PathLike[str]) -> str:
    suffix = pathlib.Path(path).suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        raise UserError(
            f"{path}: the format {suffix or 'without a suffix'!r} is unknown; use {', '.join(TABLE_SUFFIXES)}"
        )
    return suffix


def _table_rows(path: str | os.PathLike[str], columns: Columns, bad_rows: BadRows) -> Iterator[RawRow]:
    readers = {".tsv": _tsv_records, ".csv": _csv_records, ".jsonl": _json_records}
    for index, (line, record) in enumerate(readers[_checked_suffix(path)](path, columns, bad_rows)):
        if record is None:
            continue
        missing = [name for name in columns.used if record.get(name) is None]
        if missing:
            bad_rows.report(line, f"no {', '.join(map(repr, missing))}", f"the columns {', '.join(columns.used)}")
            continue
        text_b = None if columns.text_b is None else str(record[columns.text_b])
        label = None if columns.label is None else str(record[columns.label])
        yield RawRow(line, index, str(record[columns.text_a]), text_b, label)


# Records with their lines; None for a blank line and for a row that was reported: both count as rows.
Records = Iterator[tuple[int, Mapping[str, object] | None]]


def _tsv_records(path: str | os.PathLike[str], columns: Columns, bad_rows: BadRows) -> Records:
    lines = numbered_lines(path)
    header = next(lines)[1].split("\t")
    _check_header(path, header, columns)
    for line, text in lines:
        yield line, dict(zip(header, text.split("\t"), strict=False)) if text else None


def _csv_records(path: str | os.PathLike[str], columns: Columns, bad_rows: BadRows) -> Records:
    # Whole lines with their ends go to the csv module, since a quoted field may hold line ends.
    reader = csv.reader(f"{text}\n" for _, text in numbered_lines(path))
    try:
        header = next(reader)
        _check_header(path, header, columns)
        line = reader.line_num + 1
        for fields in reader:
            yield line, dict(zip(header, fields, strict=False)) if fields else None
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: not CSV ({error})") from error


def _json_records(path: str | os.PathLike[str], columns: Columns, bad_rows: BadRows) -> Records:
    for line, text in numbered_lines(path):
        if not text:
            yield line, None
            continue
        try:
            record = json.loads(text)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            bad_rows.report(line, "not a JSON object", f"an object with {', '.join(columns.used)}")
            record = None
        yield line, record


def _check_header(path: str | os.PathLike[str], header: Sequence[str], columns: Columns) -> None:
    missing = [name for name in columns.used if name not in header]
    if missing:
        raise UserError(
            f"{path} has no column {', '.join(map(repr, missing))}: its first line names {', '.join(map(repr, header))}"
        )

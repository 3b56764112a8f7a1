"""Read the records of a user's own table unchanged, and refuse rows that do not fit its header."""

import csv
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from electra_jax.errors import UserError
from electra_jax.json_files import RepeatedNameError, parse_json, without_repeats
from electra_jax.tasks.rows import WHOLE_SUFFIXES, BadRows, numbered_lines
from electra_jax.tasks.whole_tables import is_whole, whole_table

TABLE_SUFFIXES = (".tsv", ".csv", ".jsonl", *WHOLE_SUFFIXES)

# The beginning of a message about the columns of a table, by whether the table is not line-based.
NAMED = {False: "its first line names", True: "its columns are"}

# How to fix a row with too many columns, by delimiter.
_REMEDIES = {
    ",": " (a text that holds a comma must be quoted)",
    ";": " (a text that holds a semicolon must be quoted)",
    "\t": " (no text may hold a tab)",
}

# A quoted field over this many lines, each of which is a row by itself, was opened by a stray quote.
_LINES_OF_STRAY_QUOTE = 6

# Records with their lines, or with their numbers if a row is not a line; None for a blank line and for a row that was
# reported: both count as rows.
Records = Iterator[tuple[int, Mapping[str, object] | None]]


def column_names(path: str | os.PathLike[str]) -> list[str]:
    """Return the names of a table's columns: its first line, or the fields of the first object of JSON.

    Raises:
        UserError: if the file is missing, empty or of another format, or the first line is not CSV or no JSON object.
    """
    suffix = _checked_suffix(path)
    if is_whole(path):
        return whole_table(path)[0]
    if suffix not in (".jsonl", ".json"):
        return _header(path, _lines(path), suffix)[0]
    first = next((text for _, text in numbered_lines(path) if text), "")
    return list(parse_json(first, dict[str, Any], f"{path}, its first line", remedy="write an object a line"))


def records(path: str | os.PathLike[str], used: Sequence[str], bad_rows: BadRows) -> Records:
    """Yield the records of a table and the lines at which they begin.

    Args:
        path: a .tsv, a .csv (quoted as spreadsheets do) or a .jsonl (an object a line). A .tsv is quoted like a .csv if
            all of it can be read so and must be; otherwise its quotes are text. Semicolons or tabs separate the columns
            of a .csv whose first line has them and no comma, as where a comma is the decimal point. Or a .parquet, or a
            .json, which holds an array of objects or an object a line.
        used: the names of the columns that are needed.
        bad_rows: receives reports of rows with more or fewer columns than the header, quotes that do not match, and
            values that are not JSON objects.

    Raises:
        UserError: if the file is missing, empty or of another format, or its header lacks a used name or has it twice.
    """
    suffix = _checked_suffix(path)
    if is_whole(path):
        header, rows = whole_table(path)
        if suffix == ".parquet":
            _check_header(path, header, used)
        return iter(list(enumerate(rows, start=1)))
    if suffix in (".jsonl", ".json"):
        return _json_records(path, used, bad_rows)
    return _table_records(path, suffix, used, bad_rows)


def _table_records(path: str | os.PathLike[str], suffix: str, used: Sequence[str], bad_rows: BadRows) -> Records:
    lines = _lines(path)
    header, quoted, after = _header(path, lines, suffix)
    _check_header(path, header, used)
    delimiter = _delimiter(suffix, lines[0])
    while after < len(lines):
        start = after
        try:
            fields, after = _fields(lines, start, delimiter) if quoted else _unquoted(lines, start)
        except csv.Error as error:
            after = start + 1
            bad_rows.report(
                start + 1,
                f"not CSV ({error})",
                "a field that begins with a quote to end with one, others in it doubled",
            )
            yield start + 1, None
            continue
        if not fields:
            yield start + 1, None
        elif len(fields) != len(header):
            remedy = _REMEDIES[delimiter] if len(fields) > len(header) else ""
            bad_rows.report(start + 1, _count(len(fields)), f"{len(header)}, as the first line has{remedy}")
            yield start + 1, None
        elif _was_swallowed(lines[start:after], delimiter, len(header)):
            after, spanned = start + 1, after - start
            bad_rows.report(start + 1, f"a quoted field over {spanned} lines, each a row by itself", "no stray quote")
            yield start + 1, None
        else:
            yield start + 1, dict(zip(header, fields, strict=True))


def _json_records(path: str | os.PathLike[str], used: Sequence[str], bad_rows: BadRows) -> Records:
    for line, text in numbered_lines(path):
        if not text:
            yield line, None
            continue
        try:
            record = json.loads(text, object_pairs_hook=without_repeats)
            problem = "not a JSON object"
        except RepeatedNameError as error:
            record, problem = None, str(error)
        # A number with too many digits, or endlessly nested objects.
        except (ValueError, RecursionError):
            record, problem = None, "not a JSON object"
        if not isinstance(record, dict):
            bad_rows.report(line, problem, f"an object with {', '.join(used)}")
            record = None
        yield line, record


def _checked_suffix(path: str | os.PathLike[str]) -> str:
    suffix = pathlib.Path(path).suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        raise UserError(
            f"{path}: the format {suffix or 'without a suffix'!r} is unknown; use {', '.join(TABLE_SUFFIXES)}"
        )
    return suffix


def _lines(path: str | os.PathLike[str]) -> list[str]:
    return [text for _, text in numbered_lines(path)]


def _header(path: str | os.PathLike[str], lines: Sequence[str], suffix: str) -> tuple[list[str], bool, int]:
    """Return the names of the columns, whether fields may be quoted, and the index of the first row."""
    quoted = suffix == ".csv" or _is_quoted_tsv(lines)
    try:
        header, after = _fields(lines, 0, _delimiter(suffix, lines[0])) if quoted else _unquoted(lines, 0)
    except csv.Error as error:
        raise UserError(f"{path}, line 1: not CSV ({error}); its first line must name the columns") from error
    return header, quoted, after


def _check_header(path: str | os.PathLike[str], header: Sequence[str], used: Sequence[str]) -> None:
    names = ", ".join(map(repr, header))
    missing = [name for name in used if name not in header]
    if missing:
        raise UserError(f"{path} has no column {', '.join(map(repr, missing))}: {NAMED[is_whole(path)]} {names}")
    for name in used:
        if header.count(name) > 1:
            raise UserError(
                f"{path}, line 1: {header.count(name)} columns are named {name!r}, expected 1 (it names {names}); "
                "rename the others"
            )


def _delimiter(suffix: str, header: str) -> str:
    if suffix == ".tsv":
        return "\t"
    return next((delimiter for delimiter in ",;\t" if delimiter in header), ",")


def _count(columns: int) -> str:
    return f"{columns} column" if columns == 1 else f"{columns} columns"


def _unquoted(lines: Sequence[str], start: int) -> tuple[list[str], int]:
    return lines[start].split("\t") if lines[start] else [], start + 1


def _fields(lines: Sequence[str], start: int, delimiter: str) -> tuple[list[str], int]:
    """Return the fields of the record that begins at a line, and the index after it, or raise csv.Error."""
    # Whole lines with their ends go to the csv module, since a quoted field may contain line ends.
    rest = (f"{lines[place]}\n" for place in range(start, len(lines)))
    reader = csv.reader(rest, delimiter=delimiter, strict=True)
    return next(reader), start + reader.line_num


def _was_swallowed(lines: Sequence[str], delimiter: str, columns: int) -> bool:
    """Return whether the lines of one record are rows by themselves, swallowed by a stray quote."""
    return len(lines) >= _LINES_OF_STRAY_QUOTE and all(line.count(delimiter) == columns - 1 > 0 for line in lines)


def _is_quoted_tsv(lines: Sequence[str]) -> bool:
    """Return whether a .tsv was written with quotes, as pandas does: it can be read so, and needs them.

    It does if a field needs them, or if all names of the columns are quoted, as R writes them.
    """
    columns, needed, after = None, False, 0
    while after < len(lines):
        start = after
        try:
            fields, after = _fields(lines, start, "\t")
        except csv.Error:
            return False
        columns = len(fields) if columns is None else columns
        if fields and len(fields) != columns:
            return False
        plain = lines[start].split("\t")
        needed |= start == 0 and all(len(raw) > 1 and raw[0] == raw[-1] == '"' for raw in plain)
        if after > start + 1:
            # Lines that are rows by themselves do not make one row.
            if all(line.count("\t") == columns - 1 for line in lines[start:after]):
                return False
            needed = True
        elif fields and fields != plain:
            needed |= len(fields) != len(plain)
            needed |= any(field != raw and '"' in field for field, raw in zip(fields, plain, strict=False))
    return needed

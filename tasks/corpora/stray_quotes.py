"""Keep quotes that are text in a tab-separated table, so that none of them swallows the rows after it."""

import re
from collections.abc import Iterable, Iterator

_WELL_QUOTED = re.compile(r'"(?:[^"]|"")*"')
# The last line of a multi-line cell, and any line after its first: quotes in its text are doubled.
_ENDS = re.compile(r'(?:[^"]|"")*"(?:\t.*)?', re.DOTALL)
_WITHIN = re.compile(rf'(?:[^"]|"")*|{_ENDS.pattern}', re.DOTALL)
# Most characters of a multi-line cell; a longer one was opened by a stray quote.
_LONGEST_CELL = 1 << 24


def with_quoted_strays(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines of a table, quoting each cell that begins with a quote but does not end with its own.

    A cell may be quoted over several lines, as pandas writes a text of several lines. The quote is text, however, if
    one of these lines is a row by itself, or has quotes that are not doubled, or if the table ends before the cell.

    Args:
        lines: the lines of a tab-separated table, with their ends; the first one holds the column names.
    """
    columns: int | None = None
    opened: list[str] = []
    size = 0
    for line in lines:
        tabs = line.count("\t")
        if columns is None:
            columns = tabs
            yield line
            continue
        row = line.rstrip("\r\n")
        if opened and (tabs == columns > 0 or size > _LONGEST_CELL or not _WITHIN.fullmatch(row)):
            yield from map(_quoted, opened)
            opened, size = [], 0
        if opened or _is_open(row):
            ends = bool(opened) and _ENDS.fullmatch(row)
            opened.append(line)
            size += len(line)
            if ends:
                yield from opened
                opened, size = [], 0
        else:
            yield _quoted(line)
    yield from map(_quoted, opened)


def _is_open(row: str) -> bool:
    """Return whether a cell of a line begins with a quote that is not closed in that line."""
    return any(cell.startswith('"') and cell.count('"') % 2 for cell in row.split("\t"))


def _quoted(line: str) -> str:
    """Return a line in which each cell that begins with a stray quote is quoted, so that it is read literally."""
    row = line.rstrip("\r\n")
    cells = []
    for cell in row.split("\t"):
        stray = cell.startswith('"') and not _WELL_QUOTED.fullmatch(cell)
        doubled = cell.replace('"', '""')
        cells.append(f'"{doubled}"' if stray else cell)
    return "\t".join(cells) + line[len(row) :]

"""Keep the quotes of a tab-separated table that are text, so that none of them swallows the rows after it."""

import re
from collections.abc import Iterable, Iterator

_WELL_QUOTED = re.compile(r'"(?:[^"]|"")*"')
# The last line of a cell over several lines, and any line after its first: quotes of its text are doubled.
_ENDS = re.compile(r'(?:[^"]|"")*"(?:\t.*)?', re.DOTALL)
_WITHIN = re.compile(rf'(?:[^"]|"")*|{_ENDS.pattern}', re.DOTALL)
# Characters of a cell over several lines; one that is longer was opened by a stray quote.
_LONGEST_CELL = 1 << 24


def with_quoted_strays(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines of a table with each cell quoted that begins with a quote and does not end with its own.

    A cell may be quoted over several lines, as pandas writes a text of several lines. It is not where one of them is a
    row by itself, or has quotes that are not doubled, or the table ends before the cell does: its quote is text.

    Args:
        lines: of a table whose cells are separated by tabs, with their ends, the names of its columns first.
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
    """Return whether a cell of a line begins with a quote that is not closed in it."""
    return any(cell.startswith('"') and cell.count('"') % 2 for cell in row.split("\t"))


def _quoted(line: str) -> str:
    """Return a line whose cells are read as they stand where they begin with a quote that is none of a table."""
    row = line.rstrip("\r\n")
    cells = []
    for cell in row.split("\t"):
        stray = cell.startswith('"') and not _WELL_QUOTED.fullmatch(cell)
        doubled = cell.replace('"', '""')
        cells.append(f'"{doubled}"' if stray else cell)
    return "\t".join(cells) + line[len(row) :]

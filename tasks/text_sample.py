"""Sample text that fits into memory, and cut lines that are too long for one piece."""

import heapq
import random
from collections.abc import Iterable, Iterator
from typing import NamedTuple

# A longer run without a space is not a word of any language.
LONGEST_PIECE = 2**14
_SEED = 0


class Sample(NamedTuple):
    """Hold lines of text in order.

    Attributes:
        lines: the lines, or parts of long ones.
        kept_bytes: their size in UTF-8.
        seen_bytes: the size of the text from which they were drawn.
    """

    lines: list[str]
    kept_bytes: int
    seen_bytes: int

    @property
    def is_whole(self) -> bool:
        """Return whether nothing was left out."""
        return self.kept_bytes == self.seen_bytes


def sample_lines(documents: Iterable[str], *, max_bytes: int) -> Sample:
    """Draw lines of a stream of documents, all equally likely, until they fill `max_bytes`.

    Each line draws a number, and those with the smallest are kept (a reservoir of bounded size): the same documents
    yield the same lines. If all lines fit, all are kept. Blank lines are left out.

    Args:
        documents: texts; read once.
        max_bytes: the largest size of the sample in UTF-8.
    """
    draw = random.Random(_SEED).random
    reservoir: list[tuple[float, int, int, str]] = []  # the largest number first, negated
    kept = seen = 0
    limit = 1.0
    for place, line in enumerate(_pieces(documents)):
        size = len(line) if line.isascii() else len(line.encode())
        seen += size
        number = draw()
        if number >= limit:
            continue
        heapq.heappush(reservoir, (-number, place, size, line))
        kept += size
        while kept > max_bytes:
            largest, _, size, _ = heapq.heappop(reservoir)
            limit = -largest
            kept -= size
    lines = [line for _, _, _, line in sorted(reservoir, key=lambda drawn: drawn[1])]
    return Sample(lines, kept, seen)


def cut_before_spaces(line: str, longest: int) -> Iterator[str]:
    """Yield a line in parts of at most `longest` characters, each cut before its last space if there is one.

    Words stay whole if there are spaces, and the parts joined are the line.
    """
    start = 0
    while len(line) - start > longest:
        end = line.rfind(" ", start + 1, start + longest + 1)
        end = start + longest if end < 0 else end
        yield line[start:end]
        start = end
    yield line[start:] if start else line


def _pieces(documents: Iterable[str]) -> Iterator[str]:
    for document in documents:
        for line in document.split("\n"):
            for piece in cut_before_spaces(line, LONGEST_PIECE):
                if piece and not piece.isspace():
                    yield piece

"""Read the lines of a user's files; an unusable one is reported with file and line, or counted."""

import collections
import os
import pathlib
import re
from collections.abc import Iterator

from electra_jax.errors import UserError
from electra_jax.files import regular
from electra_jax.tasks.corpora.byte_streams import HEAD_BYTES, compression_of
from electra_jax.tasks.corpora.text_format import FORMATS, container_of, has_zeros, unreadable_as

# Surrogates, which JSON and a command line can spell but no tokenizer accepts.
_SURROGATE = re.compile("[\ud800-\udfff]")

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

# Tables whose rows are not lines.
WHOLE_SUFFIXES = (".json", ".parquet")


def numbered_lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, str]]:
    """Yield line numbers (from 1) and lines of a UTF-8 file, without line ends.

    Only line feeds separate lines; if there is none, carriage returns do, as on an old Macintosh.

    Raises:
        UserError: if the file is missing, unreadable or empty, has a format that is not text, or a line is not UTF-8.
    """
    try:
        content = regular(pathlib.Path(path)).read_bytes().removeprefix(_BYTE_ORDER_MARK)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error
    if not content.strip():
        raise UserError(f"{path} is empty.")
    if what := format_of_no_text(content[:HEAD_BYTES]):
        raise UserError(f"{path} is {what}: save what it holds as text in UTF-8, as a .csv, .tsv or .jsonl.")
    end = b"\n" if b"\n" in content else b"\r"
    for number, raw in enumerate(content.removesuffix(end).split(end), start=1):
        try:
            yield number, raw.removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{path}, line {number}: not UTF-8 ({error.reason}); convert the file.") from error


def format_of_no_text(head: bytes) -> str | None:
    """Return the name of a file's format by its first bytes, if it is not UTF-8 text; None for a text."""
    if compression_of(head):
        return "compressed"
    kind = container_of(head)
    if kind == "zip":
        return "a zip archive, or an Excel workbook"
    if kind is not None:
        return FORMATS[kind]
    if unreadable := unreadable_as(head):
        return unreadable[0]
    return "text in UTF-16, or no text" if has_zeros(head) else None


def row_name(path: str | os.PathLike[str], number: int) -> str:
    """Return the name of a row of a file in messages: its line, or its number if rows are not lines."""
    return f"{'row' if pathlib.Path(path).suffix.lower() in WHOLE_SUFFIXES else 'line'} {number}"


def without_surrogates(text: str) -> str:
    """Replace each surrogate by U+FFFD, one by one, so that positions in the text stay valid."""
    return _SURROGATE.sub("\ufffd", text)


def text_of(value: bytes | str) -> str:
    """Return a text that TensorFlow may have given as UTF-8 bytes."""
    return value.decode("utf-8") if isinstance(value, bytes) else value


class BadRows:
    """Stop at a row that cannot be used, or leave it out and count it.

    Attributes:
        skipped: how many rows were left out, by problem.
    """

    def __init__(self, path: str | os.PathLike[str], *, skip: bool) -> None:
        """Choose what `report` does.

        Args:
            path: the file, for the error.
            skip: whether to count bad rows instead of raising an error.
        """
        self.skipped: collections.Counter[str] = collections.Counter()
        self._path = path
        self._skip = skip

    def report(self, line: int, problem: str, expected: str) -> None:
        """Count a bad row, or raise an error.

        Raises:
            UserError: if bad rows are not skipped.
        """
        if not self._skip:
            raise UserError(
                f"{self._path}, {row_name(self._path, line)}: {problem}; expected {expected}. "
                f"Correct it, or set SKIP_BAD_ROWS = True to leave such rows out and count them."
            )
        self.skipped[problem] += 1

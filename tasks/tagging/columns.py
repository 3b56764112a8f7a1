"""Read the rows of column files: CoNLL's, GermEval's, WNUT's, CoNLL-U's."""

import collections
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence

from electra_jax.errors import UserError
from electra_jax.tasks.rows import numbered_lines
from electra_jax.tasks.tagging.listed import LISTED_SUFFIXES, listed_sentences

# A line that separates the documents of CoNLL-2003; not a word.
_DOCUMENT_START = "-DOCSTART-"

# "# id = 0", "# newdoc": comments whatever the number of their columns; a word "#" is never followed by these.
_COMMENT = re.compile(r"#\s*(\w[\w.:-]*\s*=|newdoc\b|newpar\b|(begin|end) document\b)")

# CoNLL-U: a multi-word token ("1-2") repeats its words, and an empty node ("1.1") is not in the text.
_CONLLU_COLUMNS = 10
_NOT_A_WORD = re.compile(r"\d+[-.]\d+")

# brat's "T1<tab>Person 0 5<tab>Anna", "R1<tab>LivesIn Arg1:T1 Arg2:T2".
_BRAT = re.compile(r"T\d+\t\S+ \d+ \d+(;\d+ \d+)*\t")

# WikiANN's mark of the language before each word.
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z]+)?:(?=.)")

_EXPECTED = "a word a line, with tabs between the columns and a blank line after each sentence"
_SHOWN = 40

# The number of a line and its columns.
ColumnRow = tuple[int, list[str]]


def column_sentences(path: str | os.PathLike[str]) -> Iterator[list[ColumnRow]]:
    """Yield the sentences of a file, each as the line number and the columns of every word.

    Columns are separated by tabs if each row has one, so that a word may contain spaces; otherwise by ASCII white
    space, because a no-break space is part of a word. Comments precede a sentence: lines that begin with `#` and have
    another number of columns than the words, or say `# key = value`. A document's beginning ends a sentence. JSON and
    Parquet are read by `listed_sentences`.

    Raises:
        UserError: if there is no such file, or it is empty or not UTF-8.
    """
    if pathlib.Path(path).suffix.lower() in LISTED_SUFFIXES:
        yield from listed_sentences(path)
        return
    numbered = [(number, line) for number, line in numbered_lines(path)]
    words = [line for _, line in numbered if line.strip() and not line.startswith(("#", _DOCUMENT_START))]
    tabs = bool(words) and all("\t" in line.strip(" \t") for line in words)
    width = len(_columns(words[0], tabs)) if words else None
    rows: list[ColumnRow] = []
    for number, line in numbered:
        if not line.strip() or _columns(line, tabs)[0] == _DOCUMENT_START:
            if rows:
                yield rows
            rows = []
            continue
        columns = _columns(line, tabs)
        comment = not rows and line.startswith("#") and (len(columns) != width or _COMMENT.match(line) is not None)
        unseen = len(columns) == _CONLLU_COLUMNS and _NOT_A_WORD.fullmatch(columns[0]) is not None
        if not (comment or unseen):
            rows.append((number, columns))
    if rows:
        yield rows


def check_columns(
    path: str | os.PathLike[str], sentences: Iterable[list[ColumnRow]], *, word_column: int, tag_column: int
) -> None:
    """Refuse columns that cannot be words and their tags.

    Raises:
        UserError: if the file has another layout, both are the same column, commas separate the columns, or the words
            are word numbers or begin with a language mark.
    """
    sentences = [rows for rows in sentences if rows]
    if not sentences:
        return
    rows = [row for rows in sentences for row in rows]
    if other := _other_layout(rows):
        raise UserError(f"{path}, line {rows[0][0]}: {other}; write {_EXPECTED}")
    width = len(sentences[0][0][1])
    if not all(-width <= column < width for column in (word_column, tag_column)):
        return  # Rows that are too short are reported one by one.
    if word_column % width == tag_column % width:
        raise UserError(
            f"{path}, line {sentences[0][0][0]}: column {word_column % width} of {width} is both WORD_COLUMN and "
            f"TAG_COLUMN; name two columns, separated by tabs or spaces"
        )
    tags = [columns[tag_column] for rows in sentences for _, columns in rows if len(columns) == width]
    if all("," in tag and len(tag) > 1 for tag in tags):
        raise UserError(f"{path}: commas separate the columns ({tags[-1]!r}); write {_EXPECTED}")
    numbers = [[columns[word_column] for _, columns in rows if len(columns) == width] for rows in sentences]
    marks = {_LANGUAGE.match(word) and _LANGUAGE.match(word)[0] for words in numbers for word in words}
    if len(marks) == 1 and None not in marks:
        raise UserError(
            f"{path}: each word begins with {marks.pop()!r}, the mark of its language: remove it from the words"
        )
    counted = all(words == [str(number) for number in range(1, len(words) + 1)] for words in numbers)
    if counted and max(map(len, numbers)) > 1:
        raise UserError(
            f"{path}: column {word_column} numbers the words 1, 2, ...; set WORD_COLUMN (and TAG_COLUMN) to the "
            f"columns of the words and of their tags, counted from 0"
        )


def _other_layout(rows: Sequence[ColumnRow]) -> str | None:
    """Return the name of a file's layout if its lines are not a word and its tag each; None if they are."""
    first = rows[0][1]
    if first[0].startswith("{") and first[-1].endswith("}"):
        return f"an object of JSON, {' '.join(first)[:_SHOWN]!r}"
    if _BRAT.match("\t".join(first)):
        return "brat's annotations apart from their text (brat's own anntoconll.py brings them together)"
    cells = [cell for _, columns in rows for cell in columns]
    joined = next((mark for mark in "/_|" if all(mark in cell[1:-1] for cell in cells)), None)
    if joined is not None:
        return f"words and tags joined by {joined!r}, as {cells[0]!r}"
    widths = collections.Counter(len(columns) for _, columns in rows)
    if len(rows) > 2 and 2 * max(widths.values()) < len(rows):
        return f"from {min(widths)} to {max(widths)} columns a line, as lines of text have"
    return None


def _columns(line: str, tabs: bool) -> list[str]:
    if tabs:
        return [column.strip(" ") for column in re.split(r"\t+", line.strip(" \t\r"))]
    return re.split(r"[ \t\r\f\v]+", line.strip(" \t\r\f\v"))

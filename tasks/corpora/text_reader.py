"""Read the texts of one file of any kind: lines, tables, records, or an archive of such files."""

import collections
import csv
import dataclasses
import functools
import pathlib
import re
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from electra_jax.errors import UserError
from electra_jax.json_files import parse_json
from electra_jax.tasks.corpora import columnar
from electra_jax.tasks.corpora.archives import members, wet_records
from electra_jax.tasks.corpora.byte_streams import EXPANSION, Content, content_of, decompressed, with_line_feeds
from electra_jax.tasks.corpora.corpus import joined_lines
from electra_jax.tasks.corpora.records import json_values, object_with_one, text_of
from electra_jax.tasks.corpora.stray_quotes import with_quoted_strays
from electra_jax.tasks.corpora.text_format import DELIMITERS, container_of, recognise

# A file without blank lines would be a single document: it is cut so that memory stays bounded.
_LONGEST_DOCUMENT = 1 << 24  # characters

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

# With SKIP_UNDECODABLE, a file that loses more than this is not UTF-8 with a few slips.
_MOST_UNDECODABLE, _FEWEST_UNDECODABLE = 0.1, 10


@dataclasses.dataclass(frozen=True)
class TextReader:
    """Say how files are read.

    Attributes:
        text_format: "auto", or the text format of all files, see `open.open_corpus`.
        text_field: the field or column that holds the text.
        skip_undecodable: whether texts that are not UTF-8 are left out and counted, instead of raising an error.
        skipped: counts everything that is left out.
    """

    text_format: str
    text_field: str
    skip_undecodable: bool
    skipped: collections.Counter[str]

    def format_of(self, content: Content, place: str) -> str:
        """Return the format of a file, one of `text_format.FORMATS`.

        Raises:
            UserError: if it has a format that is recognised but cannot be read.
        """
        container = container_of(content.head)
        content = content if container else with_line_feeds(content)
        if self.text_format != "auto" and container not in ("zip", "tar"):
            return self.text_format
        name = pathlib.PurePosixPath(place)
        suffix = (name.with_suffix("") if name.suffix in EXPANSION else name).suffix
        return recognise(content.head, suffix=suffix, text_field=self.text_field, place=place)

    def texts(self, content: Content, place: str) -> Iterator[str]:
        """Yield the texts of a file, some of which may be empty.

        Args:
            content: the file, decompressed.
            place: its path, for errors.

        Raises:
            UserError: if something in it cannot be read as text.
        """
        kind = self.format_of(content, place)
        content = content if container_of(content.head) else with_line_feeds(content)
        if kind in ("zip", "parquet", "arrow") and not content.seekable:
            raise UserError(f"{place} is compressed, or within an archive, where it cannot be read: unpack it first.")
        if kind in ("zip", "tar"):
            for name, member in members(content.stream, kind, place):
                inner = f"{place}/{name}"
                yield from self.texts(decompressed(content_of(member), inner), inner)
        elif kind in columnar.KINDS:
            yield from self._texts_of_columns(content.stream, kind, place)
        elif kind == "json":
            for number, value in enumerate(json_values(content.stream, self.text_field, place), start=1):
                record = {self.text_field: value} if isinstance(value, str) else value
                yield self._text_of(record, f"{place}, element {number}")
        elif kind == "wet":
            numbered = enumerate(wet_records(content.stream, place), start=1)
            pages = self._decoded(((number, page) for number, page in numbered), place, "page")
            yield from (joined_lines(page.split("\n")) for _, page in pages)
        else:
            yield from self._texts_of_lines(content.stream, kind, place)

    def _texts_of_lines(self, stream: BinaryIO, kind: str, place: str) -> Iterator[str]:
        lines = self._decoded(enumerate(stream, start=1), place, "line")
        if kind == "jsonl":
            yield from (self._text_of_json(line, f"{place}, line {number}") for number, line in lines)
        elif kind in DELIMITERS:
            yield from self._texts_of_table((line for _, line in lines), place, DELIMITERS[kind])
        elif kind == "doc":
            yield from _split_at_doc_tags(line for _, line in lines)
        elif kind == "lines":
            yield from (joined_lines([line]) for _, line in lines)
        else:
            yield from _split_at_blank_lines(line for _, line in lines)

    def _texts_of_columns(self, stream: BinaryIO, kind: str, place: str) -> Iterator[str]:
        records = columnar.column_records(stream, kind, self.text_field, place)
        undecodable = 0
        for number, record in enumerate(records):
            where = f"{place}, row {number}"
            if any(isinstance(value, columnar.UndecodableText) for value in record.values()):
                if not self.skip_undecodable:
                    raise UserError(f"{where}: not UTF-8; leave such texts out with --gin.SKIP_UNDECODABLE=True.")
                undecodable += 1
                self.skipped["undecodable texts"] += 1
                _check_undecodable(undecodable, number + 1, place, "rows")
                continue
            yield self._text_of({self.text_field: None} if None in record.values() else record, where)

    def _texts_of_table(self, lines: Iterable[str], place: str, delimiter: str) -> Iterator[str]:
        csv.field_size_limit(_LONGEST_DOCUMENT)  # a text may be longer than csv's own limit of 131,072
        # A stray quote in a .tsv usually is text.
        lines = with_quoted_strays(lines) if delimiter == DELIMITERS["tsv"] else lines
        rows = csv.DictReader(lines, delimiter=delimiter, strict=delimiter != DELIMITERS["tsv"])
        try:
            header = list(rows.fieldnames or ())
            if header.count(self.text_field) > 1:
                raise UserError(f"{place}: several columns are named {self.text_field!r}: rename all but one.")
            for row in rows:
                # Spreadsheets write empty cells at the end.
                if any(row.get(None, ())):
                    found = len(header) + len(row[None])
                    raise UserError(
                        f"{place}, line {rows.line_num}: {found} columns, expected {len(header)} "
                        "as the first line has: quote the text that holds a separator, or, if it is plain text, set "
                        "--gin.TEXT_FORMAT='\"documents\"'."
                    )
                if self.text_field not in row:
                    fields = ", ".join(map(repr, rows.fieldnames or ()))
                    raise UserError(
                        f"{place}: no column {self.text_field!r} (columns: {fields}); name the one that holds the text "
                        "with --gin.TEXT_FIELD, or, if it is plain text, set --gin.TEXT_FORMAT='\"documents\"'."
                    )
                # Tables that were joined end to end repeat their header.
                if len(header) > 1 and [*row.values()] == header:
                    self.skipped["repeated headers"] += 1
                    continue
                text = row[self.text_field]
                if text is None:
                    self.skipped["rows without text"] += 1
                yield joined_lines((text or "").split("\n"))
        except csv.Error as error:
            raise UserError(
                f"{place}, line {rows.line_num + 1}: not a table ({error}); correct the row's quotes."
            ) from error

    def _decoded(self, numbered: Iterable[tuple[int, bytes]], place: str, unit: str) -> Iterator[tuple[int, str]]:
        """Yield the lines (or pages) that are UTF-8, with their numbers; count the others, or raise an error."""
        offset = undecodable = number = 0
        for number, raw in numbered:
            start = len(_BYTE_ORDER_MARK) if number == 1 and raw.startswith(_BYTE_ORDER_MARK) else 0
            try:
                yield number, raw[start:].decode("utf-8")
            except UnicodeDecodeError as error:
                if not self.skip_undecodable:
                    compressed = pathlib.PurePosixPath(place).suffix in EXPANSION
                    raise UserError(
                        f"{place} is not UTF-8 at byte {offset + start + error.start} "
                        f"{'of the uncompressed text ' if compressed else ''}({unit} {number}); "
                        f"convert the file, or leave such {unit}s out with --gin.SKIP_UNDECODABLE=True."
                    ) from error
                undecodable += 1
                self.skipped[f"undecodable {unit}s"] += 1
            offset += len(raw)
            if undecodable:
                _check_undecodable(undecodable, number, place, f"{unit}s")

    def _text_of_json(self, line: str, place: str) -> str:
        if not line.strip():
            return ""
        hook = functools.partial(object_with_one, self.text_field)
        value = parse_json(line, Any, place, remedy="correct the line, or leave it out", hook=hook)
        return self._text_of({self.text_field: value} if isinstance(value, str) else value, place)

    def _text_of(self, record: object, place: str) -> str:
        return text_of(record, self.text_field, place=place, skipped=self.skipped)


def _check_undecodable(undecodable: int, number: int, place: str, units: str) -> None:
    """Refuse a file that is not UTF-8 at all.

    Raises:
        UserError: if too many of its lines (or other units) are not UTF-8.
    """
    if undecodable > _FEWEST_UNDECODABLE and undecodable > _MOST_UNDECODABLE * number:
        raise UserError(
            f"{place}: {undecodable} of the first {number} {units} are not UTF-8, too many to be left out with "
            "SKIP_UNDECODABLE: convert the file, for example with iconv -f LATIN1 -t UTF-8, or, if it is no plain "
            "text, set TEXT_FORMAT to 'auto' or leave it out of CORPUS."
        )


def _split_at_doc_tags(lines: Iterable[str]) -> Iterator[str]:
    """Yield the texts between wikiextractor's <doc ...> and </doc>; blank lines within one do not divide it."""
    document: list[str] = []
    for line in lines:
        text = joined_lines([line])
        if re.fullmatch(r"</doc>|<doc\s[^>]*>", text):
            yield "\n".join(document)
            document = []
        elif text:
            document.append(text)
    yield "\n".join(document)


def _split_at_blank_lines(lines: Iterable[str]) -> Iterator[str]:
    document: list[str] = []
    size = 0
    for line in lines:
        text = joined_lines([line])
        if text:
            document.append(text)
            size += len(text)
        if not text or size > _LONGEST_DOCUMENT:
            yield "\n".join(document)
            document = []
            size = 0
    yield "\n".join(document)

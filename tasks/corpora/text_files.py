"""Read text files, plain or compressed, as a corpus: as streams, with file and place of whatever is damaged."""

import contextlib
import csv
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from etils import epath

from electra_jax.errors import UserError
from electra_jax.files import size_and_time
from electra_jax.json_files import parse_json
from electra_jax.tasks.corpora.corpus import Corpus, Document, fingerprint_of, joined_lines
from electra_jax.tasks.corpora.text_format import recognise
from electra_jax.tasks.rows import without_surrogates

# How much larger English text is than its compressed form; only progress depends on it.
_EXPANSION = {".gz": 2.6, ".xz": 3.3, ".zst": 2.8}

# A file without blank lines would be one document however large: it is cut so that memory stays bounded.
_LONGEST_DOCUMENT = 1 << 24  # characters

_HEAD_BYTES = 1 << 14
_DELIMITERS = {"csv": ",", "tsv": "\t"}

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class TextFiles(Corpus):
    """Read files of text. A unit is a file, named by its path from `root` on; its keys are "<unit>#<number>"."""

    def __init__(
        self,
        paths: Iterable[epath.Path],
        *,
        root: epath.Path,
        name: str,
        text_format: str,
        text_field: str,
        skip_undecodable: bool,
    ) -> None:
        """Take the files; nothing is read yet.

        Args:
            paths: the files.
            root: a folder that holds all of them.
            name: a short name for people.
            text_format: see `open.open_corpus`.
            text_field: see `open.open_corpus`.
            skip_undecodable: see `open.open_corpus`.
        """
        self._paths = {path.relative_to(root).as_posix(): path for path in paths}
        super().__init__(name=name, units=self._paths)
        self._text_format = text_format
        self._text_field = text_field
        self._skip_undecodable = skip_undecodable

    @property
    def size_bytes(self) -> int:
        """Return the bytes of text; an estimate for compressed files."""
        return int(sum(size_and_time(path)[0] * _EXPANSION.get(path.suffix, 1) for path in self._paths.values()))

    def fingerprint(self) -> str:
        """Return a hash of the units' names, sizes and times of change, and of how they are read."""
        files = [(unit, *size_and_time(path)) for unit, path in self._paths.items()]
        formats = {unit: self._format_of(path) for unit, path in self._paths.items()}
        # Plain text and JSON lines by suffix keep the hash that caches of them are found by.
        read = {unit: kind for unit, kind in formats.items() if kind != ("jsonl" if ".jsonl" in unit else "documents")}
        how = [read] if self._text_format == "auto" and read else []
        return fingerprint_of(files, self._text_format, self._text_field, self._skip_undecodable, *how)

    def documents(self, unit: str) -> Iterator[Document]:
        """Yield the documents of a file, in order."""
        path = self._paths[unit]
        text_format = self._format_of(path)
        lines = self._lines(path)
        if text_format == "jsonl":
            texts = (self._text_of_json(line, path, number) for number, line in lines)
        elif text_format in _DELIMITERS:
            texts = self._texts_of_table((line for _, line in lines), path, _DELIMITERS[text_format])
        elif text_format == "doc":
            texts = _split_at_doc_tags(line for _, line in lines)
        elif text_format == "lines":
            texts = (line.strip() for _, line in lines)
        else:
            texts = _split_at_blank_lines(line for _, line in lines)
        for number, text in enumerate(text for text in texts if text):
            yield Document(f"{unit}#{number}", text)

    def _format_of(self, path: epath.Path) -> str:
        """Return how a file is read: as TEXT_FORMAT says, or as its first characters show."""
        if self._text_format != "auto":
            return self._text_format
        head = b""
        for raw in _raw_lines(path):
            head += raw
            if len(head) > _HEAD_BYTES:
                break
        suffix = (path.with_suffix("") if path.suffix in _EXPANSION else path).suffix
        return recognise(
            head[:_HEAD_BYTES].decode("utf-8", "replace"), suffix=suffix, text_field=self._text_field, path=str(path)
        )

    def _texts_of_table(self, lines: Iterable[str], path: epath.Path, delimiter: str) -> Iterator[str]:
        csv.field_size_limit(_LONGEST_DOCUMENT)  # a text may be longer than the 131,072 that csv allows of itself
        rows = csv.DictReader(lines, delimiter=delimiter)
        try:
            for row in rows:
                if self._text_field not in row:
                    fields = ", ".join(map(repr, rows.fieldnames or ()))
                    raise UserError(
                        f"{path}: no column {self._text_field!r} (columns: {fields}); "
                        f"name the one that holds the text with --gin.TEXT_FIELD."
                    )
                text = row[self._text_field]
                if text is None:
                    self.skipped["rows without text"] += 1
                yield joined_lines((text or "").split("\n"))
        except csv.Error as error:
            raise UserError(f"{path}, line {rows.line_num}: not a table ({error}); mend the row's quotes.") from error

    def _lines(self, path: epath.Path) -> Iterator[tuple[int, str]]:
        """Yield line numbers (from 1) and lines."""
        offset = 0
        for number, raw in enumerate(_raw_lines(path), start=1):
            start = len(_BYTE_ORDER_MARK) if number == 1 and raw.startswith(_BYTE_ORDER_MARK) else 0
            try:
                yield number, raw[start:].decode("utf-8")
            except UnicodeDecodeError as error:
                if not self._skip_undecodable:
                    place = "of the uncompressed text " if path.suffix in _EXPANSION else ""
                    raise UserError(
                        f"{path} is not UTF-8 at byte {offset + start + error.start} {place}(line {number}); "
                        f"convert the file, or leave such lines out with --gin.SKIP_UNDECODABLE=True."
                    ) from error
                self.skipped["undecodable lines"] += 1
            offset += len(raw)

    def _text_of_json(self, line: str, path: epath.Path, number: int) -> str:
        if not line.strip():
            return ""
        record = parse_json(line, Any, f"{path}, line {number}", remedy="mend the line, or leave it out")
        text = _field(record, self._text_field)
        if text is None and _has_field(record, self._text_field):
            self.skipped["null texts"] += 1
            return ""
        if isinstance(text, list) and all(isinstance(part, str) for part in text):
            text = "\n".join(text)
        if not isinstance(text, str):
            fields = ", ".join(map(repr, record)) if isinstance(record, dict) else "none, it is no JSON object"
            raise UserError(
                f"{path}, line {number}: no text in the field {self._text_field!r} (fields: {fields}); "
                f"name the one that holds the text with --gin.TEXT_FIELD."
            )
        return joined_lines(without_surrogates(text).split("\n"))


def _has_field(record: object, name: str) -> bool:
    """Return whether a record has a field; a dot leads into a nested record unless a field's name holds it."""
    if not isinstance(record, dict):
        return False
    outer, dot, inner = name.partition(".")
    return name in record or (bool(dot) and _has_field(record.get(outer), inner))


def _field(record: object, name: str) -> object:
    """Return the value of a field (see `_has_field`), or None."""
    if not isinstance(record, dict) or not _has_field(record, name):
        return None
    outer, _, inner = name.partition(".")
    return record[name] if name in record else _field(record[outer], inner)


def _split_at_doc_tags(lines: Iterable[str]) -> Iterator[str]:
    """Yield the texts between wikiextractor's <doc ...> and </doc>; blank lines within one do not divide it."""
    document: list[str] = []
    for line in lines:
        text = line.strip()
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
        text = line.strip()
        if text:
            document.append(text)
            size += len(text)
        if not text or size > _LONGEST_DOCUMENT:
            yield "\n".join(document)
            document = []
            size = 0
    yield "\n".join(document)


def _raw_lines(path: epath.Path) -> Iterator[bytes]:
    try:
        if path.suffix in _EXPANSION and size_and_time(path)[0] == 0:
            raise EOFError("the file is empty")
        with _open(path) as stream:
            yield from stream
    except EOFError as error:
        raise UserError(
            f"{path} is truncated: its compressed text breaks off ({error}); fetch or make the file again."
        ) from error
    except (zlib.error, lzma.LZMAError, gzip.BadGzipFile, _DamagedError) as error:
        raise UserError(f"{path} is damaged or not what its suffix says ({error}).") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error


@contextlib.contextmanager
def _open(path: epath.Path) -> Iterator[BinaryIO]:
    with path.open("rb") as file:
        if path.suffix == ".gz":
            with gzip.open(file) as stream:
                yield stream
        elif path.suffix == ".xz":
            with lzma.open(file) as stream:
                yield stream
        elif path.suffix == ".zst":
            yield io.BufferedReader(_ZstandardReader(file, path))
        else:
            yield file


class _DamagedError(Exception):
    """Report compressed data that cannot be decompressed."""


class _ZstandardReader(io.RawIOBase):
    """Read the frames of a .zst file. (The library's own reader takes a truncated file for a complete one.)"""

    def __init__(self, file: BinaryIO, path: epath.Path) -> None:
        try:
            import zstandard
        except ImportError as error:
            raise UserError(
                f"{path} needs the package zstandard: install it, or recompress the file as .gz or .xz."
            ) from error
        self._zstandard = zstandard
        self._file = file
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._compressed = b""
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        while not self._ready:
            self._compressed = self._compressed or self._file.read(1 << 16)
            if not self._compressed:
                if self._frame is not None:
                    raise EOFError("the last frame is not complete")
                return 0
            self._decompress()
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size

    def _decompress(self) -> None:
        frame = self._frame or self._zstandard.ZstdDecompressor().decompressobj()
        try:
            self._ready = frame.decompress(self._compressed)
        except self._zstandard.ZstdError as error:
            raise _DamagedError(str(error)) from error
        self._compressed = frame.unused_data
        self._frame = None if frame.eof else frame

"""Read text files, plain or compressed, as a corpus: as streams, with file and place of whatever is damaged."""

import contextlib
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from etils import epath

from electra_jax.errors import UserError
from electra_jax.files import size_and_time
from electra_jax.tasks.corpora.corpus import Corpus, Document, fingerprint_of, joined_lines

# How much larger English text is than its compressed form; only progress depends on it.
_EXPANSION = {".gz": 2.6, ".xz": 3.3, ".zst": 2.8}

# A file without blank lines would be one document however large: it is cut so that memory stays bounded.
_LONGEST_DOCUMENT = 1 << 24  # characters

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
        return fingerprint_of(files, self._text_format, self._text_field, self._skip_undecodable)

    def documents(self, unit: str) -> Iterator[Document]:
        """Yield the documents of a file, in order."""
        path = self._paths[unit]
        text_format = self._text_format
        if text_format == "auto":
            uncompressed = path.with_suffix("") if path.suffix in _EXPANSION else path
            text_format = "jsonl" if uncompressed.suffix == ".jsonl" else "documents"
        lines = self._lines(path)
        if text_format == "jsonl":
            texts = (self._text_of_json(line, path, number) for number, line in lines)
        elif text_format == "lines":
            texts = (line.strip() for _, line in lines)
        else:
            texts = _split_at_blank_lines(line for _, line in lines)
        for number, text in enumerate(text for text in texts if text):
            yield Document(f"{unit}#{number}", text)

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
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number}: not JSON ({error.msg}, column {error.colno}).") from error
        text = record.get(self._text_field) if isinstance(record, dict) else None
        if not isinstance(text, str):
            fields = ", ".join(map(repr, record)) if isinstance(record, dict) else "none, it is no JSON object"
            raise UserError(
                f"{path}, line {number}: no text in the field {self._text_field!r} (fields: {fields}); "
                f"name the one that holds the text with --gin.TEXT_FIELD."
            )
        return joined_lines(text.split("\n"))


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

"""Open files, plain or compressed as their first bytes show, and turn damaged bytes into a one-sentence error."""

import bz2
import contextlib
import gzip
import io
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

from etils import epath

from electra_jax.errors import UserError

# How much larger English text is than its compressed form; used only to show progress.
EXPANSION = {".gz": 2.6, ".xz": 3.3, ".zst": 2.8, ".bz2": 3.4}

# Bytes of a file that are examined to recognise it; the last ones needed are those of tar's magic.
HEAD_BYTES = 1 << 14

_MAGIC = {b"\x1f\x8b\x08": ".gz", b"\xfd7zXZ\x00": ".xz", b"\x28\xb5\x2f\xfd": ".zst"}
# pzstd begins each of its frames with a frame that holds no text.
_ZSTANDARD_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")
# How far back a frame may refer (`zstd --long=31`); a reader needs as much memory.
_LARGEST_WINDOW = 1 << 31
# The header of a .bz2 file is followed by a block of text or, in an empty file, by the end.
_BZIP2_MAGIC = (b"1AY&SY", b"\x17rE8P\x90")

_MOST_COMPRESSIONS = 4


class Content(NamedTuple):
    """Hold the content of a file, decompressed.

    Attributes:
        head: its first `HEAD_BYTES` bytes, or all if there are fewer.
        stream: reads it from the beginning.
        seekable: whether the stream is a file that can be read at any place.
    """

    head: bytes
    stream: BinaryIO
    seekable: bool


class DamagedError(Exception):
    """Report bytes that the file's format does not allow."""


@contextlib.contextmanager
def open_content(path: epath.Path) -> Iterator[Content]:
    """Open a file, decompressed if its first bytes are those of a compression.

    Errors of any library while the body reads the file become one sentence too.

    Raises:
        UserError: if the file cannot be read, or is truncated or damaged.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            file.seek(0)
            suffix = path.suffix if path.suffix in EXPANSION else ""
            if suffix and not head:
                raise EOFError("the file is empty")
            if suffix and compression_of(head) is None:
                raise DamagedError(f"it is not compressed as {suffix}")
            yield decompressed(Content(head, file, seekable=True), str(path))
    except EOFError as error:
        raise UserError(
            f"{path} is truncated: its compressed text breaks off ({error}); fetch or make the file again."
        ) from error
    except (zlib.error, lzma.LZMAError, gzip.BadGzipFile, zipfile.BadZipFile, tarfile.TarError, DamagedError) as error:
        raise UserError(
            f"{path} is damaged, truncated or not what its name and first bytes say ({error}); fetch or make it again."
        ) from error
    except OSError as error:
        # Libraries raise OSError without a number for damaged compressed data.
        reason = error.strerror or f"{error}; it may be damaged: fetch or make it again"
        raise UserError(f"{path} cannot be read ({reason}).") from error


def decompressed(content: Content, place: str) -> Content:
    """Return the decompressed content of a compressed one, even if it was compressed several times.

    Args:
        content: a content that is compressed, as its first bytes show, or any other, which is returned unchanged.
        place: its place, for the error.

    Raises:
        UserError: if the package that decompresses it is not installed.
        DamagedError: if decompression does not end: a file may decompress to itself.
    """
    for _ in range(_MOST_COMPRESSIONS):
        compression = compression_of(content.head)
        if compression is None:
            return content
        content = content_of(_OPENERS[compression](content.stream, place))
    raise DamagedError(f"it is compressed more than {_MOST_COMPRESSIONS - 1} times")


def content_of(stream: BinaryIO) -> Content:
    """Return the content of a stream, which is read from its current position and need not be seekable."""
    head = stream.read(HEAD_BYTES)
    return Content(head, io.BufferedReader(_Rejoined(head, stream), 1 << 16), seekable=False)


def with_line_feeds(content: Content) -> Content:
    """Return a content with line feeds in place of the carriage returns that end its lines, as on an old Macintosh."""
    # A carriage return at the very end of the head may precede a line feed.
    if b"\n" in content.head or b"\r" not in content.head[:-1]:
        return content
    return Content(content.head.replace(b"\r", b"\n"), io.BufferedReader(_LineFeeds(content.stream)), seekable=False)


def compression_of(head: bytes) -> str | None:
    """Return the usual suffix of the compression that a file begins with, or None."""
    if head[:3] == b"BZh" and head[4:10] in _BZIP2_MAGIC:
        return ".bz2"
    if _ZSTANDARD_SKIPPABLE.match(head):
        return ".zst"
    return next((suffix for magic, suffix in _MAGIC.items() if head.startswith(magic)), None)


class _Rejoined(io.RawIOBase):
    """Read a stream from its beginning again after its head has been read."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._head = memoryview(head)
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        ready = self._head[: len(buffer)] or self._stream.read(len(buffer))
        self._head = self._head[len(buffer) :]
        buffer[: len(ready)] = ready
        return len(ready)


class _LineFeeds(io.RawIOBase):
    """Read a stream with its carriage returns replaced by line feeds."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        found = self._stream.read(len(buffer))
        buffer[: len(found)] = found.replace(b"\r", b"\n")
        return len(found)


class _ZstandardReader(io.RawIOBase):
    """Read the frames of a .zst file. (The library's own reader accepts a truncated file as complete.)"""

    def __init__(self, file: BinaryIO, place: str) -> None:
        try:
            import zstandard
        except ImportError as error:
            raise UserError(
                f"{place} needs the package zstandard: install it, or recompress the file as .gz or .xz."
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
        frame = self._frame or self._zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW).decompressobj()
        try:
            self._ready = frame.decompress(self._compressed)
        except self._zstandard.ZstdError as error:
            raise DamagedError(str(error)) from error
        self._compressed = frame.unused_data
        self._frame = None if frame.eof else frame


class _StreamsReader(io.RawIOBase):
    """Read the streams of a .bz2 or .xz file, one after another.

    The library's own readers silently ignore whatever follows the first stream if it is damaged or of another kind.
    """

    def __init__(self, file: BinaryIO, new: Callable[[], bz2.BZ2Decompressor | lzma.LZMADecompressor]) -> None:
        self._file, self._new = file, new
        self._stream = new()
        self._begun = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        while True:
            given = b""
            if self._stream.eof:
                given = self._stream.unused_data
                self._stream, self._begun = self._new(), False
            if not given and self._stream.needs_input:
                given = self._file.read(1 << 16)
                if not given and not self._begun:
                    return 0
                if not given:
                    raise EOFError("the last stream is not complete")
            # Zeros may pad the blocks of a tape.
            given = given if self._begun else given.lstrip(b"\0")
            if not given and not self._begun:
                continue
            self._begun = True
            found = self._stream.decompress(given, len(buffer))
            if found:
                buffer[: len(found)] = found
                return len(found)


_OPENERS: dict[str, Callable[[BinaryIO, str], BinaryIO]] = {
    ".gz": lambda stream, _: gzip.GzipFile(fileobj=stream),
    ".xz": lambda stream, _: io.BufferedReader(_StreamsReader(stream, lzma.LZMADecompressor), 1 << 16),
    ".bz2": lambda stream, _: io.BufferedReader(_StreamsReader(stream, bz2.BZ2Decompressor), 1 << 16),
    ".zst": lambda stream, place: io.BufferedReader(_ZstandardReader(stream, place)),
}

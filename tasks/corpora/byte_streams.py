"""Open files plain or compressed, as their first bytes say, and turn what is wrong with their bytes into a sentence."""

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

# How much larger English text is than its compressed form; only progress depends on it.
EXPANSION = {".gz": 2.6, ".xz": 3.3, ".zst": 2.8, ".bz2": 3.4}

# Bytes of a file that are looked at to recognise it; those of tar's magic are the last needed.
HEAD_BYTES = 1 << 14

_MAGIC = {b"\x1f\x8b\x08": ".gz", b"\xfd7zXZ\x00": ".xz", b"\x28\xb5\x2f\xfd": ".zst"}
# A frame that holds no text begins each of the frames that pzstd writes.
_ZSTANDARD_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")
# How far back a frame may refer (`zstd --long=31`), which is memory while it is read.
_LARGEST_WINDOW = 1 << 31
# A block of text or, in an empty file, the end follows the header of a .bz2 file.
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
    """Report bytes that are not what the file's kind demands."""


@contextlib.contextmanager
def open_content(path: epath.Path) -> Iterator[Content]:
    """Open a file, decompressed if its first bytes are those of a compression.

    What goes wrong in the body while the file is read, by whichever library, ends in one sentence too.

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
        # Libraries raise it, without a number, for compressed data that is damaged.
        reason = error.strerror or f"{error}; it may be damaged: fetch or make it again"
        raise UserError(f"{path} cannot be read ({reason}).") from error


def decompressed(content: Content, place: str) -> Content:
    """Return the content of a compressed content, also of one that was compressed several times.

    Args:
        content: what its first bytes say is compressed, or anything else, which is returned as it is.
        place: where it stands, for the error.

    Raises:
        UserError: if the package that decompresses it is not installed.
        DamagedError: if there is no end to it: a file may be made that decompresses to itself.
    """
    for _ in range(_MOST_COMPRESSIONS):
        compression = compression_of(content.head)
        if compression is None:
            return content
        content = content_of(_OPENERS[compression](content.stream, place))
    raise DamagedError(f"it is compressed more than {_MOST_COMPRESSIONS - 1} times")


def content_of(stream: BinaryIO) -> Content:
    """Return the content of a stream, which is read from here on and need not be seekable."""
    head = stream.read(HEAD_BYTES)
    return Content(head, io.BufferedReader(_Rejoined(head, stream), 1 << 16), seekable=False)


def with_line_feeds(content: Content) -> Content:
    """Return a content with line feeds in the place of carriage returns that end its lines, as on an old Macintosh."""
    # A carriage return at the very end of the head may stand before a line feed.
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
    """Read a stream from its beginning again, of which the head was read already."""

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
    """Read a stream with line feeds in the place of its carriage returns."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        found = self._stream.read(len(buffer))
        buffer[: len(found)] = found.replace(b"\r", b"\n")
        return len(found)


class _ZstandardReader(io.RawIOBase):
    """Read the frames of a .zst file. (The library's own reader takes a truncated file for a complete one.)"""

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

    The library's own readers take what follows the first one for nothing if it is damaged, or of another kind.
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
            # Zeros may fill up the blocks of a tape.
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

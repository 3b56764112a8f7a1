"""Read the members of archives, and the texts of WET files, one after another."""

import re
import tarfile
import zipfile
from collections.abc import Iterator
from typing import BinaryIO

from electra_jax.errors import UserError
from electra_jax.tasks.corpora.byte_streams import DamagedError
from electra_jax.tasks.corpora.text_format import zip_application

# Files that macOS and archivers add, and that no user means.
_NOT_MEANT = re.compile(r"(.*/)?(__MACOSX/.*|\._[^/]*|\.DS_Store|Thumbs\.db)")

# Largest record in bytes, because a whole record is kept in memory. Common Crawl cuts pages at a megabyte.
_LONGEST_RECORD = 1 << 27


def members(stream: BinaryIO, kind: str, place: str) -> Iterator[tuple[str, BinaryIO]]:
    """Yield the name and the bytes of each file in an archive, "zip" or "tar", in archive order.

    Each member must be read before the next one is requested.

    Raises:
        UserError: if a zip archive is an application's document, needs a password, or uses an unknown compression.
        DamagedError, BadZipFile, TarError: if the archive is truncated or damaged.
    """
    return (_zip_members if kind == "zip" else _tar_members)(stream, place)


def _zip_members(stream: BinaryIO, place: str) -> Iterator[tuple[str, BinaryIO]]:
    with zipfile.ZipFile(stream) as archive:
        if application := zip_application(archive.namelist()):
            what, advice = application
            raise UserError(f"{place} is {what}, which is not read: {advice}.")
        for entry in archive.infolist():
            if entry.is_dir() or _NOT_MEANT.fullmatch(entry.filename):
                continue
            try:
                member = archive.open(entry)
            except RuntimeError as error:
                raise UserError(f"{place}, {entry.filename}: it needs a password; unpack the archive first.") from error
            except NotImplementedError as error:
                raise UserError(f"{place}, {entry.filename}: {error}; unpack the archive first.") from error
            with member:
                yield entry.filename, member


def _tar_members(stream: BinaryIO, place: str) -> Iterator[tuple[str, BinaryIO]]:
    del place
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for entry in archive:
            # Members that were yielded are not needed again; `tarfile` would keep millions of them.
            archive.members = []
            member = archive.extractfile(entry) if entry.isfile() else None
            if member is not None and not _NOT_MEANT.fullmatch(entry.name):
                yield entry.name, member


def wet_records(stream: BinaryIO, place: str) -> Iterator[bytes]:
    """Yield the text of each page of a WET file (WARC/1.0, ISO 28500: records of the type "conversion").

    Raises:
        UserError: if the file holds pages as they were fetched (WARC or WAT).
        DamagedError: if a record breaks off, or is not a record.
    """
    while line := _line(stream):
        if not line.strip():
            continue
        if not line.startswith(b"WARC/1."):
            raise DamagedError("no record of WARC begins where one must")
        fields: dict[str, str] = {}
        while header := _line(stream).strip():
            name, _, value = header.decode("utf-8", "replace").partition(":")
            fields[name.strip().lower()] = value.strip()
        kind, length = fields.get("warc-type"), fields.get("content-length", "")
        if kind in ("response", "resource", "request", "metadata"):
            raise UserError(
                f"{place} is a WARC file of fetched pages or of facts about them, which is not read: take its WET file."
            )
        if not re.fullmatch("[0-9]{1,18}", length):
            raise DamagedError("a record has no length")
        if int(length) > _LONGEST_RECORD:
            raise DamagedError(f"a record of {length} bytes is longer than any page")
        content = stream.read(int(length))
        if len(content) < int(length):
            raise DamagedError(f"a record of {length} bytes has {len(content)}")
        if kind == "conversion":
            yield content


def _line(stream: BinaryIO) -> bytes:
    # No header is longer, and a file of another kind may have no line end at all.
    return stream.readline(1 << 16)

"""Name and replace files, on the local disk and in Google Cloud Storage.

Paths are those of `etils.epath`, which Orbax and TFDS use too. A `gs://` path is read and written through TensorFlow,
which is imported at the first such path.
"""

import contextlib
import errno
import importlib.util
import itertools
import logging
import os
import re
import shutil
import stat
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from electra_jax.errors import UserError, causes
from electra_jax.locks import try_lock

if TYPE_CHECKING:
    from etils import epath

logger = logging.getLogger(__name__)

# The errors of the system if a user has no permission to write.
NOT_WRITABLE = (errno.EACCES, errno.EROFS, errno.EPERM)

# The most checks of a directory to which a thread may still write, the seconds between them, and the number of checks
# in a row that must find it absent.
LOOKS, PAUSE, ABSENCES = 100, 0.05, 10

AnyPath = TypeVar("AnyPath", Path, "epath.Path")


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is in an object store."""
    return os.fspath(path).startswith("gs://")


def path_of(name: str | os.PathLike[str]) -> "epath.Path":
    """Turn a user-given name into a path: a local one, or `gs://BUCKET/...`.

    Raises:
        UserError: if it is in another kind of object store, its `gs://` is misspelt, or the package that `gs://` needs
            is not installed.
    """
    text = os.fspath(name)
    if is_remote(text):
        if not re.match(r"gs://[^/]+/.", text):
            raise UserError(f"{text} is not a path in a bucket: write gs://BUCKET/FOLDER")
        if not has_client():
            raise UserError(f"{text} needs the package google-cloud-storage: install electra-jax with its extra gcs")
    elif found := re.match(r"(\w[\w+.-]+):/", text):
        raise UserError(f"{text} is neither a local path nor gs://BUCKET/...: {found[1]} is not read or written")
    # Imported late, so that help and mistakes are answered at once.
    from etils import epath

    return epath.Path(text)


def local(name: str | os.PathLike[str], what: str) -> Path:
    """Turn a user-given name into a path on this machine's disk.

    Args:
        name: the path.
        what: the setting or argument that holds it, for the error.

    Raises:
        UserError: if the path is in an object store.
    """
    if is_remote(name):
        raise UserError(f"{what} is {os.fspath(name)}: it must be on this machine's disk; copy with gcloud storage cp")
    return Path(path_of(name))


def regular(path: AnyPath) -> AnyPath:
    """Return a path unless it is a pipe or a device, which may keep its reader waiting, or never end.

    Raises:
        OSError: if it is.
    """
    # `epath` takes everything that is not a folder for a file.
    if not is_remote(path) and os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise OSError(errno.EINVAL, "it is a pipe or a device: write its content to a file", str(path))
    return path


def check_no_pattern(directory: str | os.PathLike[str]) -> None:
    """Check that checkpoints can be written below a directory: Orbax finds the parts of a checkpoint by glob patterns.

    Raises:
        UserError: if its path holds a glob character or a backslash.
    """
    check_no_backslash(directory)
    if re.search(r"[*?[]", os.fspath(directory)):
        raise UserError(
            f"{os.fspath(directory)} holds one of * ? [, which Orbax takes for a pattern: name another directory"
        )


def check_no_backslash(directory: str | os.PathLike[str]) -> None:
    """Check that the checkpoints below a directory can be found.

    Raises:
        UserError: if its path holds a backslash.
    """
    if "\\" in os.fspath(directory):
        raise UserError(f"{os.fspath(directory)} holds a backslash, which Orbax takes for a /: rename the directory")


def has_client() -> bool:
    """Return whether the library that Orbax needs to query a bucket is installed."""
    try:
        return importlib.util.find_spec("google.cloud.storage") is not None
    except ModuleNotFoundError:
        return False


def absolute(name: str | os.PathLike[str]) -> "epath.Path":
    """Turn a user-given name into an absolute path, as Orbax requires.

    Raises:
        UserError: if `path_of` refuses the name.
    """
    path = path_of(name)
    return path if is_remote(path) else path.absolute()


def refusal(error: BaseException) -> str | None:
    """Return a sentence for the user about an object store's error, or None for any other error.

    TensorFlow, TensorStore and Google's own client each have their own errors; none is imported to recognise one.
    """
    for link in causes(error):
        library, text = type(link).__module__, " ".join(str(link).split())
        of_client = library.startswith(("google.cloud.", "google.api_core.", "google.auth."))
        of_tensorflow = (library.startswith("tensorflow.") or isinstance(link, OSError)) and "gs://" in text
        of_tensorstore = isinstance(link, ValueError) and re.search("Error (reading|writing|deleting) .*gs://", text)
        if of_client or of_tensorflow or of_tensorstore:
            return (
                f"Google Cloud Storage refused ({type(link).__name__}: {text[:300]}): check the bucket's name, that "
                "this machine's account may use it, and the network; what is saved there is untouched"
            )
    return None


def check_replaceable(path: AnyPath) -> None:
    """Refuse a path that a new file must not replace: root could otherwise replace /dev/null by its output.

    Raises:
        UserError: if a directory, a pipe or a device has this name.
    """
    if os.path.isdir(path):
        raise UserError(f"{path} is a directory, and a file is to be written there: rename or remove it")
    with contextlib.suppress(OSError):
        if not stat.S_ISREG(mode := os.lstat(path).st_mode) and not stat.S_ISLNK(mode):
            raise UserError(f"{path} is a pipe or a device, and a file is to be written there: name another file")


@contextlib.contextmanager
def replacing(path: AnyPath, *, durable: bool = False) -> Iterator[AnyPath]:
    """Yield a path next to `path` for the body to write; it replaces `path` once the body has succeeded.

    Readers find the old file or the new one, whole. After an error the old one stays, and the new one is removed.

    Args:
        path: local or remote.
        durable: whether the file must survive a crash of the machine: a local file is then synced to the disk before it
            takes its name, and its folder afterwards.

    Raises:
        UserError: if a directory, a pipe or a device has its name.
    """
    if not is_remote(path):
        check_replaceable(path)
    part = path.with_name(f"{path.name}.part")
    if not is_remote(part):
        remove_unless_regular(part)
    try:
        yield part
        if durable and not is_remote(part):
            _sync(part)
        part.replace(path)
        if durable and not is_remote(path):
            _sync(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def remove_unless_regular(path: AnyPath) -> None:
    """Remove a path that is about to be rewritten, unless it is an ordinary file.

    In a directory that somebody else made it may be a link or a pipe, which must not be written through.
    """
    with contextlib.suppress(OSError):
        if not stat.S_ISREG(os.lstat(path).st_mode):
            os.unlink(path)


def _sync(path: "Path | epath.Path") -> None:
    """Sync a local file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def set_aside(path: "Path | epath.Path", reason: str) -> None:
    """Rename a damaged file to a free name next to it, and log a warning.

    Args:
        path: local or remote.
        reason: what is wrong with it.
    """
    number = next(
        number for number in itertools.count(1) if not path.with_name(f"{path.name}.damaged{number}").exists()
    )
    aside = path.with_name(f"{path.name}.damaged{number}")
    path.rename(aside)
    logger.warning("%s is damaged (%s): it is set aside as %s", path, reason, aside.name)


def replace_file(path: "Path | epath.Path", content: str | bytes, *, durable: bool = False) -> None:
    """Write a file so that readers find the old content or the new, whole.

    Args:
        path: local or remote.
        content: text is written as UTF-8.
        durable: see `replacing`.
    """
    with replacing(path, durable=durable) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def replacing_directory(directory: Path) -> Iterator[Path]:
    """Yield an empty local directory to fill; it replaces `directory` once the body has succeeded.

    After an error the old directory stays, and the new one is removed; one that a killed process left is emptied first.

    Raises:
        UserError: if another process is filling it.
    """
    part = directory.with_name(f"{directory.name}.part")
    with _sole_filler(part):
        try:
            for left in part.iterdir():
                shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
            yield part
            shutil.rmtree(directory, ignore_errors=True)
            part.rename(directory)
        except BaseException:
            _remove_while_written(part)
            raise


def _remove_while_written(directory: Path) -> None:
    """Remove a directory to which threads of a failed library call may still write for a moment."""
    absent = 0
    for _ in range(LOOKS):
        absent = 0 if directory.exists() else absent + 1
        if absent == ABSENCES:
            return
        shutil.rmtree(directory, ignore_errors=True)
        time.sleep(PAUSE)


@contextlib.contextmanager
def _sole_filler(part: Path) -> Iterator[None]:
    """Make a directory unless it exists, and hold the system's lock on it; no effect if there are no locks.

    Raises:
        UserError: if another process holds it.
    """
    while True:
        # A link that somebody else left may lead to a directory that must not be emptied.
        if part.is_symlink():
            part.unlink()
        part.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(part, os.O_RDONLY | os.O_NOFOLLOW)
        if not try_lock(descriptor):
            os.close(descriptor)
            raise UserError(
                f"{part} is being written by another process: wait until it ends, or name another destination"
            )
        # The previous holder may have renamed it between its opening and its locking here.
        if part.exists() and os.path.samestat(os.fstat(descriptor), part.stat()):
            break
        os.close(descriptor)
    try:
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def disk_errors_for_users(directory: str | os.PathLike[str]) -> Iterator[None]:
    """Turn disk errors (full, read-only, forbidden) into a UserError that names `directory`.

    Raises:
        UserError: if the disk is full, or the directory cannot be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"the disk of {directory} is full: make room or name another CACHE_DIR, then start again; "
                "what is finished is kept"
            ) from error
        if error.errno in NOT_WRITABLE:
            raise UserError(f"{directory} cannot be written ({error.strerror}): name another CACHE_DIR") from error
        raise


def size_and_time(path: "Path | epath.Path") -> tuple[int, int]:
    """Return a file's size in bytes and modification time in nanoseconds; an object store knows only whole seconds."""
    if is_remote(path):
        state = path.stat()
        return state.length, state.mtime * 10**9
    local_state = os.stat(path)
    return local_state.st_size, local_state.st_mtime_ns


def size_and_crc32(path: "Path | epath.Path") -> list[int]:
    """Return [size in bytes, CRC-32] of a file's content, which is read once, in pieces.

    Raises:
        OSError: if the file cannot be read, or is a pipe or a device.
    """
    size = crc = 0
    with regular(path).open("rb") as stream:
        while piece := stream.read(1 << 22):
            size += len(piece)
            crc = zlib.crc32(piece, crc)
    return [size, crc]


def is_writable(folder: Path) -> bool:
    """Return whether a file can be made in a local folder; permissions alone do not tell this on a shared disk."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False

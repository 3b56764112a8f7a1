"""Files that exist only when they are whole, and what is said when the disk is full."""

import contextlib
import errno
import fcntl
import os
import pathlib
import sys
from collections.abc import Iterator

from etils import epath

from electra_jax.errors import UserError
from electra_jax.files import is_remote


@contextlib.contextmanager
def disk_errors_for_users(directory: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what the disk refuses (full, read-only, forbidden) into a UserError that names `directory`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"The disk of {directory} is full: make room or name another CACHE_DIR, then start again; "
                "what is finished is kept."
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise UserError(f"{directory} cannot be written ({error.strerror}): name another CACHE_DIR.") from error
        raise


@contextlib.contextmanager
def sole_builder(lock_file: pathlib.Path) -> Iterator[None]:
    """Hold a lock that the system frees when its holder dies, waiting for another process that holds it."""
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    with open(lock_file, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Waiting for another process that holds {lock_file}.", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def size_and_time(path: epath.Path | pathlib.Path) -> tuple[int, int]:
    """Return a file's bytes and when it was changed, in nanoseconds, of which an object store knows the seconds."""
    if is_remote(path):
        state = path.stat()
        return state.length, state.mtime * 10**9
    local = os.stat(path)
    return local.st_size, local.st_mtime_ns


def write_text_atomically(path: epath.Path | pathlib.Path, text: str) -> None:
    """Write beside `path`, then rename."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)

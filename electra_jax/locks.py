"""Lock files with the system's locks, which end with the process that holds them."""

import contextlib
import errno
import fcntl
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

# The errors of file systems without locks: NFS without its lock service, Lustre mounted without `flock`.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


def open_lock(path: Path) -> IO[str]:
    """Open a lock file for reading and writing, creating it if needed; a link is not followed.

    Raises:
        OSError: if it cannot be opened, or is not a regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(
                errno.ELOOP, "it is a symbolic link, which a lock may not be: remove it", str(path)
            ) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is a pipe or a device, which a lock may not be: remove it", str(path))
    return os.fdopen(descriptor, "r+", encoding="utf-8")


def try_lock(file: IO[str] | int) -> bool:
    """Take the system's lock on an open file, and return whether no other process holds it.

    If a file system has no locks, the result is always True.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return True


@contextlib.contextmanager
def sole_builder(lock_file: Path) -> Iterator[int]:
    """Hold a lock that the system frees when its last holder dies; wait while other processes hold it.

    Yields:
        The lock's file descriptor; a child process that inherits it holds the lock too.
    """
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    with open_lock(lock_file) as file:
        if not try_lock(file):
            print(f"waiting for another process that holds {lock_file}", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()

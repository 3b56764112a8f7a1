"""Give a MODEL_DIR one owner: while a run writes there, other runs are refused.

The lock is the kernel's (flock) on a file in the directory, and it ends with the process that holds it, however that
process ends: a file that a killed run left is taken over. If a run has several processes, its leader holds the lock.
"""

import contextlib
import datetime
import fcntl
import functools
import json
import logging
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Concatenate, ParamSpec, Protocol

from electra_jax.distributed import processes
from electra_jax.errors import UserError
from electra_jax.files import check_no_pattern, is_remote, path_of
from electra_jax.locks import NO_LOCKS, open_lock
from electra_jax.run_directory import LOCK

logger = logging.getLogger(__name__)

Others = ParamSpec("Others")


class HasModelDir(Protocol):
    """Declare the field of a run's configuration that is used here."""

    model_dir: str


Run = Callable[Concatenate[Any, Others], None]


def owning_model_dir(command: str) -> Callable[[Run], Run]:
    """Return a decorator for a command's `run`, which then owns its configuration's MODEL_DIR until it ends.

    Args:
        command: the command's name, for runs that are refused.
    """

    def decorate(run: Run) -> Run:
        @functools.wraps(run)
        def owning(configuration: HasModelDir, *others: Others.args, **named: Others.kwargs) -> None:
            with owned(configuration.model_dir, command):
                run(configuration, *others, **named)

        return owning

    return decorate


@contextlib.contextmanager
def owned(model_dir: str | os.PathLike[str], command: str) -> Iterator[None]:
    """Own a directory during the body; it is made if it does not exist, and removed again if it is empty afterwards.

    An object store has no locks: there, and on a file system without locks, nothing is refused.

    Args:
        model_dir: the directory.
        command: the name of the command that asks, for runs that are refused.

    Raises:
        UserError: if another run owns it, or checkpoints cannot be written below it.
    """
    check_no_pattern(model_dir)
    if is_remote(model_dir) or not processes.leader():
        yield
        return
    directory = Path(path_of(model_dir))
    with _made(directory), contextlib.ExitStack() as stack:
        if (file := _locked(directory / LOCK)) is not None:
            # Closing the file releases the lock, so it must come after removing the file.
            stack.enter_context(file)
            stack.callback((directory / LOCK).unlink, missing_ok=True)
            file.truncate(0)
            file.write(json.dumps(_holder(command)) + "\n")
            file.flush()
        yield


@contextlib.contextmanager
def _made(directory: Path) -> Iterator[None]:
    """Make a directory and its parents for the body; those that were made and are empty afterwards are removed."""
    made = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            for path in made:
                path.rmdir()


def _locked(path: Path) -> IO[str] | None:
    """Return a file with an exclusive lock; None if the file system has no locks.

    Raises:
        UserError: if another process holds the lock.
    """
    while True:
        file = open_lock(path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read()
            file.close()
            raise UserError(
                f"{path.parent} is in use by {_words(holder)}: wait until it ends or stop it, or use another MODEL_DIR"
            ) from error
        except OSError as error:
            file.close()
            if error.errno not in NO_LOCKS:
                raise
            path.unlink(missing_ok=True)
            logger.warning(
                "the file system of %s has no locks (%s): make sure that no other run writes there",
                path.parent,
                error.strerror,
            )
            return None
        # The previous holder may have removed the file between its opening and its locking here.
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
        file.close()


def _holder(command: str) -> dict[str, Any]:
    """Return the facts about this process that a refused run is told."""
    since = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"command": command, "process": os.getpid(), "host": platform.node(), "since": since}


def _words(holder: str) -> str:
    """Return a clause about the holder of a lock, from the text of its file."""
    try:
        return "`{command}` (process {process} on {host}, since {since})".format_map(json.loads(holder))
    except (ValueError, KeyError, TypeError):
        # The holder has not written it yet.
        return "another process"

"""Define the exceptions that end a run early, its exit codes, and sentences about file-system errors."""

import errno
from collections.abc import Iterator

# The exit code of a run that should be started again with the same command (EX_TEMPFAIL): see docs/outgrowing.md.
PREEMPTED = 75


class UserError(Exception):
    """A mistake that the user can fix: its message says in one sentence what is wrong, where, and what to do.

    The command line prints the sentence and exits with code 2; a traceback is shown only under `--verbose`.
    """


class Preempted(Exception):  # noqa: N818 - nothing went wrong
    """A run was stopped by the platform and has saved everything: the command line exits with `PREEMPTED`."""


class Terminated(KeyboardInterrupt):
    """A signal ended a command outside of a training loop; code that lets Ctrl-C through lets this through.

    The command line exits with `PREEMPTED`, since the same command finds everything that was finished.
    """


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and every error that caused it or was being handled when it was raised, each once."""
    left = [error]
    seen: set[int] = set()
    while left:
        link = left.pop()
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        left += [earlier for earlier in (link.__cause__, link.__context__) if earlier is not None]


def is_full_disk(error: BaseException) -> bool:
    """Return whether a full disk caused an error, whatever library raised it."""
    return any(getattr(link, "errno", None) == errno.ENOSPC or "No space left" in str(link) for link in causes(error))


def is_closed_output(error: BaseException) -> bool:
    """Return whether the reader of the output has gone, such as `| head`, or the terminal."""
    return any(isinstance(link, OSError) and link.errno in (errno.EPIPE, errno.EIO) for link in causes(error))


def explain_os_error(error: BaseException) -> str | None:
    """Return a sentence about a file-system error, or None for any other error.

    Closing files on a full disk raises further errors; the sentence about the first error is the one that helps.
    """
    chain = list(causes(error))
    if is_full_disk(error):
        places = (f" of {link.filename}" for link in chain if getattr(link, "filename", None))
        known = (str(link) for link in chain if isinstance(link, UserError))
        return next(known, f"the disk{next(places, '')} is full: free some space and run the same command again")
    if is_closed_output(error):
        return "standard output was closed by what read it: send the output to a file"
    # For example, a folder cannot be made at the path of a file.
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename} cannot be used ({error.strerror}): name another path, or put this one right"
    return None

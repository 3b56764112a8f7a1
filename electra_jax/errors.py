"""What ends a run early: a user's mistake, or the wish of the platform; and what a full disk looks like."""

import errno
from collections.abc import Iterator

# The exit code of what should be run again as it is (EX_TEMPFAIL): see docs/outgrowing.md.
PREEMPTED = 75


class UserError(Exception):
    """What is wrong, where, and what to do about it, in one sentence.

    The command line prints the sentence and exits with code 2; a traceback is shown only under `--verbose`.
    """


class Preempted(Exception):  # noqa: N818 - nothing went wrong
    """Asked to stop by the platform, and everything is saved: the command line exits with `PREEMPTED`."""


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what was behind it, the newest first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def is_full_disk(error: BaseException) -> bool:
    """Whether a full disk is behind an error, whatever library raised it."""
    return any(getattr(link, "errno", None) == errno.ENOSPC or "No space left" in str(link) for link in causes(error))


def explain_os_error(error: BaseException) -> str | None:
    """Return a sentence about an error of the file system, None for any other error.

    A full disk is met again while files are closed: the sentence of the first to meet it is the one that helps.
    """
    chain = list(causes(error))
    if is_full_disk(error):
        places = (f" of {link.filename}" for link in chain if getattr(link, "filename", None))
        known = (str(link) for link in chain if isinstance(link, UserError))
        return next(known, f"the disk{next(places, '')} is full: free some space and run the same command again")
    # Such as a folder that is to be made and is a file.
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename} cannot be used ({error.strerror}): name another path, or put this one right"
    return None

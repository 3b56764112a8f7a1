"""The one exception that a user's mistake raises, and what a full disk looks like."""

import errno
from collections.abc import Iterator


class UserError(Exception):
    """What is wrong, where, and what to do about it, in one sentence.

    The command line prints the sentence and exits with code 2; a traceback is shown only under `--verbose`.
    """


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what was behind it, the newest first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def is_full_disk(error: BaseException) -> bool:
    """Whether a full disk is behind an error, whatever library raised it."""
    return any(getattr(link, "errno", None) == errno.ENOSPC or "No space left" in str(link) for link in causes(error))

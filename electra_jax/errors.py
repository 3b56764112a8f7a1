"""The one exception that a user's mistake raises."""


class UserError(Exception):
    """What is wrong, where, and what to do about it, in one sentence.

    The command line prints the sentence and exits with code 2; a traceback is shown only under `--verbose`.
    """

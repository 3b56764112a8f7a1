"""List the checkpoints of a directory, and read them while a run writes newer ones and removes old ones."""

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from etils import epath

from electra_jax.checkpoints.seal import COMMITTED
from electra_jax.errors import UserError
from electra_jax.files import check_no_backslash, is_remote

Read = TypeVar("Read")

# The number of a step, as it is written.
STEP = re.compile("0|[1-9][0-9]{0,17}")


def complete_steps(directory: epath.Path) -> list[int]:
    """Return the steps of the committed checkpoints, without those of interrupted saves.

    Raises:
        UserError: if there are checkpoints that cannot be read because of a backslash in their path.
    """
    if not directory.is_dir():
        return []
    check_no_backslash(directory)
    steps = [path for path in directory.iterdir() if STEP.fullmatch(path.name)]
    return [int(path.name) for path in steps if not is_remote(path) or (path / COMMITTED).exists()]


def despite_rotation(directory: epath.Path, read: Callable[[], Read]) -> Read:
    """Read from a directory of checkpoints that a run may be writing.

    A run removes old checkpoints as it writes newer ones, even one that is being read: reading then starts again.

    Args:
        directory: the directory of the checkpoints.
        read: reads the newest one, or several.

    Raises:
        UserError: as `read`, if no newer checkpoint was completed meanwhile.
    """
    while True:
        newest = max(complete_steps(directory), default=None)
        try:
            return read()
        except UserError:
            if max(complete_steps(directory), default=None) == newest:
                raise


def check_not_removed(directory: epath.Path, step: int, steps: Sequence[int]) -> None:
    """Check that an unreadable checkpoint was not removed by the run that writes in its directory.

    Args:
        directory: the directory of the checkpoints.
        step: the step of the unreadable one.
        steps: the steps of all that were there before.

    Raises:
        UserError: if there is a newer one now, for which `despite_rotation` starts again.
    """
    if max(complete_steps(directory), default=step) > max(steps):
        raise UserError(f"{directory / str(step)} was removed by the run that trains there: try again")

"""Average the weights of a run's last checkpoints."""

import itertools
from typing import NamedTuple

import jax
import numpy as np
from etils import epath

from electra_jax.checkpoints.orbax_store import read_item, read_item_of, sound_states
from electra_jax.errors import UserError
from electra_jax.model.types import PyTree


class AveragedParams(NamedTuple):
    """The steps of checkpoints, the newest first, and the mean of their parameters as a tree of numpy arrays."""

    steps: tuple[int, ...]
    tree: PyTree


def read_average(directory: epath.Path, count: int) -> AveragedParams:
    """Read the parameters of the newest checkpoints onto the host, one after the other, and return their mean.

    The mean of the last weights of a run is often better than the last ones (Kaddour, 2022, "Stop wasting my time!
    Saving days of ImageNet and BERT training with latest weight averaging").

    Args:
        directory: the model directory.
        count: number of checkpoints; 1 for the newest alone.

    Raises:
        UserError: if there are fewer sound checkpoints.
    """
    if count < 1:
        raise UserError(f"--average {count}: it must be at least 1")
    newest = read_item(directory, "params")
    if count == 1:
        return AveragedParams((newest.step,), newest.tree)
    states = list(itertools.islice(sound_states(directory), count))
    steps = tuple(state.step for state in states)
    if len(states) < count:
        raise UserError(
            f"--average {count}: {directory} holds {len(states)} sound checkpoint(s), of step(s) "
            f"{', '.join(map(str, steps))}: average fewer, or train with a larger KEEP"
        )
    total = jax.tree.map(np.float64, newest.tree)
    for state in states[1:]:
        total = jax.tree.map(np.add, total, read_item_of(state, "params").tree)
    return AveragedParams(steps, jax.tree.map(lambda leaf: np.asarray(leaf / count, np.float32), total))

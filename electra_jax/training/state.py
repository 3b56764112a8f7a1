"""Define the types that a training step takes and returns."""

from typing import NamedTuple

import jax
import optax

from electra_jax.model.types import PyTree

# Arrays of one batch by name, each [B, ...].
Batch = dict[str, jax.Array]
# Sums over a batch by name, float32: what metrics are computed from after adding up any number of batches.
Sums = dict[str, jax.Array]


class TrainState(NamedTuple):
    """Everything that a training step reads and writes.

    Attributes:
        step: number of updates so far, int32 [].
        params: the model's parameters.
        opt_state: the optimizer's state.
        key_data: the run's base key, uint32. The randomness of a step is a function of this key and of `step` alone,
            so it is the same on one device and on eight, and after a resume.
    """

    step: jax.Array
    params: PyTree
    opt_state: optax.OptState
    key_data: jax.Array

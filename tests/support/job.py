"""A job for the training loop, put together from functions."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from jax.sharding import Mesh

from electra_jax.training.state import Batch, Sums, TrainState


@dataclasses.dataclass(frozen=True)
class Job:
    """A `TrainingJob` whose methods are given; only the update and the metrics have no default."""

    mesh: Mesh
    update: Callable[[TrainState, Batch], tuple[TrainState, Sums]]
    finish: Callable[[dict[str, np.ndarray]], dict[str, float]]
    evaluate: Callable[[TrainState], dict[str, float]] = lambda state: {}
    learning_rate: Callable[[int], float] = float
    data_state: Callable[[], dict[str, Any]] = dict

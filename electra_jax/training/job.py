"""Define what the training loop trains, and evaluate it."""

import logging
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from electra_jax.errors import is_full_disk
from electra_jax.training.meter import Meter, Reporter
from electra_jax.training.state import Batch, Sums, TrainState

logger = logging.getLogger(__name__)


class TrainingJob(Protocol):
    """Interface of the loop to what it trains: a model with its update rule, metrics and place in the data.

    Attributes:
        mesh: devices that batches are placed on.
    """

    mesh: Mesh

    def update(self, state: TrainState, batches: Batch) -> tuple[TrainState, Sums]:
        """Update a donated state with each of the stacked batches, arrays [n, B, ...]; return it and stacked sums."""

    def finish(self, sums: dict[str, np.ndarray]) -> dict[str, float]:
        """Return the metrics of a reported line from the added-up sums of its updates."""

    def evaluate(self, state: TrainState) -> dict[str, float]:
        """Return held-out metrics of a state; an empty dict if nothing is held out."""

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of an update, counted from 0."""

    def data_state(self) -> dict[str, Any]:
        """Return the place in the data after the last batch that was handed out, for a checkpoint."""


def evaluate_or_warn(
    job: TrainingJob, state: TrainState, step: int, *, last_step: int, meter: Meter, reporter: Reporter
) -> None:
    """Evaluate a state and report its metrics; turn a failure into a warning, because the run can still train.

    An error is raised if it occurs after the last step, if the disk is full, which ends training too, or if there are
    several processes, because the others would wait for the one that fails.

    Args:
        job: evaluates the state.
        state: the state after `step` updates.
        step: the number of updates.
        last_step: the number of updates of the whole run.
        meter: leaves the time of the evaluation out of every speed.
        reporter: receives the metrics.
    """
    with meter.paused():
        try:
            held_out = job.evaluate(state)
        except Exception as error:
            if step == last_step or jax.process_count() > 1 or is_full_disk(error):
                raise
            words = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            logger.warning("the evaluation after step %d failed and training continues (%s)", step, words)
            return
        if held_out:
            reporter.report(step, "validation", held_out)

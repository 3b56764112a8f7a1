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
    """The interface of the loop to the thing it trains: a model with its update rule, metrics and place in the data.

    Attributes:
        mesh: devices that batches are placed on.
    """

    mesh: Mesh

    def update(self, state: TrainState, batches: Batch) -> tuple[TrainState, Sums]:
        """Update a donated state by each of the stacked batches, arrays [n, B, ...], and return the stacked sums."""

    def finish(self, sums: dict[str, np.ndarray]) -> dict[str, float]:
        """Return the metrics of a reported line from the added sums of its updates."""

    def evaluate(self, state: TrainState) -> dict[str, float]:
        """Return held-out metrics of a state; none where nothing is held out."""

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of an update, counted from 0."""

    def data_state(self) -> dict[str, Any]:
        """Return the place in the data after the last batch that was handed out, for a checkpoint."""


def evaluate_or_warn(
    job: TrainingJob, state: TrainState, step: int, *, last_step: int, meter: Meter, reporter: Reporter
) -> None:
    """Evaluate a state and report it; a failure is no reason to end a run that can train on, and becomes a warning.

    That of the last step is raised, and so is a full disk, which ends training too, and a failure of one among several
    processes, for which the others would wait.

    Args:
        job: evaluates.
        state: the state after `step` updates.
        step: the number of updates.
        last_step: the number of updates of the whole run.
        meter: leaves the time that it takes out of every speed.
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

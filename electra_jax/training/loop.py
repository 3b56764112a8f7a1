"""The training loop: when a step runs, when metrics are reported, and when a checkpoint is saved."""

import dataclasses
import itertools
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from electra_jax import ranges
from electra_jax.errors import UserError, is_closed_output, is_full_disk
from electra_jax.ranges import AT_LEAST_1
from electra_jax.training import sharding
from electra_jax.training.meter import Meter, NotFiniteError, Reporter
from electra_jax.training.rescue import saved_if_interrupted
from electra_jax.training.state import Batch, Sums, TrainState
from electra_jax.training.stop import Stop


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """Intervals of the training loop, in steps.

    Attributes:
        num_train_steps: last step.
        log_every: steps that one reported line averages over.
        evaluate_every: steps between held-out evaluations; there is one more after the last step.
        save_every: steps between checkpoints; there is one more after the last step.
        keep: number of checkpoints that are kept, the newest ones.
        steps_per_dispatch: steps that are launched as one program, with the same results as one by one: for models so
            small that launching takes longer than computing. Divides the three intervals.
    """

    num_train_steps: Annotated[int, AT_LEAST_1]
    log_every: Annotated[int, AT_LEAST_1]
    evaluate_every: Annotated[int, AT_LEAST_1]
    save_every: Annotated[int, AT_LEAST_1]
    keep: Annotated[int, AT_LEAST_1]
    steps_per_dispatch: Annotated[int, AT_LEAST_1]

    def __post_init__(self) -> None:
        """Check the intervals.

        Raises:
            UserError: if a value is below 1, or `steps_per_dispatch` does not divide an interval.
        """
        ranges.check(self)
        for name in ("log_every", "evaluate_every", "save_every"):
            if getattr(self, name) % self.steps_per_dispatch:
                raise UserError(
                    f"LoopConfig.steps_per_dispatch {self.steps_per_dispatch} does not divide {name} "
                    f"{getattr(self, name)}: choose numbers of which it divides the other"
                )

    def steps_in_dispatch(self, step: int, shape_changes: Collection[int] = ()) -> int:
        """Return how many steps to launch together after `step` updates: `steps_per_dispatch`, or 1 to catch up.

        Args:
            step: number of updates so far.
            shape_changes: numbers of updates after which batches have another shape: those of a dispatch have one.
        """
        together = self.steps_per_dispatch
        if step % together or step + together > self.num_train_steps:
            return 1
        return 1 if any(step < change < step + together for change in shape_changes) else together


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


class Checkpoints(Protocol):
    """Where the loop saves its state."""

    def save(self, step: int, state: TrainState, data_state: dict[str, Any]) -> None:
        """Start to save a state after `step` updates."""

    def wait(self) -> None:
        """Wait until the last save is complete."""

    def latest_step(self) -> int | None:
        """Return the step of the newest complete checkpoint, None where there is none."""


def train(
    job: TrainingJob,
    batches: Iterator[dict[str, np.ndarray]],
    state: TrainState,
    *,
    loop: LoopConfig,
    shape_changes: Collection[int] = (),
    reporter: Reporter,
    stop: Stop,
    checkpoints: Checkpoints,
) -> tuple[TrainState, int]:
    """Train until the last step or until asked to stop, and save a checkpoint at the end in either case.

    The device always has the next dispatch queued: metrics are fetched one dispatch late.

    Args:
        job: what is trained.
        batches: this process's rows of each global batch, from `state.step` on, without end.
        state: donated to the first update.
        loop, reporter: intervals, and what receives the metrics.
        shape_changes: numbers of updates after which batches have another shape.
        stop: asked after every dispatch, by every process.
        checkpoints: where states are saved.

    Returns:
        The last state, and the number of updates it has had.

    Raises:
        UserError: if a loss or gradient norm is not finite, or the disk is full.
    """
    step = saved = int(jax.device_get(state.step))
    left = range(step, loop.num_train_steps)
    meter = Meter(reporter, left, finish=job.finish, learning_rate=job.learning_rate, log_every=loop.log_every)
    with explain_failures(checkpoints):
        while step < loop.num_train_steps:
            with meter.waiting():
                local = list(itertools.islice(batches, loop.steps_in_dispatch(step, shape_changes)))
            stack = sharding.stack_to_device(local, job.mesh)
            with jax.transfer_guard("disallow"):
                state, sums = job.update(state, stack)
            step += len(local)
            with saved_if_interrupted(checkpoints, step, state, job):
                meter.record_dispatch(sums, batch_size=next(iter(stack.values())).shape[1])
                if step % loop.evaluate_every == 0 or step == loop.num_train_steps:
                    meter.flush()
                    with meter.paused():
                        if held_out := job.evaluate(state):
                            reporter.report(step, "validation", held_out)
                stopping = stop.after_step()
                if stopping or step % loop.save_every == 0 or step == loop.num_train_steps:
                    meter.flush()
            if step % loop.save_every == 0:
                checkpoints.save(step, state, job.data_state())
                saved = step
            if stopping:
                break
    if saved != step:
        checkpoints.save(step, state, job.data_state())
    checkpoints.wait()
    return state, step


@contextmanager
def explain_failures(checkpoints: Checkpoints) -> Iterator[None]:
    """Turn what ends a training early into a sentence that tells which checkpoint is left.

    Raises:
        UserError: if a loss or gradient norm is not finite, metrics find the disk full, or their reader is gone.
    """
    try:
        yield
    except NotFiniteError as error:
        raise UserError(
            f"{error}; nothing of it was saved and {last_good_checkpoint(checkpoints)}: lower the learning rate or "
            "lengthen the warm-up"
        ) from error
    except Exception as error:
        if is_closed_output(error):
            raise UserError(
                f"standard output was closed by what read it: {last_good_checkpoint(checkpoints)}; send the output to "
                "a file, and run the same command again to resume from it"
            ) from error
        # A checkpoint that finds the disk full raises a UserError of its own.
        if isinstance(error, UserError) or not is_full_disk(error):
            raise
        raise UserError(
            f"the metrics could not be written (No space left on device): {last_good_checkpoint(checkpoints)}; "
            "free the disk and run the same command again to resume from it"
        ) from error


def last_good_checkpoint(checkpoints: Checkpoints) -> str:
    """Return a clause for an error message that tells which checkpoint is left."""
    checkpoints.wait()
    last = checkpoints.latest_step()
    return "there is no checkpoint yet" if last is None else f"the last good checkpoint is step {last}"

"""Run the training loop: run steps, report metrics and save checkpoints when each is due."""

import dataclasses
import functools
import itertools
from collections.abc import Collection, Iterator
from typing import Annotated

import jax
import numpy as np

from electra_jax import ranges
from electra_jax.errors import UserError
from electra_jax.ranges import AT_LEAST_1
from electra_jax.training import sharding
from electra_jax.training.job import TrainingJob, evaluate_or_warn
from electra_jax.training.meter import Meter, Reporter
from electra_jax.training.rescue import Checkpoints, explain_failures, saved_if_interrupted
from electra_jax.training.state import TrainState
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
                    f"{getattr(self, name)}: choose numbers such that it divides the other"
                )

    def evaluates_after(self, step: int) -> bool:
        """Return whether a held-out evaluation is due after `step` updates."""
        return step > 0 and (step % self.evaluate_every == 0 or step == self.num_train_steps)

    def saves_after(self, step: int) -> bool:
        """Return whether a checkpoint is due after `step` updates."""
        return step % self.save_every == 0 or step == self.num_train_steps

    def steps_in_dispatch(self, step: int, shape_changes: Collection[int] = ()) -> int:
        """Return how many steps to launch together after `step` updates: `steps_per_dispatch`, or 1 to catch up.

        Args:
            step: number of updates so far.
            shape_changes: numbers of updates after which batches have another shape: those of a dispatch share one.
        """
        together = self.steps_per_dispatch
        if step % together or step + together > self.num_train_steps:
            return 1
        return 1 if any(step < change < step + together for change in shape_changes) else together


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

    The device always has the next dispatch queued: metrics are fetched one dispatch late. A checkpoint is saved before
    the evaluation of the same step; a run that ended between the two evaluates when it resumes.

    Args:
        job: what is trained.
        batches: this process's rows of each global batch, from `state.step` on, without end.
        state: donated to the first update.
        loop, reporter: intervals, and what receives the metrics.
        shape_changes: numbers of updates after which batches have another shape.
        stop: asked after every dispatch and every evaluation, by every process.
        checkpoints: where states are saved.

    Returns:
        The last state, and the number of updates it has had.

    Raises:
        UserError: if a loss or gradient norm is not finite, or the disk is full.
    """
    step = int(jax.device_get(state.step))
    left = range(step, loop.num_train_steps)
    meter = Meter(reporter, left, finish=job.finish, learning_rate=job.learning_rate, log_every=loop.log_every)
    evaluate = functools.partial(evaluate_or_warn, job, last_step=loop.num_train_steps, meter=meter, reporter=reporter)
    stopping = False
    with explain_failures(checkpoints):
        if loop.evaluates_after(step):
            evaluate(state, step)
        while step < loop.num_train_steps and not stopping:
            with meter.waiting():
                local = list(itertools.islice(batches, loop.steps_in_dispatch(step, shape_changes)))
            stack = sharding.stack_to_device(local, job.mesh)
            with jax.transfer_guard("disallow"):
                state, sums = job.update(state, stack)
            step += len(local)
            with saved_if_interrupted(checkpoints, step, state, job):
                meter.record_dispatch(sums, batch_size=next(iter(stack.values())).shape[1])
                stopping = stop.after_step()
                if stopping or loop.saves_after(step) or loop.evaluates_after(step):
                    meter.flush()
            saved = stopping or loop.saves_after(step)
            if saved:
                checkpoints.save(step, state, job.data_state())
            # A run that is asked to stop has no time for an evaluation.
            if loop.evaluates_after(step) and (not stopping or step == loop.num_train_steps):
                with saved_if_interrupted(checkpoints, step, state, job):
                    evaluate(state, step)
                stopping = stopping or stop.after_evaluation()
            if stopping and not saved:
                checkpoints.save(step, state, job.data_state())
    checkpoints.wait()
    return state, step

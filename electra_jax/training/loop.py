"""The loop: it receives a step, batches, checkpoints and a reporter, and owns no hyperparameter."""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from electra_jax.errors import UserError, is_full_disk
from electra_jax.model.types import PyTree
from electra_jax.training import sharding
from electra_jax.training.stop import Stop

if TYPE_CHECKING:
    # Only to name it: the loop also runs where Orbax is not installed (bench/pretrain_small.py).
    from electra_jax.checkpoints.orbax_store import Checkpoints


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """When the loop does what, in steps.

    Attributes:
        num_train_steps: where training ends.
        log_every: steps that one reported line averages over.
        evaluate_every: steps between held-out evaluations; there is one more at the end.
        save_every: steps between checkpoints; there is one more at the end.
        keep: how many of the newest checkpoints stay.
        steps_per_dispatch: steps that are launched as one program, with the same results as one by one, where launching
            takes longer than computing; divides the three intervals.
    """

    num_train_steps: int
    log_every: int
    evaluate_every: int
    save_every: int
    keep: int
    # Bound in gin/runs/pretrain.gin; the value is for config.gin of runs that began before there was a choice.
    steps_per_dispatch: int = 1

    def __post_init__(self) -> None:
        """Refuses what is not a positive number, and a dispatch that would go past what is due between two steps.

        Raises:
            UserError: names it.
        """
        for name, value in dataclasses.asdict(self).items():
            if value < 1:
                raise UserError(f"LoopConfig.{name} is {value}: it must be at least 1")
        for name in ("log_every", "evaluate_every", "save_every"):
            if getattr(self, name) % self.steps_per_dispatch:
                raise UserError(
                    f"LoopConfig.steps_per_dispatch {self.steps_per_dispatch} does not divide {name} "
                    f"{getattr(self, name)}: choose numbers of which it divides the other"
                )

    def dispatch(self, number: int) -> int:
        """How many steps to launch after `number` of them: all that go together, or one where those do not fit."""
        together = self.steps_per_dispatch
        return 1 if number % together or number + together > self.num_train_steps else together


class Reporter(Protocol):
    """Where metrics go."""

    def report(self, step: int, split: str, values: dict[str, float]) -> None:
        """One line of metrics for a person, a file and TensorBoard."""


class Meter:
    """Collects metric sums a dispatch late, refuses what is not finite, and reports averages.

    The sums are fetched only after the next one is queued, so that the device never waits for the host.
    """

    def __init__(
        self,
        *,
        reporter: Reporter,
        finish: Callable[[dict[str, np.ndarray]], dict[str, float]],
        learning_rate: Callable[[int], float],
        batch_size: int,
        config: LoopConfig,
    ) -> None:
        """Starts an interval now; the arguments are those of `train`."""
        self._reporter = reporter
        self._finish = finish
        self._learning_rate = learning_rate
        self._batch_size = batch_size
        self._config = config
        self._pending: tuple[int, PyTree, int] | None = None
        self._begin()

    def launched(self, number: int, sums: PyTree, together: int = 1) -> None:
        """Settles what was launched before, and keeps what the updates up to `number` will have summed.

        Args:
            number: of the last of them.
            sums: of the one update; of several, each with a leading axis of their number.
            together: how many.
        """
        self.settle()
        self._pending = number, sums, together

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time spent here is spent waiting for data."""
        began = time.monotonic()
        yield
        self._waited += time.monotonic() - began

    def settle(self) -> None:
        """Fetches what is pending and reports when it is time.

        Raises:
            NotFiniteError: names the step and what is not.
        """
        if self._pending is None:
            return
        (last, pending, together), self._pending = self._pending, None
        sums = jax.device_get(pending)
        for place in range(together):
            one = sums if together == 1 else {name: values[place] for name, values in sums.items()}
            self._count(last - together + 1 + place, one)

    def _count(self, number: int, sums: dict[str, np.ndarray]) -> None:
        """Adds up one update, and reports when it is time."""
        bad = [name for name, value in sums.items() if np.ndim(value) == 0 and not math.isfinite(value)]
        if bad:
            raise NotFiniteError(f"not finite at step {number}: {', '.join(bad)}")
        for name, value in sums.items():
            self._sums[name] = self._sums.get(name, 0.0) + np.asarray(value, np.float64)
        self._steps += 1
        if number % self._config.log_every == 0 or number == self._config.num_train_steps:
            self._reporter.report(number, "train", self._summary(number))
            self._begin()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time spent here counts for no speed."""
        began = time.monotonic()
        yield
        self._started += time.monotonic() - began

    def _begin(self) -> None:
        """A new interval."""
        self._sums: dict[str, np.ndarray] = {}
        self._steps = 0
        self._waited = 0.0
        self._started = time.monotonic()

    def _summary(self, number: int) -> dict[str, float]:
        """The interval's metrics with its speed."""
        seconds = time.monotonic() - self._started
        return {
            **self._finish(self._sums),
            "learning_rate": self._learning_rate(number - 1),
            "grad_norm": float(self._sums["grad_norm"]) / self._steps,
            "examples_per_second": self._steps * self._batch_size / seconds,
            "tokens_per_second": float(self._sums["real"]) / seconds,
            "data_wait_share": self._waited / seconds,
            "seconds": seconds,
        }


class NotFiniteError(Exception):
    """A loss or a gradient is infinite or not a number; the message says which, and at which step."""


def train(
    state: PyTree,
    *,
    start_step: int,
    step: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]],
    several: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]] | None = None,
    batches: Iterator[dict[str, np.ndarray]],
    batch_sharding: NamedSharding,
    batch_size: int,
    checkpoints: "Checkpoints",
    data_state: Callable[[], dict[str, Any]],
    reporter: Reporter,
    finish: Callable[[dict[str, np.ndarray]], dict[str, float]],
    learning_rate: Callable[[int], float],
    evaluate: Callable[[PyTree], dict[str, float]],
    config: LoopConfig,
    stop: Stop,
) -> tuple[PyTree, int]:
    """Runs steps until the last one or until asked to stop, and saves at the end in either case.

    The device always has the next dispatch queued, its batch on the way there: metrics are fetched one dispatch late.

    Args:
        state: donated to the first step; its `params` are handed to `evaluate`.
        start_step: updates that `state` has had.
        step: the jitted update.
        several: the jitted updates by a stack of batches, their sums stacked (see `sharding.jit_updates`); needed where
            `config.steps_per_dispatch` is more than 1.
        batches: this process's rows of each global batch, from `start_step` on, without end.
        batch_sharding: where a batch goes.
        batch_size: rows of a global batch.
        checkpoints: where states go.
        data_state: what a checkpoint holds beside arrays: the place after the last batch handed out.
        reporter: where metrics go.
        finish: metrics from summed sums.
        learning_rate: of an update, for the report.
        evaluate: held-out metrics of parameters.
        config: when.
        stop: asked after every dispatch, by every process.

    Returns:
        The last state and the number of updates it has had.

    Raises:
        UserError: a loss or gradient is not finite, or a checkpoint cannot be written.
    """
    meter = Meter(reporter=reporter, finish=finish, learning_rate=learning_rate, batch_size=batch_size, config=config)
    number = saved = start_step
    try:
        stopped = False
        while number < config.num_train_steps and not stopped:
            together = config.dispatch(number)
            with meter.waiting():
                local = list(itertools.islice(batches, together))
            batch = place(local[0], batch_sharding) if together == 1 else place_stack(local, batch_sharding)
            with jax.transfer_guard("disallow"):
                state, sums = (step if together == 1 else several)(state, batch)
            number += together
            meter.launched(number, sums, together)
            if number % config.evaluate_every == 0 or number == config.num_train_steps:
                meter.settle()
                with meter.paused():
                    reporter.report(number, "validation", evaluate(state.params))
            if number % config.save_every == 0:
                meter.settle()
                checkpoints.save(number, state, data_state())
                saved = number
            stopped = stop.after_step()
        meter.settle()
    except NotFiniteError as error:
        raise diverged(error, checkpoints) from error
    except Exception as error:
        if isinstance(error, UserError) or not is_full_disk(error):
            raise
        raise unreported(number, checkpoints) from error
    if saved != number:
        checkpoints.save(number, state, data_state())
    checkpoints.wait()
    return state, number


def own_rows(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, np.ndarray]:
    """Of a global batch that every process has, the rows that this one feeds."""
    index, count = sharding.process_share(mesh)
    return {name: np.split(rows, count)[index] for name, rows in batch.items()}


def place(batch: dict[str, np.ndarray], where: NamedSharding) -> PyTree:
    """This process's rows as part of the global batch on the mesh."""
    return {name: jax.make_array_from_process_local_data(where, rows) for name, rows in batch.items()}


def place_stack(batches: Sequence[dict[str, np.ndarray]], where: NamedSharding) -> PyTree:
    """This process's rows of several global batches, stacked: [n, B, ...] on the mesh."""
    stack = {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}
    return place(stack, NamedSharding(where.mesh, PartitionSpec(None, *where.spec)))


def diverged(error: NotFiniteError, checkpoints: "Checkpoints") -> UserError:
    """The sentence for a run that is not finite any more, of which nothing has been saved."""
    checkpoints.wait()
    last = checkpoints.latest_step()
    kept = "there is no checkpoint yet" if last is None else f"the last good checkpoint is step {last}"
    return UserError(f"{error}; nothing of it was saved and {kept}: lower the learning rate or lengthen the warm-up")


def unreported(step: int, checkpoints: "Checkpoints") -> UserError:
    """The sentence for a run whose metrics found the disk full; a checkpoint that does tells of itself."""
    checkpoints.wait()
    last = checkpoints.latest_step()
    kept = "there is no checkpoint yet" if last is None else f"the last good checkpoint is step {last}"
    return UserError(
        f"the metrics of step {step} could not be written (No space left on device): {kept}; "
        "free the disk and run the same command again to go on from it"
    )

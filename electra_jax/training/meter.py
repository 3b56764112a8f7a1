"""Average training metrics between two reported lines, and measure the speed of training."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import jax
import numpy as np

from electra_jax.training.state import Sums


class NotFiniteError(Exception):
    """A loss or gradient norm is infinite or NaN; the message gives its name and step."""


class Reporter(Protocol):
    """Receives the metrics of a run."""

    def report(self, step: int, split: str, values: dict[str, float]) -> None:
        """Record the metrics of a split after `step` updates."""


class Meter:
    """Adds up metric sums and reports their averages every `log_every` steps.

    The sums of a dispatch are fetched only once the next one is queued, so that the device never waits for the host.
    """

    def __init__(
        self,
        reporter: Reporter,
        steps: range,
        *,
        finish: Callable[[dict[str, np.ndarray]], dict[str, float]],
        learning_rate: Callable[[int], float],
        log_every: int,
    ) -> None:
        """Start the first interval now.

        Args:
            reporter: receives the averages.
            steps: the updates that are left, counted from 0; a line is reported after the last of them, whether or not
                it is a multiple of `log_every`.
            finish: turns added-up sums into metrics.
            learning_rate: returns the rate of an update, counted from 0.
            log_every: number of steps between two reports.
        """
        self._reporter = reporter
        self._finish = finish
        self._learning_rate = learning_rate
        self._step = steps.start
        self._num_train_steps = steps.stop
        self._log_every = log_every
        self._pending: tuple[Sums, int] | None = None
        self._begin_interval()

    def record_dispatch(self, sums: Sums, batch_size: int) -> None:
        """Flush the previous dispatch, and keep the sums that the device is going to compute in this one.

        Args:
            sums: sums of each update of the dispatch, stacked [n, ...].
            batch_size: number of examples of one update.
        """
        self.flush()
        self._pending = sums, batch_size

    def flush(self) -> None:
        """Fetch the pending sums, add them up, and report when a report is due.

        Raises:
            NotFiniteError: if a sum is infinite or NaN.
        """
        if self._pending is None:
            return
        (pending, batch_size), self._pending = self._pending, None
        stacked = jax.device_get(pending)
        for index in range(len(next(iter(stacked.values())))):
            self._add({name: values[index] for name, values in stacked.items()}, batch_size)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time spent in the body as waiting for data."""
        began = time.monotonic()
        yield
        self._waited += time.monotonic() - began

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time spent in the body out of every speed."""
        began = time.monotonic()
        yield
        self._began += time.monotonic() - began

    def _begin_interval(self) -> None:
        self._sums: dict[str, np.ndarray] = {}
        self._num_steps = 0
        self._num_examples = 0
        self._waited = 0.0
        self._began = time.monotonic()

    def _add(self, sums: dict[str, np.ndarray], batch_size: int) -> None:
        self._step += 1
        bad = [name for name, value in sums.items() if np.ndim(value) == 0 and not math.isfinite(value)]
        if bad:
            raise NotFiniteError(f"not finite at step {self._step}: {', '.join(bad)}")
        for name, value in sums.items():
            self._sums[name] = self._sums.get(name, 0.0) + np.asarray(value, np.float64)
        self._num_steps += 1
        self._num_examples += batch_size
        if self._step % self._log_every == 0 or self._step == self._num_train_steps:
            self._reporter.report(self._step, "train", self._averages())
            self._begin_interval()

    def _averages(self) -> dict[str, float]:
        seconds = time.monotonic() - self._began
        return {
            **self._finish(self._sums),
            "learning_rate": self._learning_rate(self._step - 1),
            "grad_norm": float(self._sums["grad_norm"]) / self._num_steps,
            "examples_per_second": self._num_examples / seconds,
            "tokens_per_second": float(self._sums["real"]) / seconds,
            "data_wait_share": self._waited / seconds,
            "seconds": seconds,
        }

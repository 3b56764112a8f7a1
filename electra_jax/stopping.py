"""Requests to stop after the step under way: Ctrl-C, SIGTERM, and the notice of a platform that takes machines away."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from jax.experimental import multihost_utils

from electra_jax import distributed
from electra_jax.errors import Preempted
from electra_jax.reporting import say


class Stop:
    """Set by the first Ctrl-C or SIGTERM; the second Ctrl-C interrupts as usual."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        """Nothing has asked to stop."""
        self.requested: str | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = signal.Signals(number).name

    def after_step(self) -> bool:
        """Whether to stop now; asked after every step."""
        return self.requested is not None


class GroupStop(Stop):
    """A request that reaches one process stops all of them, after the same step.

    JAX's runtime has the handler of SIGTERM, tells the others of it, and they agree on a step that none has passed.
    """

    SIGNALS = (signal.SIGINT,)

    def __init__(self) -> None:
        """Nothing has asked to stop."""
        super().__init__()
        self._steps = 0
        self._interrupted = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Ctrl-C here is passed on as the notice that the others understand."""
        if self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True
        os.kill(os.getpid(), signal.SIGTERM)

    def after_step(self) -> bool:
        """Whether this is the step that all agreed on."""
        # Counted from the start of this process: the runtime takes the first call for step 1.
        self._steps += 1
        if multihost_utils.reached_preemption_sync_point(self._steps):
            self.requested = "SIGTERM"
        return self.requested is not None


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Turns Ctrl-C and SIGTERM into a request to stop after the step under way."""
    stop = GroupStop() if distributed.several() else Stop()
    before = {number: signal.signal(number, stop) for number in stop.SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_early(stop: Stop, where: str) -> None:
    """Says that a run was stopped, and saved.

    Args:
        stop: who asked.
        where: in the run, such as " at step 7".

    Raises:
        Preempted: it was not a person at the terminal.
    """
    sentence = f"stopped by {stop.requested}{where}, saved: the same command goes on from there"
    say(sentence)
    if stop.requested != "SIGINT":
        raise Preempted(sentence)

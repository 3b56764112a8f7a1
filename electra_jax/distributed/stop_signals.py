"""Requests to stop, by Ctrl-C or by the SIGTERM of a platform that takes the machine away, of all processes alike."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from electra_jax.distributed import processes
from electra_jax.distributed.group import Group
from electra_jax.errors import Preempted
from electra_jax.monitoring.reporter import say
from electra_jax.training.stop import Stop, handled_by


class GroupStop(Stop):
    """A request that reaches one process stops all of them, after the same step."""

    def __init__(self, group: Group) -> None:
        """Nothing has asked to stop."""
        super().__init__()
        self._group = group
        self._steps = 0
        self._signal: str | None = None
        self._passed_on = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        if self._signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._signal = signal.Signals(number).name

    def after_step(self) -> bool:
        """Whether this is the step that all agreed on."""
        self._steps += 1
        if self._signal and not self._passed_on:
            self._passed_on = True
            self._group.ask_to_stop(self._signal)
        self.requested = self._group.stops_after(self._steps)
        return self.requested is not None


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Turns Ctrl-C and SIGTERM into a request to stop after the step under way."""
    group = processes.group()
    stop = Stop() if group is None else GroupStop(group)
    with handled_by(stop):
        yield stop


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

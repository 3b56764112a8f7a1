"""Stop all processes of a run after the same step when one of them gets Ctrl-C, SIGHUP or the platform's SIGTERM."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from electra_jax.distributed import processes
from electra_jax.errors import Preempted
from electra_jax.training.stop import Stop, handled_by, hang_ups


class GroupStop(Stop):
    """A stop request that reaches one process and stops all of them after the same step."""

    def __init__(self, manager: Any) -> None:
        """Start without a request.

        Args:
            manager: JAX's PreemptionSyncManager, which receives SIGTERM and finds a step that no process has passed.
        """
        super().__init__()
        self._manager = manager
        self._steps = 0
        self._interrupted = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Turn the first Ctrl-C or SIGHUP into the signal that JAX waits for; a second Ctrl-C interrupts as usual."""
        if number == signal.SIGINT:
            if self._interrupted:
                raise KeyboardInterrupt
            self._interrupted = True
        signal.raise_signal(signal.SIGTERM)

    def after_step(self) -> bool:
        """Return whether this is the step on which all processes agreed; each calls this after each of its steps."""
        self._steps += 1
        if self._manager.reached_sync_point(self._steps):
            self.requested = "SIGINT" if any(processes.gather(self._interrupted)) else "SIGTERM"
        return self.requested is not None


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Turn Ctrl-C, SIGTERM and SIGHUP into a request to stop after the current step, during the body."""
    if processes.group() is None:
        stop = Stop()
        with handled_by(stop):
            yield stop
        return
    from jax._src.lib import _jax

    # A manager of our own: JAX's global one would take over SIGTERM for good, so that it could end nothing but a
    # training loop. Orbax would also ask the global one, with steps where a loop may count dispatches of several steps.
    manager = _jax.create_preemption_sync_manager()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, *hang_ups())}
    manager.initialize(processes.coordination_client())
    stop = GroupStop(manager)
    for number in before.keys() - {signal.SIGTERM}:
        signal.signal(number, stop)
    try:
        yield stop
    finally:
        manager.shutdown()
        for number, handler in before.items():
            signal.signal(number, handler)


def end_early(stop: Stop, where: str) -> None:
    """Print that a run was stopped and saved.

    Args:
        stop: the request.
        where: the place in the run, such as " at step 7".

    Raises:
        Preempted: if the platform asked, not a person at the terminal.
    """
    sentence = f"stopped by {stop.requested}{where}, saved: the same command resumes from there"
    # A terminal that was closed accepts no output.
    with suppress(OSError):
        processes.print_on_leader(sentence)
    if stop.requested != "SIGINT":
        raise Preempted(sentence)

"""Requests to stop after a training step, by Ctrl-C or SIGTERM."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """A signal handler: the first Ctrl-C or SIGTERM asks to stop after the step, a second Ctrl-C interrupts at once."""

    def __init__(self) -> None:
        """Start without a request."""
        self.requested: str | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = signal.Signals(number).name

    def after_step(self) -> bool:
        """Return whether to stop now; called after every dispatch."""
        return self.requested is not None


@contextmanager
def handled_by(stop: Stop) -> Iterator[None]:
    """Let `stop` handle Ctrl-C and SIGTERM until the end of the body."""
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

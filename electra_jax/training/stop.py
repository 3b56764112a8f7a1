"""The request to stop after a step, by Ctrl-C or by SIGTERM, which any machine can make: the standard library alone."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """Set by the first Ctrl-C or SIGTERM; the second Ctrl-C interrupts as usual."""

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


@contextmanager
def handled_by(stop: Stop) -> Iterator[None]:
    """Ctrl-C and SIGTERM go to `stop`, until the end of the body."""
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

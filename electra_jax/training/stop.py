"""Take requests to stop after a step: by Ctrl-C, SIGTERM or SIGHUP, or by the end of the parent process."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# The environment variable of a process that is to stop when its standard input ends: `electra compare` sets it.
STOP_AT_EOF = "ELECTRA_STOP_AT_EOF"


class Stop:
    """A signal handler: the first signal asks to stop after the step, a second Ctrl-C interrupts at once."""

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
def handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Let a handler, such as a `Stop`, handle Ctrl-C, SIGTERM and SIGHUP until the end of the body."""
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM, *hang_ups())}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def hang_ups() -> tuple[signal.Signals, ...]:
    """Return SIGHUP, which a terminal sends as it closes; nothing if the process was told to ignore it, as by nohup."""
    return () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)


def stop_with_parent() -> None:
    """Send this process SIGTERM when standard input ends, if `STOP_AT_EOF` asks for it.

    Standard input is then a pipe that nothing is written to, and that ends when the parent does, however it does.
    """
    if os.environ.pop(STOP_AT_EOF, None):
        threading.Thread(target=_signal_at_eof, daemon=True).start()


def _signal_at_eof() -> None:
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)

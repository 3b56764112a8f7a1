"""Handle requests to stop: by Ctrl-C, SIGTERM or SIGHUP, or by the end of the parent process.

A training loop stops after the step under way; everything else ends at once.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from electra_jax.errors import PREEMPTED, Terminated

# The environment variable of a process that is to stop when its standard input ends: `electra compare` sets it.
STOP_AT_EOF = "ELECTRA_STOP_AT_EOF"
# How long a command that a signal ends outside of a training loop has for cleaning up.
PATIENCE_SECONDS = 10.0


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

    def after_evaluation(self) -> bool:
        """Return whether the evaluation that has just ended is itself a reason to stop: never, for a signal."""
        return False


class Ending:
    """A signal handler for everything but the training loop: raise `KeyboardInterrupt` or `Terminated`.

    Either exception can be lost in a library that catches everything or calls Python from C, and no handler runs while
    C code does, which can be a compilation of minutes. A thread therefore makes sure that the process ends.
    """

    def __init__(self) -> None:
        """Start without a request."""
        self.requested: str | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        self.requested = signal.Signals(number).name
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise Terminated(self.requested)

    def watch(self, pipe: int) -> None:
        """End the process if a signal, whose number can be read from `pipe`, has not done so in time.

        A training loop that has begun since then, or any other later handler, handles the signal instead.
        """
        while number := os.read(pipe, 1):
            if signal.getsignal(number[0]) is self:
                time.sleep(PATIENCE_SECONDS)
            if signal.getsignal(number[0]) is self:
                os._exit(2 if number[0] == signal.SIGINT else PREEMPTED)
        os.close(pipe)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and SIGHUP end the body by an exception, or the process if the exception is lost.

    Signals that the process was told to ignore stay ignored. Only the main thread receives signals; in any other thread
    the body is merely run.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ending = Ending()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    threading.Thread(target=ending.watch, args=(reading,), daemon=True).start()
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM, *hang_ups()) if signal.getsignal(n) is not signal.SIG_IGN]
    woken_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    before = {number: signal.signal(number, ending) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(woken_before)
        os.close(writing)


@contextmanager
def handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Let a handler, such as a `Stop`, handle Ctrl-C, SIGTERM and SIGHUP until the end of the body.

    A `Stop` takes over an earlier request whose exception was lost.
    """
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM, *hang_ups())}
    if isinstance(handler, Stop):
        lost = (earlier.requested for earlier in before.values() if isinstance(earlier, Ending))
        handler.requested = handler.requested or next(lost, None)
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def hang_ups() -> tuple[signal.Signals, ...]:
    """Return SIGHUP, which a closing terminal sends; nothing if the process was told to ignore it, as by nohup."""
    return () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)


def stop_with_parent() -> None:
    """Send this process SIGTERM when standard input ends, if `STOP_AT_EOF` asks for it.

    Standard input is then a pipe that nothing is written to and that ends with the parent, however the parent ends.
    """
    if os.environ.pop(STOP_AT_EOF, None):
        threading.Thread(target=_signal_at_eof, daemon=True).start()


def _signal_at_eof() -> None:
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)

"""Show how much of a corpus has been read."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

SECONDS_BETWEEN_LINES = 10.0


class ByteProgress:
    """Show on standard error how much of a corpus has been read: a bar on a terminal, occasional lines in a log."""

    def __init__(self, title: str, total_bytes: int, *, show: bool) -> None:
        """Prepare the bar.

        Args:
            title: description of the work.
            total_bytes: size of the corpus, which may be an estimate.
            show: False to print nothing.
        """
        self._title = title
        self._total = total_bytes
        self._done = self._skipped = 0
        self._start = self._last_line = time.monotonic()
        console = Console(file=sys.stderr)
        self._lines = show and not console.is_terminal
        self._bar = Progress(
            TextColumn(title),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not show or self._lines,
        )
        self._task = self._bar.add_task(title, total=total_bytes)

    def __enter__(self) -> Self:
        """Start drawing."""
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop drawing; the last state stays on the screen."""
        self._bar.stop()
        if self._lines and error is None:
            self._print_line()

    def advance(self, num_bytes: int, *, already_done: bool) -> None:
        """Count bytes; those that an earlier run read (`already_done`) do not count for the speed."""
        self._done += num_bytes
        self._skipped += num_bytes if already_done else 0
        self._bar.update(self._task, completed=self._done, total=max(self._total, self._done))
        if self._lines and time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._print_line()

    def _print_line(self) -> None:
        self._last_line = time.monotonic()
        rate = max(self._done - self._skipped, 1) / max(self._last_line - self._start, 1e-3)
        if self._done <= self._total:
            share = f"{self._done / 1e6:.1f} of {self._total / 1e6:.1f} MB"
            left = f"{(self._total - self._done) / rate:.0f} s left"
        else:
            share, left = f"{self._done / 1e6:.1f} MB", "more than the estimate"
        print(f"{self._title}: {share}, {rate / 1e6:.2f} MB/s, {left}", file=sys.stderr, flush=True)

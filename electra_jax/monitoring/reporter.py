"""Report the progress of a run: a live view on a terminal, plain lines in a log, TensorBoard, and metrics.jsonl."""

import contextlib
import json
import os
import time
from collections.abc import Iterator

from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from electra_jax.files import path_of
from electra_jax.monitoring.console import PlainConsole
from electra_jax.monitoring.health_checks import Finding
from electra_jax.monitoring.metrics_file import by_step, drop_after, line_of, read_rows
from electra_jax.run_directory import METRICS

# The title and format of the metrics that the console shows; the files hold all of them.
Columns = dict[str, tuple[str, str]]
COLUMNS: Columns = {
    "generator_loss": ("gen loss", ".3f"),
    "discriminator_loss": ("disc loss", ".4f"),
    "prediction_loss": ("pred loss", ".3f"),
    "correction_loss": ("corr loss", ".3f"),
    "generator_accuracy": ("gen acc", ".3f"),
    "prediction_accuracy": ("pred acc", ".3f"),
    "correction_accuracy": ("corr acc", ".3f"),
    "discriminator_accuracy": ("disc acc", ".4f"),
    "unreplaced_share": ("all-original", ".4f"),
    "discriminator_recall": ("recall", ".3f"),
    "discriminator_auc": ("AUC", ".3f"),
    "examples_per_second": ("ex/s", ".0f"),
    "tokens_per_second": ("tok/s", ".0f"),
    "data_wait_share": ("data wait", ".1%"),
}


class RunConsole(PlainConsole):
    """A console that lets its caller handle a closed pipe."""

    def on_broken_pipe(self) -> None:
        """Raise the error that is being handled; the library's own method would end the process."""
        raise


class RunReporter:
    """Write each report to `MODEL_DIR/metrics.jsonl`, TensorBoard and the console."""

    def __init__(
        self, model_dir: str | os.PathLike[str], *, start_step: int, num_train_steps: int, columns: Columns = COLUMNS
    ) -> None:
        """Open the files; remove lines of steps after `start_step`, which will be run again.

        Args:
            model_dir: the run directory.
            start_step: updates already done.
            num_train_steps: the last step of the run, for the time left.
            columns: the metrics that the console shows.
        """
        # This import loads TensorFlow if it is installed.
        from tensorboard import summary

        directory = path_of(model_dir)
        self._path = directory / METRICS
        drop_after(self._path, start_step)
        # A run that resumes where an evaluation is due evaluates again, in case it was stopped before the evaluation.
        evaluated = by_step(read_rows(self._path), "validation")
        self._known = start_step if evaluated and evaluated[-1]["step"] == start_step else None
        self._files = contextlib.ExitStack()
        self._stream = self._files.enter_context(self._path.open("a", encoding="utf-8"))
        self._tensorboard = {
            split: summary.Writer(str(directory / "tensorboard" / split)) for split in ("train", "validation")
        }
        self._first = self._last = start_step
        self._end = num_train_steps
        self._columns = columns
        self._started = time.monotonic()
        self._console = RunConsole()
        self._live: LiveView | None = None
        if self._console.is_terminal:
            self._live = LiveView(self._console, start_step, num_train_steps, columns)

    def report(self, step: int, split: str, values: dict[str, float]) -> None:
        """Report one line of metrics; a value that is not finite (nothing was counted) is null in the file.

        An evaluation that was reported before this process resumed is not reported again.
        """
        if split == "validation" and step == self._known:
            return
        self._stream.write(line_of(step, split, values))
        self._stream.flush()
        for name, value in values.items():
            self._tensorboard[split].add_scalar(name, value, step)
        self._last = step
        if self._live:
            self._live.update(step, split, values, self.time_left())
        else:
            cells = [
                f"{title} {format(values[name], spec)}"
                for name, (title, spec) in self._columns.items()
                if name in values
            ]
            left = f" | left {self.time_left()}" if split == "train" else ""
            self._console.print(f"step {step}/{self._end} {split} | {' | '.join(cells)}{left}", soft_wrap=True)

    def warn(self, finding: Finding) -> None:
        """Print a finding, and write it as a line of metrics.jsonl whose split is "health"."""
        line = {"step": finding.step, "split": "health", "finding": finding.name, "words": finding.words}
        self._stream.write(json.dumps(line) + "\n")
        self._stream.flush()
        text = f"warning: {finding.words} Usual cause: {finding.cause}. What to try: {finding.remedy}."
        self._console.print(text, style="yellow", highlight=False, soft_wrap=True)

    def time_left(self) -> str:
        """Return the time left as hours:minutes:seconds, at the speed since this process started."""
        done = self._last - self._first
        if not done:
            return "?"
        seconds = (time.monotonic() - self._started) / done * (self._end - self._last)
        minutes, seconds = divmod(round(seconds), 60)
        return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"

    def close(self) -> None:
        """Flush and close all files."""
        if self._live:
            self._live.close()
        for writer in self._tensorboard.values():
            writer.close()
        self._files.close()


@contextlib.contextmanager
def closing_after(reporter: "RunReporter | NullReporter") -> Iterator[None]:
    """Close a reporter at the end; if an error ends the block, that error is raised, whatever closing says."""
    try:
        yield
    except BaseException:
        # On a full disk, files cannot be closed either; the first error is the one that helps.
        with contextlib.suppress(OSError):
            reporter.close()
        raise
    reporter.close()


class LiveView:
    """A progress bar over a table of the last reports, redrawn in place."""

    ROWS = 12

    def __init__(self, console: PlainConsole, start_step: int, num_train_steps: int, columns: Columns) -> None:
        """Start drawing."""
        self._columns = columns
        self._progress = Progress(
            TextColumn("step"), BarColumn(bar_width=None), MofNCompleteColumn(), TextColumn("{task.fields[left]} left")
        )
        self._task = self._progress.add_task("", total=num_train_steps, completed=start_step, left="?")
        self._rows: list[tuple[int, str, dict[str, float]]] = []
        # The bar must be visible while the first step compiles.
        self._live = Live(self._progress, console=console, refresh_per_second=4)
        self._live.start()

    def update(self, step: int, split: str, values: dict[str, float], left: str) -> None:
        """Add a row and move the bar."""
        self._progress.update(self._task, completed=step, left=left)
        self._rows = [*self._rows, (step, split, values)][-self.ROWS :]
        # Each objective reports only some of the metrics.
        shown = {
            name: column for name, column in self._columns.items() if any(name in values for *_, values in self._rows)
        }
        table = Table("step", "split", *[title for title, _ in shown.values()], expand=True)
        for number, part, found in self._rows:
            cells = [format(found[name], spec) if name in found else "" for name, (_, spec) in shown.items()]
            table.add_row(str(number), part, *cells, style="bold cyan" if part == "validation" else "")
        grid = Table.grid(expand=True)
        grid.add_row(table)
        grid.add_row(self._progress)
        self._live.update(grid)

    def close(self) -> None:
        """Stop drawing and leave the last view on the screen."""
        self._live.stop()


class NullReporter:
    """A reporter that does nothing, for every process but the leader."""

    def report(self, step: int, split: str, values: dict[str, float]) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

"""What a run on a bare machine says of itself, in words and in metrics.jsonl."""

import json
import math
import time
from pathlib import Path

from electra_jax.monitoring.health_checks import Finding
from electra_jax.monitoring.metrics_file import drop_after, line_of, time_left
from electra_jax.monitoring.watch import published_curve

METRICS = "metrics.jsonl"
# In the order of the published curve; "unreplaced_share" is the accuracy of calling every token original.
COLUMNS = {
    "generator_loss": ("gen loss", ".3f"),
    "discriminator_loss": ("disc loss", ".4f"),
    "discriminator_auc": ("AUC", ".3f"),
    "discriminator_accuracy": ("accuracy", ".4f"),
    "discriminator_precision": ("precision", ".3f"),
    "generator_accuracy": ("gen accuracy", ".3f"),
    "unreplaced_share": ("all-original", ".4f"),
    "examples_per_second": ("ex/s", ".0f"),
    "data_wait_share": ("data wait", ".1%"),
}


class Lines:
    """A line for every report, on standard output and in OUT/metrics.jsonl."""

    def __init__(self, out: Path, *, start: int, end: int, curve: bool) -> None:
        """Drops the file's lines of steps that will be run again.

        Args:
            out: the directory.
            start: updates already done.
            end: where the run ends, for the time left.
            curve: print the published curve beside held-out metrics.
        """
        self._path = out / METRICS
        drop_after(self._path, start)
        text = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
        self.rows = [json.loads(line) for line in text.splitlines()]
        self._start, self._end = start, end
        self._began = time.monotonic()
        self._curve = published_curve() if curve else None

    def report(self, step: int, split: str, values: dict[str, float]) -> None:
        """One line of metrics."""
        self._write(line_of(step, split, values))
        cells = [f"{title} {format(values[name], form)}" for name, (title, form) in COLUMNS.items() if name in values]
        if split == "train":
            done = max(1, step - self._start)
            cells.append(f"left {time_left((time.monotonic() - self._began) / done, self._end - step)}")
        elif self._curve:
            published = {name: self._curve.at(name, step) for name in COLUMNS if name in self._curve.points}
            theirs = [format(value, COLUMNS[name][1]) for name, value in published.items() if math.isfinite(value)]
            cells += [f"published {' '.join(theirs)}"] if theirs else []
        print(f"step {step}/{self._end} {split} | {' | '.join(cells)}", flush=True)

    def warn(self, finding: Finding) -> None:
        """A finding in words, and as a line of metrics.jsonl whose split is "health"."""
        line = {"step": finding.step, "split": "health", "finding": finding.name, "words": finding.words}
        self._write(json.dumps(line) + "\n")
        print(f"warning: {finding.words} Usual cause: {finding.cause}. What to try: {finding.remedy}.", flush=True)

    def _write(self, line: str) -> None:
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(line)

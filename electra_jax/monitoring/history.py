"""Pool a run's lines of metrics into windows that are large enough to judge, for `health.diagnose`.

One line of metrics.jsonl may cover one step of a tiny batch or a hundred steps of a large one. Lines are pooled into
windows of at least `WINDOW_TOKENS` tokens, and the windows of a long run are pooled again, so that a window's numbers
are more than noise and a history stays short. A validation line, an average over the same examples each time, is a
window by itself.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

# With 15 % masked, 3,000 of these tokens are predicted: one standard error is then 0.05 nats for the generator's loss,
# and 0.006 for the AUC of a discriminator at chance.
WINDOW_TOKENS = 20_000
# Enough for every trend that the checks look for; more would cost time at every report of a long run.
MAX_WINDOWS = 512

METRICS = (
    "generator_loss",
    "generator_accuracy",
    "generator_repetition",
    "discriminator_loss",
    "discriminator_recall",
    "discriminator_auc",
    "unreplaced_share",
    "prediction_loss",
    "correction_loss",
)
LOSSES = ("loss", "generator_loss", "discriminator_loss", "prediction_loss", "correction_loss")


@dataclass(frozen=True)
class Window:
    """A window: neighbouring lines of a split, pooled.

    Attributes:
        step: the last update of the window.
        epoch: the epoch of the text at that update; NaN if it is unknown.
        tokens: the number of real tokens that the window averages over.
        travelled: the sum of the learning rates of its updates: about how far Adam can have moved each weight.
        totals: the sum of each metric's finite values, weighted by tokens, and the sum of the weights.
    """

    step: int
    epoch: float
    tokens: float
    travelled: float
    totals: Mapping[str, tuple[float, float]]

    def __getitem__(self, name: str) -> float:
        """Return the mean of a metric; NaN if it was never reported."""
        total, weight = self.totals.get(name, (0.0, 0.0))
        return total / weight if weight else math.nan


@dataclass(frozen=True)
class History:
    """The history of a run, as its health checks see it.

    Attributes:
        windows: the windows of training, by rising step; the last one may still be filling.
        size: the number of tokens from which a window is full.
        not_finite: the first step at which a loss was not finite, and the name of the loss; None if all were finite.
        held_out: the evaluations, by rising step.
    """

    windows: tuple[Window, ...] = ()
    size: float = WINDOW_TOKENS
    not_finite: tuple[int, str] | None = None
    held_out: tuple[Window, ...] = ()

    @property
    def full(self) -> tuple[Window, ...]:
        """The windows that hold at least `size` tokens."""
        return tuple(window for window in self.windows if window.tokens >= self.size)

    def add(self, row: Mapping[str, Any]) -> "History":
        """Return the history with one more line of training or validation; other lines change nothing."""
        bad = self.not_finite
        if bad is None and row["split"] in ("train", "validation"):
            names = [name for name in LOSSES if name in row and not math.isfinite(_number(row, name))]
            bad = (row["step"], names[0]) if names else None
        if row["split"] == "validation":
            held_out = (*self.held_out, _window(row, row["step"], 1.0))
            held_out = held_out if len(held_out) <= MAX_WINDOWS else _halved(held_out)
            return replace(self, not_finite=bad, held_out=held_out)
        if row["split"] != "train":
            return self
        before = self.windows[-1].step if self.windows else 0
        one = _window(row, before, self.size)
        if self.windows and self.windows[-1].tokens < self.size:
            windows = (*self.windows[:-1], _merge(self.windows[-1], one))
        else:
            windows = (*self.windows, one)
        if len(windows) <= MAX_WINDOWS:
            return replace(self, windows=windows, not_finite=bad)
        return replace(self, windows=_halved(windows), size=2 * self.size, not_finite=bad)


def history_of(rows: Iterable[Mapping[str, Any]]) -> History:
    """Return the history of the given lines of metrics.jsonl."""
    history = History()
    for row in rows:
        history = history.add(row)
    return history


def mean(windows: Sequence[Window], name: str) -> float:
    """Return the mean of a metric over windows; NaN if none has it."""
    values = [window[name] for window in windows if math.isfinite(window[name])]
    return sum(values) / len(values) if values else math.nan


def _window(row: Mapping[str, Any], before: int, size: float) -> Window:
    """Return one line as a window, which is full if the line does not say how many tokens it covers."""
    counted = _number(row, "tokens_per_second") * _number(row, "seconds")
    tokens = counted if math.isfinite(counted) else size
    rate = _number(row, "learning_rate")
    values = {name: _number(row, name) for name in METRICS}
    totals = {name: (value * tokens, tokens) for name, value in values.items() if math.isfinite(value)}
    travelled = rate * (row["step"] - before) if math.isfinite(rate) else 0.0
    return Window(row["step"], _number(row, "epoch"), tokens, travelled, totals)


def _halved(windows: Sequence[Window]) -> tuple[Window, ...]:
    """Pool `MAX_WINDOWS` + 1 windows in pairs, all but the last one."""
    return (*(_merge(*windows[index : index + 2]) for index in range(0, MAX_WINDOWS, 2)), *windows[MAX_WINDOWS:])


def _merge(first: Window, second: Window) -> Window:
    names = first.totals.keys() | second.totals.keys()
    none = (0.0, 0.0)
    totals = {
        name: tuple(map(sum, zip(first.totals.get(name, none), second.totals.get(name, none), strict=True)))
        for name in names
    }
    return Window(second.step, second.epoch, first.tokens + second.tokens, first.travelled + second.travelled, totals)


def _number(row: Mapping[str, Any], name: str) -> float:
    value = row.get(name)
    return math.nan if value is None else float(value)

"""Two fine-tunings beside each other, from pre-trained and from random weights: what pre-training is worth."""

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from electra_jax.finetuning.results import RESULTS
from electra_jax.reports.answers import score
from electra_jax.reports.charts import nice_ticks
from electra_jax.reports.finetuning import read_results
from electra_jax.reports.page import verdict_html
from electra_jax.reports.summary import number

# In MODEL_DIR/finetune, where the demo puts them.
PRETRAINED, RANDOM = "pretrained", "random"
# Two runs must agree in these to be compared.
_SETTINGS = ("task", "main_metric", "num_examples")

_WIDTH, _LEFT, _RIGHT, _ROW, _TOP = 640, 150, 70, 52, 10


@dataclasses.dataclass(frozen=True)
class Scores:
    """Main scores of a run's seeds, per cent: those that count, and those of failed seeds."""

    worked: tuple[float, ...]
    failed: tuple[float, ...]

    @property
    def median(self) -> float:
        """Of the seeds that worked; there must be one."""
        return statistics.median(self.worked)

    @property
    def spread(self) -> float:
        """The highest minus the lowest."""
        return max(self.worked) - min(self.worked)


def main_scores(results: Mapping[str, Any]) -> Scores:
    """The main scores of a results.json."""
    worked, failed = [], []
    for seed in results["seeds"]:
        value = number(seed["metrics"], results["main_metric"])
        if math.isfinite(value):
            (worked if seed["failed"] is None else failed).append(value)
    return Scores(tuple(worked), tuple(failed))


def stands_apart(above: Scores, below: Scores) -> bool:
    """Whether one run beats another by more than chance between seeds does.

    So it is where every seed of the one is above every seed of the other, the medians differ by more than either
    run's seeds do, and both have two seeds or more that worked.
    """
    if min(len(above.worked), len(below.worked)) < 2:
        return False
    gap = above.median - below.median
    return min(above.worked) > max(below.worked) and gap > max(above.spread, below.spread)


def read_comparison(model_dir: Path) -> str:
    """The section on MODEL_DIR/finetune/{pretrained,random}; "" where either has no results yet.

    Raises:
      UserError: a results.json is not what `electra finetune` writes.
    """
    paths = [model_dir / "finetune" / name / RESULTS for name in (PRETRAINED, RANDOM)]
    if not all(path.exists() for path in paths):
        return ""
    return comparison_html(*map(read_results, paths))


def comparison_html(pretrained: Mapping[str, Any], random: Mapping[str, Any]) -> str:
    """A section with the scores of two results.json, a point for each seed, and what they show in words."""
    metric = str(pretrained["main_metric"]).replace("_", " ")
    runs = {"pre-trained": main_scores(pretrained), "random weights": main_scores(random)}
    hollow = " A hollow point is a seed that failed and does not count." if any(s.failed for s in runs.values()) else ""
    return (
        f"<h2>What pre-training is worth</h2>{_verdict(pretrained, random, metric)}"
        f'<p class="note">The same model fine-tuned on {escape(str(pretrained["task"]))} twice, once from the weights '
        f"of this run and once from random ones. Each point is the {escape(metric)} of one seed on the dev examples; "
        f"the bar ends at their median.{hollow}</p>{_strips(runs, metric)}"
    )


def _verdict(pretrained: Mapping[str, Any], random: Mapping[str, Any], metric: str) -> str:
    different = [name for name in _SETTINGS if pretrained[name] != random[name]]
    if different:
        names = " and ".join(name.replace("_", " ") for name in different)
        return verdict_html("Not comparable.", "", [f"The two runs differ in {names}."])
    with_text, without = main_scores(pretrained), main_scores(random)
    if not (with_text.worked and without.worked):
        return verdict_html(
            "No comparison.",
            "",
            [
                f"Every seed from {name} failed."
                for name, scores in (("pre-trained weights", with_text), ("random weights", without))
                if not scores.worked
            ],
        )
    gap = with_text.median - without.median
    medians = (
        f"The median {metric} is {score(with_text.median)} from pre-trained and {score(without.median)} from random"
    )
    apart = f"{medians} weights, {score(abs(gap))} points {'more' if gap > 0 else 'less'}."
    spreads = f"Seeds spread over {score(with_text.spread)} and {score(without.spread)} points"
    if stands_apart(with_text, without):
        every = "every pre-trained seed is above every random one, and the medians differ by more than either spread."
        return verdict_html("Pre-training helps.", f"{apart} {spreads}: {every}", [])
    if stands_apart(without, with_text):
        return verdict_html("Pre-training hurts.", apart, [f"{spreads}, less than the medians differ."])
    if min(len(with_text.worked), len(without.worked)) < 2:
        doubt = "A run with one seed that worked has no spread to compare the difference with."
    else:
        doubt = f"{spreads}: too much for the difference to be sure."
    return verdict_html("Not clear.", apart, [doubt])


def _strips(runs: Mapping[str, Scores], metric: str) -> str:
    values = [value for scores in runs.values() for value in (*scores.worked, *scores.failed)]
    ticks = nice_ticks(min(0.0, *values), max(0.0, *values), 5)
    height = _TOP + _ROW * len(runs) + 24

    def x(value: float) -> float:
        return _LEFT + (value - ticks[0]) / (ticks[-1] - ticks[0]) * (_WIDTH - _LEFT - _RIGHT)

    parts = []
    for tick in ticks:
        parts.append(f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{_TOP}" y2="{height - 20}"/>')
        parts.append(f'<text class="tick" x="{x(tick):.1f}" y="{height - 5}" text-anchor="middle">{tick:g}</text>')
    for row, (name, scores) in enumerate(runs.items()):
        parts.append(_strip(name, scores, x, _TOP + _ROW * row, main=row == 0))
    said = "; ".join(f"{name}: {', '.join(map(score, scores.worked)) or 'none'}" for name, scores in runs.items())
    label = escape(f"{metric} of each seed; {said}")
    return f'<svg class="strip" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _strip(name: str, scores: Scores, x: Callable[[float], float], top: float, *, main: bool) -> str:
    middle = top + _ROW / 2
    parts = [f'<text x="{_LEFT - 12}" y="{middle + 4}" text-anchor="end">{escape(name)}</text>']
    if scores.worked:
        start, end = sorted((x(0.0), x(scores.median)))
        parts.append(
            f'<rect class="bar" x="{start:.1f}" y="{middle - 15}" width="{end - start:.1f}" height="30" rx="3"/>'
            f'<line class="median" x1="{x(scores.median):.1f}" x2="{x(scores.median):.1f}" y1="{middle - 19}"'
            f' y2="{middle + 19}"/><text x="{_WIDTH - _RIGHT + 10}" y="{middle + 4}">{score(scores.median)}</text>'
        )
    parts += _points(scores.worked, "", x, middle) + _points(scores.failed, "failed", x, middle)
    return f"<g{' class=main' if main else ''}>{''.join(parts)}</g>"


def _points(values: Sequence[float], style: str, x: Callable[[float], float], middle: float) -> list[str]:
    note = " (failed)" if style else ""
    return [
        f'<circle class="{style}" cx="{x(value):.1f}" cy="{middle}" r="5"><title>{score(value)}{note}</title></circle>'
        for value in values
    ]

"""Compare fine-tuning from pre-trained and from random weights, for the page's section on the worth of pre-training."""

import dataclasses
import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from electra_jax.reports.charts import Strip, StripChart, strip_chart
from electra_jax.reports.finetuning import read_results
from electra_jax.reports.page import Verdict, number, score
from electra_jax.run_directory import RESULTS

# The folders in MODEL_DIR/finetune where the demo puts the two runs.
PRETRAINED, RANDOM = "pretrained", "random"
# The results that two runs must share to be comparable.
_SHARED = ("task", "main_metric", "num_examples")


@dataclasses.dataclass(frozen=True)
class Scores:
    """The main scores of a run's seeds, in per cent: of the seeds that worked, and of those that failed."""

    worked: tuple[float, ...]
    failed: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median of the seeds that worked, at least one."""
        return statistics.median(self.worked)

    @property
    def spread(self) -> float:
        """The highest score of a seed that worked minus the lowest."""
        return max(self.worked) - min(self.worked)


@dataclasses.dataclass(frozen=True)
class Demo:
    """The data of the section: the outcome, the task, its metric, whether a seed failed, and a chart of all seeds."""

    verdict: Verdict
    task: str
    metric: str
    failed: bool
    chart: StripChart


def read_demo(model_dir: Path) -> Demo | None:
    """Prepare the section on MODEL_DIR/finetune/{pretrained,random}; None if either has no results yet.

    Raises:
        UserError: if a results.json is not what `electra finetune` writes.
    """
    paths = [model_dir / "finetune" / name / RESULTS for name in (PRETRAINED, RANDOM)]
    if not all(path.exists() for path in paths):
        return None
    pretrained, random = map(read_results, paths)
    metric = str(pretrained["main_metric"]).replace("_", " ")
    runs = {"pre-trained": main_scores(pretrained), "random weights": main_scores(random)}
    said = "; ".join(f"{name}: {', '.join(map(score, scores.worked)) or 'none'}" for name, scores in runs.items())
    strips = [
        Strip(name, scores.worked, scores.failed, scores.median if scores.worked else None)
        for name, scores in runs.items()
    ]
    return Demo(
        verdict=_verdict(pretrained, random, metric),
        task=str(pretrained["task"]),
        metric=metric,
        failed=any(scores.failed for scores in runs.values()),
        chart=strip_chart(f"{metric} of each seed; {said}", strips, score),
    )


def main_scores(results: Mapping[str, Any]) -> Scores:
    """Return the main scores of a results.json."""
    worked, failed = [], []
    for seed in results["seeds"]:
        value = number(seed["metrics"], results["main_metric"])
        if math.isfinite(value):
            (worked if seed["failed"] is None else failed).append(value)
    return Scores(tuple(worked), tuple(failed))


def scores_separated(above: Scores, below: Scores) -> bool:
    """Return whether one run beats another by more than the variation between seeds.

    This requires that at least two seeds of each run worked, every seed of one run is above every seed of the other,
    and the medians differ by more than the seeds of either run.
    """
    if min(len(above.worked), len(below.worked)) < 2:
        return False
    gap = above.median - below.median
    return min(above.worked) > max(below.worked) and gap > max(above.spread, below.spread)


def _verdict(pretrained: Mapping[str, Any], random: Mapping[str, Any], metric: str) -> Verdict:
    different = [name for name in _SHARED if pretrained[name] != random[name]]
    if different:
        names = " and ".join(name.replace("_", " ") for name in different)
        return Verdict("Not comparable.", "", [f"The two runs differ in {names}."])
    runs = {"pre-trained weights": main_scores(pretrained), "random weights": main_scores(random)}
    failed = [f"Every seed from {name} failed." for name, scores in runs.items() if not scores.worked]
    if failed:
        return Verdict("No comparison.", "", failed)
    with_text, without = runs.values()
    gap = with_text.median - without.median
    medians = (
        f"The median {metric} is {score(with_text.median)} from pre-trained and {score(without.median)} from random"
    )
    apart = f"{medians} weights, {score(abs(gap))} points {'more' if gap > 0 else 'less'}."
    spreads = f"Seeds spread over {score(with_text.spread)} and {score(without.spread)} points"
    if scores_separated(with_text, without):
        every = "every pre-trained seed is above every random one, and the medians differ by more than either spread."
        return Verdict("Pre-training helps.", f"{apart} {spreads}: {every}")
    if scores_separated(without, with_text):
        return Verdict("Pre-training hurts.", apart, [f"{spreads}, less than the medians differ."])
    if min(len(with_text.worked), len(without.worked)) < 2:
        return Verdict(
            "Not clear.", apart, ["A run with one seed that worked has no spread to compare the difference with."]
        )
    return Verdict("Not clear.", apart, [f"{spreads}: too much for the difference to be sure."])

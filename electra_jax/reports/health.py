"""Prepare the section of a pre-training page on the run's health, and the published curve."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from electra_jax.monitoring.health_checks import Finding, Setting
from electra_jax.monitoring.metrics_file import Rows
from electra_jax.monitoring.published_curve import Curve
from electra_jax.reports.charts import Series
from electra_jax.reports.page import Table, Verdict, plain

# The published curve is drawn at this many points, evenly spaced in log step, to look smooth.
_DRAWN = 24


@dataclass(frozen=True)
class Health:
    """The data of the section on a run's health.

    Attributes:
        verdict: the findings of the checks, with causes and remedies.
        over: the lines of metrics.jsonl with warnings that no longer apply.
        published: the published curve.
        differences: the differences from the published run that make the two incomparable; empty if there are none.
        first_step: the step of the run at which the published curve begins.
        beside: the run's last numbers next to the published ones; None before that step or if they are incomparable.
    """

    verdict: Verdict
    over: Rows
    published: Curve
    differences: Sequence[str]
    first_step: float
    beside: Table | None


def health_section(
    findings: Sequence[Finding], lines: Rows, warned: Rows, setting: Setting, published: Curve
) -> Health:
    """Prepare the section on a run's health.

    Args:
        findings: the findings of the health checks.
        lines: the training lines of metrics.jsonl by rising step.
        warned: its lines with warnings.
        setting: the setting of the run.
        published: the curve that the run is compared with if they are comparable.
    """
    standing = {finding.name for finding in findings}
    first = published.points["discriminator_auc"][0][0] * published.batch_size / setting.batch_size
    begun = not setting.differences and lines and lines[-1]["step"] >= first
    return Health(
        verdict=_verdict(findings),
        over=[row for row in warned if row["finding"] not in standing],
        published=published,
        differences=setting.differences,
        first_step=first,
        beside=_beside(lines[-1], setting, published) if begun else None,
    )


def published_series(name: str, setting: Setting, published: Curve, last_step: int) -> list[Series]:
    """Return the published curve of a metric up to a step of this run, as a line of a chart; [] if there is none."""
    if setting.differences or name not in published.points:
        return []
    scale = published.batch_size / setting.batch_size
    first, end = published.points[name][0][0], min(published.points[name][-1][0], last_step / scale)
    if end <= first:
        return []
    steps = [first * (end / first) ** (index / (_DRAWN - 1)) for index in range(_DRAWN)]
    # Rounding of the power may exceed the last point.
    points = [(step * scale, published.at(name, min(step, end))) for step in steps]
    return [Series("published", "published", points)]


def _verdict(findings: Sequence[Finding]) -> Verdict:
    if findings:
        explained = [
            f"{finding.words} Usual cause: {finding.cause}. What to try: {finding.remedy}." for finding in findings
        ]
        return Verdict("Something is unusual.", "This is what usually causes it, and what to try.", explained)
    return Verdict(
        "Nothing unusual.",
        "Every training line was looked through for losses of the wrong scale, a collapsed generator or one far "
        "ahead, a discriminator that learns nothing or calls every token original for too long, and an AUC that falls "
        "for long; every evaluation for a loss on held-out text that rises while that of training falls, and an AUC "
        "that falls back.",
    )


def _beside(last: Mapping[str, Any], setting: Setting, published: Curve) -> Table:
    """Return a table of a training line of this run and the published values at the same number of examples."""
    step = min(last["step"] * setting.batch_size / published.batch_size, published.points["discriminator_auc"][-1][0])
    rows = []
    for name in published.points:
        theirs = published.at(name, step)
        if name != "step" and math.isfinite(theirs):
            rows.append([name.replace("_", " "), plain(last.get(name)), plain(theirs)])
    return Table(["", f"training, step {last['step']:,}", f"published, step {step:,.0f}"], rows)

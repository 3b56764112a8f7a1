"""The part of a pre-training report that says whether the run is healthy, and the published curve for its charts."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from electra_jax.monitoring.health import Curve, diagnose
from electra_jax.monitoring.health_checks import Finding, Setting
from electra_jax.monitoring.history import history_of
from electra_jax.reports.charts import Series
from electra_jax.reports.page import Rows, plain, verdict_html
from electra_jax.reports.style import table_html

# Points drawn of the published curve, evenly in log step, so that it does not look like straight lines.
_DRAWN = 24


def stored_setting(*records: Mapping[str, Any]) -> Setting | None:
    """The setting that the first of these records has (evaluation.json, run.json); None if none has."""
    for record in records:
        if "setting" in record:
            values = record["setting"]
            return Setting(**{**values, "unlike_published": tuple(values["unlike_published"])})
    return None


def health_html(rows: Rows, warned: Rows, setting: Setting | None, published: Curve) -> str:
    """The section as markup; "" of a run that does not say how it was set.

    Args:
      rows: the training lines of metrics.jsonl by rising step, and the validation lines.
      warned: its lines of warnings.
      setting: of the run.
      published: the curve that it is compared with where it can be.
    """
    if setting is None:
        return ""
    found = diagnose(history_of(rows), setting, published)
    standing = {finding.name for finding in found}
    over = [row for row in warned if row["finding"] not in standing]
    head = "Something is unusual." if found else "Nothing unusual."
    text = (
        "This is what usually causes it, and what to try."
        if found
        else "Every training line was looked through for losses of the wrong scale, a collapsed generator or one far "
        "ahead, a discriminator that learns nothing or calls every token original, and an AUC that falls for long."
    )
    earlier = "".join(
        f'<p class="note">Warned of at step {row["step"]:,}, and no longer so: {escape(str(row["words"]))}</p>'
        for row in over
    )
    return (
        f"<h2>Is this run healthy?</h2>{verdict_html(head, text, [_words(finding) for finding in found])}{earlier}"
        f"{_comparison(rows, setting, published)}"
    )


def published_series(name: str, setting: Setting | None, published: Curve, last_step: int) -> list[Series]:
    """The published curve of a metric up to a step of this run, as a line of a chart; none where it says nothing."""
    if setting is None or setting.unlike_published or name not in published.points:
        return []
    scale = published.batch_size / setting.batch_size
    first, end = published.points[name][0][0], min(published.points[name][-1][0], last_step / scale)
    if end <= first:
        return []
    steps = [first * (end / first) ** (index / (_DRAWN - 1)) for index in range(_DRAWN)]
    # A power may miss the last point by a rounding.
    points = [(step * scale, published.at(name, min(step, end))) for step in steps]
    return [Series("published", "published", points)]


def _words(finding: Finding) -> str:
    return f"{finding.words} Usual cause: {finding.cause}. What to try: {finding.remedy}."


def _comparison(rows: Rows, setting: Setting, published: Curve) -> str:
    """The run beside the published one, or why the two cannot be compared."""
    if setting.unlike_published:
        differs = ", ".join(setting.unlike_published)
        return _note(
            f"The published curve of {published.name} is not drawn beside a run that differs from it ({differs})."
        )
    first = published.points["discriminator_auc"][0][0] * published.batch_size / setting.batch_size
    shape = (
        f"The dotted lines are {published.name} ({published.source}). {published.reading} Other text gives another "
        "curve: the shape is what to compare. The AUC first spikes, and dips as the generator improves; then it climbs."
    )
    lines = [row for row in rows if row.get("split") == "train"]
    if not lines or lines[-1]["step"] < first:
        return _note(f"{shape} They begin at step {first:,.0f}.")
    return _note(shape) + _beside(lines, setting, published)


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


def _beside(lines: Sequence[Mapping[str, Any]], setting: Setting, published: Curve) -> str:
    """A table of this run's last training line and of the published run at the same number of examples."""
    step = lines[-1]["step"] * setting.batch_size / published.batch_size
    end = published.points["discriminator_auc"][-1][0]
    table = []
    for name in published.points:
        theirs = published.at(name, min(step, end))
        if name != "step" and math.isfinite(theirs):
            table.append([name.replace("_", " "), plain(lines[-1].get(name)), plain(theirs)])
    return table_html(["", f"training, step {lines[-1]['step']:,}", f"published, step {min(step, end):,.0f}"], table)

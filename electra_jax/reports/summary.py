"""Describe in words how far a pre-training run came; only the health checks decide whether it is healthy."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from electra_jax.monitoring.health_checks import CHANCE_AUC, SILENT_RECALL, Finding
from electra_jax.reports.page import Verdict, decimal, number, percent

# At this AUC, a replaced token has a higher probability than an original one in two of three pairs.
_CLEAR_AUC = 0.65
# A generator must beat the most frequent token by this factor before it can be said to read its context.
_GENERATOR_FACTOR = 1.5


def verdict(
    findings: Sequence[Finding], evaluation: Mapping[str, Any], validation: Sequence[Mapping[str, Any]]
) -> Verdict:
    """Return the outcome of a run: the findings of the health checks or, if there are none, how far it came.

    Args:
        findings: the findings of the health checks.
        evaluation: the content of evaluation.json.
        validation: the validation lines of metrics.jsonl by rising step.
    """
    course = course_text(validation)
    if findings:
        return Verdict("Read with care.", course, [finding.words for finding in findings])
    if caveats(evaluation):
        return Verdict("It has learned little so far.", course, plain=True)
    clear = number(evaluation["metrics"], "discriminator_auc") >= _CLEAR_AUC
    return Verdict("It learned." if clear else "It has begun to learn.", course)


def caveats(evaluation: Mapping[str, Any]) -> list[str]:
    """Return caveats that a reader of the held-out figures must know; none if each figure can be taken at face value.

    A young or small run has caveats and can still be healthy.
    """
    metrics = evaluation["metrics"]
    auc = number(metrics, "discriminator_auc")
    accuracy, share = number(metrics, "discriminator_accuracy"), number(metrics, "unreplaced_share")
    found = []
    if not math.isfinite(auc):
        found.append("No AUC was recorded for the held-out text, so whether replaced tokens are found is unknown.")
    elif auc < CHANCE_AUC:
        found.append(
            f"The AUC of {decimal(auc)} is near 0.5: the discriminator does not tell replaced from original tokens."
        )
    if number(metrics, "discriminator_recall") < SILENT_RECALL:
        found.append(
            "The discriminator calls practically every token original. Its accuracy is the share of "
            "unreplaced tokens and says nothing about learning."
        )
    elif accuracy <= share:
        found.append(
            f"The discriminator’s accuracy ({percent(accuracy)}) is not above the {percent(share)} of "
            "calling every token original; only the AUC and recall show what it has learned."
        )
    rate = number(evaluation.get("most_frequent_token", {}), "rate")
    if number(metrics, "generator_accuracy") < _GENERATOR_FACTOR * rate:
        found.append("The generator does hardly better than always answering the most frequent token.")
    return found


def course_text(validation: Sequence[Mapping[str, Any]]) -> str:
    """Describe the change of AUC and generator accuracy from the first validation to the last; "" for under two."""
    if len(validation) < 2:
        return ""
    first, last = validation[0], validation[-1]
    before, after = (decimal(number(row, "discriminator_auc")) for row in (first, last))
    best, step = max(((number(row, "discriminator_auc"), row["step"]) for row in validation), key=_by_value)
    peak = "" if decimal(best) == after else f" (its best, {decimal(best)}, was at step {step:,})"
    epoch = number(last, "epoch")
    epochs = f" (epoch {epoch:.2f})" if math.isfinite(epoch) else ""
    return (
        f"From step {first['step']:,} to step {last['step']:,}{epochs} the validation AUC went from {before} "
        f"to {after}{peak}, "
        f"the generator’s accuracy from {percent(number(first, 'generator_accuracy'))} to "
        f"{percent(number(last, 'generator_accuracy'))}."
    )


def _by_value(point: tuple[float, int]) -> float:
    return point[0] if math.isfinite(point[0]) else -math.inf

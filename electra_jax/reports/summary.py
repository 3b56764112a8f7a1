"""What a pre-training run achieved, in plain words made from its numbers, the bad news included."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

# Under this AUC the ranking is within what a few hundred passages give by chance; nothing should be claimed.
_CHANCE_AUC = 0.55
# From here on, two replaced tokens in three stand above an original one.
_CLEAR_AUC = 0.65
# Below this recall the discriminator in effect answers "original" everywhere, whatever its accuracy.
_SILENT_RECALL = 0.02
# A generator must beat the most frequent token by this factor before it can be said to read its context.
_GENERATOR_FACTOR = 1.5
# A fall of the AUC from its best that is more than the noise of an evaluation.
_AUC_FALL = 0.02


def number(values: Mapping[str, Any], name: str) -> float:
    """`values[name]` as a float; NaN where it is absent or null."""
    value = values.get(name)
    return math.nan if value is None else float(value)


def percent(value: float) -> str:
    """A share as a percentage with one decimal, "–" if it is not a number."""
    return f"{100 * value:.1f}\N{NO-BREAK SPACE}%" if math.isfinite(value) else "–"


def decimal(value: float) -> str:
    """A loss or an AUC with three decimals, "–" if it is not a number."""
    return f"{value:.3f}" if math.isfinite(value) else "–"


def summary_text(evaluation: Mapping[str, Any]) -> str:
    """What was trained, on what, and how well it does on held-out text, as one paragraph of plain text."""
    metrics, step = evaluation["metrics"], evaluation["step"]
    size = evaluation.get("parameters", {})
    generator, discriminator = (
        f" ({_short(size[tower])} parameters)" if tower in size else "" for tower in ("generator", "discriminator")
    )
    text = f"; the text was {evaluation['corpus']}" if "corpus" in evaluation else ""
    examples = evaluation.get("num_examples")
    held_out = f"{examples:,} held-out passages" if examples else "held-out passages"
    frequent = evaluation.get("most_frequent_token", {})
    floor = ""
    if "token" in frequent:
        floor = (
            f" (always answering “{frequent['token']}”, the most frequent one, would restore "
            f"{percent(number(frequent, 'rate'))})"
        )
    kept = evaluation.get("kept_share")
    shown = f"; {percent(kept)} of them are left as they are, and can be copied" if kept else ""
    precision = number(metrics, "discriminator_precision")
    right = f", and {percent(precision)} of what it flags really was replaced" if precision > 0 else ""
    return (
        f"A generator{generator} and a discriminator{discriminator} learned together for {step:,} steps{text}. "
        "The generator fills hidden words of a text with guesses; the discriminator reads the result and says of "
        f"every token whether it is original or replaced. On {held_out}, the generator restores "
        f"{percent(number(metrics, 'generator_accuracy'))} of the hidden tokens{floor}{shown}. Given one replaced "
        "and one original token, the discriminator ranks the replaced one higher "
        f"{percent(number(metrics, 'discriminator_auc'))} of the time (guessing: {percent(0.5)}). It flags "
        f"{percent(number(metrics, 'discriminator_recall'))} of the replaced tokens{right}. Its accuracy of "
        f"{percent(number(metrics, 'discriminator_accuracy'))} must be read beside "
        f"{percent(number(metrics, 'unreplaced_share'))}, the score of calling every token original."
    )


def warnings(evaluation: Mapping[str, Any], validation: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a reader must know before believing the figures; empty if nothing is wrong.

    Args:
      evaluation: evaluation.json.
      validation: the validation lines of metrics.jsonl by rising step.
    """
    metrics = evaluation["metrics"]
    auc = number(metrics, "discriminator_auc")
    accuracy, share = number(metrics, "discriminator_accuracy"), number(metrics, "unreplaced_share")
    found = []
    if not math.isfinite(auc):
        found.append("No AUC was recorded for the held-out text, so whether replaced tokens are found is unknown.")
    elif auc < _CHANCE_AUC:
        found.append(
            f"The AUC of {decimal(auc)} is near 0.5: the discriminator does not tell replaced from original tokens."
        )
    if number(metrics, "discriminator_recall") < _SILENT_RECALL:
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
    return found + _fallen_auc(validation)


def _fallen_auc(validation: Sequence[Mapping[str, Any]]) -> list[str]:
    curve = [(number(row, "discriminator_auc"), row["step"]) for row in validation]
    curve = [point for point in curve if math.isfinite(point[0])]
    if not curve:
        return []
    best, step = max(curve)
    last = curve[-1][0]
    if best - last <= _AUC_FALL:
        return []
    return [
        f"The validation AUC ended at {decimal(last)}, under its best of {decimal(best)} at step {step:,}. An "
        "early peak is usual, because a generator that improves makes harder fakes; a fall that goes on is not."
    ]


def headline(found: Sequence[str], auc: float) -> str:
    """The verdict in a few words, from the warnings and the held-out AUC."""
    if found:
        return "Read with care."
    return "It learned." if auc >= _CLEAR_AUC else "It has begun to learn."


def learning_text(validation: Sequence[Mapping[str, Any]]) -> str:
    """How AUC and generator accuracy went from the first validation to the last; "" if under two."""
    if len(validation) < 2:
        return ""
    first, last = validation[0], validation[-1]
    return (
        f"From step {first['step']:,} to step {last['step']:,} the validation AUC went from "
        f"{decimal(number(first, 'discriminator_auc'))} to {decimal(number(last, 'discriminator_auc'))}, the "
        f"generator’s accuracy from {percent(number(first, 'generator_accuracy'))} to "
        f"{percent(number(last, 'generator_accuracy'))}."
    )


def _short(count: float) -> str:
    for size, word in ((1e9, "billion"), (1e6, "million")):
        if count >= size:
            return f"{count / size:.1f} {word}"
    return f"{count:,.0f}"

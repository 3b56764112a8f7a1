"""Judge a run by its held-out text: whether what it learns from its own text is true of other text as well.

Every evaluation of a run reads the same examples with the same masks, so that two of them differ less than two windows
of training do. The thresholds are those of `health_checks` where they mean the same.
"""

import math
from collections.abc import Callable, Sequence

from electra_jax.monitoring.health_checks import (
    AUC_FALL,
    GENERATOR_GAIN,
    RECENT,
    TREND_TOKENS,
    Finding,
    Setting,
)
from electra_jax.monitoring.history import History, Window, mean

# A rise in nats of a held-out loss over its best: twice the noise of a window of training.
LOSS_RISE = 0.1
# So many evaluations in a row are worse than the best one: a single one may be bad by chance.
IN_A_ROW = 2
# The losses of whatever fills in hidden tokens, and what it is called.
FILLERS = {"generator_loss": "generator", "prediction_loss": "model"}


def overfitting(history: History, setting: Setting) -> Finding | None:
    """Find a generator, or a masked language model, that learns its text by heart."""
    for name, what in FILLERS.items():
        evaluations = [window for window in history.held_out if math.isfinite(window[name])]
        if len(evaluations) <= IN_A_ROW or not history.full:
            continue
        now, best = evaluations[-1], min(evaluations, key=lambda window: window[name])
        before, after = _trained(history.full, best.step, name), _trained(history.full, now.step, name)
        rises = min(window[name] for window in evaluations[-IN_A_ROW:]) > best[name] + LOSS_RISE
        # What has been read once cannot be known by heart.
        repeated = not now.epoch <= 1
        if not (rises and after < before and repeated) or (what == "generator" and not setting.generator_learns):
            continue
        return Finding(
            "overfitting",
            now.step,
            f"The {what} learns its text by heart: its loss on held-out text was best at step {best.step:,} with "
            f"{best[name]:.2f} nats and has risen to {now[name]:.2f}, while its training loss went on falling from "
            f"{before:.2f} to {after:.2f}{_epochs(now)}.",
            "a text that is small for so many steps, and is read again and again",
            f"more text helps most; else end about step {best.step:,} (TRAIN_STEPS), raise DROPOUT, or take a smaller "
            "model",
        )
    return None


def held_out_auc_falling(history: History, setting: Setting) -> Finding | None:
    """Find a held-out AUC that has fallen back, and not because the generator improves on held-out text."""
    evaluations = [window for window in history.held_out if math.isfinite(window["discriminator_auc"])]
    recent, now = evaluations[-IN_A_ROW:], evaluations[-1] if evaluations else None
    if now is None or not (setting.judges_every_token and _has_trend(history, now)):
        return None
    # An early spike is no best to fall back from: the generator has gained much since.
    comparable = [
        window
        for window in evaluations[:-IN_A_ROW]
        if not window["generator_loss"] - now["generator_loss"] >= GENERATOR_GAIN
    ]
    best = max(comparable, key=lambda window: window["discriminator_auc"], default=None)
    if best is None or not max(window["discriminator_auc"] for window in recent) < best["discriminator_auc"] - AUC_FALL:
        return None
    return Finding(
        "held_out_auc_falling",
        now.step,
        f"The discriminator finds fewer of the replaced tokens of held-out text than it did: the AUC there went from "
        f"{best['discriminator_auc']:.3f} at step {best.step:,} back to {now['discriminator_auc']:.3f}{_epochs(now)}, "
        "and the generator has not become better meanwhile.",
        "a text that is small for so many steps, so that what is learnt holds for it alone; or a learning rate that is "
        "too high late in the run",
        f"more text; else end about step {best.step:,} (TRAIN_STEPS), raise DROPOUT, or lower LEARNING_RATE",
    )


def _has_trend(history: History, now: Window) -> bool:
    """Return whether the run is past its beginning, by its tokens or because its text begins anew."""
    return sum(window.tokens for window in history.windows) >= TREND_TOKENS or now.epoch > 1


def _trained(windows: Sequence[Window], step: int, name: str) -> float:
    """Return the mean training loss about a step: of the last windows that end by it, or else of the first window."""
    return mean([window for window in windows if window.step <= step][-RECENT:] or windows[:1], name)


def _epochs(now: Window) -> str:
    return f" (epoch {now.epoch:.1f})" if math.isfinite(now.epoch) else ""


HELD_OUT_CHECKS: tuple[Callable[[History, Setting], Finding | None], ...] = (overfitting, held_out_auc_falling)

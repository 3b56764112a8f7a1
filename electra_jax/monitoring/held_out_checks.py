"""Judge a run by its held-out text: whether what it learns from its training text also holds for other text.

Every evaluation of a run reads the same examples with the same masks, so two evaluations differ less than two windows
of training. Thresholds with the same meaning as in `health_checks` are shared with it.
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

# A rise of a held-out loss above its best, in nats: twice the noise of a window of training.
LOSS_RISE = 0.1
# This many evaluations in a row must be worse than the best one: a single one may be bad by chance.
IN_A_ROW = 2
# The losses of predicting hidden tokens, and the part of the model that predicts them.
FILLERS = {"generator_loss": "generator", "prediction_loss": "model"}


def overfitting(history: History, setting: Setting) -> Finding | None:
    """Find a generator, or a masked language model, that memorizes its text."""
    for name, what in FILLERS.items():
        evaluations = [window for window in history.held_out if math.isfinite(window[name])]
        if len(evaluations) <= IN_A_ROW or not history.full:
            continue
        now, best = evaluations[-1], min(evaluations, key=lambda window: window[name])
        before, after = _trained(history.full, best.step, name), _trained(history.full, now.step, name)
        rises = min(window[name] for window in evaluations[-IN_A_ROW:]) > best[name] + LOSS_RISE
        # Text that was read only once cannot be memorized.
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
    """Find a held-out AUC that has fallen without the generator improving on held-out text."""
    evaluations = [window for window in history.held_out if math.isfinite(window["discriminator_auc"])]
    recent, now = evaluations[-IN_A_ROW:], evaluations[-1] if evaluations else None
    if now is None or not (setting.judges_every_token and _has_trend(history, now)):
        return None
    # An early spike does not count as the best: the generator has gained much since.
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
    """Return whether the run is past its beginning: it has read enough tokens, or all of its text once."""
    return sum(window.tokens for window in history.windows) >= TREND_TOKENS or now.epoch > 1


def _trained(windows: Sequence[Window], step: int, name: str) -> float:
    """Return the mean training loss around a step: of the last windows that end by it, or else of the first window."""
    return mean([window for window in windows if window.step <= step][-RECENT:] or windows[:1], name)


def _epochs(now: Window) -> str:
    return f" (epoch {now.epoch:.1f})" if math.isfinite(now.epoch) else ""


HELD_OUT_CHECKS: tuple[Callable[[History, Setting], Finding | None], ...] = (overfitting, held_out_auc_falling)

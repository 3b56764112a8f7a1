"""Diagnose a pre-training run: what is unusual, what usually causes it, and what to try.

`health_checks` compares a run with what is possible and with its own past, and `held_out_checks` compares its
evaluations. This module runs these checks, and also compares the run with the published curve if its model, objective
and length are the published ones.
"""

import math
from collections.abc import Sequence

from electra_jax.monitoring.health_checks import CHECKS, RECENT, Finding, Setting
from electra_jax.monitoring.held_out_checks import HELD_OUT_CHECKS
from electra_jax.monitoring.history import History, Window, mean
from electra_jax.monitoring.published_curve import Curve

# How far other text may be from the published curve: the generator's loss differs by 0.5 between novels and manuals.
PUBLISHED_NATS = 1.0
PUBLISHED_AUC = 0.08
PUBLISHED_FACTOR = 1.6
PUBLISHED_ACCURACY = 0.15


def diagnose(history: History, setting: Setting, published: Curve) -> list[Finding]:
    """Return the findings of all checks on a run's history up to now."""
    found = [not_finite(history)]
    windows = history.full
    if windows:
        found += [check(windows, setting) for check in CHECKS]
        found.append(differs_from_published(windows, setting, published))
    found += [check(history, setting) for check in HELD_OUT_CHECKS]
    return [finding for finding in found if finding is not None]


def not_finite(history: History) -> Finding | None:
    """Find a loss that is not finite; only a validation line can have one, because training stops before writing it."""
    if history.not_finite is None:
        return None
    step, name = history.not_finite
    return Finding(
        "not_finite",
        step,
        f"The {name.replace('_', ' ')} at step {step:,} is not a finite number.",
        "a learning rate that is too high, or numbers beyond the range of bfloat16",
        "go back to an earlier checkpoint, lower LEARNING_RATE or lengthen WARMUP_STEPS",
    )


def differs_from_published(windows: Sequence[Window], setting: Setting, published: Curve) -> Finding | None:
    """Find a run far from the published curve, if the two can be compared."""
    recent = windows[-RECENT:]
    if setting.differences or len(recent) < RECENT:
        return None
    step = windows[-1].step * setting.batch_size / published.batch_size
    beyond = {
        "generator_loss": lambda now, theirs: now > theirs + PUBLISHED_NATS,
        "generator_accuracy": lambda now, theirs: now < theirs - PUBLISHED_ACCURACY,
        "discriminator_auc": lambda now, theirs: now < theirs - PUBLISHED_AUC,
        "discriminator_loss": lambda now, theirs: not 1 / PUBLISHED_FACTOR < now / theirs < PUBLISHED_FACTOR,
    }
    pairs = {name: (mean(recent, name), published.at(name, step)) for name in beyond}
    far = [
        f"{name.replace('_', ' ').replace('auc', 'AUC')} {now:.3g} (published {theirs:.3g})"
        for name, (now, theirs) in pairs.items()
        if math.isfinite(now) and math.isfinite(theirs) and beyond[name](now, theirs)
    ]
    if not far:
        return None
    return Finding(
        "unlike_published",
        windows[-1].step,
        f"At step {windows[-1].step:,} this run is far from {published.name}, whose model and objective it has: "
        f"{', '.join(far)}.",
        "a learning rate schedule that ends much later or earlier, too little or very different text, or a loss of "
        "another scale",
        "compare the shapes in report.html rather than the values; check LEARNING_RATE, BATCH_SIZE, the vocabulary and "
        "the corpus",
    )

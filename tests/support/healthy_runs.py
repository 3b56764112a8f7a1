"""Lines of metrics of healthy runs, to be made ill, and what is found in them."""

import itertools
from collections.abc import Iterable
from typing import Any

from electra_jax.monitoring.health import diagnose
from electra_jax.monitoring.health_checks import Setting
from electra_jax.monitoring.history import History, history_of
from electra_jax.monitoring.published_curve import published_curve

PUBLISHED = published_curve()
SMALL = Setting(8192, 16, generator_learns=True, judges_every_token=True, differences=("the model's size",))
LIKE_PUBLISHED = Setting(30522, 128, generator_learns=True, judges_every_token=True, differences=())
# One line of metrics of the demo, late in its run.
GOOD = {
    "generator_loss": 4.2,
    "generator_accuracy": 0.3,
    "generator_repetition": 0.015,
    "discriminator_loss": 0.31,
    "discriminator_recall": 0.3,
    "discriminator_auc": 0.84,
    "unreplaced_share": 0.854,
    "learning_rate": 1e-3,
}
STEPS, TOKENS = 100, 100_000
Row = dict[str, Any]


def rows(values: Iterable[Row], *, steps: int = STEPS, tokens: float = TOKENS, split: str = "train") -> list[Row]:
    """Lines of metrics.jsonl, each of so many steps and tokens: `GOOD` with the values of each."""
    speed = {"tokens_per_second": tokens / 10, "seconds": 10.0}
    return [
        {"step": steps * number, "split": split, **GOOD, **speed, **changed}
        for number, changed in enumerate(values, start=1)
    ]


def names(lines: list[Row], setting: Setting = SMALL) -> list[str]:
    return [finding.name for finding in diagnose(history_of(lines), setting, PUBLISHED)]


def names_on_the_way(lines: list[Row], setting: Setting = SMALL) -> set[str]:
    """Of every moment of the run."""
    history, found = History(), set()
    for line in lines:
        history = history.add(line)
        found |= {finding.name for finding in diagnose(history, setting, PUBLISHED)}
    return found


def between(first: float, last: float, count: int) -> list[float]:
    return [first + (last - first) * index / (count - 1) for index in range(count)]


def published_rows() -> list[Row]:
    """The published run: an early spike and dip as its author's plots have them, then the points that were read."""
    # Steps, then generator loss, discriminator loss, AUC, generator accuracy; before 20,000 by the usual course.
    early = [
        (500, 7.6, 0.26, 0.93, 0.05),
        (2000, 6.6, 0.33, 0.80, 0.15),
        (5000, 6.0, 0.33, 0.74, 0.21),
        (10_000, 5.0, 0.29, 0.79, 0.30),
    ]
    read = [
        (step, *(PUBLISHED.at(name, step) for name in ("generator_loss", "discriminator_loss", "discriminator_auc")), g)
        for step, g in ((20_000, 0.37), (100_000, 0.42), (200_000, 0.433), (500_000, 0.443), (990_000, 0.454))
    ]
    lines = []
    points = early + read
    for (left, *before), (right, *after) in itertools.pairwise(points):
        for index in range(20):
            now = [low + (high - low) * index / 20 for low, high in zip(before, after, strict=True)]
            generator, discriminator, area, accuracy = now
            lines.append(
                {
                    "step": round(left + (right - left) * index / 20),
                    "split": "train",
                    "generator_loss": generator,
                    "discriminator_loss": discriminator,
                    "discriminator_auc": area,
                    "generator_accuracy": accuracy,
                    "unreplaced_share": 0.90,
                    "discriminator_recall": max(0.02, 4 * (area - 0.84)),
                    "learning_rate": 5e-4 * min(1, left / 10_000),
                    "tokens_per_second": (right - left) / 20 * 128 * 128,
                    "seconds": 1.0,
                }
            )
    return lines

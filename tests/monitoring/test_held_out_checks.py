"""Is what a run learns true of other text? A small corpus that is learnt by heart is found out; good runs are not."""

import dataclasses
import math
from typing import Any

import pytest

from electra_jax.monitoring.health import diagnose
from electra_jax.monitoring.history import MAX_WINDOWS, history_of
from support.healthy_runs import LIKE_PUBLISHED, PUBLISHED, SMALL, Row, between, names, names_on_the_way, published_rows
from support.healthy_runs import rows as lines_of

# The run of a small corpus: 20 reported lines and an evaluation at each second one; 78 epochs in the end.
TRAIN_LOSS = between(7.0, 4.68, 20)
HELD_OUT_LOSS = [6.6, 6.0, 5.5, 5.2, 5.1, 5.15, 5.25, 5.36, 5.46, 5.57]
HELD_OUT_AUC = [0.52, 0.54, 0.56, 0.58, 0.6, 0.59, 0.57, 0.54, 0.52, 0.5]
SOUND_LOSS, SOUND_AUC = between(6.6, 4.9, 10), between(0.52, 0.6, 10)


def run_of(
    held_out_loss: list[float],
    auc: list[float],
    *,
    epochs: float = 78.0,
    loss: str = "generator_loss",
    train_loss: list[float] = TRAIN_LOSS,
    **common: Any,
) -> list[Row]:
    train = lines_of([{loss: value, **common} for value in train_loss])
    both = zip(held_out_loss, auc, strict=True)
    held_out = lines_of(({loss: value, "discriminator_auc": a, **common} for value, a in both), steps=200)
    lines = train + [{**line, "split": "validation"} for line in held_out]
    for line in lines:
        line["epoch"] = epochs * line["step"] / 2000
    return sorted(lines, key=lambda line: (line["step"], line["split"]))


def test_a_small_corpus_learnt_by_heart_is_found_with_its_numbers() -> None:
    found = diagnose(history_of(run_of(HELD_OUT_LOSS, HELD_OUT_AUC)), SMALL, PUBLISHED)
    by_heart, fallen = found
    assert (by_heart.name, by_heart.step, fallen.name, fallen.step) == (
        "overfitting",
        2000,
        "held_out_auc_falling",
        2000,
    )
    # About step 1,000 the training lines of steps 800 to 1,000 count, and in the end those of 1,800 to 2,000.
    step = (7.0 - 4.68) / 19
    assert "best at step 1,000 with 5.10 nats and has risen to 5.57" in by_heart.words
    assert f"falling from {7.0 - 8 * step:.2f} to {4.68 + step:.2f} (epoch 78.0)" in by_heart.words
    assert by_heart.remedy.startswith("more text helps most; else end about step 1,000 (TRAIN_STEPS), raise DROPOUT")
    assert "from 0.600 at step 1,000 back to 0.500 (epoch 78.0)" in fallen.words


def test_a_run_that_learns_what_holds_for_other_text_is_healthy_at_every_moment() -> None:
    assert names_on_the_way(run_of(SOUND_LOSS, SOUND_AUC)) == set()
    # One bad evaluation is none too many, nor is a rise within the noise of a window.
    assert names(run_of([*SOUND_LOSS[:9], 5.9], [*SOUND_AUC[:9], 0.5])) == []
    assert names(run_of([*SOUND_LOSS[:8], 5.28, 5.29], SOUND_AUC)) == []


def test_a_held_out_loss_that_rises_with_the_training_loss_is_another_illness() -> None:
    rising = [*between(4.6, 4.3, 10), *between(4.3, 4.7, 10)]
    assert names(run_of(HELD_OUT_LOSS, SOUND_AUC, train_loss=rising)) == []


def test_a_text_read_once_cannot_be_known_by_heart() -> None:
    assert names(run_of(HELD_OUT_LOSS, SOUND_AUC, epochs=1.0)) == []
    assert names(run_of(HELD_OUT_LOSS, SOUND_AUC, epochs=2.0)) == ["overfitting"]


def test_lines_of_earlier_versions_have_no_epochs_and_are_judged_without() -> None:
    lines = [
        {name: value for name, value in line.items() if name != "epoch"} for line in run_of(HELD_OUT_LOSS, HELD_OUT_AUC)
    ]
    # 2 million tokens are enough for a trend.
    found = diagnose(history_of(lines), SMALL, PUBLISHED)
    assert [finding.name for finding in found] == ["overfitting", "held_out_auc_falling"]
    assert not any("epoch" in finding.words for finding in found)
    assert math.isnan(history_of(lines).windows[-1].epoch)


def test_a_masked_language_model_is_judged_by_its_loss_too() -> None:
    setting = dataclasses.replace(SMALL, generator_learns=False, judges_every_token=False)
    none = {"generator_loss": None}
    (found,) = diagnose(
        history_of(run_of(HELD_OUT_LOSS, HELD_OUT_AUC, loss="prediction_loss", **none)), setting, PUBLISHED
    )
    assert found.words.startswith("The model learns its text by heart")
    # A generator that does not learn learns nothing by heart.
    assert names(run_of(HELD_OUT_LOSS, HELD_OUT_AUC), setting) == []


def test_an_early_spike_of_the_held_out_auc_is_no_best_to_fall_from() -> None:
    """The published run: 0.93 at first, 0.74 at the bottom of the dip, where its generator has gained 1.6 nats."""
    lines = [line for one in published_rows() for line in (one, {**one, "split": "validation"})]
    assert names_on_the_way(lines, LIKE_PUBLISHED) == set()
    later = [*between(0.93, 0.7, 4), *between(0.72, 0.6, 6)]
    assert names(run_of([7.6, 6.0, *[5.2] * 8], later)) == ["held_out_auc_falling"]


def test_a_small_run_at_chance_is_ill_once_its_text_has_nothing_more_to_teach() -> None:
    chance: Row = {"discriminator_auc": 0.505, "generator_accuracy": 0.1}
    still = between(5.5, 5.4, 10), [0.505] * 10
    # 2 million tokens: far from the 100 million that a large text is given.
    for flagged, name in ((0.2, "discriminator_at_chance"), (0.0, "discriminator_all_original")):
        values = {**chance, "discriminator_recall": flagged}
        assert names(run_of(*still, epochs=78.0, **values)) == [name]
        assert names(run_of(*still, epochs=39.0, **values)) == []


@pytest.mark.parametrize("count", [MAX_WINDOWS, MAX_WINDOWS + 1, 3 * MAX_WINDOWS])
def test_a_long_history_of_evaluations_stays_short_and_ends_with_the_last(count: int) -> None:
    held_out = history_of(lines_of([{"generator_loss": 4.0}] * count, split="validation")).held_out
    assert len(held_out) <= MAX_WINDOWS
    assert held_out[-1].step == 100 * count
    assert {window["generator_loss"] for window in held_out} == {4.0}

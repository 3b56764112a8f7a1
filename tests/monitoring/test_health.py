"""Is a run healthy? Silent on good runs, large and small; every illness is found, in words."""

import dataclasses
import math

import pytest

from electra_jax.monitoring.health import diagnose
from electra_jax.monitoring.health_checks import Finding, constant_guess_loss
from electra_jax.monitoring.history import MAX_WINDOWS, WINDOW_TOKENS, history_of
from support.healthy_runs import (
    GOOD,
    LIKE_PUBLISHED,
    PUBLISHED,
    SMALL,
    STEPS,
    TOKENS,
    Row,
    between,
    names,
    names_on_the_way,
    published_rows,
    rows,
)


def test_the_published_run_is_healthy_at_every_moment() -> None:
    assert names_on_the_way(published_rows(), LIKE_PUBLISHED) == set()


def test_the_shipped_curve_is_what_was_read_and_says_where() -> None:
    assert [step for step, _ in PUBLISHED.points["discriminator_auc"]] == [20_000, 100_000, 200_000, 500_000, 990_000]
    assert PUBLISHED.at("generator_loss", 200_000) == 3.43
    assert PUBLISHED.points["discriminator_precision"] == [(200_000, 0.737), (500_000, 0.758), (990_000, 0.783)]
    # Half-way in log step between 200,000 and 500,000.
    assert PUBLISHED.at("generator_accuracy", math.sqrt(2e5 * 5e5)) == pytest.approx(0.438)
    assert math.isnan(PUBLISHED.at("discriminator_auc", 19_999))
    assert "issue 3" in PUBLISHED.source
    assert "2 %" in PUBLISHED.reading


def test_a_small_discriminator_that_flags_nothing_is_not_ill() -> None:
    """The demo at sampling temperature 1, 3,000 steps of 1,100 tokens (bench/RESULTS.md)."""
    loss, area = between(5.0, 3.9, 60), between(0.54, 0.61, 60)
    lines = rows(
        (
            {
                "generator_loss": g,
                "discriminator_auc": a,
                "discriminator_recall": 0.0,
                "unreplaced_share": 0.8805,
                "discriminator_loss": 0.97 * constant_guess_loss(0.8805),
                "generator_accuracy": 0.33,
            }
            for g, a in zip(loss, area, strict=True)
        ),
        tokens=55_000,
    )
    assert names_on_the_way(lines) == set()


CONSTANT = constant_guess_loss(GOOD["unreplaced_share"])
HALF = [{}] * 12


@pytest.mark.parametrize(
    ("name", "words", "values"),
    [
        ("generator_scale", "ln V = 9.01", [{"generator_loss": 12.0}]),
        ("generator_rising", "from 4.20 nats at step 100 to 6.60", [{}, {}, *[{"generator_loss": 6.6}] * 3]),
        (
            "generator_lost",
            "restored 30.0% of the hidden tokens, and now 2.0%",
            [{}, *[{"generator_accuracy": 0.02}] * 3],
        ),
        ("generator_one_token", "98% are the same", [{"generator_repetition": 0.98}] * 3),
        ("generator_ahead", "restores 95.0% of the hidden tokens, so that", [{"generator_accuracy": 0.95}] * 3),
        (
            "generator_ahead",
            "cannot tell its samples from the text (AUC 0.505)",
            [{"discriminator_auc": 0.505, "discriminator_loss": CONSTANT}] * 3,
        ),
        ("discriminator_scale", "tossing a coin costs only ln 2", [{"discriminator_loss": 1.2}]),
        ("discriminator_scale", "less than an AUC of 0.840", [{"discriminator_loss": 0.15 * CONSTANT}]),
        ("discriminator_untaught", "above the 0.416 of answering 14.6%", [{"discriminator_loss": 0.6}] * 4),
        (
            "discriminator_all_original",
            "flags 0.0% of the replaced",
            [*HALF, *({"discriminator_auc": a, "discriminator_recall": 0.0} for a in between(0.84, 0.6, 20))],
        ),
        ("auc_falling", "early dip is usual", [*HALF, *({"discriminator_auc": a} for a in between(0.84, 0.7, 20))]),
    ],
)
def test_every_illness_is_found_in_words(name: str, words: str, values: list[Row]) -> None:
    found = {finding.name: finding for finding in diagnose(history_of(rows(values)), SMALL, PUBLISHED)}
    assert words in found[name].words
    assert found[name].step == STEPS * len(values)
    assert found[name].cause
    assert found[name].remedy
    # The same run without what is wrong.
    assert names(rows([{}] * len(values))) == []


def test_a_long_run_whose_discriminator_flags_nothing_or_at_random_is_ill() -> None:
    nothing = {"discriminator_auc": 0.505, "discriminator_loss": CONSTANT, "generator_accuracy": 0.2}
    flags = {"discriminator_recall": 0.2}
    young, old = {"tokens": 3e6}, {"tokens": 40e6}
    assert names(rows([nothing | {"discriminator_recall": 0.0}] * 4, **young)) == []
    assert names(rows([nothing | {"discriminator_recall": 0.0}] * 4, **old)) == ["discriminator_all_original"]
    assert names(rows([nothing | flags] * 4, **young)) == []
    assert names(rows([nothing | flags] * 4, **old)) == ["discriminator_at_chance"]
    # With the tokens of the published run's first 100,000 steps a good one flags some, whatever its AUC.
    silent = {"discriminator_auc": 0.7, "discriminator_recall": 0.01}
    assert names(rows([silent] * 4, tokens=300e6)) == []
    assert names(rows([silent] * 4, tokens=500e6)) == ["discriminator_all_original"]


def test_an_auc_that_dips_because_the_generator_improves_is_healthy_unless_it_is_late() -> None:
    areas, losses = between(0.84, 0.7, 20), between(5.0, 4.2, 20)
    dip = [{"discriminator_auc": a, "generator_loss": g} for a, g in zip(areas, losses, strict=True)]
    assert names(rows([*[{"generator_loss": 5.0}] * 12, *dip])) == []
    assert names(rows([*[{"generator_loss": 5.0}] * 12, *dip], tokens=20e6)) == ["auc_falling"]


def test_what_does_not_learn_or_judges_other_tokens_is_not_judged() -> None:
    ill = rows([{"generator_loss": 12.0, "discriminator_loss": 1.2, "generator_accuracy": 1.0}] * 4)
    assert set(names(ill)) >= {"generator_scale", "generator_ahead", "discriminator_scale"}
    other = dataclasses.replace(SMALL, generator_learns=False, judges_every_token=False)
    assert names(ill, other) == []


def test_far_from_the_published_curve_at_the_same_number_of_examples() -> None:
    def at(step: int, batch_size: int, **values: float) -> list[Finding]:
        lines = rows([values] * 4, steps=step // 4, tokens=80e6)
        setting = dataclasses.replace(LIKE_PUBLISHED, batch_size=batch_size)
        return diagnose(history_of(lines), setting, PUBLISHED)

    near = {"generator_loss": 3.9, "discriminator_loss": 0.24, "discriminator_auc": 0.86, "unreplaced_share": 0.9}
    assert at(100_000, 128, **near) == []
    (far,) = at(100_000, 128, **(near | {"discriminator_auc": 0.79, "generator_loss": 4.6}))
    assert far.name == "unlike_published"
    assert "generator loss 4.6 (published 3.52), discriminator AUC 0.79 (published 0.889)" in far.words
    # Four times the examples in a step: 5,000 of them are 20,000 of the published, where the AUC is 0.856.
    assert at(5000, 512, **(near | {"discriminator_auc": 0.79})) == []
    assert [finding.name for finding in at(25_000, 512, **(near | {"discriminator_auc": 0.79}))] == ["unlike_published"]
    # A loss that is divided by another number of tokens.
    (scaled,) = at(100_000, 128, **(near | {"discriminator_loss": 0.208 / 2}))
    assert "discriminator loss 0.104 (published 0.208)" in scaled.words
    # Before the first published point there is nothing to compare with.
    assert at(16_000, 128, **(near | {"discriminator_auc": 0.75})) == []


def test_a_validation_loss_that_is_not_finite_is_said() -> None:
    lines = [*rows([{}] * 2), *rows([{"generator_loss": None}], steps=200, split="validation")]
    (found,) = diagnose(history_of(lines), SMALL, PUBLISHED)
    assert (found.name, found.step) == ("not_finite", 200)
    assert "generator loss at step 200" in found.words


def test_windows_hold_the_means_of_their_tokens_and_a_long_history_stays_short() -> None:
    uneven = rows([{"generator_loss": 2.0}], tokens=5_000) + rows([{}, {"generator_loss": 5.0}], tokens=15_000)[1:]
    (window,) = history_of(uneven).windows
    assert window.tokens == WINDOW_TOKENS
    assert window["generator_loss"] == pytest.approx((2.0 * 5 + 5.0 * 15) / 20)
    assert window.travelled == pytest.approx(200 * 1e-3)
    history = history_of(rows([{"generator_loss": float(n % 2)} for n in range(5 * MAX_WINDOWS)]))
    assert len(history.windows) <= MAX_WINDOWS
    assert sum(window.tokens for window in history.windows) == 5 * MAX_WINDOWS * TOKENS
    assert {window["generator_loss"] for window in history.full} == {0.5}
    assert history.windows[-1].step == 5 * MAX_WINDOWS * STEPS

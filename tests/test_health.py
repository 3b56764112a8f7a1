"""Is a run healthy? Silent on good runs, large and small; every illness is found, in words, once."""

import dataclasses
import functools
import itertools
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax.core import meta
from pages import Page

from commands import electra, small_run, write_small_text
from electra_jax.health import diagnose
from electra_jax.health_checks import Finding, Setting, constant_guess_loss
from electra_jax.health_history import MAX_WINDOWS, WINDOW_TOKENS, History, history_of
from electra_jax.health_watch import Watched, published_curve
from electra_jax.metrics import Sums, finish
from electra_jax.optimizer import make_optimizer
from electra_jax.plots import Series
from electra_jax.report import write_report
from electra_jax.report_health import published_series
from electra_jax.steps import Batch, TrainState, init_state, pretrain_step
from small import CLS, MASK, MASKING, OBJECTIVE, SEP, VOCAB_SIZE, optimizer_config, small_model

PUBLISHED = published_curve()
SMALL = Setting(8192, 16, generator_learns=True, judges_every_token=True, unlike_published=("the model's size",))
LIKE_PUBLISHED = Setting(30522, 128, generator_learns=True, judges_every_token=True, unlike_published=())
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


class Recorder:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.reported: list[int] = []
        self.warned: list[tuple[str, int]] = []

    def report(self, step: int, split: str, values: dict[str, float]) -> None:
        self.reported.append(step)

    def warn(self, finding: Finding) -> None:
        self.warned.append((finding.name, finding.step))


def test_a_warning_comes_once_also_after_a_stop() -> None:
    lines = rows([{}, *[{"generator_repetition": 0.98}] * 6])
    values = [{k: v for k, v in line.items() if k not in ("step", "split")} for line in lines]
    recorder = Recorder()
    watched = Watched(recorder, SMALL, [])
    for line, numbers in zip(lines[:5], values[:5], strict=True):
        watched.report(line["step"], "train", numbers)
    assert recorder.warned == [("generator_one_token", 300)]
    again = Watched(recorder, SMALL, [*lines[:5], {"step": 300, "split": "health", "finding": "generator_one_token"}])
    for line, numbers in zip(lines[5:], values[5:], strict=True):
        again.report(line["step"], "train", numbers)
    assert len(recorder.warned) == 1
    assert recorder.reported == [line["step"] for line in lines]


def test_the_published_line_is_drawn_as_far_as_the_run_goes() -> None:
    (line,) = published_series(
        "discriminator_auc", dataclasses.replace(LIKE_PUBLISHED, batch_size=256), PUBLISHED, 50_000
    )
    assert isinstance(line, Series)
    assert line.points[0] == pytest.approx((10_000, 0.856))
    assert line.points[-1] == pytest.approx((50_000, 0.889))
    assert published_series("discriminator_auc", LIKE_PUBLISHED, PUBLISHED, 19_000) == []
    assert published_series("discriminator_recall", LIKE_PUBLISHED, PUBLISHED, 50_000) == []
    assert published_series("discriminator_auc", SMALL, PUBLISHED, 50_000) == []


def test_a_report_of_a_run_like_the_published_one_stands_beside_it(tmp_path: Path) -> None:
    lines = published_rows()[:120]
    earlier = {"step": 500, "split": "health", "finding": "generator_scale", "words": "It <was> large."}
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*lines, earlier]))
    evaluation = {"step": lines[-1]["step"], "metrics": GOOD, "passages": []}
    setting = {"setting": dataclasses.asdict(LIKE_PUBLISHED)}
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation | setting))
    html = Path(write_report(str(tmp_path))).read_text("utf-8")
    text = Page(html).text
    assert "Nothing unusual." in text
    assert "Warned of at step 500, and no longer so: It <was> large." in text
    assert "The AUC first spikes, and dips as the generator improves; then it climbs" in text
    assert "published, step 180,000" not in text  # the last line is of step 195,000
    assert "published, step 195,000" in text
    # Generator loss, discriminator loss, AUC and generator accuracy; the last has one point before that step: none.
    assert html.count('class="line published"') == 3 + 1  # and the key


# Real runs, tiny. Everything that is broken on purpose is an argument of one compiled update.

LENGTH, ROWS, TOPICS, WORDS = 32, 64, 4, 12


def topics(seed: int) -> Batch:
    """Texts that each draw their words from one topic of four, so that the others tell what may stand in a gap."""
    draw = np.random.default_rng(seed)
    topic_B1 = draw.integers(0, TOPICS, (ROWS, 1))
    ids = (MASK + 1 + WORDS * topic_B1 + draw.integers(0, WORDS, (ROWS, LENGTH))).astype(np.int32)
    ids[:, 0], ids[:, -1] = CLS, SEP
    return {"input_ids": ids, "token_type_ids": np.zeros_like(ids), "attention_mask": np.ones_like(ids)}


@jax.jit
def start(key: jax.Array) -> TrainState:
    return meta.unbox(init_state(key, small_model(), make_optimizer(optimizer_config()), LENGTH))


@functools.partial(jax.jit, donate_argnums=0)
def update(
    state: TrainState, batch: Batch, learning_rate: float, disc_weight: float, temperature: float
) -> tuple[TrainState, Sums]:
    config = optimizer_config(learning_rate=learning_rate, num_warmup_steps=10, num_train_steps=10_000)
    return pretrain_step(
        state,
        batch,
        model=small_model(),
        objective=dataclasses.replace(OBJECTIVE, disc_weight=disc_weight, temperature=temperature),
        masking=MASKING,
        optimizer=make_optimizer(config),
        accumulation_steps=1,
    )


def trained(
    *,
    steps: int,
    learning_rate: float = 5e-3,
    disc_weight: float = 50.0,
    temperature: float = 3.0,
    embeddings: float = 30.0,
) -> list[Row]:
    """The lines of real steps of 2,048 tokens; the embeddings begin so many times as large as they would."""
    state = start(jax.random.key(0))
    state.params["embeddings"]["word_embeddings"] *= embeddings
    lines = []
    for step in range(1, steps + 1):
        state, sums = update(state, topics(step), learning_rate, disc_weight, temperature)
        values = finish(jax.device_get(sums), {"generator": 1.0, "discriminator": disc_weight})
        speed = {"tokens_per_second": float(sums["real"]), "seconds": 1.0, "learning_rate": learning_rate}
        lines.append({"step": step, "split": "train", **values, **speed})
    return lines


TOPICAL = Setting(VOCAB_SIZE, ROWS, generator_learns=True, judges_every_token=True, unlike_published=("everything",))


def test_a_good_tiny_run_is_healthy_at_every_moment() -> None:
    lines = trained(steps=120)
    assert lines[-1]["discriminator_auc"] > 0.7
    assert names_on_the_way(lines, TOPICAL) == set()


@pytest.mark.parametrize(
    ("broken", "name"),
    [
        ({"disc_weight": 0.0}, "discriminator_untaught"),
        ({"learning_rate": 1.0}, "generator_scale"),
        ({"temperature": 0.01}, "generator_one_token"),
        ({"embeddings": 300.0}, "generator_scale"),
    ],
)
def test_a_run_broken_on_purpose_is_found_out(broken: dict[str, float], name: str) -> None:
    assert name in names_on_the_way(trained(steps=60, **broken), TOPICAL)


def test_the_warning_reaches_the_terminal_the_metrics_and_the_page(tmp_path: Path) -> None:
    """One run of `electra pretrain` whose discriminator is given no weight."""
    write_small_text(tmp_path)
    macros = {"TRAIN_STEPS": 40, "BATCH_SIZE": 64, "LEARNING_RATE": 2e-2, "LOG_EVERY": 2, "EVALUATE_EVERY": 40}
    broken = {"SAVE_EVERY": 40, "pretraining.ReplacedTokenDetection.disc_weight": 0.0}
    model_dir = tmp_path / "broken"
    done = electra(small_run(tmp_path, model_dir, **macros, **broken), tmp_path / "cache")
    assert done.returncode == 0, done
    said = [line for line in done.stdout.splitlines() if line.startswith("warning: ")]
    assert [line.partition(":")[2].partition(":")[0].strip() for line in said] == ["The discriminator is not learning"]
    assert "Usual cause: a disc_weight of 0" in said[0]
    assert "What to try: check disc_weight" in said[0]
    lines = [json.loads(line) for line in (model_dir / "metrics.jsonl").read_text().splitlines()]
    assert [line["finding"] for line in lines if line["split"] == "health"] == ["discriminator_untaught"]
    evaluation = {"step": 40, "metrics": lines[-1], "passages": []}
    (model_dir / "evaluation.json").write_text(json.dumps(evaluation))
    text = Page(Path(write_report(str(model_dir))).read_text("utf-8")).text
    assert "Something is unusual." in text
    assert "The discriminator is not learning" in text
    assert "(the generator, the model's size, the vocabulary's size, the length)" in text

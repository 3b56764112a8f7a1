"""Which checkpoint counts: on coin-flip labels no reported number is above chance, as the best of the same split is."""

import statistics
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from electra_jax.config.selection import selection_of
from electra_jax.finetuning import seed_run
from electra_jax.finetuning.patience import Patience
from electra_jax.finetuning.results import best_seed, on_split, selection_of_all, summary
from electra_jax.finetuning.selection import Parts, keeps, parts_of
from electra_jax.training.stop import Stop

EPOCHS, SEEDS, RUNS = 10, 5, 100
# The numbers of the examples of RTE's dev split, the halves of it, and a test split.
DEV, HALVES, TEST = slice(277), (slice(138), slice(138, 277)), slice(277, 577)


def reported_by_a_seed(selection: str, parts: Parts[slice], seed: int, monkeypatch: pytest.MonkeyPatch) -> float:
    """Return what a seed reports where every answer to every example is a coin flip, at each evaluation anew."""
    draw = np.random.default_rng(seed)
    reported: list[float] = []
    right = np.array([])

    def score(part: slice) -> Any:
        return SimpleNamespace(scores={"accuracy": 100 * right[part].mean()})

    def evaluate(context: Any, params: Any) -> Any:
        nonlocal right
        right = draw.random(577) < 0.5
        return score(context.parts.watched)

    def save(params: Any, step: int, watched: Any) -> None:
        reported.append(score(parts.scored[parts.headline]).scores["accuracy"])

    context: Any = SimpleNamespace(
        task=SimpleNamespace(main_metric="accuracy"),
        parts=parts,
        run=SimpleNamespace(selection=selection),
        loop=SimpleNamespace(num_train_steps=EPOCHS),
    )
    kept = seed_run.Kept(context, Path("there is none"), seed, Patience(None, "accuracy", earlier=(), stop=Stop()))
    monkeypatch.setattr(seed_run, "evaluate", evaluate)
    monkeypatch.setattr(kept, "_save", save)
    for step in range(1, EPOCHS + 1):
        kept({}, step)
    return reported[-1]


def mean_of_medians(selection: str, parts: Parts[slice], monkeypatch: pytest.MonkeyPatch) -> float:
    """Return the mean over many runs of the median over their seeds, the number that a run reports."""
    medians = []
    for run in range(RUNS):
        scores = [reported_by_a_seed(selection, parts, SEEDS * run + seed, monkeypatch) for seed in range(SEEDS)]
        seeds = [{"failed": None, "metrics": {"accuracy": score}} for score in scores]
        medians.append(summary(seeds)["accuracy"]["median"])
    return statistics.fmean(medians)


@pytest.mark.parametrize(
    ("selection", "parts"),
    [
        ("last", parts_of("last", DEV, None)),
        ("best", parts_of("best", DEV, None, HALVES)),
        ("best", parts_of("best", DEV, TEST)),
    ],
)
def test_coin_flips_score_as_chance(selection: str, parts: Parts[slice], monkeypatch: pytest.MonkeyPatch) -> None:
    """A half has a deviation of 4.2, a median of five of them 2.3, and the mean of 100 medians 0.23."""
    assert mean_of_medians(selection, parts, monkeypatch) == pytest.approx(50, abs=0.9)


def test_coin_flips_score_above_chance_on_the_examples_that_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    """As earlier versions did: the largest of ten is about 1.5 deviations of 3.0 up."""
    same = Parts("dev", DEV, {"dev": DEV})
    assert mean_of_medians("best", same, monkeypatch) == pytest.approx(54.6, abs=0.6)


def test_what_is_watched_and_what_is_scored() -> None:
    assert parts_of("last", "d", None) == ("dev", "d", {"dev": "d"})
    assert parts_of("last", "d", "t") == ("dev", "d", {"dev": "d", "test": "t"})
    assert parts_of("best", "d", "t") == ("dev", "d", {"test": "t"})
    parts = parts_of("best", "d", None, ("first", "second"))
    assert parts == ("dev_selection", "first", {"dev_report": "second"})
    assert parts.headline == "dev_report"
    assert parts.by_name == {"dev_selection": "first", "dev_report": "second"}


def test_the_last_checkpoint_is_kept_whatever_its_score() -> None:
    assert [
        keeps("last", metric="accuracy", score=90.0 - step, best=None, step=step, last_step=3) for step in (1, 2, 3)
    ] == [
        False,
        False,
        True,
    ]
    assert keeps("best", metric="accuracy", score=50.0, best=50.0, step=1, last_step=3)
    assert not keeps("best", metric="accuracy", score=float("nan"), best=50.0, step=3, last_step=3)


def test_the_best_seed_is_that_of_the_examples_that_choose() -> None:
    seeds = [
        {"seed": 0, "failed": None, "metrics": {"f1": 90.0}, "chosen_by": {"dev": 70.0}, "selection": "best"},
        {"seed": 1, "failed": None, "metrics": {"f1": 80.0}, "chosen_by": {"dev": 75.0}, "selection": "best"},
    ]
    assert best_seed(seeds, "f1") == 1
    assert selection_of_all(seeds) == "best"
    # One that an earlier version finished, which names no selection, is told from the others.
    older = {"seed": 2, "failed": None, "metrics": {"f1": 95.0}}
    assert selection_of_all([*seeds, older]) is None
    assert selection_of({"selection": None}) == selection_of({})
    assert "too high" in selection_of({})
    assert selection_of({"selection": "last"}) == "the last checkpoint"
    test = [seed | {"scores_by_split": {"test": {"f1": 10.0 * seed["seed"]}}} for seed in seeds]
    assert [seed["metrics"] for seed in on_split([*test, older], "test")] == [{"f1": 0.0}, {"f1": 10.0}]

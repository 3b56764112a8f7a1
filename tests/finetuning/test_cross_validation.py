"""A cross-validation's results from those of its folds, by hand."""

from typing import Any

import pytest

from electra_jax.finetuning.cross_validation import results_of_folds
from electra_jax.finetuning.results import show


def seed(number: int, accuracy: float, failed: str | None = None, **others: float) -> dict[str, Any]:
    metrics = {"accuracy": accuracy, **others}
    return {
        "seed": number,
        "steps": 10 + number,
        "best_step": 10,
        "metrics": metrics,
        "failed": failed,
        "chosen_by": {"dev": accuracy},
        "scores_by_split": {"dev": metrics, "test": {"accuracy": accuracy - 10, **others}},
    }


def results(num_dev: int, *seeds: dict[str, Any]) -> dict[str, Any]:
    return {
        "task": "posts",
        "kind": "classification",
        "main_metric": "accuracy",
        "split": "dev",
        "selection": "last",
        "init_from": None,
        "num_examples": {"train": 20 - num_dev, "dev": num_dev, "test": 5},
        "seeds": list(seeds),
        "other_splits": {"test": {}},
    }


FOUND = [
    results(7, seed(0, 50.0, f1=1.0), seed(1, 70.0, f1=1.0)),
    results(7, seed(0, 80.0, f1=1.0), seed(1, 20.0, "says no", f1=1.0)),
    # Without the score of a kind of questions that it has none of.
    results(6, seed(0, 90.0), seed(1, 70.0)),
]


def test_scores_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    found = results_of_folds(FOUND, ["folds/0", "folds/1", "folds/2"])
    # Means of 50 and 70, of the seed that worked, and of 90 and 70.
    assert [fold["metrics"] for fold in found["folds"]] == [{"accuracy": 60.0}, {"accuracy": 80.0}, {"accuracy": 80.0}]
    assert [fold["failed"] for fold in found["folds"]] == [None, None, None]
    main = found["summary"]["accuracy"]
    assert main == pytest.approx({"median": 80.0, "mean": 220 / 3, "std": (400 / 3) ** 0.5, "best": 80.0, "n": 3})
    assert found["other_splits"]["test"]["accuracy"]["mean"] == pytest.approx(220 / 3 - 10)
    # Of all folds; a seed that failed in one has failed.
    first, second = found["seeds"]
    assert (first["metrics"], first["failed"], first["steps"]) == ({"accuracy": pytest.approx(220 / 3)}, None, 10)
    assert (second["chosen_by"], second["failed"]) == ({"dev": pytest.approx(160 / 3)}, "fold 1: says no")
    assert (found["num_failed"], found["best_seed"]) == (1, 0)
    # Each example is in one fold, and all folds have the same test split.
    assert found["num_examples"] == {"dev": 20, "test": 5}
    show(found)
    said = capsys.readouterr().out
    titles = " ".join(said.split())
    assert "posts (20 dev examples), the last checkpoint" in titles
    assert "posts (5 test examples), the last checkpoint" in titles
    rows = [line.strip("│ ").split() for line in said.splitlines() if "fold 1" in line]
    assert rows == [["fold", "1", "│", "80.00"], ["fold", "1", "│", "70.00"]]


def test_a_fold_whose_seeds_all_failed_is_not_averaged(capsys: pytest.CaptureFixture[str]) -> None:
    found = results_of_folds(
        [results(7, seed(0, 50.0)), results(7, seed(0, 10.0, "says no")), results(6, seed(0, 60.0))], ["a", "b", "c"]
    )
    assert found["summary"]["accuracy"]["mean"] == 55.0
    assert found["folds"][1]["failed"] == "says no"
    show(found)
    assert "fold 1 failed and is not averaged: says no" in capsys.readouterr().out

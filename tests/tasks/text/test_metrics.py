"""Scores of a user's own task equal scikit-learn's, and MAIN_METRIC puts one of them first."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics

from electra_jax.errors import UserError
from electra_jax.tasks.catalog import make_task
from electra_jax.tasks.text.metrics import auc, f1_macro_of_classes, mae, rmse
from electra_jax.tasks.text.task import LabelPrediction, TextTask
from electra_jax.tasks.tokenizer import SPECIAL_TOKENS
from electra_jax.tasks.vocabulary import Vocabulary
from support.tiny_model import task_options

VOCABULARY = Vocabulary([*SPECIAL_TOKENS, "a", "b"], lowercase=True, strip_accents=True)


def test_scores_are_those_of_scikit_learn() -> None:
    draw = np.random.default_rng(0)
    for classes in (2, 3, 6):
        labels, found = draw.integers(0, classes, 50), draw.integers(0, classes, 50)
        expected = sklearn.metrics.f1_score(labels, found, average="macro")
        assert f1_macro_of_classes(labels, found) == pytest.approx(100 * expected)
    # A class that only one side has counts, with an F1 of 0.
    assert f1_macro_of_classes([0, 0], [0, 2]) == pytest.approx(100 / 3)
    for _ in range(5):
        labels, shares = draw.integers(0, 2, 40), draw.random(40).round(1)
        assert auc(labels, shares) == pytest.approx(100 * sklearn.metrics.roc_auc_score(labels, shares))
    targets, values = draw.normal(size=(2, 30))
    assert rmse(targets, values) == pytest.approx(sklearn.metrics.root_mean_squared_error(targets, values))
    assert mae(targets, values) == pytest.approx(sklearn.metrics.mean_absolute_error(targets, values))


def test_scores_by_hand() -> None:
    # Of the four pairs of a 1 and a 0 one is the wrong way round and one is equal.
    assert auc([1, 0, 1, 0], [0.9, 0.5, 0.5, 0.2]) == pytest.approx(87.5)
    assert math.isnan(auc([1, 1], [0.1, 0.2]))
    assert (rmse([1.0, 2.0], [4.0, 6.0]), mae([1.0, 2.0], [4.0, 6.0])) == (pytest.approx(12.5**0.5), 3.5)


def made(folder: Path, *labels: str, task: str = "classification", **changes: Any) -> TextTask:
    path = folder / "train.tsv"
    path.write_text("t\ty\n" + "".join(f"a\t{label}\n" for label in labels))
    columns = {"train_file": str(path), "text_column": "t", "label_column": "y", "dev_fraction": 0.0}
    return make_task(task_options(task, **columns, **changes), VOCABULARY)


def test_the_main_score_comes_first(tmp_path: Path) -> None:
    plain = made(tmp_path, "no", "yes")
    assert plain.metrics == ("accuracy", "matthews", "f1_macro", "f1", "auc")
    assert made(tmp_path, "a", "b", "c").metrics == ("accuracy", "matthews", "f1_macro")
    task = made(tmp_path, "no", "yes", main_metric="auc")
    assert task.main_metric == "auc"
    shares = (0.1, 0.4)
    predictions = [LabelPrediction("no", {"no": 1 - share, "yes": share}) for share in shares]
    scores = task.score(task.examples("train").examples, predictions)
    # The right one is the more probable, though both are called "no".
    assert list(scores.items())[:2] == [("auc", 100.0), ("accuracy", 50.0)]
    assert scores["f1"] == 0.0
    assert made(tmp_path, "1", "2", task="regression", main_metric="rmse").metrics[0] == "rmse"
    with pytest.raises(UserError, match="MAIN_METRIC is 'f1': for classification here it must be one of accuracy, mat"):
        made(tmp_path, "a", "b", "c", main_metric="f1")
    with pytest.raises(UserError, match="MAIN_METRIC is 'f1': it chooses among the scores of texts and pairs, and ner"):
        make_task(task_options("ner", main_metric="f1"), VOCABULARY)

"""Compare GLUE's readers, features and scores with the original's, on the small files that it read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from electra_jax.tasks.original.text import precision_recall_f1_of_predicted
from electra_jax.tasks.text.glue import GLUE, read_glue
from electra_jax.tasks.text.glue_metrics import accuracy, f1, matthews, pearson, precision_recall_f1, spearman
from electra_jax.tasks.text.tables import Interval, pair_lengths
from electra_jax.tasks.vocabulary import load_vocabulary
from support.shared import ORACLE, skipped
from support.text_rows import text_features

ROOT = ORACLE / "finetune"


def records(pattern: str) -> list[Any]:
    found = [pytest.param(path, id=path.stem) for path in sorted(ROOT.rglob(pattern))]
    return found or [skipped(ROOT / pattern)]


def tasks() -> list[Any]:
    cases = [
        pytest.param(path, name, recorded, split, id=f"{path.stem}-{name}-{split}")
        for path in sorted(ROOT.rglob("glue_examples_features*.json"))
        for name, recorded in json.loads(path.read_text()).items()
        for split in recorded["splits"]
    ]
    return cases or [skipped(ROOT, None, None, None, None)]


@pytest.mark.parametrize(("path", "name", "recorded", "split"), tasks())
def test_examples_and_features(path: Path, name: str, recorded: dict[str, Any], split: str) -> None:
    # The original's names of the tasks are those of their folders ("sst", "sts").
    task = next(
        task for task in GLUE.values() if name in (task.name, *task.folders) and (task.name != "ax" or name == "ax")
    )
    if recorded["labels"] is not None:
        assert list(task.target.labels) == recorded["labels"]
    folders = [path.parent / "data/finetuning_data" / folder for folder in task.folders]
    file = next(folder / f"{task.split(split)}.tsv" for folder in folders if folder.exists())
    ours = read_glue(task, file, split=split, both_orders=split == "train", skip_bad_rows=True)
    theirs = recorded["splits"][split]
    # What the original cannot make features of, we have counted as bad; so are the rows that its log names.
    usable = [example for example in theirs["examples"] if "featurize_error" not in example]
    passes = 2 if split == "train" and task.unordered else 1
    lost = len(theirs["examples"]) - len(usable) + theirs["log"].count("Error constructing example")
    assert sum(ours.skipped.values()) * passes == lost
    length = recorded["max_seq_length"]
    vocabulary = load_vocabulary(str(path.parent / "data/vocab.txt"), lowercase=True)
    features = text_features([(e.text_a, e.text_b) for e in ours.examples], vocabulary=vocabulary, length=length)
    for example, (ids, types), expected in zip(ours.examples, features, usable, strict=True):
        assert (example.index, example.text_a, example.text_b) == (
            expected["eid"],
            expected["text_a"],
            expected["text_b"],
        )
        padding = [0] * (length - len(ids))
        assert ids + padding == expected["features"]["input_ids"]
        assert types + padding == expected["features"]["segment_ids"]
        assert [1] * len(ids) + padding == expected["features"]["input_mask"]
        if "test" in split or "diagnostic" in split:
            assert example.label is None
        elif isinstance(task.target, Interval):
            assert task.target.normalised(example.label) == expected["features"][f"{name}_targets"]
        else:
            assert example.label == expected["features"][f"{name}_label_ids"]


@pytest.mark.parametrize("path", records("truncate_seq_pair*.json"))
def test_truncation_of_pairs(path: Path) -> None:
    for case in json.loads(path.read_text()):
        kept = pair_lengths(case["la"], case["lb"], case["max"])
        assert kept == (len(case["out_a"]), len(case["out_b"])), case


@pytest.mark.parametrize("path", records("classification_metrics*.json"))
def test_scores(path: Path) -> None:
    recorded = json.loads(path.read_text())
    given = recorded["inputs"]
    labels, predictions = given["labels"], given["preds"]
    targets, values = given["reg_targets"], given["reg_preds"]
    assert accuracy(labels, predictions) == pytest.approx(recorded["AccuracyScorer"]["accuracy"], rel=1e-12)
    assert matthews(labels, predictions) == pytest.approx(recorded["MCCScorer"]["mcc"], rel=1e-12)
    assert matthews(labels, [1] * len(labels)) == recorded["MCC_constant_prediction"]["mcc"]
    theirs = recorded["F1Scorer"]
    as_theirs = precision_recall_f1_of_predicted(labels, predictions)
    assert as_theirs == pytest.approx((theirs["precision"], theirs["recall"], theirs["f1"]), rel=1e-12)
    sound = precision_recall_f1(labels, predictions)
    assert sound == pytest.approx(
        (given["true_precision"], given["true_recall"], given["true_f1_of_positive"]), rel=1e-12
    )
    assert f1(labels, predictions) == pytest.approx(given["true_f1_of_positive"], rel=1e-12)
    assert pearson(targets, values) == pytest.approx(recorded["RegressionScorer"]["pearson"], rel=1e-10)
    assert spearman(targets, values) == pytest.approx(recorded["RegressionScorer"]["spearman"], rel=1e-10)
    assert np.mean(np.square(np.subtract(targets, values))) == pytest.approx(recorded["RegressionScorer"]["mse"])

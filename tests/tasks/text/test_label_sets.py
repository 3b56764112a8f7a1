"""Texts with several labels: how files spell them, thresholds, scikit-learn's F1, and what tasks make of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics

from electra_jax.errors import UserError
from electra_jax.reports.answers import read_answers
from electra_jax.reports.errors import read_errors
from electra_jax.tasks.catalog import make_task, task_from_facts
from electra_jax.tasks.tagging.conlleval import conlleval_spans
from electra_jax.tasks.text.label_sets import METRICS, LabelSets, best_threshold
from electra_jax.tasks.text.tables import Classes
from electra_jax.tasks.text.task import LabelsPrediction, TextTask
from electra_jax.tasks.tokenizer import SPECIAL_TOKENS
from electra_jax.tasks.vocabulary import Vocabulary
from support.shared import CASES, needs
from support.tiny_model import task_options

VOCABULARY = Vocabulary([*SPECIAL_TOKENS, "a", "b", "c", "d"], lowercase=True, strip_accents=True)
JSONL = ('{"t": "a", "y": ["toxic", "neg"]}', '{"t": "b", "y": []}', '{"t": "c", "y": ["neg", "neg"]}')
COLUMNS = ("id,t,toxic,obscene,note", "7,a,1,0,x", "8,b,0,0,0", "9,c,0.0,1,1")


def made(folder: Path, suffix: str, lines: tuple[str, ...], **changes: Any) -> TextTask:
    path = folder / f"train{suffix}"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    columns = {"text_column": "t", "label_column": "y" if suffix == ".jsonl" else None}
    options = columns | {"train_file": str(path), "dev_fraction": 0.0} | changes
    return make_task(task_options("classification", **options), VOCABULARY)


def test_lists_are_several_labels(tmp_path: Path) -> None:
    task = made(tmp_path, ".jsonl", JSONL)
    assert (task.kind, task.target) == ("multi_label_classification", LabelSets(("neg", "toxic")))
    examples = task.examples("train").examples
    assert [example.label for example in examples] == [(0, 1), (), (0,)]
    rows = task.rows(examples, training=True)
    assert [row["labels"].tolist() for row in rows] == [[1, 1], [0, 0], [1, 0]]
    assert {row["labels"].dtype for row in rows} == {np.dtype(np.float32)}
    printed = made(tmp_path, ".csv", ("t,y", "a,\"['toxic', 'neg']\"", "b,[]", "c,\"['neg']\""), label_column="y")
    assert printed.examples("train").examples == examples
    # A label that the training file does not have, and a label that is no list, are bad rows.
    dev = tmp_path / "dev.jsonl"
    for bad, told in (('["neg", "new"]', r"the label \['neg', 'new'\]"), ('"neg"', "the label 'neg'")):
        dev.write_text(f'{{"t": "a", "y": []}}\n{{"t": "b", "y": {bad}}}\n')
        with pytest.raises(UserError, match=rf"line 2: {told}; expected a list of none, one or several of 'neg', 'to"):
            made(tmp_path, ".jsonl", JSONL, dev_file=str(dev)).examples("dev")
        skipping = made(tmp_path, ".jsonl", JSONL, dev_file=str(dev), skip_bad_rows=True)
        assert skipping.examples("dev").skipped.total() == 1


def test_columns_of_0_and_1_are_labels(tmp_path: Path) -> None:
    """`id` and `note` hold something else. The names of the labels keep their order, which is the file's."""
    task = made(tmp_path, ".csv", COLUMNS)
    assert task.target == LabelSets(("toxic", "obscene"))
    assert [example.label for example in task.examples("train").examples] == [(0,), (), (1,)]
    named = made(tmp_path, ".csv", COLUMNS, label_column=("obscene", "toxic"))
    assert named.target == LabelSets(("obscene", "toxic"))
    assert [example.label for example in named.examples("train").examples] == [(1,), (), (0,)]
    # What a model recorded finds the columns again; a test file need not have them.
    test = tmp_path / "test.csv"
    test.write_text("id,t\n1,a\n")
    files = {"train_file": str(tmp_path / "train.csv"), "dev_fraction": 0.0}
    recorded = task_options("classification", text_column="t", **files)
    again = make_task(recorded, VOCABULARY, recorded=task.describe())
    assert again.examples("train").examples == task.examples("train").examples
    assert made(tmp_path, ".csv", COLUMNS, test_file=str(test)).examples("test").examples[0].label is None
    bad = tmp_path / "dev.csv"
    bad.write_text("t,toxic,obscene\na,1,0\nb,-1,0\nc,,1\n")
    with pytest.raises(UserError, match=r"line 3: toxic '-1'; expected 0 or 1 in each column of LABEL_COLUMN"):
        made(tmp_path, ".csv", COLUMNS, dev_file=str(bad)).examples("dev")
    # A column with a hole is one of labels all the same, and the hole is reported; an empty one is none.
    holes = ("t,toxic,obscene,empty", "a,1,0,", "b,,1,")
    assert made(tmp_path, ".csv", holes).labels == ("toxic", "obscene")
    with pytest.raises(UserError, match=r"line 3: no 'toxic'; expected the columns t, toxic, obscene"):
        made(tmp_path, ".csv", holes).examples("train")
    skipped = made(tmp_path, ".csv", COLUMNS, dev_file=str(bad), skip_bad_rows=True).examples("dev").skipped
    assert skipped == {"toxic '-1'": 1, "no 'toxic'": 1}


@needs(CASES / "finetune")
def test_files_of_the_public_shapes() -> None:
    files = CASES / "finetune"
    lists = {"train_file": str(files / "multi.jsonl"), "text_column": "text", "label_column": "labels"}
    assert make_task(task_options("classification", **lists), VOCABULARY).labels == ("neg", "pos", "toxic")
    columns = task_options("classification", train_file=str(files / "toxic.csv"), text_column="comment_text")
    assert make_task(columns, VOCABULARY).labels == ("toxic", "severe_toxic", "obscene")


@pytest.mark.parametrize(
    ("suffix", "lines", "changes", "told"),
    [
        (
            ".jsonl",
            JSONL,
            {"multi_label": False},
            r"train\.jsonl, line 1: the label \[.*\] is a list, and here each row",
        ),
        (".jsonl", ('{"t": "a", "y": "b"}', '{"t": "b", "y": "a"}'), {"multi_label": True}, "no label is a list: wri"),
        (".jsonl", ('{"t": "a", "y": []}',), {}, "0 different labels in the column 'y'; at least 1 is needed"),
        (
            ".jsonl",
            (*JSONL, '{"t": "a", "y": {"neg": 1}}'),
            {},
            r"line 4: the label .* is neither one label nor a list",
        ),
        (".jsonl", (*JSONL, '{"t": "a", "y": ["neg", null]}'), {}, r"line 4: the label .* is neither one label nor a"),
        (".csv", COLUMNS, {"multi_label": False}, "LABEL_COLUMN is not set: name the column of .*train.csv that holds"),
        (".csv", COLUMNS, {"multi_label": False, "label_column": ("toxic", "obscene")}, "names 2 columns, .* is False"),
        (".csv", COLUMNS, {"label_column": ("toxic", "rude")}, "has no column 'rude': its first line names"),
    ],
)
def test_labels_that_are_refused(
    tmp_path: Path, suffix: str, lines: tuple[str, ...], changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        made(tmp_path, suffix, lines, **changes).examples("train")


def test_lists_are_refused_by_a_model_of_one_label_and_by_a_regression(tmp_path: Path) -> None:
    one = made(tmp_path, ".jsonl", ('{"t": "a", "y": "neg"}', '{"t": "b", "y": "pos"}'))
    assert one.target == Classes(("neg", "pos"))
    (tmp_path / "lists.jsonl").write_text("\n".join(JSONL))
    options = task_options("classification", dev_file=str(tmp_path / "lists.jsonl"), text_column="t", label_column="y")
    with pytest.raises(UserError, match=r"line 1: the label \[.*\] is a list, and here each row has one label"):
        make_task(options, VOCABULARY, recorded=one.describe()).examples("dev")
    columns = {"train_file": str(tmp_path / "lists.jsonl"), "text_column": "t", "label_column": "y"}
    with pytest.raises(UserError, match=r"line 1: the label \[.*\] is a list"):
        make_task(task_options("regression", **columns), VOCABULARY)
    with pytest.raises(UserError, match=r"names 2 columns, .* a regression has one: name one column"):
        make_task(task_options("regression", **columns | {"label_column": ("y", "z")}), VOCABULARY)


def test_f1_is_that_of_scikit_learn() -> None:
    draw = np.random.default_rng(3)
    for shape in ((40, 5), (7, 1), (3, 9)):
        for share in (0.0, 0.1, 0.5):
            gold, found = (draw.random(shape) < share for _ in range(2))
            for name, metric in METRICS.items():
                average = name.removeprefix("f1_")
                gold_labels, found_labels = (x[:, 0] if shape[1] == 1 else x for x in (gold, found))
                if shape[1] > 1:
                    theirs = sklearn.metrics.f1_score(gold_labels, found_labels, average=average, zero_division=0)
                else:
                    theirs = sklearn.metrics.f1_score(gold_labels, found_labels, zero_division=0)
                assert metric(gold, found) == pytest.approx(100 * theirs), (name, shape, share)
    # By hand: of label 0 one of two is found, 2 / 3; of label 1 both, 1. Together 2 * 3 / (3 + 4).
    gold = np.array([[1, 1], [1, 1], [0, 0]], bool)
    found = np.array([[1, 1], [0, 1], [0, 0]], bool)
    assert METRICS["f1_macro"](gold, found) == pytest.approx(500 / 6)
    assert METRICS["f1_micro"](gold, found) == pytest.approx(600 / 7)


def test_thresholds_are_those_of_the_highest_f1() -> None:
    gold = np.array([False, False, True, True, True])
    assert best_threshold(gold, np.array([0.1, 0.2, 0.3, 0.6, 0.9])) == pytest.approx(0.25)
    # 0.5 is between 0.4 and 0.7, and divides as well as any: it stays.
    assert best_threshold(gold, np.array([0.1, 0.4, 0.7, 0.8, 0.9])) == 0.5
    # The best may be to give the label to all, or be no better than that of no text.
    assert best_threshold(gold, np.full(5, 0.4)) == pytest.approx(0.2)
    assert best_threshold(np.zeros(5, bool), np.full(5, 0.9)) == 0.5
    draw = np.random.default_rng(5)
    for _ in range(20):
        gold, shares = draw.random(30) < 0.3, draw.random(30).round(1)
        fitted = best_threshold(gold, shares)
        scores = {limit: sklearn.metrics.f1_score(gold, shares >= limit, zero_division=0) for limit in (*shares, 0, 2)}
        assert sklearn.metrics.f1_score(gold, shares >= fitted, zero_division=0) == max(scores.values())


def test_a_label_is_had_from_its_threshold_on() -> None:
    labels = LabelSets(("x", "y"))
    assert labels.named({"x": 0.25, "y": 0.24}, (0.25, 0.25)) == ("x",)
    assert labels.named({"x": 0.5, "y": 0.49}, None) == ("x",)


def test_predictions_by_the_thresholds_of_a_dev_split(tmp_path: Path) -> None:
    task = made(tmp_path, ".jsonl", JSONL)
    examples = task.examples("train").examples
    logits = np.array([[2.0, -1.0], [-3.0, -3.0], [1.0, -2.0]], np.float32)
    rows = task.rows(examples, training=False)
    predictions = task.predictions(examples, rows, [{"logits": row} for row in logits])
    assert [prediction.labels for prediction in predictions] == [("neg",), (), ("neg",)]
    shares = [prediction.probabilities["toxic"] for prediction in predictions]
    assert shares == pytest.approx([1 / (1 + np.e), 1 / (1 + np.e**3), 1 / (1 + np.e**2)])
    assert task.score(examples, predictions) == pytest.approx({"f1_micro": 80.0, "f1_macro": 50.0})
    fitted, again = task.fitted(examples, predictions)
    assert [prediction.labels for prediction in again] == [("neg", "toxic"), (), ("neg",)]
    assert fitted.score(examples, again) == {"f1_micro": 100.0, "f1_macro": 100.0}
    rebuilt = task_from_facts(json.loads(json.dumps(fitted.describe())), VOCABULARY)
    assert rebuilt.predictions(examples, rows, [{"logits": row} for row in logits]) == again
    assert made(tmp_path, ".jsonl", JSONL, label_threshold=0.3).thresholds == (0.3, 0.3)


def test_the_report_counts_labels_and_shows_the_surest_errors() -> None:
    shares = [{"neg": 0.9, "toxic": 0.2}, {"neg": 0.7, "toxic": 0.6}, {"neg": 0.1, "toxic": 0.1}]
    gold: list[list[str]] = [["neg", "toxic"], [], []]
    records = [
        {"text_a": "a", "gold": right, "prediction": LabelsPrediction(labels, share).to_json()}
        for right, labels, share in zip(gold, [("neg",), ("neg", "toxic"), ()], shares, strict=True)
    ]
    answers = read_answers("multi_label_classification", records, {}, conlleval_spans)
    assert answers.table is not None
    assert answers.table.rows == [
        ["neg", "1", "2", "1", "50.00", "100.00", "66.67"],
        ["toxic", "1", "1", "0", "0.00", "0.00", "0.00"],
    ]
    errors = read_errors("multi_label_classification", records, "squad")
    assert (errors.num_errors, errors.num_examples) == (2, 3)
    # Of the first text "toxic" was missed at 20 %, of the second "neg" was given at 70 %.
    assert [(error.said, error.gold, error.weight) for error in errors.shown] == [
        ("neg", "neg, toxic", pytest.approx(0.8)),
        ("neg, toxic", "no label", pytest.approx(0.7)),
    ]

"""GLUE's files and a user's own tables, texts as word pieces, GLUE's scores and submissions."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from electra_jax.errors import UserError
from electra_jax.tasks.text.glue import GLUE, examples_of_tfds, read_glue, read_submission, write_submission
from electra_jax.tasks.text.glue_metrics import AVERAGED, accuracy, f1, glue_average, matthews, pearson, spearman
from electra_jax.tasks.text.tables import (
    Classes,
    Columns,
    Interval,
    TextExample,
    discover_target,
    pair_lengths,
    read_table,
)
from electra_jax.tasks.tokenizer import SPECIAL_TOKENS
from electra_jax.tasks.vocabulary import Vocabulary
from support.text_rows import text_features

VOCABULARY = Vocabulary([*SPECIAL_TOKENS, "a", "b", "c", "d"], lowercase=True, strip_accents=True)
CLS, SEP, A, B = 2, 3, 5, 6
PAIR = Columns("premise", "claim", "verdict")


def test_names_of_splits() -> None:
    with pytest.raises(UserError, match="mnli has no split 'valid': use one of train, dev_matched"):
        GLUE["mnli"].split("valid")
    assert GLUE["mnli"].split("dev") == "dev_matched"
    assert GLUE["ax"].split("test") == "diagnostic"


def mrpc(folder: Path, rows: list[str]) -> Path:
    path = folder / "train.tsv"
    header = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String"
    path.write_text("\r\n".join([header, *rows, ""]), encoding="utf-8", newline="")
    return path


def test_bad_rows_of_glue_are_told_or_counted(tmp_path: Path) -> None:
    path = mrpc(tmp_path, ['1\t1\t2\t"a b\tb a', "1\t1\t2\tc", "2\t1\t2\tc\td", "", "0\t1\t2\tc\td"])
    with pytest.raises(UserError, match=r"train\.tsv, line 3: 4 columns; expected 5"):
        read_glue(GLUE["mrpc"], path, split="train", both_orders=False, skip_bad_rows=False)
    file = read_glue(GLUE["mrpc"], path, split="train", both_orders=True, skip_bad_rows=True)
    assert file.skipped == {"4 columns": 1, "the label '2'": 1}
    assert file.examples == [
        (0, '"a b', "b a", 1),
        (4, "c", "d", 0),
        (2, "b a", '"a b', 1),
        (6, "d", "c", 0),
    ]


def test_only_unordered_tasks_are_read_in_both_orders(tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    path.write_text("index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n")
    file = read_glue(GLUE["rte"], path, split="train", both_orders=True, skip_bad_rows=False)
    assert file.examples == [(0, "a", "b", 0)]


@pytest.mark.parametrize("value", ["5.1", "-1", "nan", "high"])
def test_values_outside_the_interval(tmp_path: Path, value: str) -> None:
    path = tmp_path / "dev.tsv"
    path.write_text(f"index\tsentence1\tsentence2\tscore\n0\ta\tb\t{value}\n")
    with pytest.raises(UserError, match=f"line 2: the label '{value}'; expected a number from 0 to 5"):
        read_glue(GLUE["stsb"], path, split="dev", both_orders=False, skip_bad_rows=False)
    with pytest.raises(UserError, match="no row that can be used"):
        read_glue(GLUE["stsb"], path, split="dev", both_orders=False, skip_bad_rows=True)


def test_normalisation_and_back() -> None:
    interval = Interval(1.0, 5.0)
    assert [interval.normalised(value) for value in (1.0, 2.0, 5.0)] == [0.0, 0.25, 1.0]
    assert [interval.denormalised(output) for output in (-0.5, 0.25, 1.5)] == [-1.0, 2.0, 7.0]
    assert [interval.nearest(value) for value in (-1.0, 2.0, 7.0)] == [1.0, 2.0, 5.0]


ROWS = [("it rains", 'she said "hm"', "no"), ("it, too", "rains", "yes"), ("naïve", "so", "no")]


def table(folder: Path, suffix: str, rows: list[tuple[str, ...]]) -> Path:
    path = folder / f"train{suffix}"
    names = ["premise", "claim", "verdict"]
    with open(path, "w", encoding="utf-8", newline="") as file:
        if suffix == ".jsonl":
            file.writelines(json.dumps(dict(zip(names, row, strict=False))) + "\n" for row in rows)
        elif suffix == ".csv":
            csv.writer(file).writerows([names, *rows])
        else:
            file.writelines("\t".join(row) + "\n" for row in [tuple(names), *rows])
    return path


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl"])
def test_a_users_table_in_any_format(tmp_path: Path, suffix: str) -> None:
    path = table(tmp_path, suffix, ROWS)
    target = discover_target(path, columns=PAIR, regression=False, multi_label=None, skip_bad_rows=False)
    assert target == Classes(("no", "yes"))
    file = read_table(path, columns=PAIR, target=target, skip_bad_rows=False)
    assert file.examples == [(i, a, b, int(label == "yes")) for i, (a, b, label) in enumerate(ROWS)]
    unlabelled = read_table(path, columns=Columns("claim", None, None), target=target, skip_bad_rows=False)
    assert unlabelled.examples == [(i, b, None, None) for i, (_, b, _) in enumerate(ROWS)]


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl"])
def test_bad_rows_of_a_table_are_told_or_counted(tmp_path: Path, suffix: str) -> None:
    path = table(tmp_path, suffix, [*ROWS, ("short", "row"), ("other", "label", "maybe"), ("last", "one", "yes")])
    target = Classes(("no", "yes"))
    line = 4 if suffix == ".jsonl" else 5
    short, expected = ("no 'verdict'", "the columns premise, claim, verdict")
    if suffix != ".jsonl":
        short, expected = ("2 columns", "3, as the first line has")
    with pytest.raises(UserError, match=f"line {line}: {short}; expected {expected}"):
        read_table(path, columns=PAIR, target=target, skip_bad_rows=False)
    file = read_table(path, columns=PAIR, target=target, skip_bad_rows=True)
    assert file.skipped == {short: 1, "the label 'maybe'": 1}
    assert file.examples[-1] == (5, "last", "one", 1)


def test_a_quoted_field_of_a_csv_may_hold_lines(tmp_path: Path) -> None:
    path = table(tmp_path, ".csv", [("two\nlines", "b", "no"), ("c", "d", "maybe")])
    with pytest.raises(UserError, match="line 4: the label 'maybe'; expected one of 'no', 'yes'"):
        read_table(path, columns=PAIR, target=Classes(("no", "yes")), skip_bad_rows=False)
    file = read_table(path, columns=PAIR, target=Classes(("no", "yes")), skip_bad_rows=True)
    assert file.examples == [(0, "two\nlines", "b", 0)]


def test_labels_that_are_numbers_are_sorted_by_value(tmp_path: Path) -> None:
    path = table(tmp_path, ".tsv", [("a", "b", label) for label in ("10", "9", "2.5")])
    assert discover_target(path, columns=PAIR, regression=False, multi_label=None, skip_bad_rows=False) == Classes(
        ("2.5", "9", "10")
    )
    assert discover_target(path, columns=PAIR, regression=True, multi_label=None, skip_bad_rows=False) == Interval(
        2.5, 10.0
    )


def test_tables_that_cannot_be_read(tmp_path: Path) -> None:
    path = table(tmp_path, ".tsv", ROWS)

    def read(path: Path, columns: Columns = PAIR) -> None:
        read_table(path, columns=columns, target=Classes(("no", "yes")), skip_bad_rows=True)

    with pytest.raises(UserError, match="no column 'text': its first line names 'premise', 'claim', 'verdict'"):
        read(path, Columns("text", None, "verdict"))
    with pytest.raises(UserError, match=r"format '\.txt' is unknown; use \.tsv, \.csv, \.jsonl"):
        read(path.rename(tmp_path / "train.txt"))
    with pytest.raises(UserError, match="cannot be read"):
        read(path)
    path.touch()
    with pytest.raises(UserError, match="is empty"):
        read(path)
    with pytest.raises(UserError, match="no row that can be used"):
        read(table(tmp_path, ".csv", []))
    with pytest.raises(UserError, match="name the column of its labels"):
        discover_target(
            path, columns=Columns("premise", None, None), regression=False, multi_label=None, skip_bad_rows=False
        )
    with pytest.raises(UserError, match="1 different labels"):
        discover_target(
            table(tmp_path, ".tsv", ROWS[:1]), columns=PAIR, regression=False, multi_label=None, skip_bad_rows=False
        )
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"premise": "a", "claim": "b", "verdict": "no"}\n[1]\n{\n')
    with pytest.raises(UserError, match="line 2: not a JSON object"):
        read_table(lines, columns=PAIR, target=Classes(("no", "yes")), skip_bad_rows=False)


def test_features_of_texts_and_pairs() -> None:
    ours = text_features([("a b", None), ("a", "b b"), ("a", "")], vocabulary=VOCABULARY, length=16)
    assert ours == [
        ([CLS, A, B, SEP], [0, 0, 0, 0]),
        ([CLS, A, SEP, B, B, SEP], [0, 0, 0, 1, 1, 1]),
        ([CLS, A, SEP], [0, 0, 0]),
    ]
    (cut,) = text_features([("a " * 9, "b " * 9)], vocabulary=VOCABULARY, length=10)
    assert cut.input_ids == [CLS, A, A, A, A, SEP, B, B, B, SEP]
    (cut,) = text_features([("a " * 9, None)], vocabulary=VOCABULARY, length=6)
    assert cut.input_ids == [CLS, A, A, A, A, SEP]


def test_pairs_are_cut_as_by_dropping_one_token_after_the_other() -> None:
    for length_a in range(9):
        for length_b in range(9):
            for room in range(12):
                a, b = length_a, length_b
                while a + b > room:
                    a, b = (a - 1, b) if a > b else (a, b - 1)
                assert pair_lengths(length_a, length_b, room) == (a, b)


def test_scores_equal_those_of_the_libraries() -> None:
    draw = np.random.default_rng(1)
    for classes in (2, 3):
        labels, predictions = draw.integers(0, classes, (2, 200)).tolist()
        assert matthews(labels, predictions) == pytest.approx(
            100 * sklearn.metrics.matthews_corrcoef(labels, predictions)
        )
        assert accuracy(labels, predictions) == pytest.approx(100 * sklearn.metrics.accuracy_score(labels, predictions))
    labels, predictions = draw.integers(0, 2, (2, 200)).tolist()
    assert f1(labels, predictions) == pytest.approx(100 * sklearn.metrics.f1_score(labels, predictions))
    targets, values = np.round(draw.normal(size=(2, 200)), 1)  # rounded, so that many are equal
    assert pearson(targets, values) == pytest.approx(100 * scipy.stats.pearsonr(targets, values)[0])
    assert spearman(targets, values) == pytest.approx(100 * scipy.stats.spearmanr(targets, values)[0])


def test_constant_predictions_score_zero() -> None:
    assert matthews([0, 1, 1], [1, 1, 1]) == 0.0
    assert f1([0, 1, 1], [0, 0, 0]) == 0.0
    assert pearson([1.0, 2.0, 3.0], [0.1, 0.1, 0.1]) == 0.0
    assert spearman([1.0, 2.0, 3.0], [0.1, 0.1, 0.1]) == 0.0


# The ELECTRA paper's development scores of BERT and ELECTRA-400K, large, in the order of `AVERAGED`.
@pytest.mark.parametrize(
    ("published", "average"),
    [
        ((60.6, 93.2, 88.0, 90.0, 91.3, 86.6, 92.3, 70.4), 84.0),
        ((69.3, 96.0, 90.6, 92.1, 92.4, 90.5, 94.5, 86.8), 89.0),
    ],
)
def test_average_of_the_paper(published: tuple[float, ...], average: float) -> None:
    scores = {
        task: {"accuracy": math.nan, "pearson": math.nan} | {metric: score}
        for (task, metric), score in zip(AVERAGED.items(), published, strict=True)
    }
    assert glue_average(scores | {"wnli": {"accuracy": 0.0}}) == pytest.approx(average, abs=0.051)
    del scores["rte"], scores["stsb"]["spearman"]
    with pytest.raises(UserError, match="needs the scores of stsb, rte too"):
        glue_average(scores)


@pytest.mark.parametrize(
    ("name", "split", "stem", "predictions", "text"),
    [
        ("rte", "test", "RTE", {1: 1, 0: 0}, "0\tentailment\n1\tnot_entailment\n"),
        ("mnli", "test", "MNLI-m", {0: 2}, "0\tneutral\n"),
        ("mnli", "test_mismatched", "MNLI-mm", {0: 0}, "0\tcontradiction\n"),
        ("ax", "diagnostic", "AX", {0: 1}, "0\tentailment\n"),
        ("stsb", "test", "STS-B", {0: 2.5, 1: 5.0}, "0\t2.500\n1\t5.000\n"),
    ],
)
def test_submissions(
    tmp_path: Path, name: str, split: str, stem: str, predictions: dict[int, float], text: str
) -> None:
    task = GLUE[name]
    path = write_submission(task, split, predictions, directory=tmp_path)
    assert path == tmp_path / f"{stem}.tsv"
    assert path.read_text() == "index\tprediction\n" + text
    assert read_submission(task, path) == predictions


def test_bad_submission(tmp_path: Path) -> None:
    path = tmp_path / "RTE.tsv"
    path.write_text("index\tprediction\n0\tentailment\n1\t1\n")
    with pytest.raises(UserError, match=r"RTE\.tsv, line 3: '1\\t1' is not a prediction"):
        read_submission(GLUE["rte"], path)


def test_records_of_tfds() -> None:
    # TFDS counts MNLI's classes in another order than the original.
    names = ["entailment", "neutral", "contradiction"]
    records = [{"premise": b"a", "hypothesis": b"b", "label": label, "idx": 7} for label in (0, 1, 2, -1)]
    labels = [example.label for example in examples_of_tfds(GLUE["mnli"], records, label_names=names)]
    assert labels == [1, 2, 0, None]
    cola = [{"sentence": "na\u00efve".encode(), "label": np.int64(1), "idx": np.int32(3)}]
    names = ["unacceptable", "acceptable"]
    assert examples_of_tfds(GLUE["cola"], cola, label_names=names) == [TextExample(3, "naïve", None, 1)]
    stsb = [{"sentence1": b"a", "sentence2": b"b", "label": np.float32(value), "idx": 0} for value in (2.5, -1.0)]
    assert [e.label for e in examples_of_tfds(GLUE["stsb"], stsb, label_names=None)] == [2.5, None]

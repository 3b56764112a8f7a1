"""Text tasks: their splits from every source, rows, predictions, scores, and what is said of data that is wrong."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from electra_jax.errors import UserError
from electra_jax.tasks.catalog import make_task, task_from_facts
from electra_jax.tasks.text.glue import GLUE
from electra_jax.tasks.text.tables import Classes, Interval
from electra_jax.tasks.text.task import LabelPrediction, TextTask, ValuePrediction
from electra_jax.tasks.tokenizer import SPECIAL_TOKENS
from electra_jax.tasks.vocabulary import Vocabulary
from support.shared import DATA, needs
from support.tiny_model import task_options

GLUE_FILES = DATA / "glue"
needs_glue = needs(GLUE_FILES)
VOCABULARY = Vocabulary([*SPECIAL_TOKENS, "a", "b", "c", "d"], lowercase=True, strip_accents=True)
CLS, SEP, A, B, C, D = 2, 3, 5, 6, 7, 8

# Of the README beside the files: rows of train, dev, test.
PUBLISHED = {
    "cola": (8551, 1043, 1063),
    "sst2": (67349, 872, 1821),
    "mrpc": (3668, 408, 1725),
    "stsb": (5749, 1500, 1379),
    "rte": (2490, 277, 3000),
    "wnli": (635, 71, 146),
    "qnli": (None, 5463, 5463),
    "ax": (None, None, 1104),
}


def made(name: str, **changes: Any) -> TextTask:
    paths = {key: str(value) if isinstance(value, Path) else value for key, value in changes.items()}
    return make_task(task_options(name, **paths), VOCABULARY)


def written(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


@needs_glue
@pytest.mark.parametrize("name", PUBLISHED)
def test_real_files_have_the_published_counts(name: str) -> None:
    task = made(name, data_dir=GLUE_FILES, double_unordered=False)
    numbers = {split: n for split, n in zip(("train", "dev", "test"), PUBLISHED[name], strict=True) if n is not None}
    assert task.splits == tuple(numbers)
    for split, number in numbers.items():
        examples = task.examples(split).examples
        assert [example.index for example in examples] == list(range(number))
        assert all((example.label is None) == (split == "test") for example in examples)
        assert all(example.text_a and example.text_b != "" for example in examples)


@needs_glue
def test_gold_labels_score_full_marks_and_wnli_is_nearly_balanced() -> None:
    for name, (train, *_) in PUBLISHED.items():
        if train is None:
            continue
        task = made(name, data_dir=GLUE_FILES)
        examples = task.examples("dev").examples
        labels = [example.label for example in examples if example.label is not None]
        scores = task.scores(labels, labels)
        assert list(scores.values()) == pytest.approx([100.0] * len(scores))
        # A dev set's majority class, published: 31 of 71 entail.
        assert name != "wnli" or (len(labels), sum(labels)) == (71, 31)


# A line of train and of test of each task, in the order of the public files' columns.
LAYOUTS = {
    "cola": ("CoLA", None, "s\t1\t\ta b", "index\tsentence", "0\ta b", ("a b", None, 1)),
    "sst2": ("SST-2", "sentence\tlabel", "a b\t0", "index\tsentence", "0\ta b", ("a b", None, 0)),
    "mrpc": ("MRPC", "Quality\tID\tID\tA\tB", "1\t7\t8\ta\tb", "index\tID\tID\tA\tB", "0\t7\t8\ta\tb", ("a", "b", 1)),
    "stsb": ("STS-B", "i\tg\ta\tb\tscore", "0\tg\ta\tb\t2.5", "i\tg\ta\tb", "0\tg\ta\tb", ("a", "b", 2.5)),
    "qqp": ("QQP", "id\tq\tq\ta\tb\tdup", "0\t1\t2\ta\tb\t1", "id\ta\tb", "0\ta\tb", ("a", "b", 1)),
    "mnli": (
        "MNLI",
        "\t".join(["i", "p", "g", "b", "b", "p", "p", "p", "s1", "s2", "l1", "gold"]),
        "\t".join(["0", "p", "g", "x", "x", "p", "p", "p", "a", "b", "neutral", "neutral"]),
        "\t".join(["i", "p", "g", "b", "b", "p", "p", "p", "s1", "s2"]),
        "\t".join(["0", "p", "g", "x", "x", "p", "p", "p", "a", "b"]),
        ("a", "b", 2),
    ),
    "qnli": ("QNLI", "i\tq\ts\tlabel", "0\ta\tb\tnot_entailment", "i\tq\ts", "0\ta\tb", ("a", "b", 1)),
    "rte": ("RTE", "i\ta\tb\tlabel", "0\ta\tb\tentailment", "i\ta\tb", "0\ta\tb", ("a", "b", 0)),
    "wnli": ("WNLI", "i\ta\tb\tlabel", "0\ta\tb\t1", "i\ta\tb", "0\ta\tb", ("a", "b", 1)),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_public_layouts(tmp_path: Path, name: str) -> None:
    folder, header, line, test_header, test_line, (text_a, text_b, label) = LAYOUTS[name]
    for split in GLUE[name].layouts:
        head, row = (test_header, test_line) if split.startswith(("test", "diagnostic")) else (header, line)
        head, row = ("i\ta\tb", "0\ta\tb") if split == "diagnostic" else (head, row)
        written(tmp_path / folder / f"{split}.tsv", *([] if head is None else [head]), row)
    task = made(name, data_dir=tmp_path, double_unordered=False)
    assert task.splits == tuple(GLUE[name].layouts)
    for split in ("train", "dev"):
        assert task.examples(split).examples == [(0, text_a, text_b, label)]
    assert task.examples("test").examples == [(0, text_a, text_b, None)]
    assert task.main_metric == {"cola": "matthews", "stsb": "spearman"}.get(name, "accuracy")
    assert task.kind == ("regression" if name == "stsb" else "classification")
    # Any of the folder's names, the folder itself, or a path will do.
    (tmp_path / folder).rename(tmp_path / name)
    dev = tmp_path / name / ("dev_matched.tsv" if name == "mnli" else "dev.tsv")
    for place in ({"data_dir": tmp_path}, {"data_dir": tmp_path / name}, {"dev_file": dev}):
        assert made(name, **place).examples("dev").examples == [(0, text_a, text_b, label)]


def test_the_diagnostic_set_is_a_test_set(tmp_path: Path) -> None:
    path = written(tmp_path / "diagnostic/diagnostic.tsv", "index\tsentence1\tsentence2", "0\ta\tb")
    for place in ({"data_dir": tmp_path}, {"test_file": path}):
        task = made("ax", **place)
        assert (task.splits, task.labels) == (("test",), made("mnli", data_dir=tmp_path).labels)
        assert task.examples("test").examples == [(0, "a", "b", None)]


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"sst2 has no dev split: DATA_DIR is not set; .* SST-2/\{train,dev,test\}\.tsv .*DEV_FILE"
    ):
        made("sst2").examples("dev")
    with pytest.raises(UserError, match=rf"rte has no dev split: it is not in {tmp_path} as RTE/.* or rte/"):
        made("rte", data_dir=tmp_path).examples("dev")
    with pytest.raises(UserError, match=r"gone\.tsv cannot be read"):
        made("rte", dev_file=tmp_path / "gone.tsv").examples("dev")
    with pytest.raises(
        UserError, match=r"regression has no split at all: it is not in .* as regression/.*\.jsonl or .*\.parquet; set"
    ):
        made("regression", data_dir=tmp_path, text_column="text")
    with pytest.raises(UserError, match=r"'glue/rte' is not prepared under .*; run `tfds build glue/rte`"):
        made("rte", source="tfds", tfds_data_dir=tmp_path)
    with pytest.raises(UserError, match="SOURCE is 'web': it must be 'files' or 'tfds'"):
        made("rte", source="web")
    with pytest.raises(UserError, match="SOURCE is 'tfds': the task 'regression' is read from 'files'"):
        made("regression", source="tfds")
    written(tmp_path / "rte/dev.tsv", "index\tsentence1\tsentence2\tlabel", "0\ta\tb\tmaybe")
    with pytest.raises(UserError, match=r"rte/dev\.tsv, line 2: the label 'maybe'; expected one of 'entailment', 'not"):
        made("rte", data_dir=tmp_path).examples("dev")


def test_rows_and_training_in_both_orders(tmp_path: Path) -> None:
    line = "i\tg\ta b\tc\t1.25"
    for split in ("train", "dev"):
        written(tmp_path / f"stsb/{split}.tsv", "i\tg\ta\tb\tscore", line)
    task = made("stsb", data_dir=tmp_path)
    first, second = task.rows(task.examples("train").examples, training=True)
    assert first["input_ids"].tolist() == [CLS, A, B, SEP, C, SEP]
    assert first["token_type_ids"].tolist() == [0, 0, 0, 0, 1, 1]
    assert second["input_ids"].tolist() == [CLS, C, SEP, A, B, SEP]
    assert [row["label"] for row in (first, second)] == [0.25, 0.25]
    assert [int(row["example"]) for row in (first, second)] == [0, 1]
    assert {name: value.dtype.name for name, value in first.items()} == {
        "input_ids": "int32",
        "token_type_ids": "int32",
        "example": "int32",
        "num_tokens": "int32",
        "num_cut": "int32",
        "label": "float32",
    }
    assert len(task.examples("dev").examples) == 1
    # What has no label cannot be learnt, and is predicted without.
    raw = task.raw_examples([("a", "b")])
    assert task.rows(raw, training=True) == []
    assert "label" not in task.rows(raw, training=False)[0]
    (short,) = make_task(task_options("stsb", data_dir=str(tmp_path), length=5), VOCABULARY).rows(
        task.raw_examples([("a b", "c d")]), training=False
    )
    assert short["input_ids"].tolist() == [CLS, A, SEP, C, SEP]


OWN = ["kind\tbody", *(f"{label}\t{a} {b}" for a in "abcd" for b in "abcd" for label in ("10", "9"))]


def own(folder: Path, name: str = "classification", **changes: Any) -> TextTask:
    return made(name, data_dir=folder, text_column="body", label_column="kind", **changes)


def test_a_users_own_table(tmp_path: Path) -> None:
    written(tmp_path / "train.tsv", *OWN)
    written(tmp_path / "dev.tsv", "body\tkind", "a\t9", "b\tx", "c")
    written(tmp_path / "test.jsonl", '{"body": "a"}', '{"body": "b"}')
    task = own(tmp_path)
    assert (task.splits, task.labels) == (("train", "dev", "test"), ("9", "10"))
    assert (task.main_metric, task.length) == ("accuracy", 128)
    assert task.examples("train").examples[:2] == [(0, "a a", None, 1), (1, "a a", None, 0)]
    assert task.examples("test").examples == [(0, "a", None, None), (1, "b", None, None)]
    with pytest.raises(UserError, match=r"dev\.tsv, line 3: the label 'x'; expected one of '9', '10'.*SKIP_BAD_ROWS"):
        task.examples("dev")
    dev = own(tmp_path, skip_bad_rows=True).examples("dev")
    assert (dev.examples, dev.skipped) == ([(0, "a", None, 0)], {"the label 'x'": 1, "1 column": 1})
    with pytest.raises(UserError, match="2 of the 2 examples of classification have no label, as in a test set"):
        task.score(task.examples("test").examples, [LabelPrediction("9", {})] * 2)


def test_a_dev_set_is_held_out_by_text(tmp_path: Path) -> None:
    train_file = written(tmp_path / "mine.tsv", *OWN)
    task = own(tmp_path, train_file=train_file, dev_fraction=0.3)
    assert task.splits == ("train", "dev")
    sides = [{example.text_a for example in task.examples(split).examples} for split in task.splits]
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == 16
    assert 1 <= len(sides[1]) <= 10
    assert own(tmp_path, train_file=train_file, dev_fraction=0.0).splits == ("train",)
    # The swapped copy of a pair is not on the other side of it.
    pairs = [f"{a}\t{b}\t{label}" for a in "abcd" for b in "abcd" for label in (0, 1)]
    pairs_file = written(tmp_path / "pairs.tsv", "one\tother\tkind", *pairs)
    columns = {"text_column": "one", "text_b_column": "other", "label_column": "kind"}
    task = made("pair_classification", train_file=pairs_file, dev_fraction=0.3, **columns)
    sides = [{frozenset((e.text_a, e.text_b)) for e in task.examples(split).examples} for split in task.splits]
    assert not sides[0] & sides[1]


@pytest.mark.parametrize(
    ("texts", "fraction", "held_out"),
    [
        ([str(number) for number in range(20)], 0.1, 2),
        ([str(number) for number in range(1000)], 0.1, 100),
        ([str(number) for number in range(7)], 0.01, 1),
        ([str(number) for number in range(7)], 0.99, 6),
        # Ten examples of one text stay together, and the others make up the number.
        (["same"] * 10 + [str(number) for number in range(10)], 0.2, 4),
        (["same"] * 10 + ["other"] * 9, 0.1, 9),
    ],
)
def test_the_dev_split_is_exact(tmp_path: Path, texts: list[str], fraction: float, held_out: int) -> None:
    rows = [f"{place % 2}\t{text}" for place, text in enumerate(texts)]
    file = written(tmp_path / "mine.tsv", "kind\tbody", *rows)
    columns = {"text_column": "body", "label_column": "kind"}
    task = made("classification", train_file=file, dev_fraction=fraction, **columns)
    train, dev = (task.examples(split).examples for split in ("train", "dev"))
    assert (len(train), len(dev)) == (len(texts) - held_out, held_out)
    assert not {example.text_a for example in train} & {example.text_a for example in dev}


def test_columns_that_are_not_named(tmp_path: Path) -> None:
    written(tmp_path / "train.csv", "kind,body", "1,a", "2,b")
    with pytest.raises(
        UserError, match=r"TEXT_COLUMN is not set: .*train\.csv that holds the text \(it has: kind, body"
    ):
        made("classification", data_dir=tmp_path)
    with pytest.raises(UserError, match=r"TEXT_B_COLUMN is not set: .* holds the second text"):
        made("pair_classification", data_dir=tmp_path, text_column="body")
    with pytest.raises(UserError, match=r"LABEL_COLUMN is not set: .* holds the label"):
        made("classification", data_dir=tmp_path, text_column="body")
    with pytest.raises(UserError, match="no column 'sort': its first line names 'kind', 'body'"):
        made("classification", data_dir=tmp_path, text_column="body", label_column="sort")
    (tmp_path / "train.csv").rename(tmp_path / "test.csv")
    with pytest.raises(UserError, match="those of its training file, and there is none: set TRAIN_FILE"):
        made("classification", data_dir=tmp_path, text_column="body", label_column="kind")
    written(tmp_path / "train.csv", "")
    with pytest.raises(UserError, match=r"train\.csv is empty"):
        made("classification", data_dir=tmp_path, text_column="body", label_column="kind")


@pytest.mark.parametrize(("clips", "high"), [(False, 5.0), (True, 3.0)])
def test_values_of_a_regression(clips: bool, high: float, tmp_path: Path) -> None:
    written(tmp_path / "train.tsv", "kind\tbody", "-1\ta", "3\tb", "1\tc")
    written(tmp_path / "dev.tsv", "kind\tbody", "5\ta", "0\tb")
    task = own(tmp_path, "regression", clip_predictions=clips)
    assert (task.kind, task.target, task.labels) == ("regression", Interval(-1.0, 3.0), ())
    train = task.examples("train").examples
    assert [float(row["label"]) for row in task.rows(train, training=True)] == [0.0, 1.0, 0.5]
    # A value beyond those of training is read, and predicted, unless the nearest that was seen is asked for.
    dev = task.examples("dev").examples
    assert [example.label for example in dev] == [5.0, 0.0]
    rows = task.rows(dev, training=False)
    outputs = [{"logits": np.array([value], np.float32)} for value in (1.5, 0.25)]
    predictions = task.predictions(dev, rows, outputs)
    assert predictions == [ValuePrediction(high), ValuePrediction(0.0)]
    assert task_from_facts(task.describe(), VOCABULARY).predictions(dev, rows, outputs) == predictions
    # Earlier versions, which did not say so, clipped.
    recorded = {name: value for name, value in task.describe().items() if name != "clips"}
    assert task_from_facts(recorded, VOCABULARY).predictions(dev, rows, outputs)[0] == ValuePrediction(3.0)
    assert predictions[1].to_json() == {"value": 0.0}
    off = 5.0 - high
    errors = {"rmse": pytest.approx(off / 2**0.5), "mae": off / 2}
    assert task.score(dev, predictions) == {"spearman": pytest.approx(100.0), "pearson": pytest.approx(100.0)} | errors


def test_predictions_and_scores(tmp_path: Path) -> None:
    lines = [f"{label}\t7\t8\ta\tb" for label in (1, 1, 0, 1)]
    written(tmp_path / "mrpc/dev.tsv", "Quality\tID\tID\tA\tB", *lines)
    task = made("mrpc", data_dir=tmp_path)
    examples = task.examples("dev").examples
    rows = task.rows(examples, training=False)
    logits = np.array([[0, np.log(3)], [np.log(3), 0], [0, 1], [0, 1000]], np.float32)
    outputs = [{"logits": logits_C} for logits_C in logits]
    # Batches of rows of one length come in another order.
    predictions = task.predictions(examples, rows[::-1], outputs[::-1])
    assert [prediction.to_json()["label"] for prediction in predictions] == ["1", "0", "1", "1"]
    assert predictions[0].to_json()["probabilities"] == pytest.approx({"0": 0.25, "1": 0.75})
    # Two of three predicted are right, and two of three are found.
    assert task.score(examples, predictions) == {"accuracy": 50.0, "f1": pytest.approx(200 / 3)}
    fewer = [*predictions[:3], LabelPrediction("0", {})]
    # One of two predicted is right, one of three is found: 0.4; the original takes two for the three.
    assert task.score(examples, fewer)["f1"] == pytest.approx(40.0)
    original = made("mrpc", data_dir=tmp_path, rules="original")
    assert original.score(examples, fewer)["f1"] == pytest.approx(50.0)


@pytest.mark.parametrize("name", ["classification", "regression", "mnli"])
def test_a_task_is_rebuilt_from_what_its_model_records(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / "train.tsv", "kind\tbody\tother", "9\ta\tb", "10\tb\tc", "10\tb\tc")
    changes = {"text_column": "body", "text_b_column": "other", "label_column": "kind", "length": 7}
    task = made(name, train_file=path, **changes)
    rebuilt = task_from_facts(json.loads(json.dumps(task.describe())), VOCABULARY)
    assert rebuilt.describe() == task.describe()
    raw = [("a b c d a b c d", "b"), {"text": "a", "text_b": "c"}]
    for one, other in zip(
        rebuilt.rows(rebuilt.raw_examples(raw), training=False),
        task.rows(task.raw_examples(raw), training=False),
        strict=True,
    ):
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[key], other[key]) for key in one)
        assert len(one["input_ids"]) <= 7
    assert (rebuilt.splits, rebuilt.target) == ((), task.target)
    with pytest.raises(UserError, match=f"{name} has no dev split: it was made without data files"):
        rebuilt.examples("dev")


def test_recorded_labels_outlive_the_training_file(tmp_path: Path) -> None:
    train_file = written(tmp_path / "train.tsv", "kind\tbody", "z\ta", "x\tb")
    record = made("classification", train_file=train_file, text_column="body", label_column="kind").describe()
    # In another order, as a model trained elsewhere may have them.
    record["target"] = ["z", "x"]
    dev_file = written(tmp_path / "dev.tsv", "kind\tbody", "z\ta")
    options = task_options("classification", dev_file=str(dev_file), text_column="body", label_column="kind")
    task = make_task(options, VOCABULARY, recorded=record)
    assert (task.target, task.examples("dev").examples) == (Classes(("z", "x")), [(0, "a", None, 0)])


def test_raw_input_of_the_wrong_number_of_texts() -> None:
    single, pair = made("cola"), made("rte")
    assert single.raw_examples(["a", {"text": "b"}]) == [(0, "a", None, None), (1, "b", None, None)]
    with pytest.raises(UserError, match=r"input 2 is \('a', 'b'\): cola expects one text"):
        single.raw_examples(["a", ("a", "b")])
    with pytest.raises(UserError, match=r"input 1 is 'a': rte expects two texts"):
        pair.raw_examples(["a"])
    with pytest.raises(UserError, match="cola expects one text"):
        single.raw_examples([7])

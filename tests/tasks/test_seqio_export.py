"""Downstream tasks in SeqIO's registry and back: features, padding, the Evaluator's scores, a user's own ten lines."""

import inspect
import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gin
import numpy as np
import pytest
import seqio
import tensorflow as tf

from electra_jax.errors import UserError
from electra_jax.finetuning.results import collapse, record_of
from electra_jax.seqio_tasks import register_downstream_task
from electra_jax.tasks import seqio_export
from electra_jax.tasks.catalog import make_task, task_from_facts
from electra_jax.tasks.long_texts import CutCount, cut_count
from electra_jax.tasks.protocol import DownstreamTask
from electra_jax.tasks.seqio_export import FEATURE_CONVERTERS, register, sequence_lengths
from electra_jax.tasks.tokenizer import SPECIAL_TOKENS
from electra_jax.tasks.vocabulary import Vocabulary
from support.tiny_model import task_options

VOCABULARY = Vocabulary([*SPECIAL_TOKENS, "a", "b", "c", "d"], lowercase=True, strip_accents=True)
CLS, SEP, A, B, C, D = 2, 3, 5, 6, 7, 8


@pytest.fixture(autouse=True)
def _registry() -> Iterator[None]:
    before = set(seqio.TaskRegistry.names())
    yield
    for name in set(seqio.TaskRegistry.names()) - before:
        seqio.TaskRegistry.remove(name)


def written(path: Path, *lines: str) -> str:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


def registered(name: str, **changes: Any) -> DownstreamTask:
    task = make_task(task_options(name, **({"length": 8} | changes)), VOCABULARY)
    register(task)
    return task


def batches(task: DownstreamTask, split: str) -> list[dict[str, np.ndarray]]:
    """What T5X gives its model, unbatched."""
    converter = FEATURE_CONVERTERS[task.kind]()
    dataset = seqio.get_dataset(task.name, sequence_lengths(task), converter, dataset_split=split)
    return list(dataset.as_numpy_iterator())


def evaluated(task: DownstreamTask, predictions: Any, aux_values: dict[str, Any] | None = None) -> dict[str, float]:
    """SeqIO's own evaluation of the validation split; the model answers in reverse order."""
    evaluator = seqio.Evaluator(
        task.name,
        feature_converter=FEATURE_CONVERTERS[task.kind](),
        eval_split="validation",
        sequence_length=sequence_lengths(task),
    )

    def predict(dataset: tf.data.Dataset) -> Any:
        order = [int(index) for index, _ in dataset.as_numpy_iterator()][::-1]
        indexed = [(index, np.asarray(predictions[index])) for index in order]
        if aux_values is None:
            return indexed
        return indexed, {key: [values[index] for index in order] for key, values in aux_values.items()}

    kind = {"predict_fn": predict} if aux_values is None else {"predict_with_aux_fn": predict}
    metrics, _ = evaluator.evaluate(compute_metrics=True, **kind)
    return metrics.result()[task.name]


def test_classification(tmp_path: Path) -> None:
    lines = ["q\ti\ti\ta\tb", "1\t7\t8\ta b\tc", "0\t7\t8\ta\tb", "1\t7\t8\td\td"]
    files = {f"{split}_file": written(tmp_path / f"{split}.tsv", *lines) for split in ("train", "dev")}
    task = registered("mrpc", **files)
    seqio_task = seqio.TaskRegistry.get("mrpc")
    assert tuple(seqio_task.splits) == ("train", "validation")
    first = batches(task, "validation")[0]
    assert {name: value.tolist() for name, value in first.items()} == {
        "input_ids": [CLS, A, B, SEP, C, SEP, 0, 0],
        "token_type_ids": [0, 0, 0, 0, 1, 1, 0, 0],
        "attention_mask": [1] * 6 + [0, 0],
        "label": 1,
    }
    assert len(batches(task, "train")) == 6
    # One of two predicted is right, one of two is found.
    assert evaluated(task, [[1], [1], [0]]) == {"accuracy": pytest.approx(100 / 3), "f1": pytest.approx(50.0)}
    (metric_fn,) = seqio_task.metric_fns
    assert metric_fn(targets=[0, 1], predictions=[0, 1])["accuracy"] == 100.0
    orders = [
        [
            x["targets"].tolist()
            for x in seqio_task.get_dataset(None, "train", shuffle=True, seed=seed).as_numpy_iterator()
        ]
        for seed in (0, 0, 1, 2)
    ]
    assert orders[0] == orders[1]
    assert len({str(order) for order in orders}) > 1


def test_regression(tmp_path: Path) -> None:
    rows = [f"0\tg\ta\tb\t{value}" for value in (0.5, 5.0, 2.5)]
    task = registered("stsb", dev_file=written(tmp_path / "dev.tsv", "i\tg\ta\tb\tscore", *rows))
    assert [float(x["label"]) for x in batches(task, "validation")] == pytest.approx([0.1, 1.0, 0.5])
    scores = evaluated(task, np.array([[0.2], [0.4], [0.3]], np.float32))
    assert scores == {"spearman": pytest.approx(100.0), "pearson": pytest.approx(225 / 5.0833333**0.5)}


def test_several_labels_are_refused(tmp_path: Path) -> None:
    rows = ('{"t": "a", "y": ["b"]}', '{"t": "b", "y": []}')
    columns = {"text_column": "t", "label_column": "y"}
    with pytest.raises(UserError, match="classification gives a text several labels, and a SeqIO task of ours has one"):
        registered("classification", train_file=written(tmp_path / "train.jsonl", *rows), **columns)


def test_choices_are_refused(tmp_path: Path) -> None:
    file = written(tmp_path / "train.csv", "t,x,y,right", "a,a,b,0")
    columns = {"text_column": "t", "choice_columns": ("x", "y"), "label_column": "right"}
    with pytest.raises(
        UserError, match="multiple_choice reads a row for each choice or label, which SeqIO has no place"
    ):
        registered("multiple_choice", train_file=file, **columns)


def test_a_test_set_is_padded_but_not_scored(tmp_path: Path) -> None:
    task = registered("rte", test_file=written(tmp_path / "test.tsv", "i\ta\tb", "0\ta\tb"))
    assert [int(x["label"]) for x in batches(task, "test")] == [-1]
    with pytest.raises(UserError, match="Examples of rte have no label, as in a test set"):
        seqio.TaskRegistry.get("rte").metric_fns[0](targets=[None], predictions=[0])


def test_tagging(tmp_path: Path) -> None:
    sentences = ["a B-X", "b I-X", "c O", "", "d B-Y", ""]
    files = {f"{split}_file": written(tmp_path / f"{split}.txt", *sentences) for split in ("train", "dev")}
    task = registered("tagging", tag_encoding="BIO", **files)
    assert task.labels == ("B-X", "B-Y", "I-X", "I-Y", "O")
    first, second = batches(task, "validation")
    assert first["input_ids"].tolist() == [CLS, A, B, C, SEP, 0, 0, 0]
    assert first["label_mask"].tolist() == [0, 1, 1, 1, 0, 0, 0, 0]
    assert first["label_ids"].tolist()[1:4] == [0, 2, 4]
    assert second["label_mask"].tolist() == [0, 1] + [0] * 6
    # Of two entities one is found, and one that is none.
    scores = evaluated(task, [[4, 0, 2, 4, 4, 4, 4, 4], [4, 0, 4, 4, 4, 4, 4, 4]])
    assert (scores["f1"], scores["accuracy"]) == (pytest.approx(50.0), pytest.approx(75.0))


def test_question_answering(tmp_path: Path) -> None:
    questions = [
        {"id": "1", "question": "a", "answers": [{"text": "c", "answer_start": 2}]},
        {"id": "2", "question": "b", "answers": [{"text": "d a", "answer_start": 4}]},
    ]
    content = {"version": "1.1", "data": [{"paragraphs": [{"context": "b c d a b c", "qas": questions}]}]}
    path = written(tmp_path / "dev.json", json.dumps(content))
    task = registered("squad_v1", train_file=path, dev_file=path, doc_stride=2)
    # [CLS] question [SEP], four pieces of the context from its first or third, [SEP].
    rows = batches(task, "validation")
    assert [row["input_ids"].tolist() for row in rows[:2]] == [
        [CLS, A, SEP, B, C, D, A, SEP],
        [CLS, A, SEP, D, A, B, C, SEP],
    ]
    assert rows[0]["answer_mask"].tolist() == [1, 0, 0, 1, 1, 1, 1, 0]
    targets = [
        [int(row[key]) for key in ("start_positions", "end_positions", "is_impossible")]
        for row in batches(task, "train")
    ]
    assert targets == [[4, 4, 0], [0, 0, 1], [5, 6, 0], [3, 4, 0]]
    # Of the first question the second window is surer, and wrong; of the second one the first window is right.
    spans = [[4, 4], [5, 5], [5, 6], [5, 5]]
    scores = evaluated(task, spans, {"scores": [-1.0, -0.5, -0.1, -3.0]})
    assert (scores["exact_match"], scores["f1"]) == (50.0, 50.0)
    assert evaluated(task, spans, {"scores": [-0.1, -0.5, -0.1, -3.0]})["f1"] == 100.0
    with pytest.raises(UserError, match="1 of the 4 rows of squad_v1 were predicted"):
        seqio.TaskRegistry.get("squad_v1").metric_fns[0]([("dev", 0)], [[4, 4]], {"scores": [0.0]})


def test_packing_is_refused() -> None:
    with pytest.raises(UserError, match="set pack to False"):
        FEATURE_CONVERTERS["tagging"](pack=True)


def test_the_documented_ten_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, code = inspect.cleandoc(seqio_export.__doc__ or "").partition("by its name:\n")
    code = textwrap.dedent(code).strip()
    assert len([line for line in code.splitlines() if line]) <= 10
    written(tmp_path / "train.tsv", "a b\t0", "c\t2", "d\t1")
    written(tmp_path / "dev.tsv", "a\t2", "b c\t1")
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    task = make_task(task_options("weather"), VOCABULARY)
    assert (task.kind, task.labels, task.main_metric) == ("classification", ("0", "1", "2"), "accuracy")
    assert task.splits == ("train", "dev")
    examples = task.examples("dev").examples
    rows = task.rows(examples, training=False)
    assert [row["input_ids"].tolist() for row in rows] == [[CLS, A, SEP], [CLS, B, C, SEP]]
    assert [int(row["label"]) for row in rows] == [2, 1]
    outputs = [{"logits": np.array(x, np.float32)} for x in ([0, 0, np.log(2)], [1, 0, 0])]
    predictions = task.predictions(examples, rows, outputs)
    assert predictions[0].to_json() == {"label": "2", "probabilities": pytest.approx({"0": 0.25, "1": 0.25, "2": 0.5})}
    assert task.score(examples, predictions) == {"accuracy": 50.0}
    assert [record_of(task, *pair)["gold"] for pair in zip(examples, predictions, strict=True)] == ["2", "1"]
    assert collapse(task, examples, predictions) is None
    # A model that was fine-tuned on it finds it again, and reads raw text.
    again = task_from_facts(json.loads(json.dumps(task.describe())), VOCABULARY)
    (row,) = again.rows(again.raw_examples(["d"]), training=False)
    assert row["input_ids"].tolist() == [CLS, D, SEP]
    assert "label" not in row


def add(name: str, features: dict[str, list[Any]], vocabulary_size: int, **changes: Any) -> None:
    """A task of word pieces as others may have registered it."""

    def rows(split: str, shuffle_files: bool) -> tf.data.Dataset:
        del split, shuffle_files
        return tf.data.Dataset.from_generator(
            lambda: ({key: values[i] for key, values in features.items()} for i in range(2)),
            output_signature={
                key: tf.TensorSpec([None], tf.float32 if isinstance(values[0][0], float) else tf.int32)
                for key, values in features.items()
            },
        )

    def matches(targets: list[Any], predictions: list[Any]) -> dict[str, float]:
        pairs = list(zip(targets, predictions, strict=True))
        return {"matches": sum(x == y for x, y in pairs), "error": sum(abs(np.subtract(x, y)).sum() for x, y in pairs)}

    seqio.TaskRegistry.add(
        name,
        source=seqio.FunctionDataSource(rows, splits=["train", "validation"]),
        preprocessors=[],
        output_features={
            key: seqio.Feature(
                seqio.PassThroughVocabulary(vocabulary_size),
                add_eos=False,
                dtype=tf.float32 if isinstance(values[0][0], float) else tf.int32,
            )
            for key, values in features.items()
        },
        **({"metric_fns": [matches]} | changes),
    )


IDS = [[CLS, A, SEP], [CLS, B, C, SEP]]


def test_word_pieces_of_a_foreign_task() -> None:
    add("foreign_values", {"input_ids": IDS, "targets": [[2.0], [6.0]]}, 9)
    task = make_task(task_options("foreign_values"), VOCABULARY)
    examples = task.examples("dev").examples
    rows = task.rows(examples, training=True)
    assert (task.kind, task.labels, task.main_metric) == ("regression", (), "matches")
    assert [(row["input_ids"].tolist(), float(row["label"])) for row in rows] == [(IDS[0], 0.0), (IDS[1], 1.0)]
    outputs = [{"logits": np.array([x], np.float32)} for x in (0.5, 1.0)]
    assert task.score(examples, task.predictions(examples, rows, outputs)) == {"matches": 1.0, "error": 2.0}
    record = record_of(task, examples[1], task.predictions(examples, rows, outputs)[1])
    assert record == {
        "index": 1,
        "text_a": "[CLS] b c [SEP]",
        "text_b": None,
        "gold": 6.0,
        "prediction": {"value": 6.0},
    }

    # What was recorded before it said whether it clips did.
    beyond = [{"logits": np.array([x], np.float32)} for x in (0.5, 1.5)]
    recorded = {name: value for name, value in task.describe().items() if name != "clips"}
    for facts, value in ((task.describe(), 8.0), (recorded, 6.0)):
        assert task_from_facts(facts, VOCABULARY).predictions(examples, rows, beyond)[1].value == value

    add("foreign_tags", {"input_ids": IDS, "targets": [[-1, 1, -1], [-1, 0, 1, -1]]}, 2)
    task = make_task(task_options("foreign_tags", length=3), VOCABULARY)
    examples = task.examples("train").examples
    rows = task.rows(examples, training=True)
    assert (task.kind, task.labels) == ("tagging", ("0", "1"))
    assert [row["input_ids"].tolist() for row in rows] == [IDS[0], IDS[1][:3]]
    assert [row["label_mask"].tolist() for row in rows] == [[0, 1, 0], [0, 1, 1]]
    assert [row["label_ids"].tolist() for row in rows] == [[0, 1, 0], [0, 0, 1]]
    predictions = task.predictions(examples, rows, [{"logits": np.eye(2, dtype=np.float32)[[0, 1, 1]]}] * 2)
    share = pytest.approx(np.e / (1 + np.e))
    assert predictions[0].to_json() == {"words": ["a"], "tags": ["1"], "probabilities": [share]}
    assert record_of(task, examples[1], predictions[1])["gold"] == ["0", "1"]
    assert record_of(task, examples[1], predictions[1])["prediction"]["tags"] == ["1", "1"]
    assert collapse(task, examples, predictions) is None
    recorded = {name: value for name, value in task.describe().items() if name != "clips"}
    assert task_from_facts(recorded, VOCABULARY) == task
    with pytest.raises(UserError, match="foreign_tags labels tokens that SeqIO made"):
        task.raw_examples(["a"])


def test_foreign_tasks_that_cannot_be_read() -> None:
    def make(name: str) -> DownstreamTask:
        return make_task(task_options(name), VOCABULARY)

    add("foreign", {"inputs": IDS, "targets": IDS}, 9)
    with pytest.raises(UserError, match="has the features inputs, targets: it needs text or input_ids"):
        make("foreign")
    seqio.TaskRegistry.remove("foreign")
    add("foreign", {"input_ids": IDS, "targets": [[0], [1]]}, 2, metric_fns=[])
    with pytest.raises(UserError, match="foreign of SeqIO's registry has no metric_fn"):
        make("foreign")
    seqio.TaskRegistry.remove("foreign")
    add("foreign", {"input_ids": IDS, "targets": [[0], [1]]}, 0)
    with pytest.raises(UserError, match="targets of foreign have a vocabulary of 0 entries"):
        make("foreign")
    seqio.TaskRegistry.remove("foreign")
    add("foreign", {"input_ids": [[CLS, 9], [CLS, A]], "targets": [[0], [1]]}, 2)
    with pytest.raises(UserError, match="foreign has the word piece 9, but the model's vocabulary only 9"):
        make("foreign").examples("train")
    with pytest.raises(UserError, match="foreign has no test split in SeqIO's registry, but train, dev"):
        make("foreign").examples("test")
    with pytest.raises(UserError, match="LONG_TEXTS is 'windows': foreign of SeqIO's registry has one row a text"):
        make_task(task_options("foreign", long_texts="windows"), VOCABULARY)
    short = make_task(task_options("foreign", length=4), VOCABULARY)
    texts = short.rows(short.raw_examples(["a b c", "a"]), training=False)
    assert cut_count(texts, 4) == CutCount(4, texts=1, num_texts=2, tokens=1, num_tokens=4)
    made = make("foreign")
    seqio.TaskRegistry.remove("foreign")
    # Raw input is read without it.
    again = task_from_facts(json.loads(json.dumps(made.describe())), VOCABULARY)
    assert again == made
    with pytest.raises(UserError, match="'foreign' is not in SeqIO's registry: give a Gin file that imports"):
        again.examples("train")


def test_a_task_by_its_name_leaves_the_callers_gin_alone(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("".join(f"{token}\n" for token in VOCABULARY.tokens))
    (tmp_path / "CoLA").mkdir()
    for split in ("train", "dev"):
        written(tmp_path / "CoLA" / f"{split}.tsv", "x\t1\t\ta b c", "x\t0\t*\tb")
    gin.parse_config("MINE = 7")
    gin.finalize()
    settings = {"vocab_file": str(tmp_path / "vocab.txt"), "DATA_DIR": str(tmp_path)}
    register_downstream_task("cola", **settings, MAX_SEQ_LENGTH=4)
    assert gin.query_parameter("MINE/macro.value") == 7
    assert gin.config_is_locked()
    converter = FEATURE_CONVERTERS["classification"]()
    dataset = seqio.get_dataset("cola", {"input_ids": 4, "token_type_ids": 4, "targets": 1}, converter, "validation")
    assert [list(row["input_ids"]) for row in dataset.as_numpy_iterator()] == [[CLS, A, B, SEP], [CLS, B, SEP, 0]]
    with pytest.raises(UserError, match="no macro MAX_LENGTH is used"):
        register_downstream_task("cola", **settings, MAX_LENGTH=4)

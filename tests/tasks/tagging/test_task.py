"""Tagging as a task: column files, rows, outputs, scores, raw input, and what is wrong with data."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from electra_jax.errors import UserError
from electra_jax.tasks.catalog import make_task, task_from_facts
from electra_jax.tasks.outputs import write_outputs
from electra_jax.tasks.protocol import Row
from electra_jax.tasks.scoring import score_predictions
from electra_jax.tasks.tagging.conlleval import Scores
from electra_jax.tasks.tagging.task import TaggingTask
from electra_jax.tasks.tokenizer import SPECIAL_TOKENS
from electra_jax.tasks.vocabulary import Vocabulary
from support.shared import DATA, needs
from support.tiny_model import task_options

CONLL2000 = DATA / "conll2000"
needs_data = needs(CONLL2000)

VOCABULARY = Vocabulary([*SPECIAL_TOKENS, "ann", "##a", "works", "in", "new", "york", "."], lowercase=True,
                                 strip_accents=True)  # fmt: skip
UNK, CLS, SEP, ANN, PIECE, WORKS, IN, NEW, YORK, DOT = 1, 2, 3, *range(5, 12)
TRAIN = "Anna NNP B-PER\nworks VBZ O\nin IN O\nNew NNP B-LOC\nYork NNP I-LOC\n. . O\n\nAnn NNP B-PER\n\n"
DEV = "Ann NNP B-PER\nAnn NNP B-PER\n\nYork NNP B-LOC\n. . O\n"


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def made(name: str, folder: Path | None, *, length: int = 16, **changes: Any) -> TaggingTask:
    data_dir = None if folder is None else str(folder)
    return make_task(task_options(name, data_dir=data_dir, length=length, **changes), VOCABULARY)


@pytest.fixture
def ner(tmp_path: Path) -> TaggingTask:
    written(tmp_path / "ner/train.txt", TRAIN)
    written(tmp_path / "ner/dev.txt", DEV)
    written(tmp_path / "ner/test.txt", "Anna\nworks\n\nAnn\n")
    return made("ner", tmp_path)


def outputs_of(task: TaggingTask, rows: Sequence[Row], labels: Sequence[Sequence[str]]) -> list[dict[str, np.ndarray]]:
    """Logits by which the words of each row, whose first pieces do not begin with ##, have these labels."""
    outputs = []
    for row, names in zip(rows, labels, strict=True):
        logits = np.zeros((len(row["input_ids"]), len(task.labels)), np.float32)
        # Whatever is said of [CLS], [SEP] and further pieces does not count.
        logits[:, 0] = 9.0
        positions = [place for place, token in enumerate(row["input_ids"]) if token not in (CLS, SEP, PIECE)]
        for place, name in zip(positions, names, strict=True):
            logits[place] = 0.0
            logits[place, task.labels.index(name)] = np.log(3.0)
        outputs.append({"logits": logits})
    return outputs


def test_labels_are_what_the_types_of_training_can_take(ner: TaggingTask, tmp_path: Path) -> None:
    assert ner.labels == ("B-LOC", "B-PER", "E-LOC", "E-PER", "I-LOC", "I-PER", "O", "S-LOC", "S-PER")
    assert ner.splits == ("train", "dev", "test")
    assert (ner.kind, ner.main_metric) == ("tagging", "f1")
    written(tmp_path / "ner/dev.txt", DEV.replace("B-LOC", "B-GPE"))
    with pytest.raises(UserError, match=r"ner/dev\.txt, line 4: the type of 'B-GPE' was never seen in training"):
        ner.examples("dev")
    skipping = made("ner", tmp_path, skip_bad_rows=True).examples("dev")
    assert [len(sentence.words) for sentence in skipping.examples] == [2]
    assert skipping.skipped.total() == 1
    observed = made("ner", tmp_path, rules="original", tag_encoding="BIO")
    assert observed.labels == ("B-GPE", "B-LOC", "B-PER", "I-LOC", "O")
    with pytest.raises(UserError, match="chunk has no training split to take its labels from: it is not in"):
        made("chunk", tmp_path / "empty")


def test_rows_carry_labels_on_first_pieces(ner: TaggingTask) -> None:
    row, short = ner.rows(ner.examples("train").examples, training=True)
    assert row["input_ids"].tolist() == [CLS, ANN, PIECE, WORKS, IN, NEW, YORK, DOT, SEP]
    assert row["label_mask"].tolist() == [0, 1, 0, 1, 1, 1, 1, 1, 0]
    names = [ner.labels[number] for number in row["label_ids"]]
    assert [name for name, counts in zip(names, row["label_mask"], strict=True) if counts] == [
        "S-PER", "O", "O", "B-LOC", "E-LOC", "O",
    ]  # fmt: skip
    assert {name: (array.dtype, array.shape) for name, array in short.items()} == {
        "input_ids": (np.int32, (3,)),
        "token_type_ids": (np.int32, (3,)),
        "label_ids": (np.int32, (3,)),
        "label_mask": (np.float32, (3,)),
        "example": (np.int32, ()),
        "window": (np.int32, ()),
        "num_tokens": (np.int32, ()),
        "num_cut": (np.int32, ()),
    }
    assert int(short["example"]) == 1


def test_perfect_outputs_score_full_marks_in_any_order_and_with_padding(ner: TaggingTask) -> None:
    examples = ner.examples("dev").examples
    rows = ner.rows(examples, training=False)[::-1]
    outputs = outputs_of(ner, rows, [["S-LOC", "O"], ["S-PER", "S-PER"]])
    predictions = ner.predictions(examples, rows, outputs)
    assert [prediction.tags for prediction in predictions] == [("B-PER", "B-PER"), ("B-LOC", "O")]
    assert predictions[0].probabilities == pytest.approx((3 / 11, 3 / 11))
    assert ner.score(examples, predictions) == {"f1": 100.0, "precision": 100.0, "recall": 100.0, "accuracy": 100.0}
    padded = [{"logits": np.pad(output["logits"], ((0, 4), (0, 0)))} for output in outputs]
    assert ner.predictions(examples, rows, padded) == predictions


def test_broken_sequences_are_repaired_and_scored_by_hand(ner: TaggingTask) -> None:
    examples = ner.examples("train").examples
    rows = ner.rows(examples, training=False)
    # E without B is an entity of its own, and I after another type starts one.
    said = [["E-PER", "O", "I-LOC", "I-LOC", "I-PER", "O"], ["O"]]
    predictions = ner.predictions(examples, rows, outputs_of(ner, rows, said))
    assert predictions[0].tags == ("B-PER", "O", "B-LOC", "I-LOC", "B-PER", "O")
    # Gold: PER, LOC, PER. Found: PER (right), LOC (a word early), PER.
    evaluation = ner.evaluation(examples, predictions)
    assert evaluation.by_type == {"LOC": Scores(1, 1, 0), "PER": Scores(2, 2, 1)}
    scores = ner.score(examples, predictions)
    assert list(scores) == ["f1", "precision", "recall", "accuracy"]
    assert scores["f1"] == pytest.approx(100 / 3)
    assert scores["accuracy"] == pytest.approx(100 * 3 / 7)


def test_words_beyond_the_length_are_outside(tmp_path: Path) -> None:
    written(tmp_path / "tagging/train.txt", TRAIN)
    task = made("tagging", tmp_path, length=6)
    sentences = [*task.examples("train").examples, *task.examples("dev").examples]
    (sentence,) = (each for each in sentences if len(each.words) == 6)
    (row,) = task.rows([sentence], training=True)
    assert row["input_ids"].tolist() == [CLS, ANN, PIECE, WORKS, IN, SEP]
    (prediction,) = task.predictions([sentence], [row], outputs_of(task, [row], [["S-PER", "O", "O"]]))
    assert prediction.tags == ("B-PER", "O", "O", "O", "O", "O")
    assert prediction.probabilities[2] is not None
    assert prediction.probabilities[3:] == (None, None, None)
    # The entity that was cut off was not found.
    assert task.score([sentence], [prediction])["recall"] == 50.0


def test_split_without_tags_is_predicted_but_not_scored(ner: TaggingTask) -> None:
    examples = ner.examples("test").examples
    assert [sentence.words for sentence in examples] == [("Anna", "works"), ("Ann",)]
    rows = ner.rows(examples, training=False)
    assert not {"label_ids", "label_mask"} & rows[0].keys()
    predictions = ner.predictions(examples, rows, outputs_of(ner, rows, [["S-PER", "O"], ["O"]]))
    assert predictions[0].tags == ("B-PER", "O")
    with pytest.raises(UserError, match="none of the 2 sentences of ner has tags"):
        ner.score(examples, predictions)


def test_raw_input_by_a_task_rebuilt_from_its_facts(ner: TaggingTask, tmp_path: Path) -> None:
    task = task_from_facts(json.loads(json.dumps(ner.describe())), VOCABULARY)
    assert task.labels == ner.labels
    examples = task.raw_examples(["Ann  works\n", ["New York", "\ud800"], ""])
    assert [sentence.words for sentence in examples] == [("Ann", "works"), ("New York", "\ufffd"), ()]
    rows = task.rows(examples, training=False)
    assert rows[2]["input_ids"].tolist() == [CLS, SEP]
    outputs = [{"logits": np.zeros((len(row["input_ids"]), len(task.labels)), np.float32)} for row in rows]
    outputs[0]["logits"][1, task.labels.index("S-PER")] = 1.0
    outputs[0]["logits"][2, task.labels.index("O")] = 1.0
    predictions = [prediction.to_json() for prediction in task.predictions(examples, rows, outputs)]
    assert predictions[0]["words"] == ["Ann", "works"]
    assert predictions[0]["tags"] == ["B-PER", "O"]
    assert predictions[2] == {"words": [], "tags": [], "probabilities": [], "entities": []}
    # The labels of a model hold when it is evaluated on other files, whatever those files are trained on.
    written(tmp_path / "other.txt", "Ann B-PER\n")
    other = task_options("ner", dev_file=str(tmp_path / "other.txt"))
    recorded = make_task(other, VOCABULARY, recorded=ner.describe())
    assert (recorded.labels, recorded.splits) == (ner.labels, ("dev",))
    assert len(recorded.examples("dev").examples) == 1


def test_entities_are_places_in_the_text(ner: TaggingTask) -> None:
    text = " Anna\u3000works  in\tNew \ud800  York"
    tags = ["S-PER", "O", "O", "B-LOC", "I-LOC", "E-LOC"]
    places = {str: (16, 27), list: (14, 24)}  # Words that are given stand a space apart.
    for value in (text, text.split()):
        examples = ner.raw_examples([value])
        rows = ner.rows(examples, training=False)
        (found,) = ner.predictions(examples, rows, outputs_of(ner, rows, [tags]))
        person, place = found.to_json()["entities"]
        start, end = places[type(value)]
        # ln 3 for one of nine labels is a probability of 3 in 11.
        assert place.pop("score") == pytest.approx(3 / 11)
        assert place == {"type": "LOC", "text": "New \ufffd York", "start": start, "end": end}
        assert (text if value is text else " ".join(value))[start:end].split() == ["New", "\ud800", "York"]
        assert (person["type"], person["end"] - person["start"]) == ("PER", 4)


@pytest.mark.parametrize(
    ("labels", "entities"),
    [
        (("O", "B-PER", "I-PER"), [("PER", 0, 8)]),
        (("O", "PER", "LOC"), [("PER", 0, 4), ("LOC", 5, 8)]),
        (("O", "U-PER", "L-PER"), [("PER", 0, 4), ("PER", 5, 8)]),
        (("NOUN", "VERB", "ADJ"), None),
        (("LABEL_0", "LABEL_1", "LABEL_2"), None),
    ],
)
def test_entities_of_another_librarys_labels(labels: tuple[str, ...], entities: list | None, ner: TaggingTask) -> None:
    """Every word has the label after the last word's."""
    task = task_from_facts(ner.describe() | {"labels": labels, "scheme": None, "encoding": "BIO"}, VOCABULARY)
    examples = task.raw_examples(["Anna Ann works"])
    rows = task.rows(examples, training=False)
    (found,) = task.predictions(examples, rows, outputs_of(task, rows, [[labels[1], labels[2], labels[0]]]))
    assert found.tags == (labels[1], labels[2], labels[0])
    of_type = None if found.entities is None else [(each.type, each.start, each.end) for each in found.entities]
    assert of_type == entities
    assert ("entities" in found.to_json()) == (entities is not None)


def test_ones_own_columns_and_scheme(tmp_path: Path) -> None:
    lines = "".join(f"{number} I-PER Ann{number}\n{number} B-PER York\n{number} I-PER .\n\n" for number in range(20))
    file = written(tmp_path / "mine.txt", lines)
    columns = {"train_file": str(file), "word_column": 2, "tag_column": 1}
    task = made("tagging", None, **columns, tag_scheme="IOB1", tag_encoding="BIO", dev_fraction=0.2)
    assert task.labels == ("B-PER", "I-PER", "O")
    train, dev = (task.examples(split).examples for split in task.splits)
    assert len(train) + len(dev) == 20
    assert 1 <= len(dev) <= 8
    assert not {sentence.words for sentence in train} & {sentence.words for sentence in dev}
    (row, *_) = task.rows(train, training=True)
    assert [task.labels[number] for number in row["label_ids"][row["label_mask"] > 0]] == ["B-PER", "B-PER", "I-PER"]
    # What is predicted is written as the file is, so that the two can be compared tag by tag.
    (prediction,) = task.predictions(train[:1], [row], outputs_of(task, [row], [["B-PER", "B-PER", "I-PER"]]))
    assert prediction.tags == train[0].tags == ("I-PER", "B-PER", "I-PER")
    assert task.score(train[:1], [prediction])["accuracy"] == 100.0
    (broken,) = task.predictions(train[:1], [row], outputs_of(task, [row], [["I-PER", "O", "I-PER"]]))
    assert broken.tags == ("I-PER", "O", "I-PER")
    (path,) = write_outputs(task, "dev", train[:1], [broken], str(tmp_path / "out"))
    assert score_predictions(task_options("tagging"), "dev", str(path), null_odds_file=None) == task.score(
        train[:1], [broken]
    )
    with pytest.raises(UserError, match="the tag scheme 'BIOX' is unknown"):
        made("tagging", None, **columns, tag_scheme="BIOX")
    with pytest.raises(UserError, match="rules is 'mine': it must be one of 'standard', 'original'"):
        made("tagging", None, **columns, rules="mine")
    written(file, "\n")
    with pytest.raises(UserError, match=r"mine\.txt is empty"):
        made("tagging", None, **columns)


def prepared_conll2003(folder: Path, sentences: Sequence[tuple[list[str], list[str]]]) -> None:
    """Leaves sentences under `folder` as TFDS's own builder would."""
    builder = tfds.builder("conll2003", data_dir=str(folder))
    data_dir = Path(builder.data_dir)
    data_dir.mkdir(parents=True)
    features = builder.info.features
    with tf.io.TFRecordWriter(str(data_dir / "conll2003-train.tfrecord-00000-of-00001")) as writer:
        for words, tags in sentences:
            record = {"tokens": words, "ner": tags, "pos": ["NN"] * len(words), "chunks": ["O"] * len(words)}
            writer.write(features.serialize_example(features.encode_example(record)))
    tfds.folder_dataset.write_metadata(
        data_dir=str(data_dir),
        features=features,
        split_infos=[tfds.core.SplitInfo(name="train", shard_lengths=[len(sentences)], num_bytes=1)],
        filename_template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    )


def test_named_entities_from_tfds(tmp_path: Path) -> None:
    prepared_conll2003(tmp_path, [(["Ann", "Müller"], ["B-PER", "I-PER"]), (["."], ["O"])])
    task = made("ner", None, source="tfds", tfds_data_dir=str(tmp_path))
    assert [(sentence.words, sentence.tags) for sentence in task.examples("train").examples] == [
        (("Ann", "Müller"), ("B-PER", "I-PER")),
        ((".",), ("O",)),
    ]
    with pytest.raises(UserError, match="TFDS has no dataset of the task 'chunk'"):
        made("chunk", None, source="tfds")


@needs_data
def test_real_chunks_have_the_published_counts(tmp_path: Path) -> None:
    task = made("chunk", CONLL2000, length=256, dev_fraction=0.1)
    assert task.splits == ("train", "dev", "test")
    numbers = {split: len(task.examples(split).examples) for split in task.splits}
    assert numbers["train"] + numbers["dev"] == 8936
    assert 800 < numbers["dev"] < 1000
    assert numbers["test"] == 2012
    whole = made("chunk", CONLL2000, length=256, dev_fraction=0.0)
    assert [len(whole.examples(split).examples) for split in whole.splits] == [8936, 2012]
    assert len(whole.labels) == 1 + 4 * 11
    # Gold labels as a model's outputs give the gold chunks back, but for what the length cuts off.
    examples = whole.examples("test").examples
    rows = whole.rows(examples, training=False)
    outputs = [{"logits": np.eye(len(whole.labels), dtype=np.float32)[row["label_ids"]]} for row in rows]
    predictions = whole.predictions(examples, rows, outputs)
    scores = whole.score(examples, predictions)
    assert scores == dict.fromkeys(("f1", "precision", "recall", "accuracy"), 100.0)


def test_a_split_whose_link_leads_nowhere_is_no_split_that_is_missing(tmp_path: Path) -> None:
    """Its disk may not be mounted; a part of the training examples would take its place."""
    written(tmp_path / "chunk/train.txt", "Ann X B-NP\n\nsleeps X B-VP\n")
    (tmp_path / "chunk/dev.txt").symlink_to(tmp_path / "nowhere.txt")
    task = made("chunk", tmp_path)
    with pytest.raises(UserError, match=r"chunk/dev\.txt"):
        task.examples("dev")

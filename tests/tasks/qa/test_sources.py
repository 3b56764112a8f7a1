"""Question answering as a task: layouts of files, splits, TFDS, and what is wrong with data."""

import dataclasses
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from electra_jax.errors import UserError
from electra_jax.tasks.catalog import make_task
from support.questions import CONTEXT, QUESTIONS, VOCABULARY, made, mrqa, squad, written
from support.shared import DATA, needs
from support.tiny_model import task_options

SQUAD = DATA / "squad"


def test_questions_that_cannot_be_learnt_are_counted(tmp_path: Path) -> None:
    bad = [("Who?", CONTEXT, "Jane Doe"), ("When?", CONTEXT, "")]
    written(tmp_path / "squad_v1/train.json", squad([*QUESTIONS[:2], *bad]))
    written(tmp_path / "squad_v1/dev.json", squad([*QUESTIONS[:2], *bad]))
    task = made("squad_v1", tmp_path)
    train = task.examples("train")
    assert [example.example_id for example in train.examples] == ["q0", "q1"]
    assert train.skipped == {"the answer is not in its context": 1, "the answer is empty": 1}
    # The dev split is scored whole.
    dev = task.examples("dev")
    assert (len(dev.examples), dev.skipped.total()) == (4, 0)
    assert {int(row["example"]) for row in task.rows(dev.examples, training=True)} == {0, 1}
    written(tmp_path / "squad_v1/train.json", squad(bad))
    with pytest.raises(UserError, match=r"none of the training questions can be learnt \(the answer is not in its"):
        task.examples("train")


def test_files_by_folder_by_path_and_none(tmp_path: Path) -> None:
    text = json.dumps(squad(QUESTIONS[:2]))
    (tmp_path / "squadv1").mkdir()
    (tmp_path / "squadv1/train.json.gz").write_bytes(gzip.compress(text.encode()))
    named = written(tmp_path / "elsewhere/my.json", squad(QUESTIONS[:1]))
    task = made("squad_v1", tmp_path, dev_file=str(named))
    assert task.splits == ("train", "dev")
    assert [len(task.examples(split).examples) for split in task.splits] == [2, 1]
    with pytest.raises(
        UserError, match=r"squad_v1 has no test split: it is not in .*squad_v1/\{train,dev,test\}\.json"
    ):
        task.examples("test")
    with pytest.raises(UserError, match="has no dev split: DATA_DIR is not set"):
        made("newsqa", None).examples("dev")
    with pytest.raises(UserError, match=r"absent\.json cannot be read"):
        made("squad_v1", None, dev_file=str(tmp_path / "absent.json")).examples("dev")
    written(named, " \n")
    with pytest.raises(UserError, match=r"my\.json is empty"):
        task.examples("dev")
    with pytest.raises(UserError, match="TFDS has no dataset of the task 'qa'"):
        made("qa", None, source="tfds")
    with pytest.raises(UserError, match="SOURCE is 'web'"):
        made("squad_v1", None, source="web")


def test_ones_own_questions_divided_by_context_and_scored_as_they_are_marked(tmp_path: Path) -> None:
    contexts = [f"{'he ' * number}Houston" for number in range(1, 21)]
    questions = [("Where?", context, "Houston") for context in contexts for _ in range(2)]
    file = str(written(tmp_path / "mine.json", squad(questions)))
    task = made("qa", None, train_file=file, dev_fraction=0.3)
    assert (task.splits, task.scoring) == (("train", "dev"), "squad_v1")
    parts = [{example.context for example in task.examples(split).examples} for split in task.splits]
    assert parts[0] | parts[1] == set(contexts)
    assert not parts[0] & parts[1]
    assert 1 <= len(parts[1]) <= 10
    # Even of two contexts one goes to each side.
    written(tmp_path / "mine.json", squad(questions[:4]))
    assert [len(task.examples(split).examples) for split in task.splits] == [2, 2]
    written(tmp_path / "mine.json", squad(questions[:2]))
    with pytest.raises(UserError, match="cannot divide 2 training examples"):
        task.examples("train")
    written(tmp_path / "mine.json", squad([*questions, QUESTIONS[3]]))
    assert made("qa", None, train_file=file, dev_fraction=0.3).scoring == "squad_v2"


def prepared(name: str, folder: Path, splits: dict[str, list[dict[str, Any]]]) -> None:
    """Leaves records under `folder` as TFDS's own builder of `name` would."""
    builder = tfds.builder(name, data_dir=str(folder))
    data_dir = Path(builder.data_dir)
    data_dir.mkdir(parents=True)
    features = builder.info.features
    for split, records in splits.items():
        with tf.io.TFRecordWriter(str(data_dir / f"{builder.name}-{split}.tfrecord-00000-of-00001")) as writer:
            for record in records:
                writer.write(features.serialize_example(features.encode_example(record)))
    tfds.folder_dataset.write_metadata(
        data_dir=str(data_dir),
        features=features,
        split_infos=[
            tfds.core.SplitInfo(name=split, shard_lengths=[len(records)], num_bytes=1)
            for split, records in splits.items()
        ],
        filename_template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    )


def test_tfds_has_the_same_questions_as_the_files(tmp_path: Path) -> None:
    written(tmp_path / "dev.json", squad(QUESTIONS))
    written(tmp_path / "newsqa/dev.jsonl", mrqa(QUESTIONS[:2]))
    from_files = made("squad_v2", tmp_path).examples("dev").examples
    records = [
        {
            "id": example.example_id,
            "title": "",
            "context": example.context,
            "question": example.question,
            "is_impossible": example.is_impossible,
            "plausible_answers": {"text": [], "answer_start": []},
            "answers": {
                "text": list(example.gold_texts),
                "answer_start": [answer.start for answer in example.answers],
            },
        }
        for example in from_files
    ]
    prepared("squad/v2.0", tmp_path / "tfds", {"train": records[:1], "validation": records})
    task = made("squad_v2", None, source="tfds", tfds_data_dir=str(tmp_path / "tfds"))
    assert task.splits == ("train", "dev")
    assert task.examples("dev").examples == from_files
    with pytest.raises(UserError, match=r"squad_v2 has no test split: TFDS's squad/v2\.0 has only"):
        task.examples("test")

    from_files = made("newsqa", tmp_path).examples("dev").examples
    empty = {"tokens": [], "offsets": []}
    records = [
        {
            "subset": "x",
            "qid": example.example_id,
            "context": example.context,
            "question": example.question,
            "context_tokens": empty,
            "question_tokens": empty,
            "answers": list(example.gold_texts),
            "detected_answers": [
                {
                    "text": answer.text,
                    "char_spans": [{"start": answer.start, "end": answer.end - 1}] * 2,
                    "token_spans": [],
                }
                for answer in example.answers
            ],
        }
        for example in from_files
    ]
    prepared("mrqa/news_qa", tmp_path / "tfds", {"validation": records})
    twice = [dataclasses.replace(example, answers=example.answers * 2) for example in from_files]
    task = made("newsqa", None, source="tfds", tfds_data_dir=str(tmp_path / "tfds"))
    assert task.examples("dev").examples == twice


@needs(SQUAD)
@pytest.mark.parametrize(
    ("name", "train", "dev"),
    [("squad_v1", ("split-train-v1.1", 8305), ("split-dev-v1.1", 2265)),
     ("squad_v1", ("train-subset-v1.1", 4330), None),
     ("squad_v2", ("split-train-v2.0", 9051), ("split-dev-v2.0", 2822))],
)  # fmt: skip
def test_real_files_have_the_published_counts(name: str, train: tuple[str, int], dev: tuple[str, int] | None) -> None:
    options = task_options(name, train_file=str(SQUAD / f"{train[0]}.json"))
    if dev is not None:
        options = dataclasses.replace(options, dev_file=str(SQUAD / f"{dev[0]}.json"))
    task = make_task(options, VOCABULARY)
    found = task.examples("train")
    # An answer without a piece of this small vocabulary is [UNK], but in its place.
    assert (len(found.examples), found.skipped) == (train[1], {})
    if dev is not None:
        assert len(task.examples("dev").examples) == dev[1]

"""GLUE as TFDS leaves it on disk."""

from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from electra_jax.errors import UserError
from electra_jax.tasks.catalog import make_task
from electra_jax.tasks.text.task import TextTask
from electra_jax.tasks.tokenizer import SPECIAL_TOKENS
from electra_jax.tasks.vocabulary import Vocabulary
from support.tiny_model import task_options

VOCABULARY = Vocabulary([*SPECIAL_TOKENS, "a", "b", "c", "d"], lowercase=True, strip_accents=True)


def made(name: str, **changes: Any) -> TextTask:
    paths = {key: str(value) if isinstance(value, Path) else value for key, value in changes.items()}
    return make_task(task_options(name, **paths), VOCABULARY)


def prepare(folder: Path, name: str, splits: dict[str, list[dict[str, Any]]]) -> None:
    """A dataset of GLUE as TFDS leaves it on disk."""
    builder = tfds.builder(f"glue/{name}", data_dir=folder)
    path = Path(builder.data_dir)
    path.mkdir(parents=True)
    for split, records in splits.items():
        with tf.io.TFRecordWriter(str(path / f"glue-{split}.tfrecord-00000-of-00001")) as writer:
            for record in records:
                serializer = tfds.core.example_serializer.ExampleSerializer(builder.info.features.get_serialized_info())
                writer.write(serializer.serialize_example(builder.info.features.encode_example(record)))
    tfds.folder_dataset.write_metadata(
        data_dir=str(path),
        features=builder.info.features,
        split_infos=[
            tfds.core.SplitInfo(name=split, shard_lengths=[len(records)], num_bytes=100)
            for split, records in splits.items()
        ],
        filename_template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    )


def test_tfds(tmp_path: Path) -> None:
    pair = {"premise": "a", "hypothesis": "b"}
    prepare(
        tmp_path,
        "mnli",
        {
            "train": [pair | {"idx": 7, "label": "neutral"}],
            "validation_matched": [pair | {"idx": 0, "label": "contradiction"}],
            "validation_mismatched": [pair | {"idx": 0, "label": "entailment"}],
            "test_matched": [pair | {"idx": 0, "label": -1}],
        },
    )
    task = made("mnli", source="tfds", tfds_data_dir=tmp_path)
    assert task.splits == ("train", "dev_matched", "dev_mismatched", "test_matched")
    # By name: TFDS's order of the classes is another.
    assert task.examples("train").examples == [(7, "a", "b", 2)]
    assert task.examples("dev").examples == [(0, "a", "b", 0)]
    assert task.examples("dev_mismatched").examples == [(0, "a", "b", 1)]
    assert task.examples("test").examples == [(0, "a", "b", None)]
    with pytest.raises(UserError, match=r"mnli has no diagnostic split: TFDS's glue/mnli/.* has only"):
        task.examples("diagnostic")
    record = {"sentence1": "a", "sentence2": "b", "idx": 0, "label": 2.5}
    prepare(tmp_path, "stsb", {"train": [record], "validation": [record]})
    task = made("stsb", source="tfds", tfds_data_dir=tmp_path)
    assert task.examples("train").examples == [(0, "a", "b", 2.5), (1, "b", "a", 2.5)]
    assert task.examples("dev").examples == [(0, "a", "b", 2.5)]

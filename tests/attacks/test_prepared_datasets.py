"""Folders of TFDS's datasets that somebody else prepared are data, and what is wrong with them is one sentence."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from electra_jax.errors import UserError
from electra_jax.tasks.corpora.open import open_corpus

NAME = "small_texts"


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a dataset of two texts, which TFDS has no code for."""
    folder = tmp_path / NAME / "1.0.0"
    folder.mkdir(parents=True)
    write_records(folder, b"One.", b"Two.")
    tfds.folder_dataset.write_metadata(
        data_dir=str(folder),
        features=tfds.features.FeaturesDict({"text": tfds.features.Text()}),
        split_infos=[tfds.core.SplitInfo(name="train", shard_lengths=[2], num_bytes=100)],
        filename_template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    )
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    return folder


def write_records(folder: Path, *texts: bytes) -> None:
    with tf.io.TFRecordWriter(str(folder / f"{NAME}-train.tfrecord-00000-of-00001")) as writer:
        for text in texts:
            feature = {"text": tf.train.Feature(bytes_list=tf.train.BytesList(value=[text]))}
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())


def read(name: str = NAME) -> list[str]:
    corpus = open_corpus(f"tfds:{name}", text_format="auto", text_field="text", skip_undecodable=False)
    return [document.text for unit in corpus.units for document in corpus.documents(unit)]


def change(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    stated = json.loads(path.read_text())
    edit(stated)
    path.write_text(json.dumps(stated))


@pytest.mark.parametrize(
    "edit",
    [
        lambda stated: stated.update(pythonClassName="hostile_module.Feature"),
        lambda stated: stated.update(type="hostile_module.Feature", content={}),
        lambda stated: stated["featuresDict"]["features"]["text"].update(pythonClassName="hostile_module.part.Feature"),
    ],
)
def test_features_import_no_module(
    edit: Callable[[dict[str, Any]], Any], prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/hostile_module.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    assert read() == ["One.", "Two."]
    change(prepared / "features.json", edit)
    with pytest.raises(UserError, match=r"features\.json names the class hostile_module"):
        read()
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("file", "edit"),
    [
        ("dataset_info.json", lambda stated: stated.update(fileFormat="riegeli")),
        ("dataset_info.json", lambda stated: stated.update(fileFormat="parquet")),
        ("dataset_info.json", lambda stated: stated.update(fileFormat="array_record")),
        ("dataset_info.json", lambda stated: stated.update(name="../../x")),
        ("dataset_info.json", lambda stated: stated.update(splits=3)),
        ("dataset_info.json", lambda stated: stated["splits"][0].update(filepathTemplate="{0.__class__}")),
        ("dataset_info.json", lambda stated: stated["splits"][0].update(shardLengths=["9" * 18])),
        ("dataset_info.json", lambda stated: stated["splits"][0].update(shardLengths=["-1"])),
        ("features.json", lambda stated: stated.update(pythonClassName="Feature")),
        ("features.json", lambda stated: stated.update(featuresDict=3)),
    ],
)
def test_what_is_not_as_tfds_prepares_it(file: str, edit: Callable[[dict[str, Any]], Any], prepared: Path) -> None:
    change(prepared / file, edit)
    with pytest.raises(UserError, match=r"prepare it again|TFDS knows no dataset|TFDS_DATA_DIR"):
        read()


def test_records_of_another_kind(prepared: Path) -> None:
    path = prepared / f"{NAME}-train.tfrecord-00000-of-00001"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for _ in range(2):
            writer.write(b"\xff" * 20)
    with pytest.raises(UserError, match="prepare it again"):
        read()


@pytest.mark.parametrize(
    "name", ["glue/cola/data_dir=elsewhere", "glue/x=1", "huggingface:rotten", "../../x", "glue/.."]
)
def test_names_that_tfds_does_not_have(name: str, prepared: Path) -> None:
    with pytest.raises(UserError, match="TFDS knows no dataset"):
        read(name)

"""Runs and data in `gs://`, read and written by real processes through a store on loopback."""

import argparse
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from electra_jax.checkpoints import orbax_store
from electra_jax.commands import export, import_
from electra_jax.errors import UserError
from electra_jax.files import absolute, path_of
from support.command_line import COMMAND, environment, small_run, write_small_text
from support.object_store import BUCKET, ObjectStore, object_store

STEPS = {"TRAIN_STEPS": 4, "SAVE_EVERY": 2, "EVALUATE_EVERY": 4, "KEEP": 3}


class Run(NamedTuple):
    """A run whose text, vocabulary, cache and model directory are in the store.

    Attributes:
        store: where.
        folder: on the local disk.
        arguments: of the `electra pretrain` that made it.
    """

    store: ObjectStore
    folder: Path
    arguments: list[str]

    def electra(self, *arguments: str, host: str = "host") -> subprocess.CompletedProcess[str]:
        """`electra ARGUMENTS` on a machine with a disk of its own."""
        cache = self.folder / host
        return subprocess.run(
            [COMMAND, *arguments],
            env=environment(cache) | self.store.environment,
            capture_output=True,
            text=True,
        )

    def read(self, name: str) -> bytes:
        """An object's content."""
        return self.store.storage.get_file(BUCKET, name)

    def parameters(self, step: int, copy: Path) -> list[np.ndarray]:
        """The parameters of a checkpoint, read from a copy of its objects on the local disk."""
        prefix = f"run/checkpoints/{step}/"
        for name in self.store.names():
            if name.startswith(prefix) and not name.endswith("/"):
                path = copy / "checkpoints" / str(step) / name.removeprefix(prefix)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self.read(name))
        return jax.tree.leaves(orbax_store.read_item(path_of(copy), "params").tree)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A run of four steps from text, with a checkpoint every two."""
    logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
    folder = tmp_path_factory.mktemp("store")
    write_small_text(folder)
    with object_store(folder) as store:
        store.put("data/en/text.txt", (folder / "text.txt").read_bytes())
        store.put("data/vocab.txt", (folder / "vocab.txt").read_bytes())
        texts = {"CORPUS": "gs://bucket/data/*/*.txt", "VOCAB_FILE": "gs://bucket/data/vocab.txt"}
        arguments = small_run(folder, "gs://bucket/run", **STEPS, **texts, CACHE_DIR="gs://bucket/caches")
        made = Run(store, folder, arguments)
        result = made.electra(*arguments)
        assert result.returncode == 0, result.stderr
        yield made


def test_everything_of_a_run_is_in_the_store(run: Run) -> None:
    names = run.store.names()
    for name in (
        "config.gin",
        "run.json",
        "metrics.jsonl",
        "checkpoints/2/integrity.json",
        "checkpoints/4/state/_METADATA",
    ):
        assert f"run/{name}" in names
    assert any(name.startswith("run/tensorboard/train/events.") for name in names)
    (finished,) = [name for name in names if name.startswith("caches/") and name.endswith("/COMPLETED")]
    assert finished.removesuffix("COMPLETED") + "train.blocks/tokens.npy" in names
    lines = [json.loads(line) for line in run.read("run/metrics.jsonl").splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 4]
    # On the local disk there is only what can be made again; not a folder of the bucket's name.
    assert sorted(path.name for path in run.folder.iterdir()) == ["authority.pem", "host", "text.txt", "vocab.txt"]


def test_tfrecords_are_added_to_a_cache_in_the_store(run: Run) -> None:
    (finished,) = [name for name in run.store.names() if name.startswith("caches/") and name.endswith("/COMPLETED")]
    cache = finished.removesuffix("/COMPLETED")
    settings = {"CORPUS": f"gs://bucket/{cache}", "VOCAB_FILE": "gs://bucket/data/vocab.txt", "TFRECORDS": True}
    result = run.electra("cache", *(f"--gin.{name}={value!r}" for name, value in settings.items()))
    assert (result.returncode, result.stdout) == (0, f"gs://bucket/{cache}\n"), result.stderr
    num_files = json.loads(run.read(f"{cache}/info.train.json"))["num_shards"]
    shards = [f"{cache}/train.tfrecord-{number:05d}-of-{num_files:05d}" for number in range(num_files)]
    made_by = json.loads(run.read(f"{cache}/made_by.json"))
    records = list(map(tf_records, map(run.read, shards)))
    assert sum(map(len, records)) == made_by["train"]["examples"] > 0


def tf_records(content: bytes) -> list[bytes]:
    """Return the records of a TFRecord file; the lengths and checksums around them are passed over."""
    records = []
    while content:
        length = int.from_bytes(content[:8], "little")
        records.append(content[12 : 12 + length])
        content = content[16 + length :]
    return records


def test_another_machine_goes_on_from_the_newest_sound_checkpoint(run: Run, tmp_path: Path) -> None:
    params = run.parameters(4, tmp_path / "before")
    # A bit flips where the parameters are; and a save was interrupted before it was committed.
    state = [name for name in run.store.names() if name.startswith("run/checkpoints/4/state/")]
    largest = max(state, key=lambda name: len(run.read(name)))
    flipped = bytearray(run.read(largest))
    flipped[len(flipped) // 2] ^= 1
    run.store.put(largest, bytes(flipped))
    run.store.put("run/checkpoints/6/state/_METADATA", b"{}")
    # Of the first machine's disk it has the compiled programs, which spare the test their making.
    (run.folder / "another").mkdir()
    (run.folder / "another" / "xla").symlink_to(run.folder / "host" / "xla")
    result = run.electra(*run.arguments, host="another")
    assert result.returncode == 0, result.stderr
    assert (
        f"checkpoint 4 in gs://bucket/run/checkpoints is corrupt ({largest.removeprefix('run/checkpoints/4/')}"
        in result.stderr
    )
    assert "resuming from step 2 of gs://bucket/run" in result.stdout
    # The tokenised corpus was not made again, but copied to this machine's disk.
    assert "Tokenising" not in result.stderr
    assert len(list((run.folder / "another" / "blocks").glob("*/train.blocks/tokens.npy"))) == 1
    again = run.parameters(4, tmp_path / "after")
    assert len(params) == len(again) > 10
    for before, after in zip(params, again, strict=True):
        np.testing.assert_array_equal(before, after)
    names = run.store.names()
    assert largest.replace("checkpoints", "corrupt_checkpoints") in names
    assert "run/checkpoints/6/state/_METADATA" not in names
    lines = [json.loads(line) for line in run.read("run/metrics.jsonl").splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 4]
    assert len(json.loads(run.read("run/run.json"))["starts"]) == 2


def test_a_bucket_that_is_not_there(run: Run) -> None:
    result = run.electra(
        "vocab", "--gin.CORPUS='gs://nowhere/*.txt'", "--gin.VOCAB_FILE='v.txt'", "--gin.VOCAB_SIZE=99"
    )
    assert result.returncode == 2
    assert "gs://nowhere" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("s3://bucket/run", "neither a local path nor gs://"),
        ("gs:/bucket/run", "neither a local path nor gs://"),
        ("gs://bucket", "is not a path in a bucket"),
        ("gs:///run", "is not a path in a bucket"),
    ],
)
def test_paths_that_are_refused(name: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        path_of(name)


def test_without_the_client_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    # A name that is None among the modules cannot be imported, as if it were not installed.
    monkeypatch.setitem(sys.modules, "google.cloud.storage", None)
    with pytest.raises(UserError, match="extra gcs"):
        path_of("gs://bucket/run")
    assert path_of("run").exists() is False


def test_paths_from_the_root_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert str(absolute("runs/a")) == str(tmp_path / "runs" / "a")
    assert str(absolute("gs://bucket/runs/a")) == "gs://bucket/runs/a"


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        (import_, {"sources": ["gs://bucket/hf"], "dest": "here"}),
        (import_, {"sources": ["here"], "dest": "gs://bucket/model"}),
        (export, {"source": "here", "dest": "gs://bucket/out", "format": "tf1"}),
    ],
)
def test_what_is_for_the_local_disk_says_so(verb: ModuleType, arguments: dict[str, Any]) -> None:
    # Taken for a local path, gs:// would be a folder of that name.
    with pytest.raises(UserError, match=r"is gs://bucket/\w+: it must be on this machine's disk"):
        verb.run(argparse.Namespace(**arguments))

"""`seqio_cache_tasks` on Beam's local runner, with several workers, writes the cache that `electra cache` writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import beam_corpus
from support.beam_corpus import built, read

pytest.importorskip("apache_beam", reason="apache_beam is not installed (the extra beam)")

OPTIONS = ["--runner=DirectRunner", "--direct_running_mode=multi_processing", "--direct_num_workers=2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of texts."""
    folder = tmp_path_factory.mktemp("beam")
    beam_corpus.write(folder, 3)
    return folder


@pytest.fixture(scope="module")
def of_beam(folder: Path) -> Path:
    """The cache that Beam's workers wrote."""
    arguments = [
        f"--tasks={beam_corpus.TASK}",
        f"--output_cache_dir={folder / 'beam'}",
        "--module_import=support.beam_corpus",
        "--min_shards=4",
        f"--pipeline_options={','.join(OPTIONS)}",
    ]
    subprocess.run(
        [sys.executable, "-m", "seqio.scripts.cache_tasks_main", *arguments],
        env=os.environ | {beam_corpus.FOLDER: str(folder), "PYTHONPATH": str(Path(__file__).parents[2])},
        check=True,
    )
    return folder / "beam" / beam_corpus.TASK


def test_example_by_example(folder: Path, of_beam: Path) -> None:
    ours = built(folder)
    assert (of_beam / "COMPLETED").exists()
    for split in ("train", "validation"):
        examples = read(of_beam, split)
        assert examples
        assert examples == read(ours, split)
        infos = [json.loads((cache / f"info.{split}.json").read_text()) for cache in (of_beam, ours)]
        assert infos[0]["features"] == infos[1]["features"]
        assert infos[0]["num_shards"] == len(list(of_beam.glob(f"{split}.tfrecord-*"))) == 4
        stats = [json.loads((cache / f"stats.{split}.json").read_text()) for cache in (of_beam, ours)]
        assert stats[1].items() <= stats[0].items()

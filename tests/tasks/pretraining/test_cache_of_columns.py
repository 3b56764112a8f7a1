"""A cache of Parquet and archives: a build that was interrupted continues, and gives what an undisturbed one gives."""

import io
import json
import pathlib
import random
import zipfile
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from electra_jax.tasks.corpora.divided import divide
from electra_jax.tasks.corpora.filtered import Filters, filtered
from electra_jax.tasks.corpora.open import Corpus, open_corpus
from electra_jax.tasks.pretraining import cache
from electra_jax.tasks.pretraining.cache_worker import Job, run_job
from electra_jax.tasks.pretraining.packing import COMPLETE, Packing
from electra_jax.tasks.tokenizer import SPECIAL_TOKENS
from electra_jax.tasks.vocabulary import Vocabulary

LETTERS = "abcdefghij"
VOCABULARY = Vocabulary([*SPECIAL_TOKENS, *LETTERS], lowercase=False, strip_accents=False)


class Killed(Exception):  # noqa: N818 - stands for the end of the process
    """Ends a build."""


def write_corpus(folder: pathlib.Path) -> None:
    draw = random.Random(0)
    texts = [" ".join(draw.choices(LETTERS, k=1000)) for _ in range(60)]
    texts[7:7] = [texts[3], None]
    parquet.write_table(pa.table({"text": texts[:40]}), folder / "a.parquet", row_group_size=7)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("rest.jsonl", "\n".join(json.dumps({"text": text}) for text in texts[40:]))
    (folder / "b.zip").write_bytes(buffer.getvalue())


def opened(folder: pathlib.Path) -> Corpus:
    corpus = open_corpus(str(folder / "*.*"), text_format="auto", text_field="text", skip_undecodable=False)
    return divide(filtered(corpus, Filters(10, None, 0.0, "exact")), sequence_length=128)


def build(folder: pathlib.Path, cache_dir: pathlib.Path) -> pathlib.Path:
    options: dict[str, Any] = {"held_out_fraction": 0.1, "num_processes": 1, "show_progress": False}
    packing = Packing(length=64, one_segment_share=0.1, random_length_share=0.05, seed=1, builder=COMPLETE)
    return pathlib.Path(
        cache.build_cache(opened(folder), VOCABULARY, cache_dir=str(cache_dir), packing=packing, **options)
    )


def test_an_interrupted_build_goes_on(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_corpus(tmp_path)
    monkeypatch.setattr(cache, "SMALLEST_JOB", 2**14)
    done: list[int] = []

    def run(worker: Any, job: Job) -> dict[str, Any]:
        if len(done) == 3:
            raise Killed
        done.append(job.index)
        return run_job(worker._setup, job)

    monkeypatch.setattr(cache._Worker, "run", run)
    with pytest.raises(Killed):
        build(tmp_path, tmp_path / "killed")
    monkeypatch.setattr(cache._Worker, "run", lambda worker, job: done.append(job.index) or run_job(worker._setup, job))
    resumed = build(tmp_path, tmp_path / "killed")
    assert done == list(range(len(done)))  # no job twice
    assert len(done) > 5
    whole = build(tmp_path, tmp_path / "whole")
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    assert all((whole / file).read_bytes() == (resumed / file).read_bytes() for file in files)
    made_by = json.loads((resumed / "made_by.json").read_text())
    assert made_by["skipped"] == {"copies of documents": 1, "null texts": 1}
    assert made_by["train"]["documents"] + made_by["validation"]["documents"] == 60

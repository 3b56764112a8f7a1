"""Building a cache: its layout, its division, its identity, and that nothing is lost or half-written."""

import collections
import dataclasses
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import seqio

from electra_jax.data.blocks import open_blocks
from electra_jax.errors import UserError
from electra_jax.tasks.corpora.open import Corpus, open_corpus
from electra_jax.tasks.host_tensorflow import tf
from electra_jax.tasks.original.packing import BUILDER
from electra_jax.tasks.pretraining import cache
from electra_jax.tasks.pretraining.cache import build_cache, cache_description, cache_name
from electra_jax.tasks.pretraining.cache_worker import Job
from electra_jax.tasks.pretraining.cached_blocks import blocks_of_cache
from electra_jax.tasks.pretraining.packing import COMPLETE, Packing
from electra_jax.tasks.pretraining.tfrecords import add_tfrecords, encode_example, frame
from electra_jax.tasks.vocabulary import Vocabulary, load_vocabulary
from support.disks import fill

WORDS = [f"{a}{b}" for a in "bcdfghjklmnprstvw" for b in "aeiou"]
PACKING = Packing(length=32, one_segment_share=0.1, random_length_share=0.05, seed=1, builder=COMPLETE)
OPTIONS = {"packing": PACKING, "held_out_fraction": 0.1, "num_processes": 2, "show_progress": False}


@pytest.fixture
def vocabulary(tmp_path: pathlib.Path) -> Vocabulary:
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]) + "\n")
    return load_vocabulary(str(path), lowercase=None)


def _document(rng: random.Random) -> str:
    return "\n".join(" ".join(rng.choices(WORDS, k=rng.randint(1, 60))) for _ in range(rng.randint(1, 12)))


def _corpus(folder: pathlib.Path, documents: list[str], num_files: int = 3) -> Corpus:
    folder.mkdir(exist_ok=True)
    for number in range(num_files):
        (folder / f"{number}.txt").write_text("\n\n".join(documents[number::num_files]) + "\n")
    return open_corpus(str(folder / "*.txt"), text_format="documents", text_field="text", skip_undecodable=False)


def _read(cache: str, split: str) -> dict[int, tuple[list[int], list[int]]]:
    """Return (input_ids, token_type_ids) of each example of a split, by its number."""
    folder = pathlib.Path(cache) / f"{split}.blocks"
    blocks, numbers = open_blocks(folder), np.load(folder / "example_ids.npy").tolist()
    examples = {}
    for row, number in enumerate(numbers):
        ids = blocks.tokens[blocks.offsets[row] : blocks.offsets[row + 1]].tolist()
        assert number not in examples
        examples[number] = (ids, [int(place >= blocks.second_starts[row]) for place in range(len(ids))])
    return examples


def _read_tfrecords(cache: str, split: str) -> dict[int, tuple[list[int], list[int]]]:
    """Return the same by TensorFlow's own reader, which checks every checksum."""
    files = sorted(str(path) for path in pathlib.Path(cache).glob(f"{split}.tfrecord-*"))
    examples = {}
    for record in tf.data.TFRecordDataset(files).as_numpy_iterator():
        feature = tf.train.Example.FromString(record).features.feature
        number, ids, types = (
            list(feature[key].int64_list.value) for key in ("example_id", "input_ids", "token_type_ids")
        )
        assert number[0] not in examples
        examples[number[0]] = (ids, types)
    return examples


def _files(cache: str) -> dict[str, bytes]:
    folder = pathlib.Path(cache)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _words(examples: dict[int, tuple[list[int], list[int]]]) -> collections.Counter[int]:
    return collections.Counter(i for ids, _ in examples.values() for i in ids if i >= 5)


def test_every_word_of_the_corpus_is_in_the_cache_once(tmp_path: pathlib.Path, vocabulary: Vocabulary) -> None:
    documents = [_document(random.Random(n)) for n in range(300)]
    cache = build_cache(_corpus(tmp_path / "text", documents), vocabulary, cache_dir=str(tmp_path / "c"), **OPTIONS)
    train, validation = _read(cache, "train"), _read(cache, "validation")
    assert not set(train) & set(validation)
    expected = collections.Counter(vocabulary.encode(" ".join(documents)))
    assert _words(train) + _words(validation) == expected
    assert max(len(ids) for ids, _ in train.values()) == 32
    made_by = json.loads((pathlib.Path(cache) / "made_by.json").read_text())
    assert made_by["dropped_tokens"] == 0
    assert made_by["train"]["documents"] + made_by["validation"]["documents"] == 300
    assert 10 < made_by["validation"]["documents"] < 60
    assert made_by["train"]["examples"] == len(train)
    assert made_by["train"]["tokens"] == sum(len(ids) for ids, _ in train.values())
    assert not (pathlib.Path(cache) / "jobs").exists()


def test_the_originals_packing_has_a_cache_of_its_own_and_counts_what_it_lost(
    tmp_path: pathlib.Path, vocabulary: Vocabulary
) -> None:
    documents = [_document(random.Random(n)) for n in range(100)]
    corpus = _corpus(tmp_path / "text", documents)
    packing = dataclasses.replace(PACKING, builder=BUILDER)
    ours, theirs = (
        build_cache(corpus, vocabulary, cache_dir=str(tmp_path / "c"), **OPTIONS | {"packing": each})
        for each in (PACKING, packing)
    )
    assert ours != theirs
    made_by = json.loads((pathlib.Path(theirs) / "made_by.json").read_text())
    assert made_by["packing"] == "original"
    kept = _words(_read(theirs, "train")) + _words(_read(theirs, "validation"))
    given = collections.Counter(vocabulary.encode(" ".join(documents)))
    assert not kept - given
    # Sentences of 30 words on average, and examples with room for 29.
    assert 0.2 * given.total() < made_by["dropped_tokens"] == (given - kept).total()


def test_content_does_not_depend_on_processes(tmp_path: pathlib.Path, vocabulary: Vocabulary) -> None:
    documents = [_document(random.Random(n)) for n in range(700)]
    corpus = _corpus(tmp_path / "text", documents)
    one, three = (
        _files(build_cache(corpus, vocabulary, cache_dir=str(tmp_path / str(n)), **OPTIONS | {"num_processes": n}))
        for n in (1, 3)
    )
    assert one == three
    assert json.loads(one["made_by.json"])["train"]["examples"] > 1000


def test_copies_of_a_document_land_on_one_side(tmp_path: pathlib.Path, vocabulary: Vocabulary) -> None:
    documents = [_document(random.Random(n % 40)) for n in range(400)]
    corpus = _corpus(tmp_path / "text", documents)
    cache = build_cache(corpus, vocabulary, cache_dir=str(tmp_path / "c"), **OPTIONS | {"held_out_fraction": 0.3})
    made_by = json.loads((pathlib.Path(cache) / "made_by.json").read_text())
    held_out = made_by["validation"]["documents"]
    assert held_out
    assert held_out % 10 == 0
    assert made_by["train"]["documents"] == 400 - held_out


def test_a_small_corpus_still_has_something_held_out(tmp_path: pathlib.Path, vocabulary: Vocabulary) -> None:
    documents = [_document(random.Random(n)) for n in range(4)]
    corpus = _corpus(tmp_path / "text", documents, num_files=1)
    options = OPTIONS | {"held_out_fraction": 1e-9}
    made_by = json.loads(
        (pathlib.Path(build_cache(corpus, vocabulary, cache_dir=str(tmp_path), **options)) / "made_by.json").read_text()
    )
    assert (made_by["train"]["documents"], made_by["validation"]["documents"]) == (3, 1)
    single = _corpus(tmp_path / "single", documents[:1], num_files=1)
    with pytest.raises(UserError, match="none can be held out"):
        build_cache(single, vocabulary, cache_dir=str(tmp_path), **options)
    cache = build_cache(single, vocabulary, cache_dir=str(tmp_path), **OPTIONS | {"held_out_fraction": 0.0})
    assert _read(cache, "train")
    assert not _read(cache, "validation")
    add_tfrecords(cache, vocab_size=vocabulary.vocab_size)
    assert not (pathlib.Path(cache) / "info.validation.json").exists()


def test_name_changes_with_whatever_changes_the_content(tmp_path: pathlib.Path, vocabulary: Vocabulary) -> None:
    corpus = _corpus(tmp_path / "text", ["ba be\n", "bi bo\n"], num_files=2)

    def name(**changes: object) -> str:
        packing = Packing(
            **{"length": 32, "one_segment_share": 0.1, "random_length_share": 0.05, "seed": 1, "builder": COMPLETE}
            | {key: value for key, value in changes.items() if key != "held_out_fraction"}
        )
        return cache_name(
            cache_description(
                corpus, vocabulary, packing=packing, held_out_fraction=changes.get("held_out_fraction", 0.1)
            )
        )

    names = [name()]
    names += [name(length=64), name(seed=2), name(one_segment_share=0.2), name(random_length_share=0.0)]
    names += [name(builder=BUILDER)]
    names += [name(held_out_fraction=0.2)]
    (tmp_path / "text/0.txt").write_text("ba be bu\n")
    corpus = open_corpus(
        str(tmp_path / "text/*.txt"), text_format="documents", text_field="text", skip_undecodable=False
    )
    names += [name()]
    vocabulary = Vocabulary([*vocabulary.tokens, "xyz"], lowercase=True, strip_accents=True)
    names += [name()]
    assert len(set(names)) == len(names)
    assert all(seqio.dataset_providers._VALID_TASK_NAME_REGEX.match(each) for each in names)


def test_a_finished_cache_is_reused(tmp_path: pathlib.Path, vocabulary: Vocabulary) -> None:
    corpus = _corpus(tmp_path / "text", [_document(random.Random(n)) for n in range(20)])
    cache = build_cache(corpus, vocabulary, cache_dir=str(tmp_path / "c"), **OPTIONS)
    before = {path: path.stat().st_mtime_ns for path in pathlib.Path(cache).iterdir()}
    assert build_cache(corpus, vocabulary, cache_dir=str(tmp_path / "c"), **OPTIONS) == cache
    assert {path: path.stat().st_mtime_ns for path in pathlib.Path(cache).iterdir()} == before


@pytest.mark.parametrize("held_out_fraction", [0.0, 0.1])
def test_empty_corpus(tmp_path: pathlib.Path, vocabulary: Vocabulary, held_out_fraction: float) -> None:
    # Documents of which the tokenizer leaves nothing; `open_corpus` itself refuses files without a document.
    corpus = _corpus(tmp_path / "text", ["\x01", "\x02"], num_files=2)
    options = OPTIONS | {"held_out_fraction": held_out_fraction}
    with pytest.raises(UserError, match="empty"):
        build_cache(corpus, vocabulary, cache_dir=str(tmp_path / "c"), **options)
    assert not list((tmp_path / "c").glob("*/COMPLETED"))


def test_full_disk(tmp_path: pathlib.Path, small_disk: pathlib.Path, vocabulary: Vocabulary) -> None:
    corpus = _corpus(tmp_path / "text", [_document(random.Random(n)) for n in range(20)])
    description = cache_description(corpus, vocabulary, packing=PACKING, held_out_fraction=0.1)
    # What a build begins with is there, so that it is a worker that finds no room.
    jobs = small_disk / "c" / f"{cache_name(description)}.partial" / "jobs"
    jobs.mkdir(parents=True)
    (jobs / "bytes_of_a_job").write_text("65536")
    filling = fill(small_disk)
    with pytest.raises(UserError, match=r"disk of .* is full"):
        build_cache(corpus, vocabulary, cache_dir=str(small_disk / "c"), **OPTIONS)
    assert not list((small_disk / "c").glob("*/COMPLETED"))
    filling.unlink()
    cache = build_cache(corpus, vocabulary, cache_dir=str(small_disk / "c"), **OPTIONS)
    clean = build_cache(corpus, vocabulary, cache_dir=str(tmp_path / "clean"), **OPTIONS)
    assert _files(cache) == _files(clean)


BUILD = """
import pathlib, sys
from electra_jax.tasks.corpora.open import open_corpus
from electra_jax.tasks.pretraining.cache import build_cache
from electra_jax.tasks.pretraining.packing import COMPLETE, Packing
from electra_jax.tasks.vocabulary import load_vocabulary
folder = pathlib.Path(sys.argv[1])
corpus = open_corpus(str(folder / "text/*.txt"), text_format="documents", text_field="text", skip_undecodable=False)
packing = Packing(length=32, one_segment_share=0.1, random_length_share=0.05, seed=1, builder=COMPLETE)
build_cache(corpus, load_vocabulary(str(folder / "vocab.txt"), lowercase=None), cache_dir=str(folder / "c"),
            packing=packing, held_out_fraction=0.1, num_processes=2, show_progress=True)
"""


def test_killed_and_started_again(
    tmp_path: pathlib.Path, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [_document(random.Random(n)) for n in range(8000)]
    corpus = _corpus(tmp_path / "text", documents)
    process = subprocess.Popen([sys.executable, "-c", BUILD, str(tmp_path)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("c/*.partial/jobs/*.json"))) < 3:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    finished = {int(path.stem) for path in tmp_path.glob("c/*.partial/jobs/*.json")}
    assert len(finished) >= 3
    assert not list(tmp_path.glob("c/*/COMPLETED"))
    done = set()

    def run(worker: object, job: Job) -> dict[str, Any]:
        done.add(job.index)
        return original(worker, job)

    original = cache._Worker.run
    monkeypatch.setattr(cache._Worker, "run", run)
    built = build_cache(corpus, vocabulary, cache_dir=str(tmp_path / "c"), **OPTIONS)
    assert done
    assert not done & finished
    clean = build_cache(corpus, vocabulary, cache_dir=str(tmp_path / "clean"), **OPTIONS)
    assert _files(built) == _files(clean)


def test_an_interrupted_join_is_done_again(
    tmp_path: pathlib.Path, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = _corpus(tmp_path / "text", [_document(random.Random(n)) for n in range(200)])
    with monkeypatch.context() as patched:
        patched.setattr(cache, "replace_file", _raises_after(cache.replace_file, "made_by.json"))
        with pytest.raises(KeyboardInterrupt):
            build_cache(corpus, vocabulary, cache_dir=str(tmp_path / "c"), **OPTIONS)
    (tokens,) = (tmp_path / "c").glob("*.partial/train.blocks/tokens.npy")
    tokens.write_bytes(b"torn")
    built = build_cache(corpus, vocabulary, cache_dir=str(tmp_path / "c"), **OPTIONS)
    clean = build_cache(corpus, vocabulary, cache_dir=str(tmp_path / "clean"), **OPTIONS)
    assert _files(built) == _files(clean)


def _raises_after(write: Callable[[pathlib.Path, str], None], name: str) -> Callable[[pathlib.Path, str], None]:
    def interrupted(path: pathlib.Path, text: str) -> None:
        if path.name == name:
            raise KeyboardInterrupt
        write(path, text)

    return interrupted


def test_what_another_version_left_unfinished_is_not_taken(tmp_path: pathlib.Path, vocabulary: Vocabulary) -> None:
    """Jobs of version 0.1.0 wrote TFRecords, and their records would stand for pieces that are not there."""
    corpus = _corpus(tmp_path / "text", [_document(random.Random(n)) for n in range(20)])
    clean = build_cache(corpus, vocabulary, cache_dir=str(tmp_path / "clean"), **OPTIONS)
    jobs = tmp_path / "c" / f"{pathlib.Path(clean).name}.partial" / "jobs"
    jobs.mkdir(parents=True)
    (jobs / "shard_bytes").write_text("65536")
    (jobs / "000000.json").write_text("{}")
    (jobs / "000000.train.tfrecord").write_bytes(b"")
    (jobs.parent / "train.tfrecord-00000-of-00001").write_bytes(b"")
    assert _files(build_cache(corpus, vocabulary, cache_dir=str(tmp_path / "c"), **OPTIONS)) == _files(clean)


@pytest.mark.parametrize("num_documents", [3, 700])
def test_tfrecords_hold_the_examples_of_the_blocks(
    tmp_path: pathlib.Path, vocabulary: Vocabulary, num_documents: int
) -> None:
    corpus = _corpus(tmp_path / "text", [_document(random.Random(n)) for n in range(num_documents)])
    built = build_cache(corpus, vocabulary, cache_dir=str(tmp_path / "c"), **OPTIONS)
    before = _files(built)
    assert not any("tfrecord" in name for name in before)
    folder = pathlib.Path(built)
    add_tfrecords(built, vocab_size=vocabulary.vocab_size)
    stamps = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    add_tfrecords(built, vocab_size=vocabulary.vocab_size)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == stamps
    assert before.items() <= _files(built).items()
    for split in ("train", "validation"):
        examples = _read(built, split)
        assert examples == _read_tfrecords(built, split)
        lengths = [len(ids) for ids, _ in examples.values()]
        stats = json.loads((folder / f"stats.{split}.json").read_text())
        assert stats == {
            "examples": len(examples),
            "input_ids_tokens": sum(lengths),
            "input_ids_max_tokens": max(lengths),
        }
        num_files = json.loads((folder / f"info.{split}.json").read_text())["num_shards"]
        assert num_files == len(list(folder.glob(f"{split}.tfrecord-*-of-{num_files:05d}")))
        assert (num_files > 1) == (num_documents > 3 and split == "train")


def test_blocks_made_of_the_tfrecords_are_those_of_the_cache(tmp_path: pathlib.Path, vocabulary: Vocabulary) -> None:
    """A cache of `seqio_cache_tasks`, or of version 0.1.0, has no others."""
    corpus = _corpus(tmp_path / "text", [_document(random.Random(n)) for n in range(200)])
    built = pathlib.Path(build_cache(corpus, vocabulary, cache_dir=str(tmp_path / "c"), **OPTIONS))
    add_tfrecords(str(built), vocab_size=vocabulary.vocab_size)
    of_seqio = tmp_path / "of_seqio"
    of_seqio.mkdir()
    for path in (*built.glob("*.tfrecord-*"), built / "COMPLETED"):
        path.rename(of_seqio / path.name)
    for split in ("train", "validation"):
        direct = open_blocks(built / f"{split}.blocks")
        converted = blocks_of_cache(str(of_seqio), split, vocab_size=vocabulary.vocab_size)
        assert len(direct) > 3
        assert converted.tokens.dtype == direct.tokens.dtype
        assert converted.vocab_size == direct.vocab_size
        for name in ("tokens", "offsets", "second_starts"):
            np.testing.assert_array_equal(getattr(converted, name), getattr(direct, name))


def test_interrupted_tfrecords_are_written_again(tmp_path: pathlib.Path, vocabulary: Vocabulary) -> None:
    corpus = _corpus(tmp_path / "text", [_document(random.Random(n)) for n in range(20)])
    built = pathlib.Path(build_cache(corpus, vocabulary, cache_dir=str(tmp_path / "c"), **OPTIONS))
    add_tfrecords(str(built), vocab_size=vocabulary.vocab_size)
    whole = _files(str(built))
    (built / "info.train.json").unlink()
    next(built.glob("train.tfrecord-*")).write_bytes(b"torn")
    add_tfrecords(str(built), vocab_size=vocabulary.vocab_size)
    assert _files(str(built)) == whole


def test_tfrecords_are_those_of_tensorflow(tmp_path: pathlib.Path) -> None:
    rng = random.Random(0)
    examples = [(rng.randrange(2**63), [rng.randrange(2**18) for _ in range(n)], [n % 2] * n) for n in range(1, 200)]
    examples.append((0, [0, 1, 127, 128, 2**14 - 1, 2**14, 2**21], [0] * 7))
    records = [encode_example(*example) for example in examples]
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for record in records:
            writer.write(record)
    assert frame(records) == (tmp_path / "theirs").read_bytes()
    for record, (number, ids, types) in zip(records, examples, strict=True):
        feature = tf.train.Example.FromString(record).features.feature
        assert list(feature["example_id"].int64_list.value) == [number]
        assert list(feature["input_ids"].int64_list.value) == ids
        assert list(feature["token_type_ids"].int64_list.value) == types

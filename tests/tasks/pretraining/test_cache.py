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

import pytest
import seqio

from electra_jax.errors import UserError
from electra_jax.tasks.corpora.open import Corpus, open_corpus
from electra_jax.tasks.host_tensorflow import tf
from electra_jax.tasks.pretraining.cache import build_cache, cache_description, cache_name
from electra_jax.tasks.pretraining.packing import Packing
from electra_jax.tasks.pretraining.tfrecords import encode_example, frame
from electra_jax.tasks.vocabulary import WordPieceVocabulary, load_vocabulary

WORDS = [f"{a}{b}" for a in "bcdfghjklmnprstvw" for b in "aeiou"]
PACKING = Packing(length=32, one_segment_share=0.1, random_length_share=0.05, seed=1, method="complete")
OPTIONS = {"packing": PACKING, "held_out_fraction": 0.1, "num_processes": 2, "show_progress": False}


@pytest.fixture
def vocabulary(tmp_path: pathlib.Path) -> WordPieceVocabulary:
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
    """By TensorFlow's own reader, which checks every checksum."""
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
    return {path.name: path.read_bytes() for path in pathlib.Path(cache).iterdir() if path.is_file()}


def _words(examples: dict[int, tuple[list[int], list[int]]]) -> collections.Counter[int]:
    return collections.Counter(i for ids, _ in examples.values() for i in ids if i >= 5)


def test_every_word_of_the_corpus_is_in_the_cache_once(tmp_path: pathlib.Path, vocabulary: WordPieceVocabulary) -> None:
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
    stats = json.loads((pathlib.Path(cache) / "stats.train.json").read_text())
    assert stats["examples"] == len(train)
    assert stats["input_ids_tokens"] == sum(len(ids) for ids, _ in train.values())
    assert not (pathlib.Path(cache) / "jobs").exists()


def test_the_originals_packing_has_a_cache_of_its_own_and_counts_what_it_lost(
    tmp_path: pathlib.Path, vocabulary: WordPieceVocabulary
) -> None:
    documents = [_document(random.Random(n)) for n in range(100)]
    corpus = _corpus(tmp_path / "text", documents)
    packing = dataclasses.replace(PACKING, method="reference")
    ours, theirs = (
        build_cache(corpus, vocabulary, cache_dir=str(tmp_path / "c"), **OPTIONS | {"packing": each})
        for each in (PACKING, packing)
    )
    assert ours != theirs
    made_by = json.loads((pathlib.Path(theirs) / "made_by.json").read_text())
    assert made_by["packing"] == "reference"
    kept = _words(_read(theirs, "train")) + _words(_read(theirs, "validation"))
    given = collections.Counter(vocabulary.encode(" ".join(documents)))
    assert not kept - given
    # Sentences of 30 words on average, and examples with room for 29.
    assert 0.2 * given.total() < made_by["dropped_tokens"] == (given - kept).total()


def test_content_does_not_depend_on_processes(tmp_path: pathlib.Path, vocabulary: WordPieceVocabulary) -> None:
    documents = [_document(random.Random(n)) for n in range(700)]
    corpus = _corpus(tmp_path / "text", documents)
    one, three = (
        _files(build_cache(corpus, vocabulary, cache_dir=str(tmp_path / str(n)), **OPTIONS | {"num_processes": n}))
        for n in (1, 3)
    )
    assert one == three
    assert sum(name.startswith("train") for name in one) > 3


def test_copies_of_a_document_land_on_one_side(tmp_path: pathlib.Path, vocabulary: WordPieceVocabulary) -> None:
    documents = [_document(random.Random(n % 40)) for n in range(400)]
    corpus = _corpus(tmp_path / "text", documents)
    cache = build_cache(corpus, vocabulary, cache_dir=str(tmp_path / "c"), **OPTIONS | {"held_out_fraction": 0.3})
    made_by = json.loads((pathlib.Path(cache) / "made_by.json").read_text())
    held_out = made_by["validation"]["documents"]
    assert held_out
    assert held_out % 10 == 0
    assert made_by["train"]["documents"] == 400 - held_out


def test_a_small_corpus_still_has_something_held_out(tmp_path: pathlib.Path, vocabulary: WordPieceVocabulary) -> None:
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
    assert not (pathlib.Path(cache) / "info.validation.json").exists()


def test_name_changes_with_whatever_changes_the_content(
    tmp_path: pathlib.Path, vocabulary: WordPieceVocabulary
) -> None:
    corpus = _corpus(tmp_path / "text", ["ba be\n", "bi bo\n"], num_files=2)

    def name(**changes: object) -> str:
        packing = Packing(
            **{"length": 32, "one_segment_share": 0.1, "random_length_share": 0.05, "seed": 1, "method": "complete"}
            | {key: value for key, value in changes.items() if key != "held_out_fraction"}
        )
        return cache_name(
            cache_description(
                corpus, vocabulary, packing=packing, held_out_fraction=changes.get("held_out_fraction", 0.1)
            )
        )

    names = [name()]
    names += [name(length=64), name(seed=2), name(one_segment_share=0.2), name(random_length_share=0.0)]
    names += [name(method="reference")]
    names += [name(held_out_fraction=0.2)]
    (tmp_path / "text/0.txt").write_text("ba be bu\n")
    corpus = open_corpus(
        str(tmp_path / "text/*.txt"), text_format="documents", text_field="text", skip_undecodable=False
    )
    names += [name()]
    vocabulary = WordPieceVocabulary([*vocabulary.tokens, "xyz"], lowercase=True, strip_accents=True)
    names += [name()]
    assert len(set(names)) == len(names)
    assert all(seqio.dataset_providers._VALID_TASK_NAME_REGEX.match(each) for each in names)


def test_a_finished_cache_is_reused(tmp_path: pathlib.Path, vocabulary: WordPieceVocabulary) -> None:
    corpus = _corpus(tmp_path / "text", [_document(random.Random(n)) for n in range(20)])
    cache = build_cache(corpus, vocabulary, cache_dir=str(tmp_path / "c"), **OPTIONS)
    before = {path: path.stat().st_mtime_ns for path in pathlib.Path(cache).iterdir()}
    assert build_cache(corpus, vocabulary, cache_dir=str(tmp_path / "c"), **OPTIONS) == cache
    assert {path: path.stat().st_mtime_ns for path in pathlib.Path(cache).iterdir()} == before


@pytest.mark.parametrize("held_out_fraction", [0.0, 0.1])
def test_empty_corpus(tmp_path: pathlib.Path, vocabulary: WordPieceVocabulary, held_out_fraction: float) -> None:
    # Documents of which the tokenizer leaves nothing; `open_corpus` itself refuses files without a document.
    corpus = _corpus(tmp_path / "text", ["\x01", "\x02"], num_files=2)
    options = OPTIONS | {"held_out_fraction": held_out_fraction}
    with pytest.raises(UserError, match="empty"):
        build_cache(corpus, vocabulary, cache_dir=str(tmp_path / "c"), **options)
    assert not list((tmp_path / "c").glob("*/COMPLETED"))


def test_full_disk(tmp_path: pathlib.Path, vocabulary: WordPieceVocabulary) -> None:
    corpus = _corpus(tmp_path / "text", [_document(random.Random(n)) for n in range(20)])
    description = cache_description(corpus, vocabulary, packing=PACKING, held_out_fraction=0.1)
    jobs = tmp_path / "c" / f"{cache_name(description)}.partial" / "jobs"
    jobs.mkdir(parents=True)
    # Writing to this device fails as writing to a full disk does.
    (jobs / "000000.train.tmp").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"disk of .* is full"):
        build_cache(corpus, vocabulary, cache_dir=str(tmp_path / "c"), **OPTIONS)
    assert not list((tmp_path / "c").glob("*/COMPLETED"))
    (jobs / "000000.train.tmp").unlink()
    cache = build_cache(corpus, vocabulary, cache_dir=str(tmp_path / "c"), **OPTIONS)
    clean = build_cache(corpus, vocabulary, cache_dir=str(tmp_path / "clean"), **OPTIONS)
    assert _files(cache) == _files(clean)


BUILD = """
import pathlib, sys
from electra_jax.tasks.cache import build_cache
from electra_jax.tasks.packing import Packing
from electra_jax.tasks.sources import open_corpus
from electra_jax.tasks.vocabulary import load_vocabulary
folder = pathlib.Path(sys.argv[1])
corpus = open_corpus(str(folder / "text/*.txt"), text_format="documents", text_field="text", skip_undecodable=False)
packing = Packing(length=32, one_segment_share=0.1, random_length_share=0.05, seed=1, method="complete")
build_cache(corpus, load_vocabulary(str(folder / "vocab.txt"), lowercase=None), cache_dir=str(folder / "c"),
            packing=packing, held_out_fraction=0.1, num_processes=2, show_progress=True)
"""


def test_killed_and_started_again(tmp_path: pathlib.Path, vocabulary: WordPieceVocabulary) -> None:
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
    finished = {path.name: path.stat().st_ino for path in tmp_path.glob("c/*.partial/jobs/*.train.tfrecord")}
    assert finished
    assert not list(tmp_path.glob("c/*/COMPLETED"))
    cache = build_cache(corpus, vocabulary, cache_dir=str(tmp_path / "c"), **OPTIONS)
    clean = build_cache(corpus, vocabulary, cache_dir=str(tmp_path / "clean"), **OPTIONS)
    assert _files(cache) == _files(clean)
    kept = {path.stat().st_ino for path in pathlib.Path(cache).iterdir()}
    # A job may have been cut off between its examples and its record: at most one for each of the two workers.
    assert len(set(finished.values()) - kept) <= 2
    assert len(finished) >= 3


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

"""Long documents are divided, so that what is held out is a share of the text and of each file."""

import json
import pickle
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from electra_jax.config import data
from electra_jax.config.pretraining import CacheConfig, CorpusConfig
from electra_jax.tasks.corpora.corpus import Corpus, held_out_threshold, read_corpus
from electra_jax.tasks.corpora.divided import LONGEST_DOCUMENT, divide, divide_as_before, longest_document
from electra_jax.tasks.corpora.open import open_corpus
from electra_jax.tasks.pretraining import cache
from electra_jax.tasks.pretraining.cache_worker import run_job
from electra_jax.tasks.tokenizer import SPECIAL_TOKENS
from electra_jax.tasks.vocabulary import Vocabulary

LETTERS = "abcdefghij"
VOCABULARY = Vocabulary([*SPECIAL_TOKENS, *LETTERS], lowercase=False, strip_accents=False)
SETTINGS = {"text_format": "documents", "text_field": "text", "skip_undecodable": False}
KEEP_ALL = {"min_characters": 0, "max_characters": None, "min_letter_share": 0.0, "deduplicate": None}


def line(seed: int, num_letters: int) -> str:
    return " ".join(random.Random(seed).choices(LETTERS, k=num_letters))


def config(folder: Path) -> CacheConfig:
    return CacheConfig(
        source=CorpusConfig(str(folder / "*.txt"), **SETTINGS, **KEEP_ALL),
        vocab_file="",
        lowercase=None,
        cache_dir=str(folder / "c"),
        sequence_length=128,
        one_segment_share=0.1,
        random_length_share=0.05,
        word_marks=False,
        held_out_fraction=0.1,
        num_processes=1,
        max_auto_cache_bytes=10**9,
        seed=0,
        example_building="complete",
        allow_unknown=False,
    )


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache._Worker, "run", lambda worker, job: run_job(worker._setup, job))


def test_parts_are_the_text(tmp_path: Path) -> None:
    long = "\n".join([line(0, 30_000), *(line(seed, 100) for seed in range(500))])
    (tmp_path / "a.txt").write_text(f"a b\nc\n\n{long}\n\n{'a' * 80_000}\n")
    corpus = open_corpus(str(tmp_path / "a.txt"), **SETTINGS)
    divided = pickle.loads(pickle.dumps(divide(corpus, sequence_length=1024)))
    documents = list(divided.documents("a.txt"))
    assert (documents[0].key, documents[0].text) == ("a.txt#0", "a b\nc")
    keys = [document.key for document in documents]
    assert keys[1:4] == ["a.txt#1/0", "a.txt#1/1", "a.txt#1/2"]
    assert keys[-3:] == ["a.txt#2/0", "a.txt#2/1", "a.txt#2/2"]
    assert max(len(document.text) for document in documents) <= LONGEST_DOCUMENT
    words = " ".join(document.text for document in documents[1:-3]).split()
    assert words == long.split()
    assert divided.fingerprint() != corpus.fingerprint()
    assert divided.size_bytes == corpus.size_bytes


def test_a_long_line_and_files_without_blank_lines_are_held_out_in_part(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"{number}.txt").write_text(line(number, 600_000) + "\n")
    path = Path(data.cache_path(config(tmp_path), VOCABULARY, max_bytes=None))
    made_by = json.loads((path / "made_by.json").read_text())
    train, held_out = (made_by[split]["tokens"] for split in ("train", "validation"))
    # 148 parts, of which a tenth is 15, with a standard deviation of 3.6.
    assert 0.04 < held_out / (train + held_out) < 0.2


def shares(folder: Path, fraction: float) -> dict[str, float]:
    """The share of each file's text that is held out."""
    corpus = divide(open_corpus(str(folder / "*.txt"), **SETTINGS), sequence_length=128)
    hashes = [hashed for hashed, _ in read_corpus(corpus, corpus.units)]
    threshold = held_out_threshold(hashes, fraction)
    found = {}
    for unit in corpus.units:
        sizes = [(hashed < threshold, len(features["text"])) for hashed, features in read_corpus(corpus, [unit])]
        found[unit] = sum(size for held_out, size in sizes if held_out) / sum(size for _, size in sizes)
    return found


def test_each_file_gives_its_share(tmp_path: Path) -> None:
    """Six domains of one document each: none is held out as a whole, and none is left out."""
    for number in range(6):
        (tmp_path / f"{number}.txt").write_text(line(number, 300_000) + "\n")
    # 19 parts of a file, half of which are 9.5, with a standard deviation of 2.2.
    assert all(0.2 < share < 0.8 for share in shares(tmp_path, 0.5).values())


def test_a_file_of_a_small_corpus_is_not_held_out_as_a_whole(tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / f"{number}.txt").write_text(line(number, 10_000) + "\n")
    found = shares(tmp_path, 0.005)
    # One part of 4,096 characters, or none, of the five of each file.
    assert max(found.values()) < 0.25
    assert 1 <= sum(share > 0 for share in found.values()) <= 2


def test_the_longest_document_makes_several_examples() -> None:
    assert longest_document(10**9, 128) == LONGEST_DOCUMENT
    assert longest_document(0, 128) == 128 * 32
    assert longest_document(64 * 10_000, 128) == 10_000
    assert longest_document(64 * 10_000, 512) == 512 * 32
    assert longest_document(0, 8192) == LONGEST_DOCUMENT


@pytest.mark.parametrize("earlier_version", [lambda corpus: corpus, divide_as_before], ids=["undivided", "divided"])
def test_a_cache_that_exists_is_read_as_it_is(earlier_version: Callable[[Corpus], Corpus], tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number}.txt").write_text(line(number, 20 if number else 40_000) + "\n")
    settings = config(tmp_path)
    earlier = cache.build_cache(
        earlier_version(data.open_source(settings.source)),
        VOCABULARY,
        cache_dir=settings.cache_dir,
        packing=data.packing_of(settings),
        held_out_fraction=0.01,
        num_processes=1,
        show_progress=False,
    )
    now = data.cache_path(settings, VOCABULARY, max_bytes=None)
    assert now != earlier  # of another share
    replaced = CacheConfig(**vars(settings) | {"held_out_fraction": 0.01})
    assert data.cache_path(replaced, VOCABULARY, max_bytes=None) == earlier

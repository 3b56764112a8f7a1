"""The registered tasks: the same examples from text and from the cache, masked anew, for any SeqIO consumer."""

import json
import pathlib
import random

import numpy as np
import pytest
import seqio

from electra_jax.errors import UserError
from electra_jax.tasks.corpora.open import Corpus, open_corpus
from electra_jax.tasks.pretraining.cache import build_cache
from electra_jax.tasks.pretraining.packing import COMPLETE, Packing
from electra_jax.tasks.pretraining.streams import StreamBatches
from electra_jax.tasks.pretraining.tasks import (
    MaskedFeatureConverter,
    UnmaskedFeatureConverter,
    feature_lengths,
    register_pretraining_task,
)
from electra_jax.tasks.pretraining.tfrecords import add_tfrecords
from electra_jax.tasks.vocabulary import Vocabulary, load_vocabulary
from support.shared import ORACLE, existing

LENGTH = 32
PACKING = Packing(length=LENGTH, one_segment_share=0.1, random_length_share=0.05, seed=0, builder=COMPLETE)
LENGTHS = feature_lengths(LENGTH, mask_prob=0.15)
NASTY = "ba [MASK] bé \u0130\u00df [SEP]\nfi \ufb01 \u4e2d\u6587 \U0001f600 \x07\u200b\nBA\u0301 b\u0301a ...!!"

Features = dict[str, np.ndarray]


@pytest.fixture
def vocabulary(tmp_path: pathlib.Path) -> Vocabulary:
    words = [f"{a}{b}" for a in "bcdfghjklmnp" for b in "aeiou"]
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *".!"]) + "\n")
    return load_vocabulary(str(path), lowercase=True)


@pytest.fixture
def corpus(tmp_path: pathlib.Path, vocabulary: Vocabulary) -> Corpus:
    (tmp_path / "text").mkdir()
    rng = random.Random(0)
    for number in range(2):
        documents = [
            "\n".join(" ".join(rng.choices(vocabulary.tokens[5:], k=rng.randint(1, 40))) for _ in range(8))
            for _ in range(40)
        ]
        (tmp_path / f"text/{number}.txt").write_text("\n\n".join([*documents, NASTY]), encoding="utf-8")
    return open_corpus(str(tmp_path / "text/*.txt"), text_format="documents", text_field="text", skip_undecodable=False)


def _register(corpus: Corpus | None, vocabulary: Vocabulary, cache_path: str | None) -> None:
    register_pretraining_task(
        "pretraining_test",
        corpus=corpus,
        vocabulary=vocabulary,
        packing=PACKING,
        held_out_fraction=0.1,
        mask_prob=0.15,
        mask_token_prob=0.85,
        cache_path=cache_path,
    )


def _build(corpus: Corpus, vocabulary: Vocabulary, folder: pathlib.Path) -> str:
    options = {"packing": PACKING, "held_out_fraction": 0.1, "num_processes": 1, "show_progress": False}
    cache = build_cache(corpus, vocabulary, cache_dir=str(folder), **options)
    add_tfrecords(cache, vocab_size=vocabulary.vocab_size)
    return cache


def _read(name: str, split: str, *, use_cached: bool, seed: int | None = 0, **options: object) -> list[Features]:
    dataset = seqio.get_mixture_or_task(name).get_dataset(
        LENGTHS, split=split, use_cached=use_cached, seed=seed, **{"shuffle": False} | options
    )
    return list(dataset.as_numpy_iterator())


def _originals(example: Features) -> tuple[int, ...]:
    ids = example["input_ids"].copy()
    used = example["masked_weights"] > 0
    ids[example["masked_positions"][used]] = example["masked_ids"][used]
    return tuple(ids.tolist())


def _masks(examples: list[Features]) -> list[tuple[int, ...]]:
    return [tuple(sorted(e["masked_positions"][e["masked_weights"] > 0].tolist())) for e in examples]


def test_text_and_cache_give_the_same_examples(tmp_path: pathlib.Path, corpus: Corpus, vocabulary: Vocabulary) -> None:
    _register(corpus, vocabulary, _build(corpus, vocabulary, tmp_path / "c"))
    kinds = set()
    for split in ("train", "validation"):
        text, cached = (_read("pretraining_test_unmasked", split, use_cached=c) for c in (False, True))
        rows = [sorted((e["input_ids"].tolist(), e["token_type_ids"].tolist()) for e in es) for es in (text, cached)]
        assert rows[0] == rows[1]
        for use_cached in (False, True):
            masked = _read("pretraining_test", split, use_cached=use_cached)
            assert sorted(map(_originals, masked)) == [tuple(ids) for ids, _ in rows[0]]
        assert all(set(e) == set(UnmaskedFeatureConverter.TASK_FEATURES) for e in text + cached)
        kinds.add(len(rows[0]))
    assert len(kinds) == 2
    assert min(kinds) > 3


def test_no_training_document_is_held_out(tmp_path: pathlib.Path, corpus: Corpus, vocabulary: Vocabulary) -> None:
    _register(corpus, vocabulary, None)
    tokens = {
        split: [i for e in _read("pretraining_test_unmasked", split, use_cached=False) for i in e["input_ids"] if i > 4]
        for split in ("train", "validation")
    }
    documents = [document for unit in corpus.units for document in corpus.documents(unit)]
    held_out = []
    text = " ".join(map(str, tokens["validation"])) + " "
    for document in documents:
        ids = [i for line in document.text.split("\n") for i in vocabulary.encode(line) if i > 4]
        if " ".join(map(str, ids)) + " " in text:
            held_out += ids
    assert sorted(held_out) == sorted(tokens["validation"])
    total = sum(i > 4 for d in documents for line in d.text.split("\n") for i in vocabulary.encode(line))
    assert len(tokens["train"]) + len(tokens["validation"]) == total


@pytest.mark.parametrize("use_cached", [False, True])
def test_masks_differ_by_epoch_and_by_host_and_repeat_by_seed(
    tmp_path: pathlib.Path, corpus: Corpus, vocabulary: Vocabulary, use_cached: bool
) -> None:
    _register(corpus, vocabulary, _build(corpus, vocabulary, tmp_path / "c"))

    def read(**options: object) -> list[Features]:
        return _read("pretraining_test", "train", use_cached=use_cached, **options)

    once = read(seed=5)
    assert _masks(once) == _masks(read(seed=5))
    assert np.mean([a == b for a, b in zip(_masks(once), _masks(read(seed=6)), strict=True)]) < 0.05
    two_epochs = read(seed=5, num_epochs=2)
    assert list(map(_originals, two_epochs)) == list(map(_originals, once)) * 2
    first, second = _masks(two_epochs[: len(once)]), _masks(two_epochs[len(once) :])
    assert first == _masks(once)
    assert np.mean([a == b for a, b in zip(first, second, strict=True)]) < 0.05
    hosts = [read(seed=5, shard_info=seqio.ShardInfo(index, 2)) for index in (0, 1)]
    # Full examples only: a short one has few masks to choose from.
    masks = [_masks([e for e in host if len(e["input_ids"]) == LENGTH]) for host in hosts]
    shared = sum(a == b for a, b in zip(*masks, strict=False))
    assert shared <= 1
    assert sorted(map(_originals, hosts[0] + hosts[1])) == sorted(map(_originals, once))


def test_padded_for_any_seqio_consumer(tmp_path: pathlib.Path, corpus: Corpus, vocabulary: Vocabulary) -> None:
    _register(corpus, vocabulary, _build(corpus, vocabulary, tmp_path / "c"))
    for name, converter, lengths in (
        ("pretraining_test", MaskedFeatureConverter(), feature_lengths(48, mask_prob=0.15)),
        ("pretraining_test_unmasked", UnmaskedFeatureConverter(), feature_lengths(48, mask_prob=None)),
    ):
        dataset = seqio.get_dataset(
            name, lengths, feature_converter=converter, dataset_split="train", use_cached=True, batch_size=4, seed=0
        )
        batch = next(dataset.as_numpy_iterator())
        assert {key: values.shape for key, values in batch.items()} == {
            key: (4, length) for key, length in lengths.items()
        }
        floats = {key for key, values in batch.items() if values.dtype == np.float32}
        assert floats == {"masked_weights"} & set(batch)
        assert not batch["input_ids"][batch["attention_mask"] == 0].any()
        assert not batch["token_type_ids"][batch["attention_mask"] == 0].any()
        assert (batch["attention_mask"].sum(axis=1) > 2).all()
    assert lengths == {"input_ids": 48, "token_type_ids": 48, "attention_mask": 48}
    with pytest.raises(UserError, match="pack"):
        MaskedFeatureConverter(pack=True)


def test_a_shorter_length_is_cut_before_masking(tmp_path: pathlib.Path, corpus: Corpus, vocabulary: Vocabulary) -> None:
    _register(corpus, vocabulary, None)
    lengths = feature_lengths(20, mask_prob=0.15)
    assert lengths["masked_positions"] == 3
    dataset = seqio.get_mixture_or_task("pretraining_test").get_dataset(lengths, split="train", seed=0)
    for example in dataset.as_numpy_iterator():
        assert len(example["input_ids"]) <= 20
        assert example["masked_positions"].shape == (3,)
        assert (example["masked_positions"] < len(example["input_ids"])).all()


def test_a_cache_alone_is_enough_and_is_found_by_its_name(
    tmp_path: pathlib.Path, corpus: Corpus, vocabulary: Vocabulary
) -> None:
    cache = pathlib.Path(_build(corpus, vocabulary, tmp_path / "c"))
    _register(None, vocabulary, str(cache))
    expected = sorted(map(_originals, _read("pretraining_test", "train", use_cached=True)))
    assert len(expected) == json.loads((cache / "stats.train.json").read_text())["examples"]
    # As T5X finds it: by SeqIO's global directories and the task's own name, for both siblings.
    register_pretraining_task(
        cache.name,
        corpus=corpus,
        vocabulary=vocabulary,
        packing=PACKING,
        held_out_fraction=0.1,
        mask_prob=0.15,
        mask_token_prob=0.85,
        cache_path=None,
    )
    before = list(seqio.get_global_cache_dirs())
    seqio.set_global_cache_dirs([str(cache.parent)])
    try:
        assert sorted(map(_originals, _read(cache.name, "train", use_cached=True))) == expected
        unmasked = _read(f"{cache.name}_unmasked", "train", use_cached=True)
        assert sorted(tuple(e["input_ids"].tolist()) for e in unmasked) == expected
        assert seqio.TaskRegistry.get(cache.name).get_cached_stats("train")["examples"] == len(expected)
    finally:
        seqio.set_global_cache_dirs(before)
    with pytest.raises(UserError, match="neither a corpus nor a cache"):
        _register(None, vocabulary, None)


def test_damage_is_reported_in_a_sentence(tmp_path: pathlib.Path, corpus: Corpus, vocabulary: Vocabulary) -> None:
    def read_all(*, use_cached: bool) -> None:
        stream = StreamBatches(
            "pretraining_test",
            split="train",
            use_cached=use_cached,
            feature_lengths=LENGTHS,
            batch_size=8,
            seed=0,
            process_index=0,
            process_count=1,
        )
        while stream.state()["places"]["0"][0] == 0:
            next(stream)

    cache = _build(corpus, vocabulary, tmp_path / "c")
    _register(corpus, vocabulary, cache)
    read_all(use_cached=False)
    read_all(use_cached=True)
    with open(tmp_path / "text/1.txt", "ab") as file:
        file.write(b"\nba \xff\n")
    with pytest.raises(UserError, match=r"1\.txt is not UTF-8 at byte"):
        read_all(use_cached=False)
    shard = next(pathlib.Path(cache).glob("train.tfrecord-*"))
    shard.write_bytes(shard.read_bytes()[:-7])
    with pytest.raises(UserError, match="damaged"):
        read_all(use_cached=True)


def test_the_original_tfrecords(tmp_path: pathlib.Path) -> None:
    folder = existing(ORACLE / "build_pretraining")
    expected = sorted(
        (tuple(example["ids"]), tuple(example["seg"]))
        for examples in json.loads((folder / "example_writer.json").read_text())["files"].values()
        for example in examples
    )
    tokens = ["[PAD]", *[f"[unused{n}]" for n in range(1, 100)], "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = Vocabulary(
        [*tokens, *[f"w{n}" for n in range(30522 - len(tokens))]], lowercase=True, strip_accents=True
    )
    corpus = open_corpus(
        str(folder / "writer/out/*.tfrecord*"), text_format="auto", text_field="text", skip_undecodable=False
    )
    packing = Packing(length=64, one_segment_share=0.1, random_length_share=0.05, seed=0, builder=COMPLETE)
    options = {"packing": packing, "held_out_fraction": 0.1}
    cache = build_cache(corpus, vocabulary, cache_dir=str(tmp_path), num_processes=1, show_progress=False, **options)
    add_tfrecords(cache, vocab_size=vocabulary.vocab_size)
    register_pretraining_task(
        "original_test",
        corpus=corpus,
        vocabulary=vocabulary,
        mask_prob=0.15,
        mask_token_prob=0.85,
        cache_path=cache,
        **options,
    )
    for use_cached in (False, True):
        found = [
            (tuple(e["input_ids"].tolist()), tuple(e["token_type_ids"].tolist()))
            for split in ("train", "validation")
            for e in seqio.get_mixture_or_task("original_test_unmasked")
            .get_dataset(None, split=split, use_cached=use_cached)
            .as_numpy_iterator()
        ]
        assert sorted(found) == expected
    short = Packing(length=16, one_segment_share=0.1, random_length_share=0.05, seed=0, builder=COMPLETE)
    with pytest.raises(UserError, match="tokens, more than the sequence length of 16"):
        build_cache(
            corpus,
            vocabulary,
            cache_dir=str(tmp_path),
            packing=short,
            held_out_fraction=0.1,
            num_processes=1,
            show_progress=False,
        )

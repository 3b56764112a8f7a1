"""Build the parts of `input_pipeline` that start from text: `electra cache` and a SeqIO task."""

import contextlib
import functools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from bench.timing import Part
from electra_jax.data.batches import BlockBatches
from electra_jax.tasks.corpora.corpus import Corpus
from electra_jax.tasks.corpora.open import open_corpus
from electra_jax.tasks.pretraining.cache import build_cache
from electra_jax.tasks.pretraining.cached_blocks import blocks_of_cache
from electra_jax.tasks.pretraining.packing import COMPLETE, Packing
from electra_jax.tasks.pretraining.streams import StreamBatches
from electra_jax.tasks.pretraining.tasks import feature_lengths, register_pretraining_task
from electra_jax.tasks.pretraining.tfrecords import add_tfrecords
from electra_jax.tasks.vocabulary import Vocabulary, load_vocabulary

# The values of gin/, so that the cache is the one that `electra cache` writes and `electra pretrain` reads.
MASK_PROB, MASK_TOKEN_PROB, HELD_OUT_FRACTION = 0.15, 0.85, 0.005
ONE_SEGMENT_SHARE, RANDOM_LENGTH_SHARE, SEED = 0.1, 0.05, 0
TASK = "bench"


def text_parts(
    corpus_name: str, vocab_file: str, *, megabytes: float, length: int, batch_size: int, folder: Path
) -> Iterator[Part]:
    """Yield the parts for `electra cache`, with one worker and with one for each core, and for readers of its cache.

    Args:
        corpus_name: "embedded", a glob of text files, or tfds:NAME.
        vocab_file: BERT's vocab.txt.
        megabytes: the amount of text of the corpus that is used.
        length: L.
        batch_size: B.
        folder: the folder where the caches are written.
    """
    vocabulary = load_vocabulary(vocab_file, lowercase=None)
    corpus = sample_of(open_text(corpus_name), folder, megabytes)
    for workers in sorted({1, os.cpu_count() or 1}):

        def work(workers: int = workers) -> None:
            build(corpus, vocabulary, length, folder / "timed", workers)
            shutil.rmtree(folder / "timed")

        yield Part(f"electra cache, {workers} worker(s)", "MB of text", corpus.size_bytes / 1e6, work)
    path = build(corpus, vocabulary, length, folder, 1)
    add_tfrecords(path, vocab_size=vocabulary.vocab_size)
    share = {"batch_size": batch_size, "seed": SEED, "process_index": 0, "process_count": 1}
    blocks = blocks_of_cache(path, "train", vocab_size=vocabulary.vocab_size)
    from_blocks = BlockBatches(blocks, sequence_length=length, **share)
    yield Part("blocks of the text", "examples", 5000 * batch_size, functools.partial(read, from_blocks, 5000))
    register_pretraining_task(
        TASK,
        corpus=None,
        vocabulary=vocabulary,
        packing=packing(length),
        held_out_fraction=HELD_OUT_FRACTION,
        mask_prob=MASK_PROB,
        mask_token_prob=MASK_TOKEN_PROB,
        cache_path=path,
    )
    lengths = feature_lengths(length, mask_prob=MASK_PROB)
    stream = StreamBatches(TASK, split="train", use_cached=True, feature_lengths=lengths, **share)
    yield Part("SeqIO task, masked by example", "examples", 50 * batch_size, functools.partial(read, stream, 50))


def open_text(corpus: str) -> Corpus:
    """Open a corpus with the settings of gin/tasks/corpus.gin."""
    return open_corpus(corpus, text_format="auto", text_field="text", skip_undecodable=False)


def sample_of(corpus: Corpus, folder: Path, megabytes: float) -> Corpus:
    """Copy the first documents of a corpus to a text file, so that the cost of the corpus's format is not timed."""
    path, size = folder / "sample.txt", 0
    with open(path, "wb") as file, contextlib.closing(texts(corpus)) as documents:
        for text in documents:
            size += file.write(f"{text}\n\n".encode())
            if size >= 1e6 * megabytes:
                break
    return open_text(str(path))


def texts(corpus: Corpus) -> Iterator[str]:
    """Yield the text of every document."""
    for unit in corpus.units:
        for document in corpus.documents(unit):
            yield document.text


def read(batches: BlockBatches | StreamBatches, count: int) -> None:
    """Read `count` batches."""
    for _ in range(count):
        next(batches)


def packing(length: int) -> Packing:
    """Return the packing settings of gin/tasks/cache.gin."""
    return Packing(
        length=length,
        one_segment_share=ONE_SEGMENT_SHARE,
        random_length_share=RANDOM_LENGTH_SHARE,
        seed=SEED,
        builder=COMPLETE,
    )


def build(corpus: Corpus, vocabulary: Vocabulary, length: int, cache_dir: Path, workers: int) -> str:
    """Write a cache as `electra cache` does, and return its directory."""
    return build_cache(
        corpus,
        vocabulary,
        cache_dir=str(cache_dir),
        packing=packing(length),
        held_out_fraction=HELD_OUT_FRACTION,
        num_processes=workers,
        show_progress=False,
    )

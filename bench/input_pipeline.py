"""Times the way of the data: python -m bench.input_pipeline

On a sample of real text: `electra cache` (tokenise, pack, write), batches of the memory-mapped blocks that device
masking reads, and batches of the masked SeqIO task. The rounds go through all of them in turn, so that what
disturbs the machine disturbs them alike. Needs the whole package, TensorFlow too.
"""

import argparse
import contextlib
import functools
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from bench.timing import Elapsed, machine, spread, stopwatch
from electra_jax.data import BlockBatches
from electra_jax.errors import UserError
from electra_jax.streams import StreamBatches
from electra_jax.tasks.cache import build_cache
from electra_jax.tasks.cached_blocks import blocks_of_cache
from electra_jax.tasks.corpus import Corpus
from electra_jax.tasks.packing import Packing
from electra_jax.tasks.pretraining import feature_lengths, register_pretraining_task
from electra_jax.tasks.sources import open_corpus
from electra_jax.tasks.vocabulary import WordPieceVocabulary, load_vocabulary

# As in gin/: what is timed is what `electra pretrain` reads.
MASK_PROB, MASK_TOKEN_PROB, HELD_OUT_FRACTION = 0.15, 0.85, 0.005
ONE_SEGMENT_SHARE, RANDOM_LENGTH_SHARE, SEED = 0.1, 0.05, 0
TASK = "bench"


class Part(NamedTuple):
    """Something that is timed.

    Attributes:
        name: for people.
        unit: of `amount`.
        amount: handled by one call of `work`.
        work: what is timed; any state that it needs is made before.
    """

    name: str
    unit: str
    amount: float
    work: Callable[[], None]


def main() -> None:
    """Prints one line for each part."""
    options = parse_arguments()
    print(machine(["tokenizers", "tensorflow", "seqio", "numpy"]))
    vocabulary = load_vocabulary(options.vocab_file, lowercase=None)
    with tempfile.TemporaryDirectory() as folder:
        corpus = sample_of(open_text(options.corpus), Path(folder), options.megabytes)
        parts = [
            *cache_parts(corpus, vocabulary, options.sequence_length, Path(folder)),
            *reader_parts(corpus, vocabulary, options.sequence_length, options.batch_size, Path(folder)),
        ]
        print(
            f"{corpus.size_bytes / 1e6:.1f} MB of {options.corpus}, {options.vocab_file}, "
            f"batch {options.batch_size} x {options.sequence_length}"
        )
        for part in parts:
            part.work()
        rounds = [[stopwatch(part.work) for part in parts] for _ in range(options.rounds)]
        for part, elapsed in zip(parts, zip(*rounds, strict=True), strict=True):
            print(describe(part, list(elapsed)))


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Times tokenisation and the readers of tokenised text.")
    parser.add_argument("--vocab_file", default="runs/demo/vocab.txt", help="`make demo` makes one; any of BERT's")
    parser.add_argument("--corpus", default="embedded", help="'embedded', a glob of text files or tfds:NAME")
    parser.add_argument("--megabytes", type=float, default=4.0, help="of its text that are used")
    parser.add_argument("--sequence_length", type=int, default=128)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    return parser.parse_args()


def open_text(corpus: str) -> Corpus:
    """A corpus with the settings of gin/tasks/corpus.gin."""
    return open_corpus(corpus, text_format="auto", text_field="text", skip_undecodable=False)


def sample_of(corpus: Corpus, folder: Path, megabytes: float) -> Corpus:
    """The first documents of a corpus as a plain text file, so that only reading is left of its source."""
    path, size = folder / "sample.txt", 0
    with open(path, "wb") as file, contextlib.closing(texts(corpus)) as documents:
        for text in documents:
            size += file.write(f"{text}\n\n".encode())
            if size >= 1e6 * megabytes:
                break
    return open_text(str(path))


def texts(corpus: Corpus) -> Iterator[str]:
    """Of every document."""
    for unit in corpus.units:
        for document in corpus.documents(unit):
            yield document.text


def cache_parts(corpus: Corpus, vocabulary: WordPieceVocabulary, length: int, folder: Path) -> Iterator[Part]:
    """`electra cache` with one worker, and with one for each core."""
    for workers in sorted({1, os.cpu_count() or 1}):

        def work(workers: int = workers) -> None:
            build(corpus, vocabulary, length, folder / "timed", workers)
            shutil.rmtree(folder / "timed")

        yield Part(f"electra cache, {workers} worker(s)", "MB of text", corpus.size_bytes / 1e6, work)


def reader_parts(
    corpus: Corpus, vocabulary: WordPieceVocabulary, length: int, batch_size: int, folder: Path
) -> Iterator[Part]:
    """The two readers over one cache: blocks for masking on the device, and the SeqIO task that masks itself."""
    path = build(corpus, vocabulary, length, folder, 1)
    blocks = blocks_of_cache(path, "train", vocab_size=vocabulary.vocab_size)
    share = {"batch_size": batch_size, "seed": SEED, "process_index": 0, "process_count": 1}
    unmasked = BlockBatches(blocks, sequence_length=length, **share)
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
    masked = StreamBatches(TASK, split="train", use_cached=True, feature_lengths=lengths, **share)
    for name, batches, count in (("blocks, unmasked", unmasked, 5000), ("SeqIO task, masked", masked, 50)):
        yield Part(name, "examples", count * batch_size, functools.partial(read, batches, count))


def read(batches: BlockBatches | StreamBatches, count: int) -> None:
    """Takes that many batches."""
    for _ in range(count):
        next(batches)


def packing(length: int) -> Packing:
    """Of gin/tasks/cache.gin."""
    return Packing(
        length=length,
        one_segment_share=ONE_SEGMENT_SHARE,
        random_length_share=RANDOM_LENGTH_SHARE,
        seed=SEED,
        method="complete",
    )


def build(corpus: Corpus, vocabulary: WordPieceVocabulary, length: int, cache_dir: Path, workers: int) -> str:
    """The cache that `electra cache` writes."""
    return build_cache(
        corpus,
        vocabulary,
        cache_dir=str(cache_dir),
        packing=packing(length),
        held_out_fraction=HELD_OUT_FRACTION,
        num_processes=workers,
        show_progress=False,
    )


def describe(part: Part, elapsed: list[Elapsed]) -> str:
    """The statistics of a part's rates in words."""
    wall = spread([part.amount / time.wall for time in elapsed])
    cpu = spread([part.amount / time.cpu for time in elapsed])
    return (
        f"{part.name}: median {number(wall.median)} {part.unit}/s, quartiles {number(wall.lower_quartile)} to "
        f"{number(wall.upper_quartile)}, best {number(wall.maximum)}, n {wall.n}; "
        f"per second of CPU time: median {number(cpu.median)}, best {number(cpu.maximum)}"
    )


def number(rate: float) -> str:
    """Three digits or more."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


if __name__ == "__main__":
    try:
        main()
    except UserError as mistake:
        sys.exit(f"bench: {mistake}")

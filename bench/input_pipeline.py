"""Time the input pipeline: python -m bench.input_pipeline

The program times reading batches from memory-mapped token blocks, either of a cache (`--blocks=CACHE/train.blocks`) or
synthetic; masks are drawn later, on the device. With a `--vocab_file` it also times `electra cache` and the SeqIO task
that masks example by example, which need the whole package. The parts take turns in each round, so that other load on
the machine affects all of them alike.
"""

import argparse
import functools
import importlib
import sys
import tempfile
from pathlib import Path

import numpy as np

from bench import models
from bench.pretrain_step import synthetic_blocks
from bench.timing import Elapsed, Part, machine, spread, stopwatch
from electra_jax.data.batches import BlockBatches
from electra_jax.data.blocks import BlocksWriter, TokenBlocks, open_blocks
from electra_jax.errors import UserError
from electra_jax.runtime import load_tensorflow_quietly

SYNTHETIC_EXAMPLES = 20_000
SEED = 0


def main() -> None:
    """Print one line for each part."""
    options = parse_arguments()
    size = f"batch {options.batch_size} x {options.sequence_length}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts = block_parts(opened(options, folder), options)
        if options.vocab_file is None:
            print(machine(["numpy"]))
        else:
            print(machine(["tokenizers", "tensorflow", "seqio", "numpy"]))
            load_tensorflow_quietly()
            size += f"; {options.megabytes} MB of {options.corpus}, {options.vocab_file}"
            parts += importlib.import_module("bench.text_pipeline").text_parts(
                options.corpus,
                options.vocab_file,
                megabytes=options.megabytes,
                length=options.sequence_length,
                batch_size=options.batch_size,
                folder=folder,
            )
        print(size, flush=True)
        for part in parts:
            part.work()
        rounds = [[stopwatch(part.work) for part in parts] for _ in range(options.rounds)]
        for part, elapsed in zip(parts, zip(*rounds, strict=True), strict=True):
            print(describe(part, list(elapsed)))


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Times the readers of tokenised text, and tokenisation.")
    parser.add_argument("--blocks", metavar="DIR", help="blocks of a cache; synthetic ones otherwise")
    parser.add_argument("--sequence_length", type=int, default=128)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--batches", type=int, default=2000, help="of blocks that are read in a round")
    parser.add_argument("--vocab_file", help="BERT's vocab.txt: times the way from text too")
    parser.add_argument("--corpus", default="embedded", help="'embedded', a glob of text files or tfds:NAME")
    parser.add_argument("--megabytes", type=float, default=4.0, help="of its text that are used")
    parser.add_argument("--rounds", type=int, default=7)
    return parser.parse_args()


def opened(options: argparse.Namespace, folder: Path) -> TokenBlocks:
    """Open the blocks on disk, after writing synthetic ones if none are given."""
    if options.blocks is not None:
        return open_blocks(options.blocks)
    vocab_size = models.recipe("small", dtype="float32").vocab_size
    made = synthetic_blocks(SYNTHETIC_EXAMPLES, options.sequence_length, vocab_size, SEED)
    with BlocksWriter(folder, vocab_size=vocab_size) as writer:
        writer.add(made.tokens, np.diff(made.offsets), made.second_starts)
    return open_blocks(folder)


def block_parts(blocks: TokenBlocks, options: argparse.Namespace) -> list[Part]:
    """Return the part that reads the blocks."""
    batches = batches_of(blocks, batch_size=options.batch_size, sequence_length=options.sequence_length)
    work = functools.partial(read, batches, options.batches)
    return [Part("blocks", "examples", options.batches * options.batch_size, work)]


def batches_of(blocks: TokenBlocks, *, batch_size: int, sequence_length: int) -> BlockBatches:
    """Return the reader that a run of one process uses."""
    return BlockBatches(
        blocks,
        batch_size=batch_size,
        sequence_length=sequence_length,
        seed=SEED,
        process_index=0,
        process_count=1,
    )


def read(batches: BlockBatches, count: int) -> None:
    """Read `count` batches."""
    for _ in range(count):
        next(batches)


def describe(part: Part, elapsed: list[Elapsed]) -> str:
    """Return the statistics of a part's rates in words."""
    wall = spread([part.amount / time.wall for time in elapsed])
    cpu = spread([part.amount / time.cpu for time in elapsed])
    return (
        f"{part.name}: median {number(wall.median)} {part.unit}/s, quartiles {number(wall.lower_quartile)} to "
        f"{number(wall.upper_quartile)}, best {number(wall.maximum)}, n {wall.n}; "
        f"per second of CPU time: median {number(cpu.median)}, best {number(cpu.maximum)}"
    )


def number(rate: float) -> str:
    """Return a rate with at least three digits."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


if __name__ == "__main__":
    try:
        main()
    except UserError as mistake:
        sys.exit(f"bench: {mistake}")

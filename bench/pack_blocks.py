"""At home, before `bench.pretrain_small`: python -m bench.pack_blocks CACHE VOCAB_FILE BLOCKS

Makes of a directory of `electra cache` one that a machine without TensorFlow trains from: memory-mapped arrays of token
ids, two bytes a token, in BLOCKS/train.blocks and validation.blocks; and BLOCKS/vocabulary.json, which stays with the
weights ever after.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

from bench.pretrain_small import SPLITS, VOCABULARY
from electra_jax.checkpoints.model_dir import check_new, new_directory
from electra_jax.config.data import check_vocabulary_of
from electra_jax.errors import UserError
from electra_jax.tasks.pretraining.cached_blocks import blocks_of_cache
from electra_jax.tasks.vocabulary import load_vocabulary


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 2 for a mistake, said in one sentence."""
    parser = argparse.ArgumentParser(description="Makes token blocks to carry to a bare machine.")
    parser.add_argument("cache", help="a directory of `electra cache`")
    parser.add_argument("vocab_file", help="the vocabulary that it was made with")
    parser.add_argument("blocks", type=Path, help="the directory to make")
    options = parser.parse_args(arguments)
    try:
        pack(options.cache, options.vocab_file, options.blocks)
    except UserError as error:
        print(f"pack_blocks: {error}", file=sys.stderr)
        return 2
    return 0


def pack(cache: str, vocab_file: str, dest: Path) -> None:
    """Writes the directory, whole or not at all.

    Raises:
        UserError: no finished cache, another vocabulary's, or `dest` exists.
    """
    check_new(dest)
    vocabulary = load_vocabulary(vocab_file, lowercase=None)
    check_vocabulary_of(cache, vocabulary)
    with new_directory(dest) as part:
        for split in SPLITS:
            blocks = blocks_of_cache(cache, split, vocab_size=vocabulary.vocab_size)
            shutil.copytree(Path(cache) / f"{split}.blocks", part / f"{split}.blocks")
            print(
                f"{split}: {len(blocks):,} examples, {len(blocks.tokens):,} tokens, {blocks.tokens.nbytes / 1e6:.1f} MB"
            )
        entries = {
            "tokens": list(vocabulary.tokens),
            "lowercase": vocabulary.lowercase,
            "strip_accents": vocabulary.strip_accents,
        }
        (part / VOCABULARY).write_text(json.dumps(entries, ensure_ascii=False), encoding="utf-8")
    print(dest)


if __name__ == "__main__":
    sys.exit(main())

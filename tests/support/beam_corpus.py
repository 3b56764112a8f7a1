"""A corpus of a few files as a user's own module registers it, for `seqio_cache_tasks` and its workers.

Where it is comes from the environment, because Beam's workers import the module in processes of their own.
"""

import os
import random
from pathlib import Path
from typing import Any

from electra_jax.config import data as pretraining_data
from electra_jax.config import gin_files
from electra_jax.config.pretraining import CacheConfig
from electra_jax.seqio_tasks import register_corpus
from electra_jax.tasks.host_tensorflow import tf
from electra_jax.tasks.pretraining.tasks import CACHED_FEATURES
from electra_jax.tasks.pretraining.tfrecords import add_tfrecords
from electra_jax.tasks.vocabulary import load_vocabulary

Example = tuple[tuple[int, ...], tuple[int, ...]]
TASK = "beam_corpus"
FOLDER = "ELECTRA_TEST_CORPUS"
WORDS = [one + vowel for one in "bcdfghjklmnp" for vowel in "aeiou"]
SETTINGS: dict[str, Any] = {"SEQUENCE_LENGTH": 32, "HELD_OUT_FRACTION": 0.1, "SEED": 3}


def write(folder: Path, num_files: int) -> None:
    """`NUMBER.txt` of unequal sizes, and `vocab.txt`."""
    draw = random.Random(0)
    for number in range(num_files):
        documents = [
            "\n".join(" ".join(draw.choices(WORDS, k=draw.randint(1, 40))) for _ in range(draw.randint(1, 8)))
            for _ in range(12 * (number + 1))
        ]
        (folder / f"{number}.txt").write_text("\n\n".join(documents) + "\n")
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens))


def macros(folder: Path) -> dict[str, Any]:
    """Of gin/runs/cache.gin."""
    return SETTINGS | {"CORPUS": str(folder / "*[0-9].txt"), "VOCAB_FILE": str(folder / "vocab.txt")}


def register(folder: Path) -> None:
    """As the page on large corpora shows it."""
    register_corpus(TASK, mask_prob=0.15, mask_token_prob=0.85, **macros(folder))


def built(folder: Path) -> Path:
    """Build the cache that `electra cache` builds with TFRECORDS=True."""
    bindings = [f"{name}={value!r}" for name, value in macros(folder).items()]
    cache = gin_files.build(
        CacheConfig,
        ["gin/runs/cache.gin"],
        [*bindings, f"CACHE_DIR={str(folder / 'ours')!r}", "NUM_PROCESSES=1"],
        search_paths=[],
    )
    vocabulary = load_vocabulary(cache.vocab_file, lowercase=None)
    path = pretraining_data.cache_path(cache, vocabulary, max_bytes=None)
    add_tfrecords(path, vocab_size=vocabulary.vocab_size)
    return Path(path)


def read(cache: Path, split: str) -> dict[int, Example]:
    """The examples of a cache's split by their numbers, by TensorFlow's own reader."""
    examples: dict[int, Example] = {}
    for record in tf.data.TFRecordDataset(sorted(map(str, cache.glob(f"{split}.tfrecord-*")))).as_numpy_iterator():
        feature = tf.train.Example.FromString(record).features.feature
        assert set(feature) == set(CACHED_FEATURES)
        (number,), ids, types = (tuple(feature[name].int64_list.value) for name in CACHED_FEATURES)
        assert number not in examples
        examples[number] = (ids, types)
    return examples


if FOLDER in os.environ:
    register(Path(os.environ[FOLDER]))

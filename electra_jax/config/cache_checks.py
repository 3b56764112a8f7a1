"""Check a run's data against its settings: the vocabulary, word marks, and how much of the text is [UNK]."""

import itertools
import math

import numpy as np

from electra_jax.config.pretraining import CacheConfig, PretrainingRun
from electra_jax.data.batches import BatchIterator
from electra_jax.data.blocks import TokenBlocks
from electra_jax.errors import UserError
from electra_jax.tasks.pretraining.cached_blocks import record_of_cache
from electra_jax.tasks.unknown import Unknown, state_unknown, unknown_of_batches
from electra_jax.tasks.vocabulary import Vocabulary

# The number of examples in which [UNK] is counted if no record has its share: enough for a share of some per cent.
COUNTED_EXAMPLES = 1000


def check_vocabulary_of(directory: str, vocabulary: Vocabulary) -> None:
    """Refuse a cache that was tokenised with another vocabulary.

    Raises:
        UserError: if the cache's record names another vocabulary.
    """
    made_by = record_of_cache(directory)
    if made_by.get("vocabulary_fingerprint", vocabulary.fingerprint) != vocabulary.fingerprint:
        raise UserError(
            f"the cache {directory} was tokenised with another vocabulary, or another casing, than TOKENIZER: name "
            "the one that it was made with, or run `electra cache` again"
        )


def check_marks_of(directory: str, *, word_marks: bool) -> None:
    """Refuse a cache that has word marks although none are read, or has none although they are.

    Raises:
        UserError: if the cache's record says so.
    """
    if record_of_cache(directory).get("word_marks", False) != word_marks:
        raise UserError(
            f"the cache {directory} was made with WORD_MARKS={not word_marks}: set WORD_MARKS to that, or run "
            "`electra cache` again"
        )


def check_no_marks(cache: CacheConfig) -> None:
    """Refuse word marks if anything other than `electra pretrain` reads the examples.

    Raises:
        UserError: if the ids of the cache have word marks.
    """
    if cache.word_marks:
        raise UserError("WORD_MARKS is for `electra pretrain`, and SeqIO's tasks mask tokens: set it to False")


def check_masking_of_corpus(run: PretrainingRun) -> None:
    """Refuse to train on a corpus with masks that are not drawn on the device.

    Raises:
        UserError: if MASKING is not "device".
    """
    if run.masking != "device":
        raise UserError(
            f"MASKING {run.masking!r} takes the masks of a MIXTURE_OR_TASK_NAME, and a corpus has none: set MASKING to "
            "'device'"
        )


def unknown_in_cache(directory: str, *, allow_unknown: bool) -> str | None:
    """Return a sentence on how much of a cache's text is [UNK]; None for a cache of SeqIO or of an earlier version.

    Raises:
        UserError: if it is more than a fifth and that is not allowed. The cache is kept.
    """
    made_by = record_of_cache(directory)
    if "unknown" not in made_by:
        return None
    return state_unknown(Unknown(**made_by["unknown"]), what=f"the cache {directory}", allow_unknown=allow_unknown)


def unknown_in_blocks(
    directory: str, blocks: TokenBlocks, vocabulary: Vocabulary, *, allow_unknown: bool
) -> str | None:
    """Return a sentence on how much of a cache is [UNK] if its record does not say; None if the record does.

    Args:
        directory: the cache.
        blocks: its training examples, some of which, evenly spaced, are counted.
        vocabulary: the vocabulary of the ids.
        allow_unknown: continue whatever the share is.

    Raises:
        UserError: if it is more than a fifth and that is not allowed.
    """
    if "unknown" in record_of_cache(directory) or not len(blocks):
        return None
    number = min(len(blocks), COUNTED_EXAMPLES)
    rows_B = np.linspace(0, len(blocks) - 1, number).astype(np.int64)
    found = unknown_of_batches([blocks.gather(rows_B, blocks.longest())], vocabulary)
    return state_unknown(found, what=f"{number:,} examples of the cache {directory}", allow_unknown=allow_unknown)


def unknown_in_stream(name: str, batches: BatchIterator, vocabulary: Vocabulary, *, allow_unknown: bool) -> str:
    """Return a sentence on how much of a stream's first examples is [UNK]; the stream's position is then restored.

    Args:
        name: name of the task or mixture.
        batches: this process's share of it.
        vocabulary: the vocabulary of the ids.
        allow_unknown: continue whatever the share is.

    Raises:
        UserError: if it is more than a fifth and that is not allowed, or an id is outside the vocabulary.
    """
    begin, first = batches.state(), next(batches)
    rows = len(first["input_ids"])
    number = math.ceil(COUNTED_EXAMPLES / rows)
    found = unknown_of_batches(itertools.chain([first], itertools.islice(batches, number - 1)), vocabulary)
    batches.restore(begin)
    what = f"the first {number * rows:,} examples drawn from {name}"
    return state_unknown(found, what=what, allow_unknown=allow_unknown)

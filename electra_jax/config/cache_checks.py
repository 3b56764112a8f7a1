"""Check a cache against the run that reads it: its vocabulary, its marks of words, and how much of it is [UNK]."""

from electra_jax.config.pretraining import CacheConfig
from electra_jax.errors import UserError
from electra_jax.tasks.pretraining.cached_blocks import record_of_cache
from electra_jax.tasks.unknown import Unknown, state_unknown
from electra_jax.tasks.vocabulary import Vocabulary


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
    """Refuse a cache that has marks of words where none are read, or none where they are.

    Raises:
        UserError: if its record says so.
    """
    if record_of_cache(directory).get("word_marks", False) != word_marks:
        raise UserError(
            f"the cache {directory} was made with WORD_MARKS={not word_marks}: set WORD_MARKS to that, or run "
            "`electra cache` again"
        )


def check_no_marks(cache: CacheConfig) -> None:
    """Refuse marks of words where others than `electra pretrain` read the examples.

    Raises:
        UserError: if the ids of the cache have marks.
    """
    if cache.word_marks:
        raise UserError("WORD_MARKS is for `electra pretrain`, and SeqIO's tasks mask tokens: set it to False")


def unknown_in_cache(directory: str, *, allow_unknown: bool) -> str | None:
    """Return a sentence on how much of a cache's text is [UNK]; None of one of SeqIO or an earlier version.

    Raises:
        UserError: if it is more than a fifth, and that is not allowed. The cache stays.
    """
    made_by = record_of_cache(directory)
    if "unknown" not in made_by:
        return None
    return state_unknown(Unknown(**made_by["unknown"]), what=f"the cache {directory}", allow_unknown=allow_unknown)

"""Extend a WordPiece vocabulary by whole words of a text, in its [unusedN] entries and after its last one."""

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from electra_jax.errors import UserError
from electra_jax.tasks.tokenizer import MAX_WORD_CHARACTERS
from electra_jax.tasks.tokenizer_file import TokenizerFile
from electra_jax.tasks.vocabulary import Vocabulary
from electra_jax.tasks.wordpieces import count_words

# The entries that BERT's vocabularies keep free.
UNUSED = re.compile(r"\[unused\d+\]")


class Extension(NamedTuple):
    """Hold a vocabulary with new words, and their effect.

    Attributes:
        vocabulary: the vocabulary; all ids keep their meaning, except those of the [unusedN] that were filled.
        words: the new words, those that save the most pieces first.
        num_filled: how many of them, from the first, replace an [unusedN].
        pieces_before, pieces_after: mean number of pieces of a word of the text.
    """

    vocabulary: Vocabulary
    words: Sequence[str]
    num_filled: int
    pieces_before: float
    pieces_after: float


def extend_wordpieces(
    vocabulary: Vocabulary, documents: Iterable[str], *, vocab_size: int, min_frequency: int
) -> Extension:
    """Add the words of a text that save the most pieces: those that are frequent, and split into many pieces.

    A word that is [UNK] counts as one piece a character, and as at least two. A run of signs, such as a rule of a
    table, is not a word.

    Args:
        vocabulary: a WordPiece vocabulary, BERT's or ours.
        documents: texts; read once.
        vocab_size: number of entries afterwards; a small text may fill fewer. [unusedN] entries are filled first.
        min_frequency: a word that occurs less often is not added.

    Raises:
        UserError: if the tokenizer is not WordPiece, `vocab_size` leaves no place, or there is no new word.
    """
    check_wordpiece(vocabulary)
    slots = [row for row, token in enumerate(vocabulary.tokens) if UNUSED.fullmatch(token)]
    check_places(vocabulary.vocab_size, len(slots), vocab_size)
    counts = count_words(documents, vocabulary.tokenizer)
    before = pieces_of(counts, vocabulary)
    known = set(vocabulary.tokens)
    saved = {
        word: counts[word] * (pieces - 1)
        for word, pieces in before.items()
        if word not in known
        and counts[word] >= min_frequency
        and len(word) <= MAX_WORD_CHARACTERS
        and (len(word) == 1 or any(map(str.isalnum, word)))
    }
    useful = sorted((word for word, pieces in saved.items() if pieces > 0), key=lambda word: (-saved[word], word))
    words = useful[: len(slots) + vocab_size - vocabulary.vocab_size]
    if not words:
        raise UserError(
            f"no word of the text is read in pieces {min_frequency} times or more: the vocabulary has them all, "
            "therefore nothing was written"
        )
    tokens = list(vocabulary.tokens)
    for row, word in zip(slots, words, strict=False):
        tokens[row] = word
    tokens += words[len(slots) :]
    extended = with_tokens(vocabulary, tokens)
    after, total = pieces_of(counts, extended), max(counts.total(), 1)
    means = (sum(counts[word] * pieces[word] for word in counts) / total for pieces in (before, after))
    return Extension(extended, words, min(len(slots), len(words)), *means)


def check_wordpiece(vocabulary: Vocabulary) -> None:
    """Refuse a tokenizer to which no whole words can be added.

    Raises:
        UserError: if it is not WordPiece.
    """
    if isinstance(vocabulary, TokenizerFile):
        model = json.loads(vocabulary.definition)["model"]
        if "continuing_subword_prefix" not in model or "max_input_chars_per_word" not in model:
            raise UserError(
                f"EXTEND names a tokenizer of {model.get('type', 'another kind')}, and words are added to WordPiece "
                "alone: learn a tokenizer from the text, and take the rows of the model's tokens by MAP_VOCABULARY"
            )


def check_places(num_entries: int, num_unused: int, vocab_size: int) -> None:
    """Check that a vocabulary has a place for a new word.

    Raises:
        UserError: if it has none.
    """
    if vocab_size < num_entries or (vocab_size == num_entries and not num_unused):
        least = f"{num_entries} to fill these, or to more" if num_unused else f"more than {num_entries}"
        raise UserError(
            f"VOCAB_SIZE {vocab_size} leaves no place: the vocabulary has {num_entries} entries, {num_unused} of them "
            f"[unusedN]; set it to {least} to append entries"
        )


def pieces_of(words: Iterable[str], vocabulary: Vocabulary) -> Mapping[str, int]:
    """Return the number of pieces of each word; for [UNK], the number of its characters, and at least two."""
    words = list(words)
    ids = vocabulary.encode_batch(words)
    return {
        word: max(2, len(word)) if vocabulary.unk_id in pieces else len(pieces)
        for word, pieces in zip(words, ids, strict=True)
    }


def with_tokens(vocabulary: Vocabulary, tokens: list[str]) -> Vocabulary:
    """Return a WordPiece vocabulary with other tokens that reads text as before."""
    if not isinstance(vocabulary, TokenizerFile):
        return dataclasses.replace(vocabulary, tokens=tokens)
    values = json.loads(vocabulary.definition)
    values["model"]["vocab"] = {token: row for row, token in enumerate(tokens)}
    return dataclasses.replace(vocabulary, tokens=tokens, definition=json.dumps(values, indent=2, ensure_ascii=False))

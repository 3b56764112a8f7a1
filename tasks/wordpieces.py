"""Learn a WordPiece vocabulary from text. `tokenizer_training` learns the other kinds."""

import collections
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from electra_jax.errors import UserError
from electra_jax.tasks.tokenizer import SPECIAL_TOKENS, build_tokenizer
from electra_jax.tasks.vocabulary import Vocabulary

_REPEATS_A_STRING = 1000
# The share of a text's characters that the alphabet covers if its size is not given.
COVERAGE = 0.9999


class Learned(NamedTuple):
    """Hold a vocabulary, and how many of the text's characters are among its entries.

    Attributes:
        vocabulary: the vocabulary.
        alphabet_size: number of characters that it can read.
        num_characters: number of characters that occur.
    """

    vocabulary: Vocabulary
    alphabet_size: int
    num_characters: int


def learn_wordpieces(
    documents: Iterable[str],
    *,
    vocab_size: int,
    lowercase: bool,
    strip_accents: bool,
    min_frequency: int,
    limit_alphabet: int | None,
    show_progress: bool,
) -> Learned:
    """Learn a WordPiece vocabulary: the special tokens, the alphabet, then merges by frequency.

    The documents are read once, as a stream; memory holds one count per distinct word. The same text yields the same
    entries each time. An ideograph is a word of its own, and kana form words, as in BERT's multilingual vocabulary.

    Args:
        documents: texts.
        vocab_size: number of entries wanted, including the five special tokens. A small corpus may yield fewer.
        lowercase: whether text is lower-cased before it is split, now and whenever the vocabulary is used.
        strip_accents: whether combining marks are removed from it.
        min_frequency: a pair that occurs less often is not merged.
        limit_alphabet: at most this many single characters, the commonest; text with rarer ones becomes [UNK]. None
            for as many as cover `COVERAGE` of the text.
        show_progress: whether to draw the trainer's progress bars, after the documents are read.

    Raises:
        UserError: if there is no text, or `vocab_size` is too small to hold the alphabet.
    """
    tokenizer = build_tokenizer([], lowercase=lowercase, strip_accents=strip_accents, any_script=True)
    counts = count_words(documents, tokenizer)
    if not counts:
        raise UserError("no vocabulary can be trained: the corpus holds no text.")
    frequency = _frequencies(counts)
    kept = _commonest(frequency, limit_alphabet)
    # The trainer numbers the characters in the order of a randomly seeded hash table and breaks ties between merges by
    # number; naming all of them beforehand makes it yield the same entries every time.
    first_entries = [*SPECIAL_TOKENS, *_alphabet(counts, kept)]
    if len(first_entries) > vocab_size:
        raise UserError(
            f"VOCAB_SIZE {vocab_size} cannot hold the text's alphabet: its {len(kept)} commonest characters take "
            f"{len(first_entries)} entries; ask for more entries than that, set LIMIT_ALPHABET (now {limit_alphabet}) "
            "to fewer characters, or learn byte-level BPE (ALGORITHM 'bpe'), which reads any"
        )
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=first_entries,
        continuing_subword_prefix="##",
        show_progress=show_progress,
    )
    tokenizer = Tokenizer(models.WordPiece({}))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.train_from_iterator(_repeated(counts, kept), trainer=trainer)
    ids = tokenizer.get_vocab()
    tokens = sorted(ids, key=ids.__getitem__)
    vocabulary = Vocabulary(tokens, lowercase=lowercase, strip_accents=strip_accents, any_script=True)
    return Learned(vocabulary, len(kept), len(frequency))


def count_words(documents: Iterable[str], tokenizer: Tokenizer) -> collections.Counter[str]:
    """Return how often each word of some texts occurs, as a tokenizer normalises and divides text."""
    counts: collections.Counter[str] = collections.Counter()
    for document in documents:
        normalised = tokenizer.normalizer.normalize_str(document)
        counts.update(word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normalised))
    return counts


def _frequencies(counts: Mapping[str, int]) -> collections.Counter[str]:
    frequency: collections.Counter[str] = collections.Counter()
    for word, count in counts.items():
        for character in word:
            frequency[character] += count
    return frequency


def _commonest(frequency: collections.Counter[str], limit: int | None) -> set[str]:
    """Return the commonest characters: `limit` of them, or as many as cover `COVERAGE` of the text."""
    ordered = sorted(sorted(frequency), key=lambda character: -frequency[character])
    if limit is None:
        left, limit = COVERAGE * frequency.total(), 0
        while left > 0:
            left -= frequency[ordered[limit]]
            limit += 1
    return set(ordered[:limit])


def _alphabet(counts: Iterable[str], kept: Collection[str]) -> list[str]:
    """Return the single-character entries: each at the beginning of a word, and as a continuation where it occurs."""
    continuing = {character for word in counts for character in word[1:]}
    return sorted(kept) + [f"##{character}" for character in sorted(kept) if character in continuing]


def _repeated(counts: Mapping[str, int], alphabet: set[str]) -> Iterator[str]:
    # A word with a character outside the alphabet is [UNK], and teaches nothing.
    for word in sorted(word for word in counts if alphabet.issuperset(word)):
        repeats, rest = divmod(counts[word], _REPEATS_A_STRING)
        for _ in range(repeats):
            yield f"{word} " * _REPEATS_A_STRING
        if rest:
            yield f"{word} " * rest

"""Learn the entries of a WordPiece vocabulary."""

import collections
from collections.abc import Iterable, Iterator, Mapping

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from electra_jax.errors import UserError
from electra_jax.tasks.tokenizer import MAX_WORD_CHARACTERS, SPECIAL_TOKENS, build_tokenizer

_REPEATS_A_STRING = 1000


def learn_wordpieces(
    documents: Iterable[str],
    *,
    vocab_size: int,
    lowercase: bool,
    strip_accents: bool,
    min_frequency: int,
    limit_alphabet: int,
    show_progress: bool,
) -> list[str]:
    """Return the entries of a WordPiece vocabulary: the special tokens, the alphabet, then merges by frequency.

    The documents are read once, as a stream; memory holds one count per distinct word. The same text gives the same
    entries each time. The arguments are those of `vocabulary.train_vocabulary`.

    Raises:
        UserError: if there is no text, or if `vocab_size` is too small to hold the alphabet.
    """
    counts = _count_words(documents, lowercase=lowercase, strip_accents=strip_accents)
    if not counts:
        raise UserError("no vocabulary can be trained: the corpus holds no text.")
    # The trainer numbers the characters in the order of a randomly seeded hash table and breaks ties
    # between merges by number; naming them all beforehand makes it give the same entries every time.
    alphabet = _alphabet(counts, limit_alphabet)
    first_entries = [*SPECIAL_TOKENS, *alphabet]
    if len(first_entries) > vocab_size:
        raise UserError(
            f"vocab_size={vocab_size} cannot hold the corpus's alphabet, which takes {len(first_entries)} "
            f"entries; ask for more entries, or lower limit_alphabet (now {limit_alphabet})."
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
    tokenizer.train_from_iterator(_repeated(counts, set(alphabet)), trainer=trainer)
    ids = tokenizer.get_vocab()
    return sorted(ids, key=ids.__getitem__)


def _count_words(documents: Iterable[str], *, lowercase: bool, strip_accents: bool) -> collections.Counter[str]:
    tokenizer = build_tokenizer([], lowercase=lowercase, strip_accents=strip_accents)
    counts: collections.Counter[str] = collections.Counter()
    for document in documents:
        normalised = tokenizer.normalizer.normalize_str(document)
        counts.update(word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normalised))
    # A longer word is [UNK] whatever the vocabulary holds.
    return collections.Counter({w: n for w, n in counts.items() if len(w) <= MAX_WORD_CHARACTERS})


def _alphabet(counts: Mapping[str, int], limit: int) -> list[str]:
    frequency: collections.Counter[str] = collections.Counter()
    continuing: set[str] = set()
    for word, count in counts.items():
        continuing.update(word[1:])
        for character in word:
            frequency[character] += count
    kept = sorted(sorted(frequency), key=lambda character: -frequency[character])[:limit]
    return sorted(kept) + [f"##{character}" for character in sorted(kept) if character in continuing]


def _repeated(counts: Mapping[str, int], alphabet: set[str]) -> Iterator[str]:
    # A word with a character outside the alphabet is [UNK], and teaches nothing.
    for word in sorted(word for word in counts if alphabet.issuperset(word)):
        repeats, rest = divmod(counts[word], _REPEATS_A_STRING)
        for _ in range(repeats):
            yield f"{word} " * _REPEATS_A_STRING
        if rest:
            yield f"{word} " * rest

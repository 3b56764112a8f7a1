"""Predict tokens with a trigram model: the token that followed the same two tokens most often in a tokenised text.

Only the tokens that follow queried contexts are counted. Memory holds one piece of the text, and a count for each pair
of a queried context and a token that followed it: no more than the text has tokens, and no more than the queried
contexts times the vocabulary, however long the text is.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from electra_jax.data.blocks import TokenBlocks

# Tokens that are counted at a time; a piece takes about 100 bytes for each.
PIECE = 2**21
# Stands for a token that a context lacks.
NONE = -1


class Counts(NamedTuple):
    """Hold the counts of the tokens that follow some contexts of one length.

    Attributes:
        contexts: int64 [x], sorted: each context as a number, see `numbered`.
        followers: int64 [y], sorted: place of the context in `contexts` x V + the token that followed it.
        counts: int64 [y], how often that token followed.
    """

    contexts: np.ndarray
    followers: np.ndarray
    counts: np.ndarray

    def of(self, places: np.ndarray, tokens: np.ndarray, vocab_size: int) -> np.ndarray:
        """Return how often each token followed the context at each place; each must have followed it at least once."""
        return self.counts[np.searchsorted(self.followers, places * vocab_size + tokens)]


def predict(
    texts: Sequence[TokenBlocks],
    contexts_x2: np.ndarray,
    *,
    vocab_size: int,
    never: Collection[int],
    word_mark: int | None,
    piece: int = PIECE,
) -> np.ndarray:
    """Return the likeliest token after each context, int64 [x].

    It is the token that followed both tokens of the context most often. If nothing followed these two, the model backs
    off to the last token alone, and from there to the most frequent token. Ties go to the token that followed the
    shorter context more often, and finally to the one with the lowest id. An n-gram lies within one example.

    Args:
        texts: the text that is counted, in one or several parts.
        contexts_x2: int [x, 2], the two tokens before each place, the nearest last. `NONE` for an unknown token; if the
            nearest one is unknown, the other is too.
        vocab_size: V, above every id.
        never: tokens that are never predicted.
        word_mark: the number added to the id of a token that continues a word, above every id; None for no marks.
        piece: tokens that are counted at a time.
    """
    pairs_x, singles_x = numbered(contexts_x2, vocab_size), numbered(contexts_x2[:, 1:], vocab_size)
    pairs, singles, whole = (
        count(texts, numbers_x, order, vocab_size=vocab_size, never=never, word_mark=word_mark, piece=piece)
        for order, numbers_x in ((2, pairs_x), (1, singles_x), (0, np.zeros(1, np.int64)))
    )
    # How often each token occurs in the text.
    frequency_V = np.zeros(vocab_size, np.int64)
    frequency_V[whole.followers] = whole.counts

    def after_one(places: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        last = singles.contexts.searchsorted(pairs.contexts[places] % vocab_size)
        return singles.of(last, tokens, vocab_size)

    best_x = np.full(len(contexts_x2), frequency_V.argmax())
    for counted, numbers_x, shorter in (
        (singles, singles_x, lambda places, tokens: frequency_V[tokens]),
        (pairs, pairs_x, after_one),
    ):
        places, tokens = np.divmod(counted.followers, vocab_size)
        ascending = np.lexsort((-tokens, frequency_V[tokens], shorter(places, tokens), counted.counts, places))
        # The last one of each place is the best; a context that nothing followed has none.
        likeliest = np.full(len(counted.contexts) + 1, NONE)
        likeliest[places[ascending]] = tokens[ascending]
        found_x = likeliest[np.where(numbers_x == NONE, -1, counted.contexts.searchsorted(numbers_x))]
        best_x = np.where(found_x == NONE, best_x, found_x)
    return best_x


def numbered(contexts_xn: np.ndarray, vocab_size: int) -> np.ndarray:
    """Return each context as one number, int64 [x]: its tokens as digits, `NONE` where one of them is not known."""
    numbers_x = np.zeros(len(contexts_xn), np.int64)
    for tokens_x in contexts_xn.T:
        numbers_x = numbers_x * vocab_size + tokens_x
    return np.where((contexts_xn == NONE).any(axis=1), NONE, numbers_x)


def count(
    texts: Sequence[TokenBlocks],
    numbers_x: np.ndarray,
    order: int,
    *,
    vocab_size: int,
    never: Collection[int],
    word_mark: int | None,
    piece: int,
) -> Counts:
    """Count what follows contexts of `order` tokens, given as numbers (see `numbered`); `NONE` is left out."""
    asked = np.unique(numbers_x[numbers_x != NONE])
    followers, counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for text in texts:
        for contexts, tokens in windows(text, order, vocab_size=vocab_size, word_mark=word_mark, piece=piece):
            places = asked.searchsorted(contexts)
            counted = ~np.isin(tokens, list(never)) & (places < len(asked))
            counted[counted] = asked[places[counted]] == contexts[counted]
            new, of_new = np.unique(places[counted] * vocab_size + tokens[counted], return_counts=True)
            followers, inverse = np.unique(np.concatenate([followers, new]), return_inverse=True)
            sums = np.zeros(len(followers), np.int64)
            np.add.at(sums, inverse, np.concatenate([counts, of_new]))
            counts = sums
    return Counts(asked, followers, counts)


def windows(
    text: TokenBlocks, order: int, *, vocab_size: int, word_mark: int | None, piece: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield, piece by piece, the number of the `order` tokens before each token and the token, both int64 [x].

    Tokens with fewer tokens before them in their own example are left out.
    """
    for start in range(0, len(text.tokens), piece):
        begin, end = max(0, start - order), min(start + piece, len(text.tokens))
        tokens = np.asarray(text.tokens[begin:end], np.int64)
        if word_mark is not None:
            tokens %= word_mark
        firsts = text.offsets[np.searchsorted(text.offsets, begin) : np.searchsorted(text.offsets, end)] - begin
        inside = np.ones(len(tokens), bool)
        for place in range(order):
            # An empty example has no first token.
            late = firsts + place
            inside[late[late < len(tokens)]] = False
        inside[: start - begin] = False
        (places,) = np.nonzero(inside)
        contexts = np.zeros(len(places), np.int64)
        for back in range(order, 0, -1):
            contexts = contexts * vocab_size + tokens[places - back]
        yield contexts, tokens[places]

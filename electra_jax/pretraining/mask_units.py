"""Mask whole words, or spans of them, drawn in the jitted step within the token budget of single-token masking.

A word is a token that begins one and the ordinary tokens after it that do not; which tokens begin a word is a property
of the vocabulary (`Vocabulary.begins_word`). No word extends across a special token, so none extends into another
segment or another example of a packed row.
"""

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from electra_jax.model.types import Masked
from electra_jax.pretraining.corruption import PositionRule, SpecialIds

MASK_UNITS = ("token", "word", "span")
# SpanBERT, section 3.1: the words of a span are drawn from Geo(0.2), cut off at 10, which makes 3.8 on average.
SPAN_STOP_PROB = 0.2
LONGEST_SPAN = 10
# Text without word boundaries, such as DNA, would otherwise be one word that exceeds every budget.
LONGEST_WORD = 10
# After this many passes over the words that still fit, next to nothing is left of a budget.
NUM_PASSES = 4


class WordTokens(SpecialIds, Protocol):
    """The ids that are not ordinary tokens, and the tokens that begin a word, as a vocabulary has them."""

    @property
    def begins_word(self) -> list[bool]:
        """Whether each token begins a word."""


@dataclasses.dataclass(frozen=True, eq=False)
class WholeWords:
    """A `PositionRule` that masks all tokens of a word or none.

    Words are taken in random order; one that is longer than what is left of the budget is skipped, as in BERT's
    whole-word masking, so a long word is masked a little less often than a short one.

    Attributes:
        begins_V: whether each token begins a word, bool.
        spans: whether adjacent words are drawn together, in spans of a random number of words; the last span ends where
            the budget does.
    """

    begins_V: np.ndarray
    spans: bool

    def begins(self, ids_L: jax.Array) -> jax.Array:
        """Return whether each token of a row begins a word, bool [L]."""
        return jnp.asarray(self.begins_V)[ids_L]

    def draw(
        self, key: jax.Array, ids_L: jax.Array, candidate_L: jax.Array, wanted: jax.Array, num_slots: int
    ) -> tuple[jax.Array, jax.Array]:
        """Return the positions of whole words in the order of drawing, and how many positions fit the budget."""
        order_key, span_key = jax.random.split(key)
        begins_L = word_beginnings(self.begins(ids_L), candidate_L)
        unit_L = begins_L
        if self.spans:
            unit_L &= span_beginnings(span_key, begins_L, candidate_L)
        # All tokens of a unit have the unit's number.
        unit_of_L = jnp.maximum(jnp.cumsum(unit_L) - 1, 0)
        priority_L = jax.random.uniform(order_key, ids_L.shape)[unit_of_L]
        # A stable sort leaves the words of a span, and the tokens of a word, in their order.
        order_L = jnp.argsort(jnp.where(candidate_L, priority_L, 2.0), stable=True)
        order_L, count = fill(order_L, begins_L, candidate_L, jnp.minimum(wanted, num_slots))
        return order_L[:num_slots].astype(jnp.int32), count

    def settle(self, masked: Masked, sampled_ids_BK: jax.Array) -> jax.Array:
        """Return the samples as they are: no two are at the same position."""
        del masked
        return sampled_ids_BK


@dataclasses.dataclass(frozen=True, eq=False)
class MarkedWords(WholeWords):
    """`WholeWords` for text whose word boundaries are marked in the ids, whatever the tokens are.

    Attributes:
        word_mark: the number added to the id of a token that continues a word.
    """

    word_mark: int

    def begins(self, ids_L: jax.Array) -> jax.Array:
        """Return whether each token of a row has no mark, bool [L]."""
        return ids_L < self.word_mark


def word_beginnings(begins_L: jax.Array, candidate_L: jax.Array) -> jax.Array:
    """Return true at the first token of each word of a row, bool [L].

    The first ordinary token of a row, and the first after a special one, always begins a word. A word of more than
    `LONGEST_WORD` tokens is divided into parts of that length.

    Args:
        begins_L: whether the token begins a word by itself.
        candidate_L: true at ordinary tokens.
    """
    places_L = jnp.arange(len(candidate_L))
    begins_L = candidate_L & (begins_L | ~before(candidate_L))
    offset_L = places_L - jax.lax.cummax(jnp.where(begins_L, places_L, 0))
    return begins_L | (candidate_L & (offset_L % LONGEST_WORD == 0))


def span_beginnings(key: jax.Array, begins_L: jax.Array, candidate_L: jax.Array) -> jax.Array:
    """Cut the words of a row into spans of random numbers of words; return true where a span begins, bool [L].

    A special token ends a span early.

    Args:
        key: PRNG key of the row.
        begins_L: true at the first token of each word.
        candidate_L: true at ordinary tokens.
    """
    lengths = np.arange(1, LONGEST_SPAN + 1)
    log_probs = jnp.asarray((lengths - 1) * np.log(1 - SPAN_STOP_PROB), jnp.float32)
    drawn_L = 1 + jax.random.categorical(key, log_probs, shape=begins_L.shape)
    ends_L = jnp.cumsum(drawn_L)
    word_L = jnp.cumsum(begins_L) - 1
    first_L = (word_L == 0) | jnp.isin(word_L, ends_L)
    return begins_L & (first_L | ~before(candidate_L))


def before(values_L: jax.Array) -> jax.Array:
    """Return the value at the previous token, bool [L]; false at the first."""
    return jnp.pad(values_L[:-1], (1, 0))


def fill(
    order_L: jax.Array, begins_L: jax.Array, candidate_L: jax.Array, budget: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Take words in a given order if they fit the rest of the budget, and skip those that do not.

    Args:
        order_L: the positions of a row in the order in which they are taken, those of a word adjacent.
        begins_L: true at the first token of each word.
        candidate_L: true at ordinary tokens.
        budget: the most tokens to take.

    Returns:
        The order with the tokens that are taken first, and their number, int32 [].
    """
    places_L = jnp.arange(len(order_L))
    first_L = jax.lax.cummax(jnp.where(begins_L, places_L, 0))
    # A word ends before the next one, and before a special token.
    stops_L = jnp.append(jnp.where(begins_L | ~candidate_L, places_L, len(places_L))[1:], len(places_L))
    size_L = jax.lax.cummin(stops_L, reverse=True) - first_L
    count = jnp.int32(0)
    for _ in range(NUM_PASSES):
        fits_L = candidate_L[order_L] & (size_L[order_L] <= budget - count)
        taken_L = places_L < count
        group_L = jnp.where(taken_L, 0, jnp.where(fits_L, 1, 2))
        order_L = order_L[jnp.argsort(group_L, stable=True)]
        num_open = jnp.sum(group_L < 2)
        # The largest number of tokens within the budget after which a word begins, or none is left.
        whole_L = begins_L[order_L] & (places_L <= jnp.minimum(budget, num_open))
        count = jnp.where(num_open <= budget, num_open, jnp.max(jnp.where(whole_L, places_L, 0))).astype(jnp.int32)
    return order_L, count


def position_rule(
    unit: str, of_tokens: PositionRule, begins_word: list[bool] | None, word_mark: int | None
) -> PositionRule:
    """Return the rule that draws positions.

    Args:
        unit: one of `MASK_UNITS`.
        of_tokens: the rule for "token".
        begins_word: whether each token begins a word; not read for "token", or if words are marked.
        word_mark: the number added to the id of a token that continues a word; None if the tokens show it.
    """
    if unit == "token":
        return of_tokens
    if word_mark is not None:
        return MarkedWords(np.zeros(0, np.bool_), spans=unit == "span", word_mark=word_mark)
    return WholeWords(np.asarray(begins_word, np.bool_), spans=unit == "span")

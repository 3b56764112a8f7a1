"""A trigram model: counts by hand, what it backs off to, a grammar that it must know, and another way of counting."""

import collections
import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from electra_jax.data.blocks import TokenBlocks
from electra_jax.data.trigrams import NONE, predict

CLS, SEP, A, B, C, D, E = range(2, 9)
VOCAB_SIZE = 12


def text_of(*examples: Sequence[int]) -> TokenBlocks:
    lengths = [len(example) for example in examples]
    offsets = np.cumsum([0, *lengths])
    return TokenBlocks(np.array(list(itertools.chain(*examples)), np.uint16), offsets, np.array(lengths), VOCAB_SIZE)


def after(contexts: Sequence[tuple[int, int]], *texts: TokenBlocks, piece: int = 100) -> list[int]:
    asked = np.array(contexts)
    return predict(texts, asked, vocab_size=VOCAB_SIZE, never=(CLS, SEP), word_mark=None, piece=piece).tolist()


@pytest.mark.parametrize("piece", [1, 2, 3, 5, 100])
def test_counts_by_hand(piece: int) -> None:
    """However the text is cut into pieces."""
    text = text_of([CLS, A, B, C, A, B, C, SEP], [CLS, A, B, D, A, C, SEP], [CLS, C, E, E, E, SEP])

    def best(first: int, second: int) -> int:
        return after([(first, second)], text, piece=piece)[0]

    # "A B" is followed by C twice and by D once.
    assert best(A, B) == C
    # "D A" only by C, although A alone is mostly followed by B.
    assert best(D, A) == C
    assert best(C, A) == B
    # "E A" never stood there: A alone says B; nor does a context across two examples, "E SEP".
    assert best(E, A) == B
    assert best(NONE, A) == B
    assert best(NONE, CLS) == A
    # "B C" is followed by A and by [SEP], which is never predicted; "A C" by [SEP] alone, so that C alone says A.
    assert best(B, C) == A
    # C is followed by A and by E once each, of which A is the more frequent.
    assert best(A, C) == A
    # After nothing, the most frequent token: A and C stand there four times, and A has the lower id.
    assert best(NONE, NONE) == A
    assert best(A, NONE) == A
    # Never seen at all.
    assert best(A, 11) == A


def test_equal_counts_are_told_apart_by_the_shorter_context() -> None:
    """After "A B" C and D stood once each; after B alone D stood more often, so that it is not the lowest id."""
    text = text_of([A, B, C], [A, B, D], [E, B, D])
    assert after([(A, B)], text) == [D]
    # After E stood C and D once each, and in all of the text D more often.
    assert after([(NONE, E)], text_of([E, C], [E, D], [D, D])) == [D]


def test_the_text_may_have_several_parts_and_empty_examples() -> None:
    first, second = text_of([A, B, C], [], [A, B, C]), text_of([], [A, B, D], [A, B, D], [A, B, D])
    assert after([(A, B)], first) == [C]
    assert after([(A, B)], first, second) == [D]
    assert after([(A, B)], text_of()) == [0]


def test_marks_of_words_are_no_part_of_a_token() -> None:
    text = text_of([A, B, C], [A, B, D], [A, B, D])
    tokens = text.tokens.astype(np.uint32) + 2**24 * np.array([0, 1, 0, 0, 0, 1, 1, 1, 0], np.uint32)
    marked_text = dataclasses.replace(text, tokens=tokens, vocab_size=VOCAB_SIZE + 2**24)
    found = predict([marked_text], np.array([[A, B]]), vocab_size=VOCAB_SIZE, never=(), word_mark=2**24)
    assert found.tolist() == [D]


def test_a_deterministic_grammar_is_known_wholly() -> None:
    """Every token is (2 x the one before + the one before that) mod 7: two tokens say the next, one does not."""
    rows = []
    for first, second in itertools.product(range(7), repeat=2):
        row = [first, second]
        for _ in range(6):
            row.append((2 * row[-1] + row[-2]) % 7)
        rows.append([token + 5 for token in row])
    contexts = list(itertools.product(range(5, 12), repeat=2))
    right = [(2 * (second - 5) + first - 5) % 7 + 5 for first, second in contexts]
    assert after(contexts, text_of(*rows), piece=17) == right
    # The last token alone: seven answers that are as frequent as each other.
    alone = after([(NONE, second) for _, second in contexts], text_of(*rows))
    assert np.mean(np.array(alone) == right) < 0.5


def test_another_way_of_counting_says_the_same() -> None:
    draw = np.random.default_rng(0)
    rows = [draw.integers(2, VOCAB_SIZE, draw.integers(0, 9)).tolist() for _ in range(300)]
    counted: dict[tuple[int, ...], collections.Counter[int]] = collections.defaultdict(collections.Counter)
    for row in rows:
        for place, token in enumerate(row):
            for order in range(min(2, place) + 1):
                if token not in (CLS, SEP):
                    counted[tuple(row[place - order : place])][token] += 1

    def best(*context: int) -> int:
        known = [context[cut:] for cut in range(3) if NONE not in context[cut:]]
        seen = [one for one in known if counted[one]]
        # The longest context that anything followed, then the shorter ones, then the lowest id.
        return max(counted[seen[0]], key=lambda token: (*(counted[one][token] for one in seen), -token))

    contexts = [(NONE, NONE), *itertools.product([NONE, *range(2, VOCAB_SIZE)], range(2, VOCAB_SIZE))]
    assert after(contexts, text_of(*rows), piece=37) == [best(*context) for context in contexts]

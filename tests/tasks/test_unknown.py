"""The share of [UNK] is counted, and what became [UNK] is named."""

import numpy as np
import pytest

from electra_jax.errors import UserError
from electra_jax.tasks.tagging.sentences import TaggedSentence
from electra_jax.tasks.text.tables import TextExample
from electra_jax.tasks.tokenizer import SPECIAL_TOKENS
from electra_jax.tasks.tokenizer_training import train_tokenizer
from electra_jax.tasks.unknown import (
    Unknown,
    count_unknown,
    measure_unknown,
    state_unknown,
    unknown_of_rows,
    what_became_unknown,
)
from electra_jax.tasks.vocabulary import Vocabulary

VOCABULARY = Vocabulary([*SPECIAL_TOKENS, "the", "cat", "c", "##s"], lowercase=True, strip_accents=False)


def test_counts_by_hand() -> None:
    ids = np.array([[2, 5, 1, 3], [6, 1, 3, 0]])
    assert count_unknown(ids, VOCABULARY) == (4, 2)
    found = measure_unknown(["The cat", "the 犬 and 犬 catx " + "x" * 300], VOCABULARY)
    # the, cat; the, 犬, and, 犬, catx, and a word of more than 200 characters.
    assert (found.tokens, found.unknown) == (8, 5)
    assert found.words == {"犬": 2, "and": 1, "catx": 1, f"{'x' * 24}… (300 characters)": 1}
    assert found.characters == {"x": 301, "犬": 2, "d": 1, "n": 1}
    assert Unknown(**found.to_json()) == found
    assert measure_unknown([], VOCABULARY).share == 0


def test_rows_of_a_task_are_counted_and_their_texts_looked_at() -> None:
    examples = [TextExample(0, "the 犬", "cat", None), TaggedSentence(("the", "犬も"), (), 1)]
    rows = [{"input_ids": np.array([2, 5, 1, 3, 6, 3], np.int32)}, {"input_ids": np.array([2, 5, 1, 1, 3], np.int32)}]
    found = unknown_of_rows(rows, examples, VOCABULARY)
    assert (found.tokens, found.unknown) == (6, 3)
    assert found.words == {"犬": 2, "も": 1}


def test_bytes_know_everything() -> None:
    settings = {"vocab_size": 300, "lowercase": False, "strip_accents": False, "min_frequency": 2}
    vocabulary = train_tokenizer(["the cat"], algorithm="bpe", **settings, show_progress=False)
    assert measure_unknown(["犬"], vocabulary).unknown == 0
    assert not what_became_unknown(["犬"], VOCABULARY)[0].keys() - {"犬"}


@pytest.mark.parametrize(("unknown", "begins"), [(0, "0.00 % of the 1,000"), (10, "1.00 %"), (11, "warning: 1.10 %")])
def test_a_share_is_stated_or_warned_of(unknown: int, begins: str) -> None:
    found = Unknown(1000, unknown, {"犬も": 7, "x": 4}, {"犬": 7})
    said = state_unknown(found, what="the text", allow_unknown=False)
    assert said.startswith(begins)
    assert ("characters of them: 犬 (7); the commonest words of them: 犬も (7), x (4)" in said) == (unknown == 11)


def test_over_a_fifth_is_refused_unless_allowed() -> None:
    state_unknown(Unknown(1000, 200, {}, {}), what="the text", allow_unknown=False)
    found = Unknown(1000, 201, {}, {"犬": 201})
    with pytest.raises(
        UserError, match=r"20.10 % of the 1,000 tokens of the text are \[UNK\]; the commonest.*`electra"
    ):
        state_unknown(found, what="the text", allow_unknown=False)
    assert state_unknown(found, what="the text", allow_unknown=True).startswith("warning: 20.10 %")

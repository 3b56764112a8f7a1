"""Whole words and spans are masked within the budget of single tokens, by hand and in distribution."""

import dataclasses
import functools
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from electra_jax.config import gin_files
from electra_jax.config.pretraining import PretrainingRun
from electra_jax.errors import UserError
from electra_jax.model.types import Masked, Tokens
from electra_jax.pretraining import corruption, mask_units
from electra_jax.pretraining.mask_units import WholeWords
from electra_jax.tasks.vocabulary import Vocabulary
from support.tiny_model import CLS, MASK, MASKING, SEP, VOCAB_SIZE, random_batch

# Ids from 24 on go on with a word: two tokens of three, so that a word has 3 on average.
FIRST_CONTINUING = 24
BEGINS = np.arange(VOCAB_SIZE) < FIRST_CONTINUING
UNITS = {unit: dataclasses.replace(MASKING, positions=WholeWords(BEGINS, unit == "span")) for unit in ("word", "span")}


@functools.partial(jax.jit, static_argnums=2)
def drawn(key: jax.Array, tokens: Tokens, unit: str) -> Masked:
    return corruption.mask(key, tokens, UNITS[unit])


def tokens_of(ids_BL: np.ndarray) -> Tokens:
    ids_BL = ids_BL.astype(np.int32)
    return Tokens(jnp.asarray(ids_BL), jnp.zeros_like(ids_BL), jnp.asarray((ids_BL > 0).astype(np.int32)))


def words_of(ids_L: np.ndarray) -> list[list[int]]:
    """The positions of each word of a row, found one token after the other."""
    words: list[list[int]] = []
    ordinary_before = False
    for place, index in enumerate(ids_L):
        ordinary = index not in (0, CLS, SEP, MASK)
        if ordinary and ordinary_before and index >= FIRST_CONTINUING and len(words[-1]) < mask_units.LONGEST_WORD:
            words[-1].append(place)
        elif ordinary:
            words.append([place])
        ordinary_before = ordinary
    return words


def masked_words(masked: Masked, ids_BL: np.ndarray) -> list[list[list[int]]]:
    """The words of each row that are masked; fails where a part of a word is."""
    found = []
    for row, ids_L in enumerate(ids_BL):
        positions = set(masked.masked_positions[row][masked.masked_weights[row] > 0].tolist())
        words = words_of(ids_L)
        assert all(len(positions & set(word)) in (0, len(word)) for word in words)
        found.append([word for word in words if set(word) <= positions])
        assert positions == {place for word in found[-1] for place in word}
    return found


@pytest.mark.parametrize("unit", UNITS)
def test_words_are_masked_whole_or_not_at_all_within_the_budget(unit: str) -> None:
    batch = random_batch(256, 64)
    tokens = Tokens(*(jnp.asarray(batch[name]) for name in ("input_ids", "token_type_ids", "attention_mask")))
    masked = jax.device_get(drawn(jax.random.key(0), tokens, unit))
    words = masked_words(masked, batch["input_ids"])
    budget_B = np.asarray(corruption.num_to_mask(tokens.attention_mask, MASKING))
    used_B = masked.masked_weights.sum(axis=-1)
    assert (used_B <= budget_B).all()
    for row, ids_L in enumerate(batch["input_ids"]):
        assert used_B[row] == sum(map(len, words[row]))
        # No word that is left would fit.
        left = budget_B[row] - used_B[row]
        assert all(len(word) > left for word in words_of(ids_L) if word not in words[row])
    assert used_B.sum() > 0.95 * budget_B.sum()
    shown_BL = masked.tokens.input_ids
    assert ((shown_BL == MASK) | (shown_BL == batch["input_ids"])).all()
    np.testing.assert_array_equal(corruption.original_ids(masked), batch["input_ids"])


def test_words_by_hand() -> None:
    """A word begins after a special token whatever its first token is, and is cut after ten tokens."""
    ids_L = np.array([CLS, 30, 5, 30, SEP, CLS, 31, 32, SEP, *[9], *[40] * 22, 0, 0])
    candidate_L = jnp.asarray((ids_L > 0) & ~np.isin(ids_L, (CLS, SEP)))
    found_L = mask_units.word_beginnings(jnp.asarray(BEGINS[ids_L]), candidate_L)
    assert np.flatnonzero(found_L).tolist() == [1, 2, 6, 9, 19, 29]
    assert [word[0] for word in words_of(ids_L)] == [1, 2, 6, 9, 19, 29]


def test_a_word_too_long_for_the_budget_is_passed_over() -> None:
    """Of 34 tokens five are masked: never the word of six, and the words of two and three together or the ones."""
    ids_L = np.array([CLS, 5, *[30] * 5, 6, 30, 7, 30, 30, *range(8, 9), SEP, *[0] * 20])
    ids_BL = np.tile(ids_L, (64, 1))
    tokens = tokens_of(ids_BL)
    config = dataclasses.replace(UNITS["word"], mask_prob=0.4)
    masked = jax.device_get(corruption.mask(jax.random.key(1), tokens, config))
    found = masked_words(masked, ids_BL)
    # Round(0.4 x 14) = 6 is all: the long word alone, or all the others.
    assert {tuple(map(len, words)) for words in found} == {(6,), (2, 3, 1)}
    smaller = jax.device_get(corruption.mask(jax.random.key(1), tokens, dataclasses.replace(config, mask_prob=0.36)))
    # Of 5, two words or the one of three and the single one; the six never.
    assert {tuple(map(len, words)) for words in masked_words(smaller, ids_BL)} == {(2, 3), (2, 1), (3, 1)}
    nothing = jax.device_get(corruption.mask(jax.random.key(1), tokens_of(ids_BL[:, [0, 1, 2, 3, 13]]), config))
    assert nothing.masked_weights.sum() == 0


@pytest.mark.parametrize("size", [1, 3])
def test_every_word_is_equally_likely(size: int) -> None:
    row = [CLS, *[5, *[30] * (size - 1)] * (60 // size), SEP, 0, 0]
    ids_BL = np.tile(np.array(row), (4000, 1))
    masked = jax.device_get(drawn(jax.random.key(2), tokens_of(ids_BL), "word"))
    counts = np.bincount(masked.masked_positions[masked.masked_weights > 0], minlength=len(row))[1:-3:size]
    assert counts.sum() == 4000 * (9 // size)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_spans_have_geometric_numbers_of_words() -> None:
    """SpanBERT: Geo(0.2), cut off at 10: 3.8 on average."""
    begins_L = jnp.ones(20_000, bool).at[1::2].set(False)
    first_L = mask_units.span_beginnings(jax.random.key(3), begins_L, jnp.ones(20_000, bool))
    places = np.flatnonzero(first_L)
    assert (places % 2 == 0).all()
    counts = np.bincount(np.diff(places) // 2, minlength=11)
    assert len(counts) == 11
    assert counts[0] == 0
    shares = 0.2 * 0.8 ** np.arange(10)
    assert stats.chisquare(counts[1:], counts.sum() * shares / shares.sum()).pvalue > 1e-3
    assert np.dot(counts, np.arange(11)) / counts.sum() == pytest.approx(3.8, abs=0.1)


def test_spans_are_contiguous_and_reach_every_word() -> None:
    ids_BL = np.tile(np.array([CLS, *[5] * 126, SEP]), (4000, 1))
    masked = jax.device_get(drawn(jax.random.key(4), tokens_of(ids_BL), "span"))
    assert (masked.masked_weights.sum(axis=-1) == 19).all()
    # Slots are in the order of the draw: a step that is not to the next word begins a span.
    steps_BK = np.diff(masked.masked_positions, axis=-1)
    spans_B = 1 + (steps_BK != 1).sum(axis=-1)
    # 19 words in spans of 3.8, the last one cut: tokens drawn one by one have about 17 runs.
    assert 5 < spans_B.mean() < 6.5
    counts = np.bincount(masked.masked_positions.ravel(), minlength=128)[1:-1]
    # Neighbours are drawn together, which a chi-square test would take for deviations: 0.037 is a standard deviation.
    np.testing.assert_allclose(counts[12:-12] / counts.mean(), 1, atol=0.15)
    # At the beginning, where no span comes in from the left, a word is masked a little more often.
    np.testing.assert_allclose(counts / counts.mean(), 1, atol=0.25)


@pytest.mark.parametrize("unit", UNITS)
def test_no_word_and_no_span_reaches_into_another_example(unit: str) -> None:
    """A packed row, whose examples begin in the middle of a word: a span ends with its example."""
    ids_L = np.array([CLS, *[30] * 5, SEP, CLS, *[31] * 5, SEP, *[CLS, 32, 32, SEP] * 4])
    ids_BL = np.tile(ids_L, (200, 1))
    examples_BL = np.cumsum(ids_BL == CLS, axis=-1)
    tokens = tokens_of(ids_BL)._replace(example_ids=jnp.asarray(examples_BL))
    config = dataclasses.replace(UNITS[unit], mask_prob=0.2)
    masked = jax.device_get(corruption.mask(jax.random.key(5), tokens, config))
    sizes = {tuple(map(len, words)) for words in masked_words(masked, ids_BL)}
    # Round(0.2 x 30) = 6: one long word, or three short ones.
    assert sizes == {(5,), (2, 2, 2)}


def run_of(*bindings: str) -> PretrainingRun:
    settings = ['MODEL_DIR="/nowhere"', 'CORPUS="embedded"', 'VOCAB_FILE="vocab.txt"', *bindings]
    files = ["gin/models/tiny.gin", "gin/runs/pretrain.gin"]
    return gin_files.build(PretrainingRun, files, settings, search_paths=[str(Path(__file__).parents[2])])


@pytest.mark.parametrize(
    ("bindings", "sentence"),
    [
        (["MASK_UNIT='phrase'"], "MASK_UNIT is 'phrase': it must be one of 'token', 'word', 'span'"),
        (["MASK_UNIT='word'", "MASKING='task'"], "set MASKING to 'device', or MASK_UNIT to 'token'"),
        (["MASK_UNIT='span'", "run_config.PretrainingRun.rules='original'"], "rules 'original' mask tokens: set MASK_"),
    ],
)
def test_a_unit_that_cannot_be_masked_is_refused(bindings: list[str], sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        run_of(*bindings)
    assert sentence in str(refused.value)


def test_a_run_masks_the_unit_that_is_bound_in_its_training_step() -> None:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{n}" for n in range(5, FIRST_CONTINUING))]
    tokens += [f"##{n}" for n in range(FIRST_CONTINUING, VOCAB_SIZE)]
    vocabulary = Vocabulary(tokens, lowercase=True, strip_accents=True)
    assert vocabulary.begins_word == BEGINS.tolist()
    sizes = [f"VOCAB_SIZE={VOCAB_SIZE}", "SEQUENCE_LENGTH=32", "BATCH_SIZE=8", "DROPOUT=0.0"]
    assert run_of(*sizes).setup(MASKING).masking.positions == MASKING.positions
    batch = jax.tree.map(jnp.asarray, random_batch(8, 32))
    for unit in UNITS:
        setup = run_of(*sizes, f"MASK_UNIT={unit!r}").setup(vocabulary)
        masked = jax.device_get(corruption.mask(jax.random.key(0), tokens_of(batch["input_ids"]), setup.masking))
        masked_words(masked, np.asarray(batch["input_ids"]))
    state, sums = jax.jit(setup.update)(nn.unbox(setup.init(jax.random.key(0))), batch)
    assert int(state.step) == 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(sums))

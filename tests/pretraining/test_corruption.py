"""Mask, sample, replace on the device."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from electra_jax.model.types import Tokens
from electra_jax.pretraining import corruption
from support.tiny_model import CLS, MASK, MASKING, SEP, VOCAB_SIZE, random_batch


def tokens_of(batch: dict[str, np.ndarray]) -> Tokens:
    return Tokens(*(jnp.asarray(batch[name]) for name in ("input_ids", "token_type_ids", "attention_mask")))


def test_masks_follow_the_specification_row_by_row() -> None:
    tokens = tokens_of(random_batch(64, 32))
    masked = jax.device_get(corruption.mask(jax.random.key(0), tokens, MASKING))
    slots = int((0.15 + 0.005) * 32)
    assert masked.masked_positions.shape == (64, slots)
    for row in range(64):
        original = np.asarray(tokens.input_ids[row])
        real = int(tokens.attention_mask[row].sum())
        used = masked.masked_weights[row] == 1
        wanted = max(1, min(slots, int(np.rint(np.float32(real) * np.float32(0.15)))))
        positions = masked.masked_positions[row][used]
        assert used.sum() == wanted == len(set(positions))
        assert not set(original[positions]) & {CLS, SEP, MASK}
        assert (positions < real).all()
        np.testing.assert_array_equal(masked.masked_ids[row][used], original[positions])
        unused = ~used
        assert not masked.masked_positions[row][unused].any()
        assert not masked.masked_ids[row][unused].any()
        untouched = np.delete(np.arange(32), positions)
        np.testing.assert_array_equal(masked.tokens.input_ids[row][untouched], original[untouched])
        shown = masked.tokens.input_ids[row][positions]
        assert ((shown == MASK) | (shown == original[positions])).all()


@pytest.mark.parametrize(
    ("length", "prob", "slots"), [(128, 0.15, 19), (512, 0.15, 79), (512, 0.25, 130), (64, 0.4, 25)]
)
def test_max_predictions_are_the_releases(length: int, prob: float, slots: int) -> None:
    assert dataclasses.replace(MASKING, mask_prob=prob).max_predictions(length) == slots


@pytest.mark.parametrize(("real", "expected"), [(10, 2), (30, 4), (50, 8), (70, 10), (3, 1)])
def test_number_of_masks_rounds_half_to_even_in_float32(real: int, expected: int) -> None:
    ids = np.zeros((1, 128), np.int32)
    ids[0, :real] = 7
    ids[0, 0], ids[0, real - 1] = CLS, SEP
    mask = (ids > 0).astype(np.int32)
    masked = corruption.mask(
        jax.random.key(1), tokens_of({"input_ids": ids, "token_type_ids": ids * 0, "attention_mask": mask}), MASKING
    )
    assert float(masked.masked_weights.sum()) == expected


def test_rows_without_ordinary_tokens_are_left_alone() -> None:
    ids = np.array([[CLS, SEP, 0, 0, 0, 0, 0], [0] * 7, [CLS, 9, SEP, 0, 0, 0, 0]], np.int32)
    batch = {"input_ids": ids, "token_type_ids": ids * 0, "attention_mask": (ids > 0).astype(np.int32)}
    masked = corruption.mask(jax.random.key(0), tokens_of(batch), MASKING)
    np.testing.assert_array_equal(masked.masked_weights.sum(axis=-1), [0, 0, 1])
    np.testing.assert_array_equal(masked.tokens.input_ids[:2], ids[:2])


def test_positions_are_uniform_and_85_percent_show_the_mask() -> None:
    ids = np.full((2000, 34), 9, np.int32)
    ids[:, 0], ids[:, -1] = CLS, SEP
    batch = {"input_ids": ids, "token_type_ids": ids * 0, "attention_mask": ids * 0 + 1}
    masked = jax.device_get(corruption.mask(jax.random.key(5), tokens_of(batch), MASKING))
    used = masked.masked_weights > 0
    counts = np.bincount(masked.masked_positions[used], minlength=34)[1:-1]
    assert stats.chisquare(counts).pvalue > 1e-3
    shown = (masked.tokens.input_ids == MASK).sum()
    assert stats.binomtest(int(shown), int(used.sum()), 0.85).pvalue > 1e-3


def test_a_mask_rate_that_falls_by_hand() -> None:
    """Of 128 tokens 30, 22.5 and 15 %; the slots are those of 30 % throughout, and the last masks those of 15 %."""
    ids = np.full((4, 128), 9, np.int32)
    ids[:, 0], ids[:, -1] = CLS, SEP
    tokens = tokens_of({"input_ids": ids, "token_type_ids": ids * 0, "attention_mask": ids * 0 + 1})
    falling = dataclasses.replace(MASKING, mask_prob=((0.0, 0.3), (1.0, 0.15)))
    draw = jax.jit(lambda share: corruption.mask(jax.random.key(0), tokens, falling.at(share)))
    for share, count in ((0.0, 38), (0.5, 29), (1.0, 19)):
        masked = draw(jnp.float32(share))
        assert masked.masked_positions.shape == (4, 39)
        np.testing.assert_array_equal(masked.masked_weights.sum(axis=-1), [count] * 4)
    constant = corruption.mask(jax.random.key(0), tokens, MASKING)
    for found in (masked, corruption.mask(jax.random.key(0), tokens, falling)):
        np.testing.assert_array_equal(found.masked_positions[:, :19], constant.masked_positions)
        np.testing.assert_array_equal(found.tokens.input_ids, constant.tokens.input_ids)


def test_a_mask_rate_counts_no_more_than_its_own_slots() -> None:
    """Of 64 tokens 15 % are 9.6, and the published K is 9: also where another step's is larger."""
    ids = np.full((1, 64), 9, np.int32)
    falling = dataclasses.replace(MASKING, mask_prob=((0.0, 0.3), (1.0, 0.15)))
    for config in (MASKING, falling):
        assert corruption.num_to_mask(jnp.asarray(ids), config).tolist() == [9]
    assert corruption.num_to_mask(jnp.asarray(ids), falling.at(0.0)).tolist() == [19]


def test_masks_repeat_by_key_differ_by_key_and_differ_between_rows() -> None:
    ids = np.tile(np.arange(5, 37, dtype=np.int32), (8, 1))
    tokens = tokens_of({"input_ids": ids, "token_type_ids": ids * 0, "attention_mask": ids * 0 + 1})
    first, again, other = (corruption.mask(jax.random.key(key), tokens, MASKING) for key in (0, 0, 1))
    np.testing.assert_array_equal(first.masked_positions, again.masked_positions)
    assert (first.masked_positions != other.masked_positions).any()
    assert len({tuple(sorted(row)) for row in np.asarray(first.masked_positions).tolist()}) > 4


# One word of a block, all of one block and some of another, several blocks and a rest.
@pytest.mark.parametrize("vocab_size", [5, 133, 600])
@pytest.mark.parametrize("sampler", corruption.SAMPLERS)
def test_samples_follow_the_generators_distribution_at_its_temperature(sampler: str, vocab_size: int) -> None:
    logits = np.random.default_rng(0).normal(0, 2, vocab_size).astype(np.float32)
    logits[[1, vocab_size - 1]] = -np.inf, 3.0
    keys = corruption.row_keys(jax.random.key(2), 4000)
    draws = jax.jit(corruption.sample, static_argnums=(2, 3))(keys, jnp.tile(logits, (4000, 10, 1)), 2.0, sampler)
    weights = np.exp(logits.astype(np.float64) / 2)
    probabilities = weights / weights.sum()
    counts = np.bincount(np.asarray(draws).ravel(), minlength=vocab_size)
    assert counts.shape == (vocab_size,)
    assert counts[1] == 0
    often = probabilities * counts.sum() >= 5
    observed, expected = (
        np.append(values[often], values[~often].sum()) for values in (counts, probabilities * counts.sum())
    )
    assert stats.chisquare(observed[expected > 0], expected[expected > 0]).pvalue > 1e-3
    # Slots of a row, and rows, are drawn apart: pairs of neighbours are as independent as chance has them.
    likely = int(np.argmax(counts))
    hits = (np.asarray(draws) == likely).astype(float)
    for a, b in ((hits[:, :-1], hits[:, 1:]), (hits[:-1], hits[1:])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 4 / np.sqrt(a.size)


def test_inverting_the_cumulative_sum_by_hand() -> None:
    probabilities = np.zeros(260, np.float32)  # blocks of 128, 128 and 4
    probabilities[[3, 127, 130, 258]] = 0.25, 0.25, 0.125, 0.375
    uniform = np.array(
        [[0, 0], [0.1, 0.499], [0.1, 0.5], [0.4999, 0.9999], [0.5, 0], [0.6, 0.9999], [0.625, 0.3], [1 - 2**-24] * 2],
        np.float32,
    )
    logits = jnp.log(jnp.tile(probabilities, (1, len(uniform), 1)))
    drawn = corruption.invert_cdf(*jnp.asarray(uniform).T[:, None], logits)
    np.testing.assert_array_equal(drawn[0], [3, 3, 127, 127, 130, 130, 258, 258])


def test_label_means_really_different() -> None:
    tokens = tokens_of(random_batch(16, 32, seed=3))
    masked = corruption.mask(jax.random.key(0), tokens, MASKING)
    np.testing.assert_array_equal(corruption.original_ids(masked), tokens.input_ids)
    sampled = np.random.default_rng(0).integers(5, VOCAB_SIZE, masked.masked_ids.shape).astype(np.int32)
    sampled[:, 0] = masked.masked_ids[:, 0]  # a sample that equals the original counts as original
    corrupted = corruption.replace(masked, jnp.asarray(sampled))
    different = np.asarray(corrupted.tokens.input_ids != tokens.input_ids)
    np.testing.assert_array_equal(corrupted.labels_BL, different)
    for row in range(16):
        first = int(masked.masked_positions[row, 0])
        assert not different[row, first]
        for slot in np.flatnonzero(masked.masked_weights[row]):
            position = int(masked.masked_positions[row, slot])
            assert int(corrupted.tokens.input_ids[row, position]) == sampled[row, slot]
    assert different.sum() == (sampled != np.asarray(masked.masked_ids))[np.asarray(masked.masked_weights) > 0].sum()

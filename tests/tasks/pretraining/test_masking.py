"""Masking in the input pipeline: how many, which, how often, and that nobody shares masks by accident."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import seqio
from scipy import stats

from electra_jax.model.types import Tokens
from electra_jax.pretraining import corruption
from electra_jax.pretraining.corruption import DistinctPositions, MaskingConfig, max_predictions
from electra_jax.tasks.host_tensorflow import tf
from electra_jax.tasks.pretraining.masking import mask_example, mask_tokens

CLS, SEP, MASK = 101, 102, 103
LENGTH = 128
OPTIONS = {"mask_prob": 0.15, "mask_token_prob": 0.85, "cls_id": CLS, "sep_id": SEP, "mask_id": MASK}


def _masked(ids: list[int], seed: tuple[int, int], **options: float) -> dict[str, np.ndarray]:
    options = OPTIONS | {"num_slots": max_predictions(0.15, LENGTH)} | options
    ids = tf.constant(ids, tf.int32)
    features = mask_example(ids, tf.zeros_like(ids), tf.constant(seed, tf.int64), **options)
    return {key: value.numpy() for key, value in features.items()}


def _dataset(ids: np.ndarray, example_ids: range) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(
        {
            "input_ids": ids.astype(np.int32),
            "token_type_ids": np.zeros_like(ids, np.int32),
            "example_id": np.array(example_ids, np.int64),
        }
    )


def _mask_all(dataset: tf.data.Dataset, seed: int | None, **options: float) -> list[dict[str, np.ndarray]]:
    options = OPTIONS | {"num_slots": max_predictions(0.15, LENGTH)} | options
    with seqio.map_seed_manager(seed):
        return list(mask_tokens(dataset, **options).as_numpy_iterator())


def test_number_of_slots_is_the_published_one() -> None:
    assert [max_predictions(p, n) for p, n in ((0.15, 128), (0.15, 512), (0.25, 512))] == [19, 79, 130]


@pytest.mark.parametrize(
    ("num_tokens", "expected"),
    # n * 0.15 rounded half to even in float32, at least 1 (oracle: QUIRKS 6), at most 19 slots and n - 2 candidates.
    [(3, 1), (4, 1), (10, 2), (30, 4), (50, 8), (70, 10), (126, 19), (128, 19)],
)
def test_number_of_masked_positions(num_tokens: int, expected: int) -> None:
    ids = [CLS, *range(1000, 1000 + num_tokens - 2), SEP]
    features = _masked(ids, (1, 2))
    weights = features["masked_weights"]
    assert weights.dtype == np.float32
    assert weights.tolist() == [1.0] * expected + [0.0] * (19 - expected)
    positions = features["masked_positions"][:expected]
    assert len(set(positions.tolist())) == expected
    np.testing.assert_array_equal(features["masked_ids"][:expected], np.array(ids)[positions])
    assert not features["masked_positions"][expected:].any()
    assert not features["masked_ids"][expected:].any()
    changed = features["input_ids"] != np.array(ids)
    assert set(features["input_ids"][changed].tolist()) <= {MASK}
    assert set(np.flatnonzero(changed).tolist()) <= set(positions.tolist())
    assert features["attention_mask"].tolist() == [1] * num_tokens


@pytest.mark.parametrize("ids", [[CLS, SEP], [CLS, MASK, MASK, SEP], [CLS, SEP, SEP]])
def test_a_row_without_candidates_is_left_alone(ids: list[int]) -> None:
    features = _masked(ids, (0, 0))
    assert features["input_ids"].tolist() == ids
    assert not features["masked_weights"].any()


def test_no_more_are_masked_than_can_be() -> None:
    ids = [CLS, *[MASK] * 60, 1000, SEP]
    features = _masked(ids, (0, 0))
    assert features["masked_weights"].sum() == 1
    assert features["masked_positions"][0] == 61


@pytest.mark.parametrize("mask_prob", [0.15, 0.25])
def test_as_many_are_masked_as_on_the_device(mask_prob: float) -> None:
    lengths = range(2, LENGTH + 1)
    rows = [[CLS, *range(1000, 1000 + length - 2), SEP] for length in lengths]
    config = MaskingConfig(mask_prob, 0.85, positions=DistinctPositions(), cls_id=CLS, sep_id=SEP, mask_id=MASK)
    num_slots = max_predictions(mask_prob, LENGTH)
    ids_BL = np.array([row + [0] * (LENGTH - len(row)) for row in rows], np.int32)
    tokens = Tokens(ids_BL, np.zeros_like(ids_BL), (np.arange(LENGTH) < np.array(lengths)[:, None]).astype(np.int32))
    on_device = corruption.mask(jax.random.key(0), jax.tree.map(jnp.asarray, tokens), config)
    here = [_masked(row, (1, 2), num_slots=num_slots, mask_prob=mask_prob)["masked_weights"] for row in rows]
    np.testing.assert_array_equal(np.stack(here), on_device.masked_weights)


def test_statistics() -> None:
    row = np.arange(1000, 1000 + LENGTH)
    row[[0, 70, LENGTH - 1]] = CLS, SEP, SEP
    row[5], row[6] = MASK, 100  # [UNK] may be masked, [MASK] may not
    examples = _mask_all(_dataset(np.tile(row, (3000, 1)), range(3000)), seed=7)
    positions = np.concatenate([example["masked_positions"] for example in examples])
    counts = np.bincount(positions, minlength=LENGTH)
    never = [0, 5, 70, LENGTH - 1]
    assert not counts[never].any()
    assert stats.chisquare(np.delete(counts, never)).pvalue > 1e-4
    assert all(len(set(example["masked_positions"].tolist())) == 19 for example in examples)
    shown = np.mean([np.sum(example["input_ids"] != row) for example in examples]) / 19
    assert shown == pytest.approx(0.85, abs=4 * np.sqrt(0.85 * 0.15 / (3000 * 19)))
    # The coin for [MASK] must not depend on which slot it falls on.
    per_slot = np.array([row[e["masked_positions"]] != e["input_ids"][e["masked_positions"]] for e in examples])
    assert stats.chisquare(per_slot.sum(axis=0)).pvalue > 1e-4


def _positions(examples: list[dict[str, np.ndarray]]) -> list[tuple[int, ...]]:
    return [tuple(sorted(example["masked_positions"].tolist())) for example in examples]


def test_same_seed_same_masks_other_seed_and_other_epoch_other_masks() -> None:
    dataset = _dataset(np.tile(np.arange(1000, 1000 + LENGTH), (200, 1)), range(200))
    once = _positions(_mask_all(dataset, seed=3))
    assert once == _positions(_mask_all(dataset, seed=3))
    assert not set(once) & set(_positions(_mask_all(dataset, seed=4)))
    two_epochs = _positions(_mask_all(dataset.repeat(2), seed=3))
    assert two_epochs[:200] == once
    assert not set(two_epochs[200:]) & set(once)
    assert _positions(_mask_all(dataset, seed=None)) != _positions(_mask_all(dataset, seed=None))


def test_two_shards_with_one_seed_share_no_masks() -> None:
    dataset = _dataset(np.tile(np.arange(1000, 1000 + LENGTH), (400, 1)), range(400))
    shards = [_positions(_mask_all(dataset.shard(2, index), seed=3)) for index in (0, 1)]
    assert max(collections.Counter(shards[0] + shards[1]).values()) == 1

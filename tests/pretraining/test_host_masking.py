"""Masking on the host: how many, which, how often, and the same for an example wherever it is read."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from electra_jax.model.types import Tokens
from electra_jax.pretraining import corruption
from electra_jax.pretraining.corruption import MaskingConfig
from electra_jax.pretraining.host_masking import Batch, mask_batch

CLS, SEP, MASK, LENGTH, SLOTS = 101, 102, 103, 128, 19
CONFIG = MaskingConfig(
    0.15, 0.85, with_replacement=False, average_duplicates=False, cls_id=CLS, sep_id=SEP, mask_id=MASK
)


def batch_of(rows: list[list[int]]) -> Batch:
    """Padded to LENGTH."""
    ids_BL = np.array([row + [0] * (LENGTH - len(row)) for row in rows], np.int32)
    mask_BL = np.array([[1] * len(row) + [0] * (LENGTH - len(row)) for row in rows], np.int32)
    return {"input_ids": ids_BL, "token_type_ids": np.zeros_like(ids_BL), "attention_mask": mask_BL}


def random_rows(count: int) -> list[list[int]]:
    """Of all lengths, with a second [SEP] in the middle of the longer ones."""
    draw = np.random.default_rng(0)
    rows = []
    for number in range(count):
        words = draw.integers(1000, 2000, number % (LENGTH - 1)).tolist()
        if len(words) > 5:
            words[len(words) // 2] = SEP
        rows.append([CLS, *words, SEP][:LENGTH])
    return rows


def masked(batch: Batch, *, seed: int = 0, first: int = 0) -> Batch:
    return mask_batch(batch, config=CONFIG, seed=seed, first=first)


def test_what_is_masked_can_be_put_back_and_is_as_much_as_on_the_device() -> None:
    batch = batch_of(random_rows(3 * LENGTH))
    found = masked(batch)
    used = found["masked_weights"] > 0
    tokens = Tokens(*(jnp.array(batch[name]) for name in ("input_ids", "token_type_ids", "attention_mask")))
    on_device = jax.device_get(corruption.mask(jax.random.key(0), tokens, CONFIG))
    np.testing.assert_array_equal(found["masked_weights"], on_device.masked_weights)
    restored = found["input_ids"].copy()
    for row, (positions, originals, count) in enumerate(
        zip(found["masked_positions"], found["masked_ids"], used.sum(axis=1), strict=True)
    ):
        assert len(set(positions[:count].tolist())) == count
        assert set(restored[row, positions[:count]]) <= {MASK, *originals[:count].tolist()}
        restored[row, positions[:count]] = originals[:count]
    np.testing.assert_array_equal(restored, batch["input_ids"])
    assert not np.isin(found["masked_ids"][used], (CLS, SEP, MASK)).any()
    for name in ("masked_positions", "masked_ids"):
        assert found[name].shape == (3 * LENGTH, SLOTS)
        assert not found[name][~used].any()
    assert {name: values.dtype for name, values in found.items()} == {
        name: np.float32 if name == "masked_weights" else np.int32 for name in found
    }


@pytest.mark.parametrize("num_tokens", [40, LENGTH])
def test_statistics(num_tokens: int) -> None:
    """Every ordinary position as often as any other, and [MASK] in 85 % of them, whatever the slot."""
    row = list(range(1000, 1000 + num_tokens))
    row[0] = CLS
    row[5], row[6], row[num_tokens // 2], row[-1] = MASK, 100, SEP, SEP  # [UNK] may be masked, [MASK] may not
    batch = batch_of([row] * 4000)
    found = masked(batch, seed=7)
    count = int(found["masked_weights"][0].sum())
    positions = found["masked_positions"][:, :count]
    counts = np.bincount(positions.ravel(), minlength=num_tokens)
    never = [0, 5, num_tokens // 2, num_tokens - 1]
    assert not counts[never].any()
    assert stats.chisquare(np.delete(counts, never)).pvalue > 1e-4
    shown = np.take_along_axis(found["input_ids"], positions, axis=1) == MASK
    assert shown.mean() == pytest.approx(0.85, abs=4 * np.sqrt(0.85 * 0.15 / shown.size))
    assert stats.chisquare(shown.sum(axis=0)).pvalue > 1e-4


def test_an_examples_masks_depend_on_its_place_alone() -> None:
    batch = batch_of(random_rows(24))
    whole, again, other = masked(batch), masked(batch), masked(batch, seed=1)
    for name, values in whole.items():
        np.testing.assert_array_equal(again[name], values)
        parts = [
            masked({key: rows[start : start + 8] for key, rows in batch.items()}, first=start)[name]
            for start in (0, 8, 16)
        ]
        np.testing.assert_array_equal(np.concatenate(parts), values)
    assert (whole["masked_positions"] != other["masked_positions"]).any()
    later = masked(batch, first=24)
    same = (whole["masked_positions"] == later["masked_positions"]).all(axis=1)
    assert not same[whole["masked_weights"].sum(axis=1) > 3].any()


def test_rows_without_a_candidate_are_left_alone() -> None:
    batch = batch_of([[CLS, SEP], [CLS, MASK, SEP], [], [CLS, *[MASK] * 60, 1000, SEP]])
    found = masked(batch)
    assert found["masked_weights"].sum(axis=1).tolist() == [0, 0, 0, 1]
    np.testing.assert_array_equal(found["input_ids"][:3], batch["input_ids"][:3])
    assert found["masked_positions"][3, 0] == 61


def test_another_share_is_another_number_of_slots() -> None:
    config = dataclasses.replace(CONFIG, mask_prob=0.25)
    found = mask_batch(batch_of([[CLS, *range(1000, 1126), SEP]]), config=config, seed=0, first=0)
    assert found["masked_weights"].tolist() == [[1.0] * 32]

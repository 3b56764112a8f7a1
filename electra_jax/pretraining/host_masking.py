"""Masks a whole batch on the host, in NumPy; `pretraining.corruption` draws the same thing on the device."""

import numpy as np

from electra_jax.pretraining.corruption import MaskingConfig

Batch = dict[str, np.ndarray]


def mask_batch(batch: Batch, *, config: MaskingConfig, seed: int, first: int) -> Batch:
    """Masks positions of every row, drawn uniformly among its ordinary tokens.

    A row's draws are a function of the seed and of its place in the stream of all examples, whatever the batch, the
    number of processes or the place where a run was resumed. max(1, min(K, round(mask_prob * n))) distinct positions of
    n real tokens are masked, never more than there are ordinary ones (ELECTRA, section 2; rounded as the original).

    Args:
        batch: `input_ids`, `token_type_ids`, `attention_mask`, int32 [B, L].
        config: of masking without replacement.
        seed: of the stream.
        first: place of the first row in the stream; the others follow it.

    Returns:
        The batch, its ids masked, with `masked_positions`, `masked_ids` (the originals), int32 [B, K], and
        `masked_weights`, float32 [B, K]: 1 for a masked position; an unused slot is 0 in all three.
    """
    ids_BL, real_BL = batch["input_ids"], batch["attention_mask"] > 0
    num_rows, length = ids_BL.shape
    num_slots = config.max_predictions(length)
    special_BL = (ids_BL == config.cls_id) | (ids_BL == config.sep_id) | (ids_BL == config.mask_id)
    candidate_BL = real_BL & ~special_BL
    # A number is one step of the generator, so that a row's numbers begin at a place that is known. The key keeps it
    # apart from the generators of the same seed that shuffle.
    per_row = length + num_slots
    bits = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(0,))).advance(first * per_row)
    draw = np.random.Generator(bits).random((num_rows, per_row))
    order_BL, coin_BK = np.where(candidate_BL, draw[:, :length], -1.0), draw[:, length:]
    positions_BK = largest(order_BL, num_slots)

    wanted_B = np.round(real_BL.sum(axis=1).astype(np.float32) * np.float32(config.mask_prob)).astype(np.int32)
    wanted_B = np.minimum(np.clip(wanted_B, 1, num_slots), candidate_BL.sum(axis=1))
    used_BK = np.arange(num_slots) < wanted_B[:, None]
    positions_BK = np.where(used_BK, positions_BK, 0).astype(np.int32)
    originals_BK = np.take_along_axis(ids_BL, positions_BK, axis=1)
    masked_BL = ids_BL.copy()
    rows_B, slots_B = np.nonzero(used_BK & (coin_BK < config.mask_token_prob))
    masked_BL[rows_B, positions_BK[rows_B, slots_B]] = config.mask_id
    return batch | {
        "input_ids": masked_BL,
        "masked_positions": positions_BK,
        "masked_ids": np.where(used_BK, originals_BK, 0).astype(np.int32),
        "masked_weights": used_BK.astype(np.float32),
    }


def largest(values_BL: np.ndarray, count: int) -> np.ndarray:
    """The places of each row's largest values, the largest first, [B, count]."""
    places_BK = np.argpartition(values_BL, -count, axis=1)[:, -count:]
    order_BK = np.argsort(-np.take_along_axis(values_BL, places_BK, axis=1), axis=1)
    return np.take_along_axis(places_BK, order_BK, axis=1)

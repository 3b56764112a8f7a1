"""Mask the examples of a SeqIO task, by the specification that `pretraining.corruption.mask` follows on the device."""

from typing import Any

import seqio

from electra_jax.tasks.host_tensorflow import tf


def mask_example(
    input_ids: tf.Tensor,
    token_type_ids: tf.Tensor,
    seed: tf.Tensor,
    *,
    num_slots: int,
    mask_prob: float,
    mask_token_prob: float,
    cls_id: int,
    sep_id: int,
    mask_id: int,
) -> dict[str, tf.Tensor]:
    """Mask one unpadded example.

    The number of masked positions is max(1, min(K, round(mask_prob * n))), where n counts [CLS] and [SEP], rounded half
    to even in float32, as published. They are distinct, and drawn uniformly from the positions other than [CLS], [SEP]
    and [MASK]; if there are fewer of these, all of them are masked.

    Args:
        input_ids: int32 [n].
        token_type_ids: int32 [n].
        seed: int [2]; determines every draw.
        num_slots: K.
        mask_prob: share of the tokens to select.
        mask_token_prob: share of the selected tokens that become [MASK]; the others stay as they are.
        cls_id: id of [CLS].
        sep_id: id of [SEP].
        mask_id: id of [MASK].

    Returns:
        input_ids (masked), token_type_ids, attention_mask: int32 [n]; masked_positions, masked_ids (the originals):
        int32 [K]; masked_weights: float32 [K], 1 for a selected position. An unused slot is 0 in all three.
    """
    num_tokens = tf.shape(input_ids)[0]
    special = (input_ids == cls_id) | (input_ids == sep_id) | (input_ids == mask_id)
    num_wanted = tf.cast(tf.round(tf.cast(num_tokens, tf.float32) * tf.constant(mask_prob, tf.float32)), tf.int32)
    num_wanted = tf.clip_by_value(num_wanted, 1, num_slots)
    num_masked = tf.minimum(num_wanted, num_tokens - tf.reduce_sum(tf.cast(special, tf.int32)))

    seeds = tf.random.split(seed, 2)
    scores = tf.where(special, -1.0, tf.random.stateless_uniform(tf.shape(input_ids), seeds[0]))
    positions = tf.math.top_k(scores, num_masked).indices
    originals = tf.gather(input_ids, positions)
    becomes_mask = tf.random.stateless_uniform([num_slots], seeds[1])[:num_masked] < mask_token_prob
    masked_input_ids = tf.tensor_scatter_nd_update(
        input_ids, positions[:, None], tf.where(becomes_mask, mask_id, originals)
    )

    def slots(values: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(tf.pad(values, [[0, num_slots - num_masked]]), [num_slots])

    return {
        "input_ids": masked_input_ids,
        "token_type_ids": token_type_ids,
        "attention_mask": tf.ones_like(input_ids),
        "masked_positions": slots(positions),
        "masked_ids": slots(originals),
        "masked_weights": slots(tf.ones_like(positions, tf.float32)),
    }


@seqio.map_over_dataset(num_seeds=1)
def mask_tokens(features: dict[str, tf.Tensor], seed: tf.Tensor, **options: Any) -> dict[str, tf.Tensor]:
    """Mask each example of a dataset; `options` are those of `mask_example`.

    SeqIO gives the i-th example of every shard the same seed. The example's own number is therefore folded into it, so
    that no two shards and no two hosts share masks.
    """
    seed = tf.random.fold_in(seed, features["example_id"])
    return mask_example(features["input_ids"], features["token_type_ids"], seed, **options)

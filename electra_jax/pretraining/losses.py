"""Compute the losses of pre-training in float32, each as a (sum, weight) pair and never as a mean."""

import jax
import jax.numpy as jnp
import optax

from electra_jax.model.types import Loss


def masked_lm_loss(logits_BKV: jax.Array, masked_ids_BK: jax.Array, masked_weights_BK: jax.Array) -> Loss:
    """Return the cross-entropy of the original tokens at the masked positions (ELECTRA, section 2, L_MLM)."""
    nll_BK = optax.softmax_cross_entropy_with_integer_labels(logits_BKV.astype(jnp.float32), masked_ids_BK)
    return Loss(jnp.sum(nll_BK * masked_weights_BK), jnp.sum(masked_weights_BK))


def replaced_token_loss(logits_BL: jax.Array, labels_BL: jax.Array, attention_mask_BL: jax.Array) -> Loss:
    """Return the sigmoid cross-entropy of "was this token replaced?" over the mask (ELECTRA, section 2, L_Disc)."""
    weights_BL = attention_mask_BL.astype(jnp.float32)
    nll_BL = optax.sigmoid_binary_cross_entropy(logits_BL.astype(jnp.float32), labels_BL)
    return Loss(jnp.sum(nll_BL * weights_BL), jnp.sum(weights_BL))


def copying_log_probs(logits_BLV: jax.Array, gate_BL: jax.Array, read_ids_BL: jax.Array) -> jax.Array:
    """Return log(D [x is what was read] + (1 - D) softmax(x)) for every word x, with D = sigmoid(gate); [B, L, V]."""
    gate_BL1 = gate_BL[..., None].astype(jnp.float32)
    named_BLV = jax.nn.log_sigmoid(-gate_BL1) + jax.nn.log_softmax(logits_BLV.astype(jnp.float32), axis=-1)
    is_read_BLV = jnp.arange(logits_BLV.shape[-1])[None, None] == read_ids_BL[..., None]
    return jnp.where(is_read_BLV, jnp.logaddexp(named_BLV, jax.nn.log_sigmoid(gate_BL1)), named_BLV)


def copying_lm_loss(
    logits_BLV: jax.Array,
    gate_BL: jax.Array,
    read_ids_BL: jax.Array,
    original_ids_BL: jax.Array,
    attention_mask_BL: jax.Array,
) -> Loss:
    """Return the cross-entropy of all original tokens under `copying_log_probs` (ELECTRA, 3.4, All-Tokens MLM)."""
    weights_BL = attention_mask_BL.astype(jnp.float32)
    log_probs_BLV = copying_log_probs(logits_BLV, gate_BL, read_ids_BL)
    nll_BL = -jnp.take_along_axis(log_probs_BLV, original_ids_BL[..., None], axis=-1)[..., 0]
    return Loss(jnp.sum(nll_BL * weights_BL), jnp.sum(weights_BL))

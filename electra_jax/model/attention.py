"""Multi-head self-attention, of every token or of those in a window."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from electra_jax.model import matmul
from electra_jax.model.config import SLIDING, EncoderConfig
from electra_jax.model.layers import Dropout, LayerNorm, expand_to, logical
from electra_jax.model.rotary import Rotation, rotate


def within_window(length: int, reach: int) -> jax.Array:
    """Return which tokens are at most `reach` places away, int32 [L, S]."""
    places_L = jnp.arange(length)
    return (jnp.abs(places_L[:, None] - places_L[None, :]) <= reach).astype(jnp.int32)


class SelfAttention(nn.Module):
    """Multi-head scaled dot-product attention; kernels [D, H, C] and [H, C, D].

    Attributes:
        config: sizes and parts.
        kind: "full_attention" or "sliding_attention".
    """

    config: EncoderConfig
    kind: str

    @nn.compact
    def __call__(
        self, hidden_BLD: jax.Array, attention_mask: jax.Array, turn: Rotation | None, *, deterministic: bool
    ) -> jax.Array:
        """Map [B, L, D] to [B, L, D].

        Args:
            hidden_BLD: what is read.
            attention_mask: int, [B, S] or [B, L, S], as `Encoder` takes it.
            turn: the rotation of the positions; None without rotary positions.
            deterministic: without dropout.
        """
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        width, heads, channels = config.hidden_size, config.num_attention_heads, config.head_size

        def declare(name: str) -> tuple[jax.Array, jax.Array | None]:
            kernel_DHC = self.param(
                f"{name}_kernel",
                logical(config.initializer, "embed", "heads", "kv"),
                (width, heads, channels),
                jnp.float32,
            )
            if not config.attention_bias:
                return kernel_DHC, None
            bias_HC = self.param(
                f"{name}_bias", logical(nn.initializers.zeros, "heads", "kv"), (heads, channels), jnp.float32
            )
            return kernel_DHC, bias_HC

        # One product for all three, so that the hidden states are read once.
        kernels, biases = zip(*map(declare, ("query", "key", "value")), strict=True)
        kernel_ZDHC = jnp.stack(kernels)
        output_kernel_HCD = self.param(
            "output_kernel",
            logical(config.output_initializer, "heads", "kv", "embed"),
            (heads, channels, width),
            jnp.float32,
        )
        fused = config.attention == "fused"
        layout, length_axis = ("BLHC", 1) if fused else ("BHLC", 2)
        projected_Z = matmul.einsum(f"BLD,ZDHC->Z{layout}", hidden_BLD, kernel_ZDHC, dtype)
        if config.attention_bias:
            bias_Z = jnp.stack(biases).astype(projected_Z.dtype)
            projected_Z += bias_Z[:, None, None] if fused else bias_Z[:, None, :, None]
        query, key, value = projected_Z
        if config.qk_norm:
            query = LayerNorm(config.layer_norm_eps, "kv", query.dtype, config.norm_bias, name="query_norm")(query)
            key = LayerNorm(config.layer_norm_eps, "kv", key.dtype, config.norm_bias, name="key_norm")(key)
        if turn is not None:
            query = rotate(query, turn, length_axis=length_axis)
            key = rotate(key, turn, length_axis=length_axis)
        if self.kind == SLIDING:
            near_LS = within_window(hidden_BLD.shape[1], config.local_attention // 2)
            seen = attention_mask if attention_mask.ndim == 3 else attention_mask[:, None, :]
            attention_mask = seen * near_LS[None]
        if fused:
            context = matmul.fused_attention(query, key, value, attention_mask)
        else:
            context = self.attend(query, key, value, attention_mask, deterministic=deterministic)
        mixed_BLD = matmul.einsum(f"{layout},HCD->BLD", context, output_kernel_HCD, dtype)
        if not config.attention_bias:
            return mixed_BLD
        output_bias_D = self.param("output_bias", logical(nn.initializers.zeros, "embed"), (width,), jnp.float32)
        return mixed_BLD + expand_to(output_bias_D.astype(mixed_BLD.dtype), mixed_BLD)

    def attend(
        self,
        query_BHLC: jax.Array,
        key_BHSC: jax.Array,
        value_BHSC: jax.Array,
        attention_mask: jax.Array,
        *,
        deterministic: bool,
    ) -> jax.Array:
        """Compute attention with every probability written out, so that it can be dropped; return [B, H, L, C]."""
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        seen_BLS = attention_mask if attention_mask.ndim == 3 else attention_mask[:, None, :]
        # As in BERT, the penalty is finite, so that a token with nothing to attend to stays finite.
        bias_B1LS = (1.0 - seen_BLS[:, None].astype(jnp.float32)) * -10000.0
        scaled_BHLC = query_BHLC * query_BHLC.shape[-1] ** -0.5
        scores_BHLS = matmul.einsum("BHLC,BHSC->BHLS", scaled_BHLC, key_BHSC, dtype)
        probs_BHLS = jax.nn.softmax(scores_BHLS.astype(jnp.float32) + bias_B1LS, axis=-1).astype(value_BHSC.dtype)
        self.sow("intermediates", "probs", probs_BHLS)
        probs_BHLS = Dropout(config.attention_probs_dropout_prob, config.dropout_bits, config.dropout_prng)(
            probs_BHLS, deterministic=deterministic
        )
        return matmul.einsum("BHLS,BHSC->BHLC", probs_BHLS, value_BHSC, dtype)

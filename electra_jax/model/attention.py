"""Compute multi-head self-attention, over the whole row or over a window."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from electra_jax.model import matmul, windows
from electra_jax.model.config import FULL, EncoderConfig
from electra_jax.model.layers import Dropout, LayerNorm, expand_to, logical, unstacked
from electra_jax.model.rotary import Rotation, rotate


class SelfAttention(nn.Module):
    """Multi-head scaled dot-product attention; kernels [D, H, C] and [H, C, D].

    Attributes:
        config: the encoder's sizes and parts.
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
            hidden_BLD: the layer's input.
            attention_mask: int, [B, S] or [B, L, S], as `Encoder` takes it.
            turn: the rotation of the positions; None without rotary positions.
            deterministic: whether to run without dropout.
        """
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        layout = "BLHC" if config.attention == "fused" else "BHLC"
        query, key, value = self.project(hidden_BLD, layout, turn)
        output_kernel_HCD = self.param(
            "output_kernel",
            logical(config.output_initializer, "heads", "kv", "embed"),
            (config.num_attention_heads, config.head_size, config.hidden_size),
            jnp.float32,
        )
        context = self.mix(query, key, value, attention_mask, deterministic=deterministic)
        mixed_BLD = matmul.einsum(f"{layout},HCD->BLD", context, output_kernel_HCD, dtype)
        if not config.attention_bias:
            return mixed_BLD
        output_bias_D = self.param(
            "output_bias", logical(nn.initializers.zeros, "embed"), (config.hidden_size,), jnp.float32
        )
        return mixed_BLD + expand_to(output_bias_D.astype(mixed_BLD.dtype), mixed_BLD)

    def project(
        self, hidden_BLD: jax.Array, layout: str, turn: Rotation | None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return queries, keys and values in the layout "BHLC" or "BLHC", with any LayerNorm and rotation applied."""
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        heads, channels = config.num_attention_heads, config.head_size

        def declare(name: str) -> tuple[jax.Array, jax.Array | None]:
            kernel_DHC = self.param(
                f"{name}_kernel",
                logical(config.initializer, "embed", "heads", "kv"),
                (config.hidden_size, heads, channels),
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
        projected_Z = matmul.einsum(f"BLD,ZDHC->Z{layout}", hidden_BLD, jnp.stack(kernels), dtype)
        if config.attention_bias:
            bias_Z = jnp.stack(biases).astype(projected_Z.dtype)
            projected_Z += bias_Z[:, None, None] if layout == "BLHC" else bias_Z[:, None, :, None]
        query, key, value = unstacked(projected_Z)
        if config.qk_norm:
            norm = partial(LayerNorm, config.layer_norm_eps, "kv", query.dtype, config.norm_bias)
            query, key = norm(name="query_layer_norm")(query), norm(name="key_layer_norm")(key)
        if turn is not None:
            query, key = (rotate(values, turn, length_axis=layout.index("L")) for values in (query, key))
        return query, key, value

    def mix(
        self, query: jax.Array, key: jax.Array, value: jax.Array, attention_mask: jax.Array, *, deterministic: bool
    ) -> jax.Array:
        """Return the weighted mean of the values that each query attends to, in the layout of the queries."""
        fused = self.config.attention == "fused"
        attend = self.attend_fused if fused else partial(self.attend, deterministic=deterministic)
        if self.kind == FULL:
            return attend(query, key, value, attention_mask)
        axis, reach = 1 if fused else 2, self.config.local_attention // 2
        length = query.shape[axis]
        # Recorded probabilities must be those of whole rows.
        if not windows.is_cut(length, reach) or self.is_mutable_collection("intermediates"):
            return attend(query, key, value, windows.seen_in_row(attention_mask, reach))
        cut = partial(windows.in_blocks, axis=axis, width=reach)
        around = partial(windows.with_neighbours, axis=axis)
        seen = windows.seen_in_blocks(attention_mask, reach)
        context = attend(cut(query), around(cut(key)), around(cut(value)), seen)
        return windows.joined(context, axis=axis, length=length)

    def attend_fused(self, query: jax.Array, key: jax.Array, value: jax.Array, attention_mask: jax.Array) -> jax.Array:
        """Compute attention with the backend's kernel; the arguments are those of `attend`, with L before H."""
        if query.ndim == 4:
            return matmul.fused_attention(query, key, value, attention_mask)
        flat = (array.reshape(-1, *array.shape[2:]) for array in (query, key, value))
        mask = jnp.broadcast_to(attention_mask, (len(query), *attention_mask.shape[1:]))
        return matmul.fused_attention(*flat, mask.reshape(-1, *mask.shape[2:])).reshape(query.shape)

    def attend(
        self, query: jax.Array, key: jax.Array, value: jax.Array, attention_mask: jax.Array, *, deterministic: bool
    ) -> jax.Array:
        """Compute attention with explicit probabilities, which dropout needs; the result has the shape of `query`.

        Args:
            query: [B, H, L, C]; [B, H, G, W, C] in blocks.
            key, value: [B, H, S, C]; [B, H, G, S, C].
            attention_mask: int, 1 where a query may attend to a key, [B, S] or [B, L, S]; [B, G, W, S].
            deterministic: whether to run without dropout.
        """
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        batch = "BH" if query.ndim == 4 else "BHG"
        seen = attention_mask if attention_mask.ndim > 2 else attention_mask[:, None, :]
        # As in BERT, the penalty is finite, so that a token with nothing to attend to stays finite.
        bias = (1.0 - seen[:, None].astype(jnp.float32)) * -10000.0
        scaled = query * query.shape[-1] ** -0.5
        scores = matmul.einsum(f"{batch}LC,{batch}SC->{batch}LS", scaled, key, dtype)
        probs = jax.nn.softmax(scores.astype(jnp.float32) + bias, axis=-1).astype(value.dtype)
        self.sow("intermediates", "probs", probs)
        probs = Dropout(config.attention_probs_dropout_prob, config.dropout_bits, config.dropout_prng)(
            probs, deterministic=deterministic
        )
        return matmul.einsum(f"{batch}LS,{batch}SC->{batch}LC", probs, value, dtype)

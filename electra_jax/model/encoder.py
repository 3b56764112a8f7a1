"""The Transformer encoder of BERT and ELECTRA: embeddings, attention, feed-forward, a scanned stack of layers.

Parameters are float32 and carry logical axis names (see `layers`). Matrix products run in `config.dtype`; softmax and
LayerNorm run in float32.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from electra_jax.errors import UserError
from electra_jax.model import matmul
from electra_jax.model.layers import (
    DROPOUT_GENERATORS,
    DROPOUT_INTEGERS,
    Dropout,
    Initializer,
    LayerNorm,
    Linear,
    constrain,
    expand_to,
    gelu,
    logical,
)

# T5X's names -> what `jax.checkpoint` may keep of a layer; None where it is not used.
REMAT_POLICIES = {
    "none": None,
    "minimal": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """The sizes and rates of an encoder, with BERT's field names.

    Attributes:
        vocab_size: V.
        hidden_size: D.
        embedding_size: E; where it differs from D, embeddings are projected.
        num_hidden_layers: N.
        num_attention_heads: H, which divides D.
        intermediate_size: F.
        max_position_embeddings: the longest sequence.
        type_vocab_size: T.
        hidden_dropout_prob, attention_probs_dropout_prob: in [0, 1).
        dropout_bits: random bits for each decision of dropout, 8, 16 or 32: fewer are faster and round the rate to a
            multiple of 2^-bits (see `layers.keep_mask`).
        dropout_prng: "threefry2x32", or "rbg", the hardware's generator (see `layers.keep_mask`).
        initializer_range: standard deviation of the normal distribution before it is truncated at two of them.
        layer_norm_eps: added to the variance.
        dtype: "float32" or "bfloat16", for matrix products.
        attention: "exact", written out, with dropout; or "fused", the backend's own kernel, which stores no attention
            matrix and has no dropout (see `matmul.fused_attention`).
        scan_unroll: layers per iteration of the loop over layers; the number of layers unrolls it completely.
        remat_policy: what the backward pass recomputes of a layer: "none", "minimal" (everything but its products with
            parameters) or "full" (everything but its input). Use it with scan_unroll = 1: in an unrolled stack the
            CPU's compiler merges both computations, and no memory is saved.
    """

    vocab_size: int
    hidden_size: int
    embedding_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    hidden_dropout_prob: float
    attention_probs_dropout_prob: float
    dropout_bits: int
    dropout_prng: str
    initializer_range: float
    layer_norm_eps: float
    dtype: str
    attention: str
    scan_unroll: int
    remat_policy: str

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UserError: if a setting has an unknown value, or fused attention is asked for with dropout.
            ValueError: if the heads do not divide the hidden size.
        """
        if self.remat_policy not in REMAT_POLICIES:
            raise UserError(
                f"EncoderConfig.remat_policy is {self.remat_policy!r}: it must be one of {', '.join(REMAT_POLICIES)}"
            )
        if self.attention not in matmul.ATTENTIONS:
            raise UserError(
                f"EncoderConfig.attention is {self.attention!r}: it must be one of {', '.join(matmul.ATTENTIONS)}"
            )
        if self.attention == "fused" and self.attention_probs_dropout_prob:
            raise UserError(
                f"fused attention has no dropout, and EncoderConfig.attention_probs_dropout_prob is "
                f"{self.attention_probs_dropout_prob}: set ATTENTION_DROPOUT to 0.0, or ATTENTION to 'exact'"
            )
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not divisible by num_attention_heads {self.num_attention_heads}"
            )
        if self.dropout_prng not in DROPOUT_GENERATORS:
            raise UserError(
                f"EncoderConfig.dropout_prng is {self.dropout_prng!r}: it must be one of "
                f"{', '.join(DROPOUT_GENERATORS)}"
            )
        if self.dropout_bits not in DROPOUT_INTEGERS:
            raise UserError(
                f"EncoderConfig.dropout_bits is {self.dropout_bits}: it must be one of {sorted(DROPOUT_INTEGERS)}"
            )

    @property
    def initializer(self) -> Initializer:
        """Return BERT's truncated normal: cut at two standard deviations and not rescaled, which leaves 0.88 of one."""
        return nn.initializers.truncated_normal(self.initializer_range)


class Embeddings(nn.Module):
    """Word, position and token-type tables and their LayerNorm, which generator and discriminator can share."""

    config: EncoderConfig

    def setup(self) -> None:
        """Declare the tables."""
        config = self.config
        shapes = {
            "word_embeddings": (config.vocab_size, "vocab"),
            "position_embeddings": (config.max_position_embeddings, "abspos_buckets"),
            "token_type_embeddings": (config.type_vocab_size, None),
        }
        for name, (rows, axis) in shapes.items():
            init = logical(self.table_initializer(), axis, "embed")
            table = self.param(name, init, (rows, config.embedding_size), jnp.float32)
            # Looking up whole rows is far cheaper than looking up slices of the embedding axis.
            setattr(self, name, constrain(table, axis, None))
        self.layer_norm = LayerNorm(config.layer_norm_eps, "embed", jnp.dtype(config.dtype))
        self.dropout = Dropout(config.hidden_dropout_prob, config.dropout_bits, config.dropout_prng)

    def table_initializer(self) -> Initializer:
        """Return the initializer of the three tables."""
        return self.config.initializer

    def word_table(self) -> jax.Array:
        """Return the word table [V, E], for a head that is tied to it."""
        return self.word_embeddings

    def lookup(
        self, input_ids_BL: jax.Array, token_type_ids_BL: jax.Array, position_ids_BL: jax.Array | None
    ) -> jax.Array:
        """Sum the three rows of each token, float32 [B, L, E]; without position ids, count along the row."""
        if position_ids_BL is None:
            positions_xLE = self.position_embeddings[None, : input_ids_BL.shape[1]]
        else:
            positions_xLE = jnp.take(self.position_embeddings, position_ids_BL, axis=0)
        return (
            jnp.take(self.word_embeddings, input_ids_BL, axis=0)
            + positions_xLE
            + jnp.take(self.token_type_embeddings, token_type_ids_BL, axis=0)
        )

    def __call__(
        self,
        input_ids_BL: jax.Array,
        token_type_ids_BL: jax.Array,
        position_ids_BL: jax.Array | None = None,
        *,
        deterministic: bool,
    ) -> jax.Array:
        """Embed int32 ids and types [B, L] as [B, L, E]; without position ids, count along the row."""
        embedded_BLE = self.layer_norm(self.lookup(input_ids_BL, token_type_ids_BL, position_ids_BL))
        return self.dropout(embedded_BLE, deterministic=deterministic)


class DisentangledEmbeddings(Embeddings):
    """Tables that a tower adds to another tower's embeddings without training those (DeBERTaV3, section 3.3).

    They start at zero and are added to the other tower's tables, through which no gradient flows back. The LayerNorm is
    this tower's own.
    """

    base: Embeddings

    def table_initializer(self) -> Initializer:
        """Return zeros, with which the sum starts at the other tower's tables."""
        return nn.initializers.zeros

    def word_table(self) -> jax.Array:
        """Return the sum of both word tables, [V, E]."""
        return jax.lax.stop_gradient(self.base.word_table()) + self.word_embeddings

    def lookup(
        self, input_ids_BL: jax.Array, token_type_ids_BL: jax.Array, position_ids_BL: jax.Array | None
    ) -> jax.Array:
        """Sum both towers' rows of each token, float32 [B, L, E]."""
        common_BLE = self.base.lookup(input_ids_BL, token_type_ids_BL, position_ids_BL)
        return jax.lax.stop_gradient(common_BLE) + super().lookup(input_ids_BL, token_type_ids_BL, position_ids_BL)


class SelfAttention(nn.Module):
    """Multi-head scaled dot-product attention; kernels [D, H, C] and [H, C, D]."""

    config: EncoderConfig

    @nn.compact
    def __call__(self, hidden_BLD: jax.Array, attention_mask: jax.Array, *, deterministic: bool) -> jax.Array:
        """Map [B, L, D] to [B, L, D]; the mask is int, [B, S] or [B, L, S], as `Encoder` takes it."""
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        width, heads = config.hidden_size, config.num_attention_heads
        channels = width // heads

        def declare(name: str) -> tuple[jax.Array, jax.Array]:
            kernel_DHC = self.param(
                f"{name}_kernel",
                logical(config.initializer, "embed", "heads", "kv"),
                (width, heads, channels),
                jnp.float32,
            )
            bias_HC = self.param(
                f"{name}_bias", logical(nn.initializers.zeros, "heads", "kv"), (heads, channels), jnp.float32
            )
            return kernel_DHC, bias_HC

        # One product for all three, so that the hidden states are read once.
        kernels, biases = zip(*map(declare, ("query", "key", "value")), strict=True)
        kernel_ZDHC, bias_ZHC = jnp.stack(kernels), jnp.stack(biases)
        output_kernel_HCD = self.param(
            "output_kernel",
            logical(config.initializer, "heads", "kv", "embed"),
            (heads, channels, width),
            jnp.float32,
        )
        output_bias_D = self.param("output_bias", logical(nn.initializers.zeros, "embed"), (width,), jnp.float32)
        if config.attention == "fused":
            projected_ZBLHC = matmul.einsum("BLD,ZDHC->ZBLHC", hidden_BLD, kernel_ZDHC, dtype)
            projected_ZBLHC += bias_ZHC.astype(projected_ZBLHC.dtype)[:, None, None]
            context_BLHC = matmul.fused_attention(*projected_ZBLHC, attention_mask)
            mixed_BLD = matmul.einsum("BLHC,HCD->BLD", context_BLHC, output_kernel_HCD, dtype)
        else:
            projected_ZBHLC = matmul.einsum("BLD,ZDHC->ZBHLC", hidden_BLD, kernel_ZDHC, dtype)
            projected_ZBHLC += bias_ZHC.astype(projected_ZBHLC.dtype)[:, None, :, None]
            context_BHLC = self.attend(*projected_ZBHLC, attention_mask, deterministic=deterministic)
            mixed_BLD = matmul.einsum("BHLC,HCD->BLD", context_BHLC, output_kernel_HCD, dtype)
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


class EncoderLayer(nn.Module):
    """Attention and feed-forward, each followed by dropout, the residual connection and LayerNorm (post-LayerNorm)."""

    config: EncoderConfig
    deterministic: bool

    @nn.compact
    def __call__(self, hidden_BLD: jax.Array, attention_mask: jax.Array) -> tuple[jax.Array, None]:
        """Map [B, L, D] to [B, L, D], as one step of the scan over layers."""
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        hidden_BLD = constrain(hidden_BLD, "batch", None, None)

        def add_and_norm(name: str, residual_BLD: jax.Array, update_BLD: jax.Array) -> jax.Array:
            update_BLD = Dropout(config.hidden_dropout_prob, config.dropout_bits, config.dropout_prng)(
                update_BLD, deterministic=self.deterministic
            )
            return LayerNorm(config.layer_norm_eps, "embed", dtype, name=name)(
                residual_BLD.astype(update_BLD.dtype) + update_BLD
            )

        attended_BLD = SelfAttention(config, name="attention")(
            hidden_BLD, attention_mask, deterministic=self.deterministic
        )
        hidden_BLD = add_and_norm("attention_layer_norm", hidden_BLD, attended_BLD)
        inner_BLF = Linear(config.intermediate_size, ("embed", "mlp"), config.initializer, dtype, name="intermediate")(
            hidden_BLD
        )
        outer_BLD = Linear(config.hidden_size, ("mlp", "embed"), config.initializer, dtype, name="output")(
            gelu(inner_BLF)
        )
        hidden_BLD = add_and_norm("output_layer_norm", hidden_BLD, outer_BLD)
        self.sow("intermediates", "hidden", hidden_BLD)
        return hidden_BLD, None


class Encoder(nn.Module):
    """A stack of layers over embedded tokens; its parameters have a leading axis `layers` (N).

    Applied with `mutable="intermediates"`, it also returns its input (`embedded`) and every layer's `hidden` states
    and, for exact attention, `probs`, stacked over layers.
    """

    config: EncoderConfig

    @nn.compact
    def __call__(self, embedded_BLE: jax.Array, attention_mask: jax.Array, *, deterministic: bool) -> jax.Array:
        """Return hidden states [B, L, D] in `config.dtype`.

        Args:
            embedded_BLE: embedded tokens.
            attention_mask: int, [B, S], 1 for a real token (fused attention needs padding to come last), or [B, L, S],
                1 where token L may attend to token S.
            deterministic: without dropout.
        """
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        hidden_BLD = embedded_BLE = constrain(embedded_BLE, "batch", None, None)
        if config.embedding_size != config.hidden_size:
            # "embed" can name only one axis of a parameter, and the hidden axis is the one that is sharded.
            hidden_BLD = Linear(
                config.hidden_size,
                (None, "embed"),
                nn.initializers.glorot_uniform(),
                dtype,
                name="embeddings_project",
            )(embedded_BLE)
        hidden_BLD = hidden_BLD.astype(dtype)
        self.sow("intermediates", "embedded", hidden_BLD)
        layer = EncoderLayer
        if (policy := REMAT_POLICIES[config.remat_policy]) is not None:
            # Without the loop, XLA would merge the recomputation with the first computation.
            unrolled = config.scan_unroll >= config.num_hidden_layers
            layer = nn.remat(EncoderLayer, prevent_cse=unrolled, policy=policy)
        layers = nn.scan(
            layer,
            variable_axes={"params": 0, "intermediates": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=nn.broadcast,
            length=config.num_hidden_layers,
            unroll=1 if self.is_initializing() else config.scan_unroll,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        hidden_BLD, _ = layers(config, deterministic, name="layers")(hidden_BLD, attention_mask)
        return constrain(hidden_BLD, "batch", None, None)

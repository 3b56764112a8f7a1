"""The Transformer encoder of BERT and ELECTRA: embeddings, attention, feed-forward, a scanned stack of layers.

Every parameter is declared at its true rank with logical axis names (T5X's vocabulary of names), so that one set
of rules shards it over any mesh. Parameters are float32; products run in `config.dtype`; softmax and LayerNorm
in float32.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from electra_jax.errors import UserError
from electra_jax.model import matmul
from electra_jax.model.dropout import DECISION_TYPES, GENERATORS, Dropout

Initializer = Callable[..., jax.Array]
# By T5X's names, what `jax.checkpoint` may keep of a layer; None where it has no part.
REMAT_POLICIES = {
    "none": None,
    "minimal": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Sizes and rates of one encoder, with BERT's field names.

    Attributes:
        vocab_size: V.
        hidden_size: D.
        embedding_size: E; where it differs from D, a projection stands between.
        num_hidden_layers: N.
        num_attention_heads: H, which divides D.
        intermediate_size: F.
        max_position_embeddings: longest sequence.
        type_vocab_size: T.
        hidden_dropout_prob, attention_probs_dropout_prob: in [0, 1).
        dropout_bits: random bits for each decision of dropout, 8, 16 or 32: fewer are faster and round the rate to a
            multiple of 2^-bits (see `dropout.keep_mask`).
        dropout_prng: "threefry2x32", or "rbg", the generator of the hardware: see `dropout.keep_mask`.
        initializer_range: standard deviation before truncation at two of them.
        layer_norm_eps: added to the variance.
        dtype: "float32" or "bfloat16", of the products.
        attention: "exact", written out, with its dropout; or "fused", the backend's own kernel, which keeps no
            attention matrix and has no dropout: see `products.fused_attention`.
        scan_unroll: layers per iteration of the loop over layers; the number of layers unrolls it.
        remat_policy: what the backward pass computes again: "none" of what a layer computed, "minimal" (everything but
            its products with parameters) or "full" (everything but the layer's input). Goes with scan_unroll = 1: in an
            unrolled stack the CPU's compiler finds both computations and keeps one, at no memory saved.
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
    initializer_range: float
    layer_norm_eps: float
    dtype: str
    scan_unroll: int
    remat_policy: str
    # Bound in every shipped file; the values are for config.gin and model.json from before there was a choice.
    dropout_prng: str = "threefry2x32"
    attention: str = "exact"

    def __post_init__(self) -> None:
        """Refuses sizes and settings that do not fit together, and names of nothing."""
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
        if self.dropout_prng not in GENERATORS:
            raise UserError(
                f"EncoderConfig.dropout_prng is {self.dropout_prng!r}: it must be one of {', '.join(GENERATORS)}"
            )
        if self.dropout_bits not in DECISION_TYPES:
            raise UserError(
                f"EncoderConfig.dropout_bits is {self.dropout_bits}: it must be one of {sorted(DECISION_TYPES)}"
            )

    @property
    def initializer(self) -> Initializer:
        """Truncated normal as in BERT: cut at two standard deviations, not rescaled (so its sd is 0.88 of it)."""
        return nn.initializers.truncated_normal(self.initializer_range)


def logical(initializer: Initializer, *axes: str | None) -> Initializer:
    """The initialiser with the logical names of its parameter's axes attached."""
    return nn.with_logical_partitioning(initializer, axes)


def constrain(values: jax.Array, *axes: str | None) -> jax.Array:
    """Values laid out over the mesh as the rules say of these axes; as they are where there are no rules.

    Without it XLA may gather a whole batch to spare itself the gathering of a layer's parameters.
    """
    return nn.with_logical_constraint(values, axes)


class Linear(nn.Module):
    """x W + b over the last axis, kernel [in, out]; the product in `dtype`."""

    features: int
    axes: tuple[str | None, str | None]
    kernel_init: Initializer
    dtype: Any

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """[..., in] -> [..., out]."""
        kernel = self.param(
            "kernel", logical(self.kernel_init, *self.axes), (inputs.shape[-1], self.features), jnp.float32
        )
        bias = self.param("bias", logical(nn.initializers.zeros, self.axes[1]), (self.features,), jnp.float32)
        outputs = matmul.dense(inputs, kernel, self.dtype)
        return outputs + bias.astype(outputs.dtype)


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis in float32, returned in `dtype`."""

    epsilon: float
    axis: str
    dtype: Any

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Any shape."""
        size = inputs.shape[-1:]
        scale = self.param("scale", logical(nn.initializers.ones, self.axis), size, jnp.float32)
        bias = self.param("bias", logical(nn.initializers.zeros, self.axis), size, jnp.float32)
        inputs = inputs.astype(jnp.float32)
        centred = inputs - jnp.mean(inputs, axis=-1, keepdims=True)
        variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
        return (centred * jax.lax.rsqrt(variance + self.epsilon) * scale + bias).astype(self.dtype)


class Embeddings(nn.Module):
    """Word, position and token-type tables and their LayerNorm: what generator and discriminator can share."""

    config: EncoderConfig

    def setup(self) -> None:
        """Declares the tables."""
        config = self.config
        shapes = {
            "word_embeddings": (config.vocab_size, "vocab"),
            "position_embeddings": (config.max_position_embeddings, "abspos_buckets"),
            "token_type_embeddings": (config.type_vocab_size, None),
        }
        for name, (rows, axis) in shapes.items():
            init = logical(self.table_initializer(), axis, "embed")
            table = self.param(name, init, (rows, config.embedding_size), jnp.float32)
            # Whole rows: those of a batch are found far more cheaply in them than in slices of the embedding axis.
            setattr(self, name, constrain(table, axis, None))
        self.layer_norm = LayerNorm(config.layer_norm_eps, "embed", jnp.dtype(config.dtype))
        self.dropout = Dropout(config.hidden_dropout_prob, config.dropout_bits, config.dropout_prng)

    def table_initializer(self) -> Initializer:
        """Of the three tables."""
        return self.config.initializer

    def word_table(self) -> jax.Array:
        """The word table [V, E], for a head that is tied to it."""
        return self.word_embeddings

    def lookup(
        self, input_ids_BL: jax.Array, token_type_ids_BL: jax.Array, position_ids_BL: jax.Array | None
    ) -> jax.Array:
        """The sum of the three rows of each token, float32 [B, L, E]; positions are those in the row if None."""
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
        """Int32 ids, types, and positions where they are not those in the row -> [B, L, E]."""
        embedded_BLE = self.layer_norm(self.lookup(input_ids_BL, token_type_ids_BL, position_ids_BL))
        return self.dropout(embedded_BLE, deterministic=deterministic)


class DisentangledEmbeddings(Embeddings):
    """What a tower adds to another's embeddings without pulling at them (DeBERTaV3, section 3.3).

    Its tables start at zero and are added to the other's, through which no gradient flows back: the other tower alone
    decides where the common tables go. The LayerNorm is its own.
    """

    base: Embeddings

    def table_initializer(self) -> Initializer:
        """The sum starts where the other's tables are."""
        return nn.initializers.zeros

    def word_table(self) -> jax.Array:
        """The sum of both word tables, [V, E]."""
        return jax.lax.stop_gradient(self.base.word_table()) + self.word_embeddings

    def lookup(
        self, input_ids_BL: jax.Array, token_type_ids_BL: jax.Array, position_ids_BL: jax.Array | None
    ) -> jax.Array:
        """The sum of both tables' rows of each token, float32 [B, L, E]."""
        common_BLE = self.base.lookup(input_ids_BL, token_type_ids_BL, position_ids_BL)
        return jax.lax.stop_gradient(common_BLE) + super().lookup(input_ids_BL, token_type_ids_BL, position_ids_BL)


class SelfAttention(nn.Module):
    """Multi-head scaled dot-product attention; kernels [D, H, C] and [H, C, D]."""

    config: EncoderConfig

    @nn.compact
    def __call__(self, hidden_BLD: jax.Array, attention_mask: jax.Array, *, deterministic: bool) -> jax.Array:
        """[B, L, D] and which tokens are seen, int [B, S] or [B, L, S], -> [B, L, D]."""
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

        # One product for the three: the hidden states are read once.
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
        return mixed_BLD + output_bias_D.astype(mixed_BLD.dtype)

    def attend(
        self,
        query_BHLC: jax.Array,
        key_BHSC: jax.Array,
        value_BHSC: jax.Array,
        attention_mask: jax.Array,
        *,
        deterministic: bool,
    ) -> jax.Array:
        """The exact attention: every probability is written out, and may be dropped; [B, H, L, C]."""
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        seen_BLS = attention_mask if attention_mask.ndim == 3 else attention_mask[:, None, :]
        # As in BERT: a finite penalty, so that a token with nothing to attend to stays finite.
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
    """Attention and feed-forward, each followed by dropout, the residual and LayerNorm (post-LayerNorm)."""

    config: EncoderConfig
    deterministic: bool

    @nn.compact
    def __call__(self, hidden_BLD: jax.Array, attention_mask: jax.Array) -> tuple[jax.Array, None]:
        """One step of the scan over layers: [B, L, D] -> [B, L, D]."""
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        hidden_BLD = constrain(hidden_BLD, "batch", None, None)

        def close(name: str, residual_BLD: jax.Array, update_BLD: jax.Array) -> jax.Array:
            update_BLD = Dropout(config.hidden_dropout_prob, config.dropout_bits, config.dropout_prng)(
                update_BLD, deterministic=self.deterministic
            )
            return LayerNorm(config.layer_norm_eps, "embed", dtype, name=name)(
                residual_BLD.astype(update_BLD.dtype) + update_BLD
            )

        attended_BLD = SelfAttention(config, name="attention")(
            hidden_BLD, attention_mask, deterministic=self.deterministic
        )
        hidden_BLD = close("attention_layer_norm", hidden_BLD, attended_BLD)
        inner_BLF = Linear(config.intermediate_size, ("embed", "mlp"), config.initializer, dtype, name="intermediate")(
            hidden_BLD
        )
        outer_BLD = Linear(config.hidden_size, ("mlp", "embed"), config.initializer, dtype, name="output")(
            gelu(inner_BLF)
        )
        hidden_BLD = close("output_layer_norm", hidden_BLD, outer_BLD)
        self.sow("intermediates", "hidden", hidden_BLD)
        return hidden_BLD, None


class Encoder(nn.Module):
    """A stack of layers over embedded tokens; its parameters carry a leading axis `layers` (N).

    Under `mutable="intermediates"` it also returns its input (`embedded`) and every layer's `hidden` and attention
    `probs` (of exact attention), stacked over layers.
    """

    config: EncoderConfig

    @nn.compact
    def __call__(self, embedded_BLE: jax.Array, attention_mask: jax.Array, *, deterministic: bool) -> jax.Array:
        """[B, L, E] and an int mask -> [B, L, D] in `config.dtype`.

        Args:
            embedded_BLE: embedded tokens.
            attention_mask: [B, S], 1 for a real token (of fused attention, padding comes last), or [B, L, S], 1 where
                token L may attend to token S.
            deterministic: no dropout.
        """
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        hidden_BLD = embedded_BLE = constrain(embedded_BLE, "batch", None, None)
        if config.embedding_size != config.hidden_size:
            # "embed" may name only one axis of a parameter, and the hidden side is the one that is sharded.
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
            # Without the loop, XLA would find the second computation equal to the first and keep that.
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


def gelu(inputs: jax.Array) -> jax.Array:
    """The exact (erf) Gaussian error linear unit."""
    # jax.nn.gelu is written with erfc, which costs more on CPU.
    return 0.5 * inputs * (1 + jax.lax.erf(inputs * 0.5**0.5))

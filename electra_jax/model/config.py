"""Configure an encoder: its sizes, parts and dropout rates."""

import dataclasses
from typing import Annotated

import jax
from flax import linen as nn

from electra_jax import ranges
from electra_jax.errors import UserError
from electra_jax.model import matmul
from electra_jax.model.layers import DROPOUT_GENERATORS, DROPOUT_INTEGERS, Initializer
from electra_jax.ranges import AT_LEAST_0, AT_LEAST_1, POSITIVE, SIZE, UNDER_1, Range

# T5X's names -> what `jax.checkpoint` may keep of a layer; None if it is not applied.
REMAT_POLICIES = {
    "none": None,
    "minimal": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}

# The names that `transformers` has for a layer that attends to the whole row, and for one that attends to a window.
FULL, SLIDING = "full_attention", "sliding_attention"

# The values that give BERT's layer, for the fields that ELECTRA's and BERT's own configurations lack.
BERT_BLOCK = {
    "position_embedding_type": "absolute",
    "norm_placement": "post",
    "gated_mlp": False,
    "qk_norm": False,
    "attention_bias": True,
    "mlp_bias": True,
    "norm_bias": True,
    "classifier_bias": True,
    "layer_types": (FULL,),
    "local_attention": 128,
    "global_rope_theta": 10000.0,
    "local_rope_theta": 10000.0,
}

# Far more than any encoder has, so that a mistyped number is refused before its layers are listed.
MOST_LAYERS = 10_000
# The default if nothing else is set; as in gin/models, small and base are unrolled and large is not.
MAX_UNROLLED_LAYERS = 12

CHOICES = {
    "remat_policy": tuple(REMAT_POLICIES),
    "attention": matmul.ATTENTIONS,
    "dropout_prng": DROPOUT_GENERATORS,
    "dropout_bits": tuple(sorted(DROPOUT_INTEGERS)),
    "position_embedding_type": ("absolute", "rotary"),
    "norm_placement": ("post", "pre"),
}


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """The sizes, parts and rates of an encoder, with BERT's field names and, where BERT has none, ModernBERT's.

    `BERT_BLOCK` holds the fields that make it BERT's encoder, gin/models/modern.gin those that make it ModernBERT's
    (Warner et al., 2024). Each field can be set on its own.

    Attributes:
        vocab_size: the number of tokens in the vocabulary.
        pad_vocab_size_multiple: V, the rows of the word table, is vocab_size rounded up to a multiple of this; 1 for
            no padding. The rows beyond vocab_size belong to no token and have probability 0.
        hidden_size: D.
        embedding_size: E; where it differs from D, embeddings are projected.
        num_hidden_layers: N.
        num_attention_heads: H, which divides D.
        intermediate_size: F.
        max_position_embeddings: the longest sequence.
        type_vocab_size: T; 0 for no table of token types.
        position_embedding_type: "absolute", a learned table of positions; or "rotary", which turns queries and keys by
            angles in proportion to their positions (see `rotary`).
        norm_placement: "post", LayerNorm of the sum of a residual and its update, as in BERT; or "pre", LayerNorm of
            the inputs of attention and feed-forward, which leaves the residuals as they are. As in ModernBERT, the
            first attention has no LayerNorm before it, because the embeddings have their own, and a final LayerNorm
            follows the last layer.
        gated_mlp: whether the feed-forward multiplies its F activations by as many gates (GeGLU: Shazeer, 2020).
        qk_norm: whether each head's queries and keys have a LayerNorm (Dehghani et al., 2023, section 2).
        attention_bias, mlp_bias, norm_bias: whether attention's four products, the feed-forward's products, and every
            LayerNorm add biases.
        classifier_bias: whether the first layer of a head that predicts words adds a bias.
        layer_types: the kinds of the first layers, which all later layers repeat in the same order: "full_attention",
            or "sliding_attention", which attends to a window.
        local_attention: the window: a token of a sliding layer attends to `local_attention // 2` tokens on each side.
        global_rope_theta, local_rope_theta: the base of the rotary angles in full and in sliding layers.
        hidden_dropout_prob, attention_probs_dropout_prob: in [0, 1).
        dropout_bits: random bits for each decision of dropout, 8, 16 or 32: fewer are faster and round the rate to a
            multiple of 2^-bits (see `layers.keep_mask`).
        dropout_prng: "threefry2x32", or "rbg", the hardware's generator (see `layers.keep_mask`).
        initializer_range: standard deviation of the normal distribution, before truncation at two standard deviations.
        layer_norm_eps: added to the variance.
        dtype: "float32" or "bfloat16", for matrix products.
        attention: "exact", written out, with dropout; or "fused", the backend's own kernel, which stores no attention
            matrix and has no dropout (see `matmul.fused_attention`).
        scan_unroll: layers per iteration of the loop over layers; the number of layers unrolls it completely.
        remat_policy: what the backward pass recomputes of a layer: "none", "minimal" (everything but its products with
            parameters) or "full" (everything but its input). Use it with scan_unroll = 1: in an unrolled stack XLA's
            CPU compiler merges both computations, and no memory is saved.
    """

    vocab_size: Annotated[int, SIZE]
    pad_vocab_size_multiple: Annotated[int, AT_LEAST_1]
    hidden_size: Annotated[int, SIZE]
    embedding_size: Annotated[int, SIZE]
    num_hidden_layers: Annotated[int, Range(1, MOST_LAYERS)]
    num_attention_heads: Annotated[int, SIZE]
    intermediate_size: Annotated[int, SIZE]
    max_position_embeddings: Annotated[int, SIZE]
    type_vocab_size: Annotated[int, Range(0, SIZE.high)]
    position_embedding_type: str
    norm_placement: str
    gated_mlp: bool
    qk_norm: bool
    attention_bias: bool
    mlp_bias: bool
    norm_bias: bool
    classifier_bias: bool
    layer_types: tuple[str, ...]
    local_attention: int
    global_rope_theta: Annotated[float, POSITIVE]
    local_rope_theta: Annotated[float, POSITIVE]
    hidden_dropout_prob: Annotated[float, UNDER_1]
    attention_probs_dropout_prob: Annotated[float, UNDER_1]
    dropout_bits: int
    dropout_prng: str
    initializer_range: Annotated[float, AT_LEAST_0]
    layer_norm_eps: Annotated[float, POSITIVE]
    dtype: str
    attention: str
    scan_unroll: Annotated[int, AT_LEAST_1]
    remat_policy: str

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UserError: if a setting is out of range or has an unknown value, fused attention is combined with dropout,
                rotary positions with an odd head size, or a sliding layer has no valid window.
            ValueError: if the heads do not divide the hidden size.
        """
        ranges.check(self)
        for name, values in CHOICES.items():
            if getattr(self, name) not in values:
                raise UserError(
                    f"EncoderConfig.{name} is {getattr(self, name)!r}: it must be one of {', '.join(map(str, values))}"
                )
        # JSON gives a list, and a configuration must be hashable.
        object.__setattr__(self, "layer_types", tuple(self.layer_types))
        if not self.layer_types or not {FULL, SLIDING}.issuperset(self.layer_types):
            raise UserError(
                f"EncoderConfig.layer_types is {self.layer_types!r}: it must hold {FULL!r} and {SLIDING!r}, in the "
                "order in which the layers repeat them"
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
        if self.position_embedding_type == "rotary" and self.head_size % 2:
            raise UserError(
                f"rotary positions turn pairs of channels, and hidden_size {self.hidden_size} over num_attention_heads "
                f"{self.num_attention_heads} leaves each head {self.head_size}: choose an even head size, or set "
                "EncoderConfig.position_embedding_type to 'absolute'"
            )
        if SLIDING in self.layer_types and not 2 <= self.local_attention <= self.max_position_embeddings:
            raise UserError(
                f"EncoderConfig.local_attention is {self.local_attention}: a sliding layer takes a window "
                f"from 2 to max_position_embeddings {self.max_position_embeddings}"
            )

    @property
    def padded_vocab_size(self) -> int:
        """Return V, the rows of the word table."""
        return -(-self.vocab_size // self.pad_vocab_size_multiple) * self.pad_vocab_size_multiple

    @property
    def head_size(self) -> int:
        """Return C, the channels of a head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def kinds(self) -> tuple[str, ...]:
        """Return the kind of each of the N layers."""
        return tuple(self.layer_types[layer % len(self.layer_types)] for layer in range(self.num_hidden_layers))

    @property
    def initializer(self) -> Initializer:
        """Return BERT's normal initializer, truncated at two standard deviations.

        It is not rescaled: the standard deviation after truncation is 0.88 x `initializer_range`.
        """
        return nn.initializers.truncated_normal(self.initializer_range)

    @property
    def output_initializer(self) -> Initializer:
        """Return the initializer of the kernels that write to the residuals.

        With pre-LayerNorm the residuals add up, so ModernBERT divides the range by sqrt(2 N), as GPT-2 does.
        """
        if self.norm_placement == "post":
            return self.initializer
        return nn.initializers.truncated_normal(self.initializer_range * (2 * self.num_hidden_layers) ** -0.5)

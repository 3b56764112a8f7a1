"""Define the parts of pre-training networks: heads, and towers of embeddings, encoder and head.

A tower is given its embeddings. Embeddings that it shares with another tower stay where they are in the parameter tree;
those made for it alone (`Embeddings(config, parent=None)`) become its own parameters.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from electra_jax.model import matmul
from electra_jax.model.config import EncoderConfig
from electra_jax.model.embeddings import Embeddings
from electra_jax.model.encoder import Encoder
from electra_jax.model.layers import Linear, expand_to, gelu, logical, take_positions
from electra_jax.model.transform import transformed
from electra_jax.model.types import Masked, Tokens


class MaskedLmHead(nn.Module):
    """Dense, GELU, LayerNorm at the embedding size, then the tied word table and a bias per word."""

    config: EncoderConfig

    @nn.compact
    def __call__(self, hidden_BKD: jax.Array, word_embeddings_VE: jax.Array) -> jax.Array:
        """Map [B, K, D] to float32 logits [B, K, V]."""
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        hidden_BKE = transformed(hidden_BKD, config.embedding_size, config)
        rows = (config.padded_vocab_size,)
        bias_V = self.param("output_bias", logical(nn.initializers.zeros, "vocab"), rows, jnp.float32)
        logits_BKV = matmul.einsum("BKE,VE->BKV", hidden_BKE, word_embeddings_VE, dtype, result=jnp.float32)
        return forbid_padding(logits_BKV + expand_to(bias_V, logits_BKV), config)


def forbid_padding(logits_BKV: jax.Array, config: EncoderConfig) -> jax.Array:
    """Set the logits of padding rows, which belong to no token, to -inf: see `pad_vocab_size_multiple`."""
    if config.padded_vocab_size == config.vocab_size:
        return logits_BKV
    is_token_V = jnp.arange(config.padded_vocab_size) < config.vocab_size
    return jnp.where(expand_to(is_token_V, logits_BKV), logits_BKV, -jnp.inf)


class ReplacedTokenHead(nn.Module):
    """Dense at the hidden size, GELU, then one logit per token."""

    config: EncoderConfig

    @nn.compact
    def __call__(self, hidden_BLD: jax.Array) -> jax.Array:
        """Map [B, L, D] to float32 logits [B, L]; positive means replaced."""
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        hidden_BLD = Linear(config.hidden_size, ("embed", None), config.initializer, dtype, name="dense")(hidden_BLD)
        logits_BL1 = Linear(1, ("embed", None), nn.initializers.glorot_uniform(), jnp.float32, name="prediction")(
            gelu(hidden_BLD)
        )
        return logits_BL1[..., 0]


class CorrectionHead(nn.Module):
    """Dense, GELU, LayerNorm at the embedding size, then the product with each candidate's row of the word table.

    This is TEAMS's head of multi-word selection (Shen et al., 2021, section 3): a `MaskedLmHead` over a few words.
    """

    config: EncoderConfig

    @nn.compact
    def __call__(self, hidden_BKD: jax.Array, candidates_BKPE: jax.Array) -> jax.Array:
        """Map [B, K, D], and the word embeddings of the candidates, to float32 logits [B, K, P]."""
        hidden_BKE = transformed(hidden_BKD, self.config.embedding_size, self.config)
        # As batched matrix products, products as small as these cost more.
        return jnp.sum(hidden_BKE[..., None, :].astype(jnp.float32) * candidates_BKPE, axis=-1)


def visible(tokens: Tokens) -> jax.Array:
    """Return which tokens may be attended to, int32: real ones [B, S]; in packed rows, the same example's [B, L, S]."""
    if tokens.example_ids is None:
        return tokens.attention_mask
    # Padding sees padding, because fused attention leaves the result undefined for a token that sees nothing.
    return (tokens.example_ids[:, :, None] == tokens.example_ids[:, None, :]).astype(jnp.int32)


def visible_before(tokens: Tokens) -> jax.Array:
    """Return which tokens each token may attend to in a left-to-right model: none after it, int32 [B, L, S]."""
    seen = visible(tokens)
    seen_BxS = seen if seen.ndim == 3 else seen[:, None, :]
    return seen_BxS * jnp.tri(seen.shape[-1], dtype=seen.dtype)[None]


def positions_in_example(tokens: Tokens) -> jax.Array | None:
    """Return each token's position in its own example, int32 [B, L]; None if that is its position in the row."""
    if tokens.example_ids is None:
        return None
    positions_1L = jnp.arange(tokens.example_ids.shape[1], dtype=jnp.int32)[None]
    first_BL = tokens.example_ids != jnp.roll(tokens.example_ids, 1, axis=1)
    return positions_1L - jax.lax.cummax(jnp.where(first_BL, positions_1L, 0), axis=1)


class Tower(nn.Module):
    """An encoder over its own embeddings or those of another tower."""

    config: EncoderConfig
    embeddings: Embeddings

    def setup(self) -> None:
        """Declare the encoder."""
        self.encoder = Encoder(self.config)

    def encode(self, tokens: Tokens, *, deterministic: bool, visible_BLS: jax.Array | None = None) -> jax.Array:
        """Return hidden states [B, L, D]; `visible_BLS` replaces what `visible` says about attention."""
        position_ids_BL = positions_in_example(tokens)
        embedded_BLE = self.embeddings(
            tokens.input_ids, tokens.token_type_ids, position_ids_BL, deterministic=deterministic
        )
        mask = visible(tokens) if visible_BLS is None else visible_BLS
        return self.encoder(embedded_BLE, mask, position_ids_BL, deterministic=deterministic)


class Generator(Tower):
    """A small encoder that predicts the tokens at the masked positions, and only there."""

    def setup(self) -> None:
        """Declare the encoder and its head."""
        super().setup()
        self.head = MaskedLmHead(self.config)

    def __call__(self, masked: Masked, *, deterministic: bool) -> jax.Array:
        """Return float32 logits over the vocabulary at each masked position, [B, K, V]."""
        hidden_BLD = self.encode(masked.tokens, deterministic=deterministic)
        hidden_BKD = take_positions(hidden_BLD, masked.masked_positions)
        return self.head(hidden_BKD, self.embeddings.word_table())


class Discriminator(Tower):
    """The encoder that is kept after pre-training: it predicts for every token whether it was replaced."""

    def setup(self) -> None:
        """Declare the encoder and its head."""
        super().setup()
        self.head = ReplacedTokenHead(self.config)

    def __call__(self, tokens: Tokens, *, deterministic: bool) -> jax.Array:
        """Return float32 logits [B, L]."""
        return self.head(self.encode(tokens, deterministic=deterministic))


class CorrectingDiscriminator(Discriminator):
    """A discriminator that also predicts which of a few candidates is the original at each masked position."""

    def setup(self) -> None:
        """Declare the encoder and its two heads."""
        super().setup()
        self.correction = CorrectionHead(self.config)

    def correct(
        self, tokens: Tokens, positions_BK: jax.Array, candidates_BKP: jax.Array, *, deterministic: bool
    ) -> tuple[jax.Array, jax.Array]:
        """Return float32 logits of being replaced, [B, L], and of the candidates at these positions, [B, K, P]."""
        hidden_BLD = self.encode(tokens, deterministic=deterministic)
        candidates_BKPE = jnp.take(self.embeddings.word_table(), candidates_BKP, axis=0)
        return self.head(hidden_BLD), self.correction(take_positions(hidden_BLD, positions_BK), candidates_BKPE)


class WordPredictor(nn.Module):
    """A masked-LM head alone, for a network whose encoder belongs to another tower."""

    config: EncoderConfig

    def setup(self) -> None:
        """Declare the head."""
        self.head = MaskedLmHead(self.config)

    def __call__(self, hidden_BKD: jax.Array, word_embeddings_VE: jax.Array) -> jax.Array:
        """Map [B, K, D] to float32 logits [B, K, V]."""
        return self.head(hidden_BKD, word_embeddings_VE)

"""Embed tokens with tables of words, positions and token types, and a LayerNorm."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from electra_jax.model.config import EncoderConfig
from electra_jax.model.layers import Dropout, Initializer, LayerNorm, constrain, logical

# How a longer table of positions is filled from a shorter one: with its rows, repeated (Longformer, Beltagy et al.,
# 2020, section 5), or by interpolation between its rows (Dosovitskiy et al., 2021, section 3.2, for images).
EXTENSIONS = ("copy", "interpolate")


def longer_positions(table_LE: np.ndarray, rows: int, extension: str) -> np.ndarray:
    """Return a table of positions with more rows, float32 [rows, E].

    Args:
        table_LE: the learned table.
        rows: the number of rows to return, at least as many as the table has.
        extension: "copy" keeps its rows and repeats them, "interpolate" spreads them over the longer range.
    """
    if extension == "copy":
        return np.take(table_LE, np.arange(rows), axis=0, mode="wrap")
    places, known = np.linspace(0, len(table_LE) - 1, rows), np.arange(len(table_LE))
    return np.stack([np.interp(places, known, column) for column in table_LE.T], axis=1).astype(np.float32)


class Embeddings(nn.Module):
    """A word table and its LayerNorm, which generator and discriminator can share.

    With absolute positions there is a table of positions too, and with token types a table of types.
    """

    config: EncoderConfig

    def setup(self) -> None:
        """Declare the tables."""
        config = self.config
        shapes = {"word_embeddings": (config.padded_vocab_size, "vocab")}
        if config.position_embedding_type == "absolute":
            shapes["position_embeddings"] = (config.max_position_embeddings, "abspos_buckets")
        if config.type_vocab_size:
            shapes["token_type_embeddings"] = (config.type_vocab_size, None)
        for name, (rows, axis) in shapes.items():
            init = logical(self.table_initializer(), axis, "embed")
            table = self.param(name, init, (rows, config.embedding_size), jnp.float32)
            # Looking up whole rows is far cheaper than looking up slices of the embedding axis.
            setattr(self, name, constrain(table, axis, None))
        self.layer_norm = LayerNorm(config.layer_norm_eps, "embed", jnp.dtype(config.dtype), config.norm_bias)
        self.dropout = Dropout(config.hidden_dropout_prob, config.dropout_bits, config.dropout_prng)

    def table_initializer(self) -> Initializer:
        """Return the initializer of the tables."""
        return self.config.initializer

    def word_table(self) -> jax.Array:
        """Return the word table [V, E], for a head that is tied to it."""
        return self.word_embeddings

    def lookup(
        self, input_ids_BL: jax.Array, token_type_ids_BL: jax.Array, position_ids_BL: jax.Array | None
    ) -> jax.Array:
        """Sum the table rows of each token, float32 [B, L, E]; without position ids, count along the row."""
        embedded_BLE = jnp.take(self.word_embeddings, input_ids_BL, axis=0)
        if self.config.position_embedding_type == "absolute":
            if position_ids_BL is None:
                embedded_BLE += self.position_embeddings[None, : input_ids_BL.shape[1]]
            else:
                embedded_BLE += jnp.take(self.position_embeddings, position_ids_BL, axis=0)
        if self.config.type_vocab_size:
            embedded_BLE += jnp.take(self.token_type_embeddings, token_type_ids_BL, axis=0)
        return embedded_BLE

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
        """Return the zeros initializer, so that the sum starts as the other tower's tables."""
        return nn.initializers.zeros

    def word_table(self) -> jax.Array:
        """Return the sum of both word tables, [V, E]."""
        return jax.lax.stop_gradient(self.base.word_table()) + self.word_embeddings

    def lookup(
        self, input_ids_BL: jax.Array, token_type_ids_BL: jax.Array, position_ids_BL: jax.Array | None
    ) -> jax.Array:
        """Sum the table rows of each token from both towers, float32 [B, L, E]."""
        common_BLE = self.base.lookup(input_ids_BL, token_type_ids_BL, position_ids_BL)
        return jax.lax.stop_gradient(common_BLE) + super().lookup(input_ids_BL, token_type_ids_BL, position_ids_BL)

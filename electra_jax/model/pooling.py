"""Make one vector per text from the states of one layer of an encoder."""

import dataclasses

import jax
import jax.numpy as jnp

from electra_jax.model.config import EncoderConfig
from electra_jax.model.layers import LayerNorm
from electra_jax.model.states import layer_states
from electra_jax.model.types import PyTree, Tokens

# The mean is taken over all tokens of a text, special tokens included, or over its first token only.
POOLINGS = ("mean", "cls")

# The `eps` of torch.nn.functional.normalize, which sentence-transformers calls.
LEAST_NORM = 1e-12


def pooled(hidden_BLD: jax.Array, tokens: Tokens, pooling: str) -> jax.Array:
    """Return the mean of each text's states, or the state of its first token, float32.

    Args:
        hidden_BLD: states of any dtype.
        tokens: one text per row, or the two texts of a pair in a row, distinguished by `example_ids` 1 and 2.
        pooling: "mean" or "cls".

    Returns:
        [B, D]; for pairs [B, P, D], with P = 2.
    """
    if tokens.example_ids is None:
        members_BPL = tokens.attention_mask[:, None, :] > 0
    else:
        members_BPL = tokens.example_ids[:, None, :] == jnp.arange(1, 3)[None, :, None]
    if pooling == "cls":
        members_BPL &= jnp.cumsum(members_BPL, axis=-1) == 1
    weights_BPL = members_BPL.astype(jnp.float32)
    sums_BPD = jnp.einsum("BPL,BLD->BPD", weights_BPL, hidden_BLD.astype(jnp.float32))
    vectors_BPD = sums_BPD / jnp.maximum(weights_BPL.sum(-1, keepdims=True), 1.0)
    return vectors_BPD[:, 0] if tokens.example_ids is None else vectors_BPD


def normalized(vectors: jax.Array) -> jax.Array:
    """Return vectors [..., D] divided by their Euclidean length."""
    squares = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(squares, LEAST_NORM**2))


def layer_outputs(config: EncoderConfig, embeddings: PyTree, encoder: PyTree, tokens: Tokens) -> jax.Array:
    """Return the last states of the encoder truncated at each of its N layers, float32 [N, B, L, D].

    All come from one pass without dropout. The arguments are those of `layer_states`.
    """
    states_NBLD = layer_states(config, embeddings, encoder, tokens, left_to_right=False).hidden[1:]
    if config.norm_placement == "post":
        return states_NBLD
    # All but the last are residuals, before the LayerNorm that a shorter encoder would end with.
    norm = LayerNorm(config.layer_norm_eps, "embed", jnp.dtype("float32"), config.norm_bias, True)
    norms = jax.tree.map(lambda leaf: leaf[:-1], encoder["layers"]["output_layer_norm"])
    ended = jax.vmap(lambda of_layer, states_BLD: norm.apply({"params": of_layer}, states_BLD))(norms, states_NBLD[:-1])
    return jnp.concatenate([ended, states_NBLD[-1:]])


def truncated(config: EncoderConfig, params: PyTree, layer: int) -> tuple[EncoderConfig, PyTree]:
    """Return the configuration and the parameters of an encoder's first layers, up to `layer`.

    With pre-LayerNorm the last states are the normalized ones that the next layer's attention reads.

    Args:
        config: the configuration of the whole encoder.
        params: its parameters.
        layer: the last layer to keep, from 1 to N.
    """
    layers = jax.tree.map(lambda leaf: leaf[:layer], params["layers"])
    return with_layers(config, layer), {**params, "layers": layers}


def with_layers(config: EncoderConfig, number: int) -> EncoderConfig:
    """Return the configuration of an encoder with another number of layers."""
    return dataclasses.replace(config, num_hidden_layers=number, scan_unroll=min(config.scan_unroll, number))

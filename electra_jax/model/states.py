"""Compute the hidden states and the attention probabilities of every layer of an encoder."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from electra_jax.model.config import EncoderConfig
from electra_jax.model.embeddings import Embeddings
from electra_jax.model.encoder import Encoder
from electra_jax.model.precision import evaluation_config, evaluation_precision
from electra_jax.model.towers import visible_before
from electra_jax.model.types import PyTree, Tokens


class LayerStates(NamedTuple):
    """Hold what the layers of an encoder compute, float32.

    Attributes:
        hidden: [N + 1, B, L, D], the input of the first layer and the output of each layer. With pre-LayerNorm these
            are the residuals, except for the last, which has passed the final LayerNorm.
        attentions: the attention probabilities, [N, B, H, L, L].
    """

    hidden: jax.Array
    attentions: jax.Array


def layer_states(
    config: EncoderConfig, embeddings: PyTree, encoder: PyTree, tokens: Tokens, *, left_to_right: bool
) -> LayerStates:
    """Compute the states of every layer, in the precision of evaluation.

    Args:
        config: the encoder's.
        embeddings, encoder: parameters.
        tokens: the input.
        left_to_right: whether no token sees those after it, as in a tower that `language_model` trained.
    """
    exact = evaluation_config(config)
    with evaluation_precision():
        embedded_BLE = Embeddings(exact).apply(
            {"params": embeddings}, tokens.input_ids, tokens.token_type_ids, deterministic=True
        )
        last_BLD, sown = Encoder(exact).apply(
            {"params": encoder},
            embedded_BLE,
            visible_before(tokens) if left_to_right else tokens.attention_mask,
            deterministic=True,
            mutable="intermediates",
        )
    first, layers = sown["intermediates"]["embedded"][0], sown["intermediates"]["layers"]
    return LayerStates(
        jnp.concatenate([first[None], layers["hidden"][0][:-1], last_BLD[None]]), layers["attention"]["probs"][0]
    )

"""Freeze the embeddings and the lowest layers of an encoder while the rest is trained."""

import re

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util

from electra_jax.model.types import PyTree
from electra_jax.training.optimizer import LAYERWISE_GROUPS


def trainable(params: PyTree, frozen_layers: int) -> PyTree:
    """Return 0 for each frozen parameter, those of the embeddings and the lowest layers, and 1 for the others.

    Args:
        params: embeddings, encoder (its n layers stacked) and head.
        frozen_layers: how many of the encoder's layers, from the lowest up, are frozen in addition to the embeddings.

    Returns:
        Float32 factors that broadcast against the parameters: stacked layers have one for each layer.
    """

    def factor(path: tuple[str, ...], leaf: jax.Array) -> jax.Array:
        name = "/".join(path)
        if re.match(LAYERWISE_GROUPS["embeddings"], name):
            return jnp.zeros((), jnp.float32)
        if not re.match(LAYERWISE_GROUPS["layers"], name):
            return jnp.ones((), jnp.float32)
        trained_N = (jnp.arange(leaf.shape[0]) >= frozen_layers).astype(jnp.float32)
        return trained_N.reshape(-1, *(1,) * (leaf.ndim - 1))

    return traverse_util.path_aware_map(factor, params)


def freeze(optimizer: optax.GradientTransformation, frozen_layers: int) -> optax.GradientTransformation:
    """Return an optimizer that leaves the embeddings and the lowest layers as they are.

    Their gradients do not count for clipping, and weight decay does not touch them.
    """

    def masked(updates: PyTree, params: PyTree | None) -> PyTree:
        del params
        return jax.tree.map(jnp.multiply, updates, trainable(updates, frozen_layers))

    # Masked before the optimizer, so that norms do not count them, and after it, because it adds weight decay.
    return optax.chain(optax.stateless(masked), optimizer, optax.stateless(masked))

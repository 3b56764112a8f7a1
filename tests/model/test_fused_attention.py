"""Fused attention gives what the exact one gives, to float32 rounding, with padding and with packed segments."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from electra_jax.errors import UserError
from electra_jax.model.encoder import Encoder
from electra_jax.model.types import PyTree
from support.tiny_model import small_encoder

EXACT = dataclasses.replace(small_encoder(), hidden_size=32)
FUSED = dataclasses.replace(EXACT, attention="fused")
ROWS, LENGTH = 4, 16
# Real tokens of each row, which begins with them; the last row fills up a batch.
SIZES = np.array([16, 9, 1, 0])


def padded() -> jax.Array:
    """[B, S]."""
    return jnp.asarray(np.arange(LENGTH) < SIZES[:, None], jnp.int32)


def packed() -> jax.Array:
    """[B, L, S]: in each row two segments that do not see each other, and then padding, which sees nothing."""
    places = np.arange(LENGTH)
    segments = np.where(places < SIZES[:, None] // 2, 1, 2) * (places < SIZES[:, None])
    return jnp.asarray((segments[:, :, None] == segments[:, None]) & (segments > 0)[:, :, None], jnp.int32)


@pytest.fixture(scope="module")
def parameters() -> tuple[PyTree, jax.Array]:
    """Of the encoder, larger than it starts with so that attention is uneven; and its input."""
    encoder = Encoder(EXACT)
    embedded_BLE = jax.random.normal(jax.random.key(1), (ROWS, LENGTH, EXACT.embedding_size))
    shapes = jax.eval_shape(
        lambda: nn.unbox(encoder.init(jax.random.key(0), embedded_BLE, padded(), deterministic=True)["params"])
    )
    draw = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(draw.normal(0, 0.3, leaf.shape), leaf.dtype), shapes), embedded_BLE


def run(
    config: object, parameters: tuple[PyTree, jax.Array], mask: jax.Array
) -> tuple[jax.Array, tuple[PyTree, jax.Array]]:
    """The hidden states, and the gradients in parameters and input of a loss over the real tokens."""

    def loss(params: PyTree, embedded_BLE: jax.Array) -> tuple[jax.Array, jax.Array]:
        hidden_BLD = Encoder(config).apply({"params": params}, embedded_BLE, mask, deterministic=False)
        weights_BLD = jnp.cos(jnp.arange(hidden_BLD.size)).reshape(hidden_BLD.shape) * padded()[..., None].astype(
            jnp.float32
        )
        return jnp.sum(hidden_BLD.astype(jnp.float32) * weights_BLD), hidden_BLD

    gradients, hidden_BLD = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(*parameters)
    return hidden_BLD, gradients


@pytest.mark.parametrize("mask", [padded, packed])
def test_fused_is_exact(parameters: tuple[PyTree, jax.Array], mask: object) -> None:
    seen = mask()
    (expected_BLD, expected), (found_BLD, found) = (run(config, parameters, seen) for config in (EXACT, FUSED))
    real_BL = np.asarray(padded(), bool)
    np.testing.assert_allclose(np.asarray(found_BLD)[real_BL], np.asarray(expected_BLD)[real_BL], atol=2e-5)
    # Nothing reads a row without a token, but it is multiplied by a weight of zero.
    assert np.isfinite(found_BLD).all()
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5 * max(1.0, float(jnp.max(jnp.abs(other)))))


def test_segments_of_a_row_are_as_rows_of_their_own(parameters: tuple[PyTree, jax.Array]) -> None:
    params, embedded_BLE = parameters
    together_BLD = Encoder(FUSED).apply({"params": params}, embedded_BLE, packed(), deterministic=True)
    half = SIZES[0] // 2
    alone = jnp.ones((1, half), jnp.int32)
    for first in (0, half):
        part_BLE = embedded_BLE[:1, first : first + half]
        alone_BLD = Encoder(FUSED).apply({"params": params}, part_BLE, alone, deterministic=True)
        np.testing.assert_allclose(together_BLD[:1, first : first + half], alone_BLD, atol=2e-5)


@pytest.mark.parametrize("mask", [padded, packed])
def test_in_bfloat16_it_is_near(parameters: tuple[PyTree, jax.Array], mask: object) -> None:
    """A real forward and backward pass: a product that the backend has no kernel for fails only when it is run."""
    exact_BLD, _ = run(EXACT, parameters, mask())
    found_BLD, gradients = run(dataclasses.replace(FUSED, dtype="bfloat16"), parameters, mask())
    assert found_BLD.dtype == jnp.bfloat16
    real_BL = np.asarray(padded(), bool)
    error = np.asarray(found_BLD, np.float32)[real_BL] - np.asarray(exact_BLD)[real_BL]
    assert np.sqrt(np.mean(error**2)) < 0.03 * np.std(np.asarray(exact_BLD)[real_BL])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_what_fused_attention_cannot_do_is_refused() -> None:
    with pytest.raises(UserError, match=r"no dropout, and .* is 0\.1: set ATTENTION_DROPOUT to 0\.0, or ATTENTION to"):
        dataclasses.replace(FUSED, attention_probs_dropout_prob=0.1)
    with pytest.raises(UserError, match=r"attention is 'flash': it must be one of exact, fused"):
        dataclasses.replace(EXACT, attention="flash")

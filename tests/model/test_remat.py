"""Rematerialisation changes what the backward pass keeps, and nothing that it computes."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from electra_jax.errors import UserError
from electra_jax.model import matmul
from electra_jax.model.config import REMAT_POLICIES
from electra_jax.model.encoder import Encoder
from electra_jax.model.types import PyTree
from support.tiny_model import small_encoder

LAYERS = 3
CONFIG = dataclasses.replace(small_encoder(dropout=0.1), num_hidden_layers=LAYERS)


def gradient_and_memory(policy: str, unroll: int) -> tuple[PyTree, int]:
    """The gradient of a loss in parameters and input, and the bytes that computing it takes beside them."""
    encoder = Encoder(dataclasses.replace(CONFIG, remat_policy=policy, scan_unroll=unroll))
    embedded_BLE = jax.random.normal(jax.random.key(1), (8, 32, CONFIG.embedding_size))
    mask_BL = jnp.ones((8, 32), jnp.int32).at[3, 20:].set(0)

    def init(key: jax.Array) -> PyTree:
        return nn.unbox(encoder.init(key, embedded_BLE, mask_BL, deterministic=True)["params"])

    def loss(params: PyTree, embedded_BLE: jax.Array) -> jax.Array:
        rngs = {"dropout": jax.random.key(2)}
        hidden_BLD = encoder.apply({"params": params}, embedded_BLE, mask_BL, deterministic=False, rngs=rngs)
        return jnp.sum(jnp.square(hidden_BLD * jnp.arange(32.0)[None, :, None]))

    draw = np.random.default_rng(0)
    shapes = jax.eval_shape(init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.asarray(draw.normal(0, 0.2, leaf.shape), leaf.dtype), shapes)
    compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(params, embedded_BLE).compile()
    return compiled(params, embedded_BLE), compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("unroll", [1, LAYERS], ids=["scanned", "unrolled"])
def test_policies_give_the_same_gradient_and_scanned_keep_less(unroll: int) -> None:
    """With dropout: what is drawn again is what was drawn before."""
    expected, most = gradient_and_memory("none", unroll)
    # Of all parameters: the gradient of a key's bias is zero but for rounding.
    largest = max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(expected))
    for policy in ("minimal", "full"):
        found, memory = gradient_and_memory(policy, unroll)
        for one, other in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6 * largest, err_msg=policy)
        # In an unrolled stack XLA's CPU compiler undoes it.
        assert memory < most or unroll > 1, policy
        most = memory


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_minimal_keeps_the_products_with_kernels(dtype: str) -> None:
    """Of a feed-forward, both; of an attention, that of queries, keys and values, and not the scores."""

    def forward(hidden_BLD: jax.Array, kernels: list[jax.Array]) -> jax.Array:
        kernel_ZDHC, inner_DF, output_FD = kernels
        query, key, _ = matmul.einsum("BLD,ZDHC->ZBHLC", hidden_BLD, kernel_ZDHC, dtype)
        scores = jnp.sin(matmul.einsum("BHLC,BHSC->BHLS", jnp.sin(query), jnp.sin(key), dtype))
        inner_BLF = jnp.sin(matmul.dense(hidden_BLD, inner_DF, dtype))
        return jnp.sum(scores) + jnp.sum(jnp.sin(matmul.dense(inner_BLF, output_FD, dtype)))

    hidden_BLD, kernels = jnp.ones((2, 5, 8)), [jnp.ones(shape) for shape in ((3, 8, 2, 4), (8, 16), (16, 9))]
    _, pull = jax.vjp(jax.checkpoint(forward, policy=REMAT_POLICIES["minimal"]), hidden_BLD, kernels)
    kept = {leaf.size for leaf in jax.tree.leaves(pull)}
    assert {math.prod(shape) for shape in ((3, 2, 2, 5, 4), (2, 5, 16), (2, 5, 9))} <= kept
    assert math.prod((2, 2, 5, 5)) not in kept


def test_an_unknown_policy_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UserError, match=f"'some'.* one of {', '.join(REMAT_POLICIES)}"):
        dataclasses.replace(CONFIG, remat_policy="some")

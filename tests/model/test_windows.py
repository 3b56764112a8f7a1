"""Attention to a window in blocks is the masked form: the same values and the same gradients."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from electra_jax.errors import UserError
from electra_jax.model import windows
from electra_jax.model.config import FULL, SLIDING, EncoderConfig
from electra_jax.model.encoder import Encoder
from electra_jax.model.types import PyTree
from support.tiny_model import modern_encoder

REACH = 4


def config_of(**changes: Any) -> EncoderConfig:
    """Return an encoder of two sliding layers."""
    settings = {"layer_types": (SLIDING,), "local_attention": 2 * REACH, "max_position_embeddings": 64}
    return dataclasses.replace(modern_encoder(), **settings | changes)


def mask_of(kind: str, length: int) -> jax.Array:
    """Return a mask: rows with padding, examples that share rows, or what stands before a token."""
    real_BS = (np.arange(length)[None] < np.array([[length], [length - 5], [3]])).astype(np.int32)
    if kind == "padding":
        return jnp.asarray(real_BS)
    if kind == "before":
        return jnp.tri(length, dtype=jnp.int32)[None]
    ids_BL = np.cumsum(np.arange(length)[None] % np.array([[7], [10], [length]]) == 0, axis=1) * real_BS
    return jnp.asarray(ids_BL[:, :, None] == ids_BL[:, None, :], jnp.int32)


def results(config: EncoderConfig, mask: jax.Array, length: int) -> tuple[PyTree, jax.Array]:
    """Return the gradients of a sum over the hidden states of real tokens, and these states."""
    embedded_BLE = jax.random.normal(jax.random.key(0), (3, length, config.embedding_size))
    encoder = Encoder(config)
    params = encoder.init(jax.random.key(1), embedded_BLE, mask, deterministic=True)["params"]
    params = jax.tree.map(lambda leaf: leaf * 5, jax.tree.map(jnp.asarray, nn.unbox(params)))
    real_BL = mask if mask.ndim == 2 else jnp.max(mask, axis=-1) * jnp.ones((3, 1), jnp.int32)

    def loss(params: PyTree) -> tuple[jax.Array, jax.Array]:
        hidden_BLD = encoder.apply({"params": params}, embedded_BLE, mask, deterministic=True)
        hidden_BLD *= real_BL[..., None].astype(jnp.float32)
        return jnp.sum(jnp.abs(hidden_BLD) ** 1.5), hidden_BLD

    return jax.jit(jax.grad(loss, has_aux=True))(params)


def close(ours: jax.Array, theirs: jax.Array) -> None:
    """Compare to a few roundings of the largest number."""
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=5e-6 * np.abs(theirs).max())


@pytest.mark.parametrize("attention", ["exact", "fused"])
@pytest.mark.parametrize("length", [4 * REACH, 9 * REACH + 1])
@pytest.mark.parametrize("kind", ["padding", "packed", "before"])
def test_blocks_give_what_the_mask_gives(
    kind: str, length: int, attention: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask, config = mask_of(kind, length), config_of(attention=attention)
    assert windows.is_cut(length, REACH)
    cut = results(config, mask, length)
    monkeypatch.setattr(windows, "MIN_BLOCKS", 1000)
    assert not windows.is_cut(length, REACH)
    masked = results(config, mask, length)
    jax.tree.map(close, cut, masked)


def test_a_token_sees_half_a_window_on_each_side() -> None:
    """By hand: a change of token 20 reaches tokens 16 to 24 in one layer."""
    config = config_of(num_hidden_layers=1)
    encoder, length = Encoder(config), 32
    embedded_BLE = jax.random.normal(jax.random.key(0), (1, length, config.embedding_size))
    mask = jnp.ones((1, length), jnp.int32)
    params = encoder.init(jax.random.key(1), embedded_BLE, mask, deterministic=True)
    before, after = (
        encoder.apply(params, values, mask, deterministic=True)
        for values in (embedded_BLE, embedded_BLE.at[0, 20].add(1))
    )
    changed = np.abs(np.asarray(before - after)).max(-1)[0] > 1e-6
    assert np.flatnonzero(changed).tolist() == list(range(16, 25))


def test_work_grows_with_the_length_and_not_with_its_square() -> None:
    def flops(length: int) -> float:
        encoder = Encoder(config_of(max_position_embeddings=4096, scan_unroll=2))
        embedded_BLE = jnp.zeros((1, length, encoder.config.embedding_size))
        mask = jnp.ones((1, length), jnp.int32)
        params = jax.eval_shape(
            lambda: nn.unbox(encoder.init(jax.random.key(0), embedded_BLE, mask, deterministic=True))
        )
        step = jax.jit(lambda params: encoder.apply(params, embedded_BLE, mask, deterministic=True))
        return step.lower(params).compile().cost_analysis()["flops"]

    assert flops(2048) < 2.2 * flops(1024)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"local_attention": 65}, "a sliding layer takes a window from 2 to max_position_embeddings 64"),
        ({"local_attention": 1}, "a sliding layer takes a window from 2"),
        ({"layer_types": ()}, "EncoderConfig.layer_types is ()"),
        ({"layer_types": (FULL, "chunked")}, "it must hold 'full_attention' and 'sliding_attention'"),
        ({"num_attention_heads": 16}, "leaves each head 1: choose an even head size"),
        ({"norm_placement": "both"}, "EncoderConfig.norm_placement is 'both': it must be one of post, pre"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        config_of(**changes)
    assert sentence in str(refused.value)

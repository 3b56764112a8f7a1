"""What XLA's CPU compiler makes of an encoder."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from electra_jax.model.config import EncoderConfig
from electra_jax.model.encoder import Encoder
from support.tiny_model import modern_encoder, small_encoder


@pytest.mark.parametrize("config", [small_encoder(), modern_encoder()], ids=["bert", "modern"])
def test_no_layer_computes_again_what_those_below_have_computed(config: EncoderConfig) -> None:
    few, many = (
        _longest_fusion(dataclasses.replace(config, num_hidden_layers=n, scan_unroll=n, max_position_embeddings=64))
        for n in (4, 8)
    )
    assert few == many


def _longest_fusion(config: EncoderConfig) -> int:
    """The instructions of the longest fused computation of the input's gradient."""
    # Into small products XLA fuses what it would not into others.
    encoder, mask_BL = Encoder(config), jnp.ones((8, 64), jnp.int32)
    embedded_BLE = jnp.ones((8, 64, config.embedding_size), jnp.float32)
    params = nn.unbox(encoder.init(jax.random.key(0), embedded_BLE, mask_BL, deterministic=True))

    def loss(embedded_BLE: jax.Array, params: dict) -> jax.Array:
        return jnp.sum(jnp.square(encoder.apply(params, embedded_BLE, mask_BL, deterministic=True)))

    text = jax.jit(jax.grad(loss)).lower(embedded_BLE, params).compile().as_text()
    fusions = re.findall(r"^%fused_computation[^{]*\{(.*?)^\}", text, re.MULTILINE | re.DOTALL)
    assert len(fusions) > 10
    return max(fusion.count(" = ") for fusion in fusions)

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

# Into small products XLA fuses what it would not into others.
ROWS, LENGTH = 8, 64


@pytest.mark.parametrize("config", [small_encoder(), modern_encoder()], ids=["bert", "modern"])
def test_no_layer_computes_again_what_those_below_have_computed(config: EncoderConfig) -> None:
    few, many = (_longest_fusion(dataclasses.replace(config, num_hidden_layers=n, scan_unroll=n)) for n in (4, 8))
    assert few == many


def test_no_gradient_of_activations_is_computed_once_more_for_its_transpose() -> None:
    config = modern_encoder()
    transposed = f"f32[{config.intermediate_size},{ROWS * LENGTH}]"
    assert config.intermediate_size not in {config.hidden_size, 3 * config.hidden_size}
    assert transposed not in _compiled_gradient(config, of_params=True)


def _longest_fusion(config: EncoderConfig) -> int:
    """The instructions of the longest fused computation of the input's gradient."""
    text = _compiled_gradient(config, of_params=False)
    fusions = re.findall(r"^%fused_computation[^{]*\{(.*?)^\}", text, re.MULTILINE | re.DOTALL)
    assert len(fusions) > 10
    return max(fusion.count(" = ") for fusion in fusions)


def _compiled_gradient(config: EncoderConfig, *, of_params: bool) -> str:
    """The compiled program of the gradient of the parameters or of the input."""
    config = dataclasses.replace(config, max_position_embeddings=LENGTH)
    encoder, mask_BL = Encoder(config), jnp.ones((ROWS, LENGTH), jnp.int32)
    embedded_BLE = jnp.ones((ROWS, LENGTH, config.embedding_size), jnp.float32)
    params = nn.unbox(encoder.init(jax.random.key(0), embedded_BLE, mask_BL, deterministic=True))

    def loss(embedded_BLE: jax.Array, params: dict) -> jax.Array:
        return jnp.sum(jnp.square(encoder.apply(params, embedded_BLE, mask_BL, deterministic=True)))

    gradient = jax.jit(jax.grad(loss, argnums=1 if of_params else 0))
    return gradient.lower(embedded_BLE, params).compile().as_text()

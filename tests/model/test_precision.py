"""Evaluation and prediction multiply in float32, however a model was trained; float32 is float32 on any device."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from scipy import stats

from electra_jax.checkpoints.model_record import Description, abstract_params
from electra_jax.inference.network import generator_outputs, outputs
from electra_jax.model import matmul
from electra_jax.model.finetuned import FinetunedModel, head_outputs
from electra_jax.model.heads import HEADS, HeadConfig
from electra_jax.model.layers import gelu
from electra_jax.model.types import PyTree, Tokens
from support.tiny_model import head_config, modern_encoder, small_encoder

# As a run on an accelerator is fine-tuned.
TRAINED = dataclasses.replace(
    small_encoder(), dtype="bfloat16", attention="fused", attention_probs_dropout_prob=0.0, remat_policy="full"
)
IDS = jax.ShapeDtypeStruct((2, 8), jnp.int32)
TOKENS = Tokens(IDS, IDS, IDS)


def head(kind: str) -> HeadConfig:
    return head_config(kind, answerable="start" if kind.endswith("answering") else "none", beam_size=3)


def assert_float32(program: str) -> None:
    """Every product of the traced program asks for float32's whole precision, and none is of bfloat16."""
    products = re.findall(r"dot_general\[.*?\n\s*\]", program, re.DOTALL)
    assert len(products) > 5
    assert all(product.count("HIGHEST") == 2 for product in products), products
    assert "bf16" not in program


@pytest.mark.parametrize("kind", sorted(HEADS))
def test_of_every_head(kind: str) -> None:
    model = FinetunedModel(TRAINED, head(kind))
    params = jax.eval_shape(lambda: nn.unbox(model.init(jax.random.key(0), _zeros(), deterministic=True)["params"]))
    traced = jax.make_jaxpr(functools.partial(head_outputs, model=model))(params, TOKENS)
    assert_float32(str(traced))


def test_of_pretrained_towers() -> None:
    description = Description("pretraining", TRAINED, TRAINED, False, None, (), {})
    params = abstract_params(description)
    for function in (outputs, generator_outputs):
        assert_float32(str(jax.make_jaxpr(functools.partial(function, description))(params, TOKENS)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("attention", ["exact", "fused"])
def test_of_training(dtype: str, attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on an accelerator: float32 that is asked for is float32 there too, forward and backward."""
    monkeypatch.setattr(matmul, "backend", lambda: "tpu")
    config = dataclasses.replace(modern_encoder(), dtype=dtype, attention=attention)
    model = FinetunedModel(config, head("modernbert_sequence_classification"))

    def loss(params: PyTree, tokens: Tokens) -> jax.Array:
        return jnp.sum(model.apply({"params": params}, tokens, deterministic=True))

    # JAX's own attention adds float32 to bfloat16.
    with jax.numpy_dtype_promotion("standard"):
        params = jax.eval_shape(lambda: nn.unbox(model.init(jax.random.key(0), _zeros(), deterministic=True)["params"]))
        program = str(jax.make_jaxpr(jax.grad(loss))(params, TOKENS))
    if dtype == "float32":
        assert_float32(program)
        return
    products = re.findall(r":(\w+)\[[\d,]*\] = dot_general\[.*?\n\s*\]", program, re.DOTALL)
    assert products.count("bf16") > products.count("f32") > 0


def test_of_gelu_far_below_zero() -> None:
    """In bfloat16 erf(x) is -1 from x = -2 down, and 1 + erf(x) had nothing left."""
    inputs = np.linspace(-5, 5, 41)
    exact = inputs * stats.norm.cdf(inputs)
    found = np.asarray(gelu(jnp.asarray(inputs, jnp.bfloat16)), np.float64)
    np.testing.assert_allclose(found, exact, rtol=0.1)
    np.testing.assert_allclose(gelu(jnp.asarray(inputs, jnp.float32)), exact, rtol=1e-5, atol=1e-6)


def _zeros() -> Tokens:
    ids_BL = jnp.zeros((1, 1), jnp.int32)
    return Tokens(ids_BL, ids_BL, ids_BL)

"""Evaluation and prediction multiply in float32, however a model was trained and on any device."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from electra_jax.checkpoints.model_record import Description, abstract_params
from electra_jax.inference.network import generator_outputs, outputs
from electra_jax.model.finetuned import FinetunedModel, head_outputs
from electra_jax.model.heads import HeadConfig
from electra_jax.model.types import Tokens
from support.tiny_model import head_config, small_encoder

# As a run on an accelerator is fine-tuned.
TRAINED = dataclasses.replace(
    small_encoder(), dtype="bfloat16", attention="fused", attention_probs_dropout_prob=0.0, remat_policy="full"
)
IDS = jax.ShapeDtypeStruct((2, 8), jnp.int32)
TOKENS = Tokens(IDS, IDS, IDS)
HEADS = (
    "sequence_classification",
    "sequence_classification_reference",
    "token_classification",
    "question_answering",
    "joint_question_answering",
)


def head(kind: str) -> HeadConfig:
    return head_config(kind, answerable="start" if kind.endswith("answering") else "none", beam_size=3)


def assert_float32(program: str) -> None:
    """Every product of the traced program asks for float32's whole precision, and none is of bfloat16."""
    products = re.findall(r"dot_general\[.*?\n\s*\]", program, re.DOTALL)
    assert len(products) > 5
    assert all(product.count("HIGHEST") == 2 for product in products), products
    assert "bf16" not in program


@pytest.mark.parametrize("kind", HEADS)
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


def _zeros() -> Tokens:
    ids_BL = jnp.zeros((1, 1), jnp.int32)
    return Tokens(ids_BL, ids_BL, ids_BL)

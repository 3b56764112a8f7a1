"""Vectors of texts: of one layer, of the first or of all tokens, of two texts in a row as of each alone."""

import functools
from typing import Any

import jax
import numpy as np
import pytest

from electra_jax.finetuning.probes import init_encoder
from electra_jax.model.config import EncoderConfig
from electra_jax.model.embeddings import Embeddings
from electra_jax.model.encoder import Encoder
from electra_jax.model.finetuned import FinetunedModel
from electra_jax.model.pooling import layer_outputs, normalized, pooled, truncated
from electra_jax.model.types import PyTree, Tokens
from support.tiny_model import head_config, modern_encoder, small_encoder

ENCODERS = {"bert": small_encoder(), "modern": modern_encoder(num_hidden_layers=3)}


def random_params(shapes: PyTree) -> PyTree:
    draw = np.random.default_rng(3)
    return jax.tree.map(lambda leaf: draw.normal(0.0, 0.5, leaf.shape).astype(np.float32), shapes)


def tokens_of(*texts: list[int], length: int) -> Tokens:
    """A text a row."""
    ids = np.array([text + [0] * (length - len(text)) for text in texts], np.int32)
    return Tokens(ids, np.zeros_like(ids), (ids > 0).astype(np.int32))


def test_by_hand() -> None:
    states = np.array([[[1.0, 2.0], [3.0, 6.0], [50.0, 50.0]]], np.float32)
    tokens = tokens_of([7, 8], length=3)
    np.testing.assert_allclose(pooled(states, tokens, "mean"), [[2.0, 4.0]])
    np.testing.assert_allclose(pooled(states, tokens, "cls"), [[1.0, 2.0]])
    both = tokens._replace(example_ids=np.array([[1, 2, 2]], np.int32))
    np.testing.assert_allclose(pooled(states, both, "mean"), [[[1.0, 2.0], [26.5, 28.0]]])
    np.testing.assert_allclose(pooled(states, both, "cls"), [[[1.0, 2.0], [3.0, 6.0]]])
    np.testing.assert_allclose(normalized(np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)), [[0.6, 0.8], [0.0, 0.0]])
    assert np.isfinite(jax.jacobian(normalized)(np.zeros(2, np.float32))).all()


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_two_texts_in_a_row_have_the_vectors_of_each_alone(name: str, pooling: str) -> None:
    config = ENCODERS[name]
    model = FinetunedModel(config, head_config("normalized_pooling", num_labels=16, classifier_pooling=pooling))
    apart = tokens_of([2, 9, 30, 12, 3], [2, 40, 3], length=6)
    row = np.array([[2, 9, 30, 12, 3, 2, 40, 3, 0]], np.int32)
    example_ids = np.array([[1] * 5 + [2] * 3 + [0]], np.int32)
    together = Tokens(row, np.zeros_like(row), (row > 0).astype(np.int32), example_ids)
    params = random_params(jax.eval_shape(functools.partial(init, model), apart))
    run = functools.partial(model.apply, {"params": params}, deterministic=True)
    np.testing.assert_allclose(run(together)[0], run(apart), rtol=0, atol=2e-6)
    # What a text has beside it would change it, if it were seen.
    alone = run(Tokens(*together[:3]))
    assert np.abs(alone[0] - run(apart)[0]).max() > 1e-2


def init(model: FinetunedModel, tokens: Tokens) -> Any:
    from flax import linen as nn

    return nn.unbox(model.init(jax.random.key(0), tokens, deterministic=True)["params"])


@pytest.mark.parametrize("config", ENCODERS.values(), ids=ENCODERS)
def test_every_layer_in_one_pass_is_that_of_a_shorter_encoder(config: EncoderConfig) -> None:
    """With pre-LayerNorm these are not the residuals, which the pass has."""
    draw = np.random.default_rng(5)
    ids = draw.integers(1, config.vocab_size, (2, 7)).astype(np.int32)
    tokens = Tokens(ids, np.zeros_like(ids), np.array([[1] * 7, [1] * 4 + [0] * 3], np.int32))
    params = random_params(jax.eval_shape(lambda key: init_encoder(key, config), jax.random.key(0)))
    tables, layers = params["embeddings"], params["discriminator"]["encoder"]
    states = layer_outputs(config, tables, layers, tokens)
    assert len(states) == config.num_hidden_layers
    embedded = Embeddings(config).apply({"params": tables}, ids, tokens.token_type_ids, deterministic=True)
    for layer in range(1, config.num_hidden_layers + 1):
        shorter, kept = truncated(config, layers, layer)
        assert shorter.num_hidden_layers == layer
        last = Encoder(shorter).apply({"params": kept}, embedded, tokens.attention_mask, deterministic=True)
        np.testing.assert_allclose(states[layer - 1], last, rtol=0, atol=1e-5)

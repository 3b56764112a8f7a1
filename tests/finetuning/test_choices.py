"""The loss of multiple choice: by hand, in any order of the choices, and whatever fills up rows and choices."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from electra_jax.data.buckets import stack
from electra_jax.finetuning.steps import LossConfig, init_params, loss_of, tokens_of, training_loss
from electra_jax.model.finetuned import FinetunedModel, head_outputs
from electra_jax.training.state import Batch
from support.tiny_model import CLS, SEP, VOCAB_SIZE, head_config, small_encoder

# A batch of three examples.
LOSS = LossConfig("multiple_choice", 0.5, 3.0, None, 0.05)
NUM_CHOICES = (3, 2, 3)
RIGHT = (2, 0, 1)


def examples() -> list[list[list[int]]]:
    """The token ids of each choice of each example."""
    draw = np.random.default_rng(3)
    return [
        [[CLS, *draw.integers(10, VOCAB_SIZE, draw.integers(3, 9)).tolist(), SEP] for _ in range(count)]
        for count in NUM_CHOICES
    ]


def batch_of(choices: list[list[list[int]]], right: tuple[int, ...], *, places: int, length: int) -> Batch:
    """Rows of so many places for choices; what an example lacks is filled with tokens that would change the loss."""
    rows = []
    for ids, label in zip(choices, right, strict=True):
        row = {name: np.zeros((places, 10), np.int32) for name in ("input_ids", "token_type_ids", "attention_mask")}
        row["input_ids"][len(ids) :, :4] = 7
        row["attention_mask"][len(ids) :, :4] = 1
        for place, choice in enumerate(ids):
            row["input_ids"][place, : len(choice)] = choice
            row["attention_mask"][place, : len(choice)] = 1
        mask = (np.arange(places) < len(ids)).astype(np.float32)
        rows.append(row | {"choice_mask": mask, "label": np.array(label, np.int32)})
    return stack(rows, length=length, size=4)


@functools.cache
def model_and_params() -> tuple[FinetunedModel, Any]:
    head = head_config("sequence_classification", num_labels=1, dropout_prob=0.0)
    model = FinetunedModel(dataclasses.replace(small_encoder(), num_hidden_layers=1, scan_unroll=1), head)
    params = nn.unbox(init_params(jax.random.key(0), model))
    # New weights are so small that all choices have about the same score.
    return model, jax.tree.map(lambda array: 3.0 * array, params)


@jax.jit
def loss_and_gradient(batch: Batch) -> Any:
    model, params = model_and_params()
    objective = functools.partial(training_loss, batch=batch, dropout_key=None, model=model, loss=LOSS)
    return jax.value_and_grad(objective, has_aux=True)(params)


def test_by_hand() -> None:
    """Logits log 2, log 3 and log 5 give 3/10; without the last one 2/5; a row that fills up counts for nothing."""
    logits = jnp.log(jnp.array([2.0, 3.0, 5.0] * 3))[:, None]
    batch = {
        "label": jnp.array([1, 0, 2]),
        "choice_mask": jnp.array([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]),
        "row_weight": jnp.array([1.0, 1.0, 0.0]),
    }
    found = loss_of(LOSS, logits, batch)
    assert (float(found.sum), float(found.weight)) == pytest.approx((-math.log(3 / 10) - math.log(2 / 5), 2))


def test_a_choice_that_is_not_there_has_no_gradient() -> None:
    batch = {"label": jnp.array([0]), "choice_mask": jnp.array([[1.0, 1.0, 0.0]]), "row_weight": jnp.ones(1)}
    gradient = jax.grad(lambda logits: loss_of(LOSS, logits, batch).sum)(jnp.array([[0.0], [0.0], [9.0]]))
    np.testing.assert_allclose(gradient[:, 0], [-0.5, 0.5, 0.0])


def test_the_order_of_the_choices_is_nothing() -> None:
    """The logits come in the new order, and the loss and its gradient are the same."""
    order = ([2, 0, 1], [1, 0], [1, 2, 0])
    turned = [[each[place] for place in places] for each, places in zip(examples(), order, strict=True)]
    label = tuple(places.index(right) for places, right in zip(order, RIGHT, strict=True))
    before = batch_of(examples(), RIGHT, places=3, length=12)
    after = batch_of(turned, label, places=3, length=12)
    model, params = model_and_params()
    logits, moved = (
        np.asarray(head_outputs(params, tokens_of(batch), model=model)).reshape(4, 3) for batch in (before, after)
    )
    for row, places in enumerate(order):
        np.testing.assert_allclose(moved[row, : len(places)], logits[row, places], rtol=1e-5, atol=1e-6)
    assert np.ptp(logits[0]) > 0.01
    assert_same(loss_and_gradient(before), loss_and_gradient(after))


def test_what_fills_up_changes_nothing() -> None:
    """Two more places for choices and longer rows, all with tokens in them."""
    short = loss_and_gradient(batch_of(examples(), RIGHT, places=3, length=12))
    assert_same(short, loss_and_gradient(batch_of(examples(), RIGHT, places=5, length=20)))
    model, params = model_and_params()
    # The mean of each example's own loss.
    losses = []
    for ids, right in zip(examples(), RIGHT, strict=True):
        batch = batch_of([ids], (right,), places=len(ids), length=12)
        scores = np.asarray(head_outputs(params, tokens_of(batch), model=model)).reshape(4, -1)[0]
        losses.append(math.log(np.exp(scores).sum()) - scores[right])
    assert float(short[0][0]) == pytest.approx(sum(losses) / 3, rel=1e-5)


def assert_same(first: Any, second: Any) -> None:
    for one, other in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * max(1.0, float(np.abs(one).max())))

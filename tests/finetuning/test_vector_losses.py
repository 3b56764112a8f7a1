"""The losses of vectors by hand: cosine regression, and the contrast with the other pairs of a batch."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.finetuning.steps import LossConfig, contrastive_losses, loss_of

TEMPERATURE = 0.5
# Of length 1, in the plane; the last pair only fills up the batch.
FIRST = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [1.0, 0.0]], np.float32)
SECOND = np.array([[0.8, 0.6], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]], np.float32)
PAIRS = np.stack([FIRST, SECOND], axis=1)
WEIGHTS = np.array([1.0, 1.0, 1.0, 0.0], np.float32)


def batch_of(first_id: list[int], second_id: list[int]) -> dict[str, np.ndarray]:
    ids = {"first_id": np.array(first_id, np.int32), "second_id": np.array(second_id, np.int32)}
    return ids | {"row_weight": WEIGHTS}


DIFFERENT = batch_of([0, 1, 2, 0], [0, 1, 2, 0])


def test_similarity_is_a_regression_of_the_cosine() -> None:
    batch = {"label": np.array([1.0, 0.5, 0.0, 0.0], np.float32), "row_weight": WEIGHTS}
    found = loss_of(LossConfig("similarity", 0.5, 1.0, None, TEMPERATURE), PAIRS, batch)
    # Cosines 0.8, 1 and 0.6.
    assert (float(found.sum), float(found.weight)) == pytest.approx((0.04 + 0.25 + 0.36, 3.0))


def test_retrieval_is_a_choice_among_the_second_texts_of_the_batch() -> None:
    """Logits are cosines over the temperature; what fills up is nobody's negative."""
    logits = [[1.6, 0.0, 2.0], [1.2, 2.0, 0.0], [0.96 / 0.5, 0.8 / 0.5, 0.6 / 0.5]]
    expected = [math.log(sum(map(math.exp, row))) - row[place] for place, row in enumerate(logits)]
    found = contrastive_losses(jnp.array(PAIRS), DIFFERENT, temperature=TEMPERATURE)
    np.testing.assert_allclose(found[:3], expected, rtol=1e-5)
    total = loss_of(LossConfig("retrieval", 0.5, 1.0, None, TEMPERATURE), jnp.array(PAIRS), DIFFERENT)
    assert (float(total.sum), float(total.weight)) == pytest.approx((sum(expected), 3.0), rel=1e-5)


@pytest.mark.parametrize(("first_id", "second_id"), [([0, 1, 0, 9], [0, 1, 2, 9]), ([0, 1, 2, 9], [0, 1, 0, 9])])
def test_a_pair_with_the_same_text_is_no_negative(first_id: list[int], second_id: list[int]) -> None:
    """The third pair shares a text with the first: both have the second as their only negative."""
    found = contrastive_losses(jnp.array(PAIRS), batch_of(first_id, second_id), temperature=TEMPERATURE)
    expected = [math.log1p(math.exp(0.0 - 1.6)), math.log1p(math.exp(1.6 - 1.2))]
    np.testing.assert_allclose(found[np.array([0, 2])], expected, rtol=1e-5)


def test_the_gradient_goes_through_the_negatives() -> None:
    """Of the first pair's loss after another pair's second text: its probability times the first text over T."""

    def first_loss(pairs: jax.Array) -> jax.Array:
        return contrastive_losses(pairs, batch_of([0, 1, 2, 9], [0, 1, 2, 9]), temperature=TEMPERATURE)[0]

    found = jax.grad(first_loss)(jnp.array(PAIRS))
    logits = np.array([1.6, 0.0, 2.0])
    probabilities = np.exp(logits) / np.exp(logits).sum()
    pulls = (probabilities - [1.0, 0.0, 0.0])[:, None]
    np.testing.assert_allclose(found[:3, 1], pulls * FIRST[0] / TEMPERATURE, rtol=1e-5)
    np.testing.assert_allclose(found[0, 0], (pulls * SECOND[:3]).sum(0) / TEMPERATURE, rtol=1e-5, atol=1e-7)
    # The other pairs' first texts, and what fills up, have no part in it.
    assert not found[1:, 0].any()
    assert not found[3].any()

"""The loss of prompts by hand: the right word is original, the others are replaced."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.finetuning.steps import LossConfig, loss_of, prompt_losses

LOSS = LossConfig("prompt", 0.5, 1.0, None, 0.05)
# Two labels; the word of the first is one piece, that of the second two. Two examples, and one that only fills up.
MASK = np.zeros((3, 2, 4), np.float32)
MASK[:, 0, 1] = MASK[:, 1, 1] = MASK[:, 1, 2] = 1.0
BATCH = {
    "word_mask": jnp.asarray(MASK),
    "label": jnp.array([0, 1, 0]),
    "row_weight": jnp.array([1.0, 1.0, 0.0]),
}


def test_by_hand() -> None:
    """A logit of log 3 says replaced with probability 3/4, and 0 with 1/2; what is no label's word does not count."""
    logits = jnp.full((3, 2, 4), 9.0)
    logits = logits.at[:, 0, 1].set(math.log(3)).at[:, 1, 1].set(0.0).at[:, 1, 2].set(math.log(3))
    # Right is the first label: original with 1/4; the second is replaced, with 1/2 and 3/4 in its pieces.
    first = -math.log(1 / 4) - (math.log(1 / 2) + math.log(3 / 4)) / 2
    # Right is the second label: its pieces are original with 1/2 and 1/4; the first is replaced with 3/4.
    second = -math.log(3 / 4) - (math.log(1 / 2) + math.log(1 / 4)) / 2
    found = prompt_losses(logits.reshape(6, 4), BATCH)
    np.testing.assert_allclose(found[:2], [first, second], rtol=1e-6)
    total = loss_of(LOSS, logits.reshape(6, 4), BATCH)
    assert (float(total.sum), float(total.weight)) == pytest.approx((first + second, 2.0))


def test_only_the_words_have_a_gradient() -> None:
    gradient = jax.grad(lambda logits: loss_of(LOSS, logits, BATCH).sum)(jnp.zeros((6, 4))).reshape(3, 2, 4)
    # At 0 each is half: up where a word is right, down where it is wrong, shared by the pieces.
    np.testing.assert_allclose(gradient[0], [[0, 0.5, 0, 0], [0, -0.25, -0.25, 0]])
    np.testing.assert_allclose(gradient[1], [[0, -0.5, 0, 0], [0, 0.25, 0.25, 0]])
    assert not gradient[2].any()

"""Which tokens have a next one to predict: those before another of the same example, whatever the row looks like."""

import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.model.types import Tokens
from electra_jax.pretraining.language_model import has_next

ROWS = {
    "a full row, of which the last token is followed by none": ([1, 1, 1, 1], None, [1, 1, 1, 0]),
    "padding": ([1, 1, 1, 0], None, [1, 1, 0, 0]),
    "two examples": ([1, 1, 1, 1], [1, 1, 2, 2], [1, 0, 1, 0]),
    "one example and padding": ([1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0]),
}


@pytest.mark.parametrize(("mask", "examples", "expected"), ROWS.values(), ids=ROWS)
def test_the_last_token_of_an_example_has_no_next_one(
    mask: list[int], examples: list[int] | None, expected: list[int]
) -> None:
    ids_BL = jnp.arange(5, 9, dtype=jnp.int32)[None]
    of_examples = None if examples is None else jnp.asarray([examples], jnp.int32)
    tokens = Tokens(ids_BL, jnp.zeros_like(ids_BL), jnp.asarray([mask], jnp.int32), of_examples)
    np.testing.assert_array_equal(has_next(tokens), [expected])

"""The joint head of question answering multiplies hidden states, and not their pairs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from electra_jax.model.heads import JOINT_WIDTH, make_head
from electra_jax.model.layers import gelu
from electra_jax.model.types import PyTree, Tokens
from support.tiny_model import head_config, small_encoder

ROWS, LENGTH, BEAM = 2, 12, 5
CONFIG = dataclasses.replace(small_encoder(), hidden_size=32)
HEAD = make_head(head_config("joint_question_answering", beam_size=BEAM), CONFIG)


def hidden_and_tokens() -> tuple[jax.Array, Tokens]:
    ids_BL = jnp.ones((ROWS, LENGTH), jnp.int32)
    return jax.random.normal(jax.random.key(1), (ROWS, LENGTH, CONFIG.hidden_size)), Tokens(ids_BL, ids_BL, ids_BL)


def parameters() -> PyTree:
    """Those of a checkpoint: one kernel over the start's hidden state and the end's."""
    return nn.unbox(HEAD.init(jax.random.key(0), *hidden_and_tokens(), deterministic=True)["params"])


def test_ends_given_a_start_are_those_of_the_pairs_side_by_side() -> None:
    (hidden_BLD, tokens), params = hidden_and_tokens(), parameters()
    assert params["joint"]["kernel"].shape == (2 * CONFIG.hidden_size, JOINT_WIDTH)
    params["joint"]["bias"] = jnp.linspace(-1, 1, JOINT_WIDTH)
    starts_B = jnp.asarray([3, 7])
    found = HEAD.apply({"params": params}, hidden_BLD, tokens, deterministic=True, start_positions_B=starts_B)
    for row, start in enumerate(starts_B.tolist()):
        for end in range(LENGTH):
            pair = jnp.concatenate([hidden_BLD[row, start], hidden_BLD[row, end]])
            inner = gelu(pair @ params["joint"]["kernel"] + params["joint"]["bias"])
            expected = inner @ params["end"]["kernel"][:, 0] + params["end"]["bias"][0]
            np.testing.assert_allclose(found["end_logits"][row, end], expected, rtol=1e-5, atol=1e-5)


def test_no_array_holds_the_hidden_states_of_every_pair() -> None:
    program = str(
        jax.make_jaxpr(lambda params: HEAD.apply({"params": params}, *hidden_and_tokens(), deterministic=True))(
            parameters()
        )
    )
    assert f"[{ROWS},{BEAM},{LENGTH},{JOINT_WIDTH}]" in program
    assert f"[{ROWS},{BEAM},{LENGTH},{2 * CONFIG.hidden_size}]" not in program
    assert f"[{ROWS},{BEAM},{LENGTH},{CONFIG.hidden_size}]" not in program

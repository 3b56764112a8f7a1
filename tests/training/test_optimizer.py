"""The published optimizer against hand-worked values."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict

from electra_jax.errors import UserError
from electra_jax.pretraining.steps import init_params
from electra_jax.training.optimizer import decayed, learning_rate, make_optimizer
from support.tiny_model import optimizer_config, small_model


def test_two_updates_by_hand() -> None:
    config = optimizer_config(learning_rate=0.1, num_train_steps=1000, weight_decay_rate=0.01, clip_norm=1e9)
    optimizer = make_optimizer(config)
    params = {"dense": {"kernel": jnp.array([2.0]), "bias": jnp.array([2.0])}}
    grads = {"dense": {"kernel": jnp.array([0.5]), "bias": jnp.array([0.5])}}
    state = optimizer.init(params)
    expected = {"kernel": 2.0, "bias": 2.0}
    m = v = 0.0
    for k in range(2):
        updates, state = optimizer.update(grads, state, params)
        params = jax.tree.map(jnp.add, params, updates)
        m, v = 0.9 * m + 0.1 * 0.5, 0.999 * v + 0.001 * 0.25
        rate = 0.1 * (1 - k / 1000)
        for name, decay in (("kernel", 0.01), ("bias", 0.0)):
            expected[name] -= rate * (m / (np.sqrt(v) + 1e-6) + decay * expected[name])
    assert float(params["dense"]["kernel"][0]) == pytest.approx(expected["kernel"], rel=1e-5)
    assert float(params["dense"]["bias"][0]) == pytest.approx(expected["bias"], rel=1e-5)


def test_first_update_of_a_constant_gradient_is_3_16_rates() -> None:
    optimizer = make_optimizer(optimizer_config(learning_rate=1.0, weight_decay_rate=0.0, clip_norm=1e9))
    params = jnp.zeros(())
    update, _ = optimizer.update(jnp.ones(()), optimizer.init(params), params)
    assert float(update) == pytest.approx(-0.1 / (np.sqrt(0.001) + 1e-6), rel=1e-5)


def test_gradients_are_clipped_by_their_global_norm() -> None:
    optimizer = make_optimizer(optimizer_config(epsilon=1.0, weight_decay_rate=0.0, learning_rate=1.0, clip_norm=1.0))
    params = {"a": jnp.zeros(()), "b": jnp.zeros(())}
    update, _ = optimizer.update({"a": jnp.array(30.0), "b": jnp.array(40.0)}, optimizer.init(params), params)
    for name, clipped in (("a", 0.6), ("b", 0.8)):
        assert float(update[name]) == pytest.approx(-(0.1 * clipped) / (np.sqrt(0.001 * clipped**2) + 1.0), rel=1e-5)


@pytest.mark.parametrize(
    ("warmup", "step", "expected"),
    [(0, 0, 1.0), (0, 5, 0.5), (0, 10, 0.0), (0, 12, 0.0), (4, 0, 0.0), (4, 1, 0.9 * 0.25), (4, 4, 0.6), (4, 7, 0.3)],
)
def test_warmup_times_decay(warmup: int, step: int, expected: float) -> None:
    config = optimizer_config(learning_rate=1.0, num_warmup_steps=warmup, num_train_steps=10)
    assert float(learning_rate(config, step)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.0), (1, 0.5), (2, 1.0), (6, 1.0), (7, 0.75), (8, 0.5), (9, 0.25), (10, 0.0), (12, 0.0)],
)
def test_warmup_stable_decay(step: int, expected: float) -> None:
    """Two steps up, four on the plateau, and down over the last four of ten."""
    config = optimizer_config(learning_rate=1.0, num_warmup_steps=2, num_train_steps=10, lr_decay_share=0.4)
    assert float(learning_rate(config, step)) == pytest.approx(expected, abs=1e-6)
    squared = dataclasses.replace(config, lr_decay_power=2.0)
    assert float(learning_rate(squared, step)) == pytest.approx(expected if step < 7 else expected**2, abs=1e-6)


def test_a_branch_cools_down_from_the_plateau_of_its_trunk() -> None:
    """A run of 100 steps, and one that leaves it after 40 and ends ten steps later (docs/optimizers.md)."""
    trunk = optimizer_config(learning_rate=1.0, num_warmup_steps=5, num_train_steps=100, lr_decay_share=0.2)
    branch = dataclasses.replace(trunk, num_train_steps=50, lr_decay_share=0.2)
    rates = {step: float(learning_rate(branch, step)) for step in range(50)}
    assert all(rates[step] == float(learning_rate(trunk, step)) for step in range(40))
    assert [rates[step] for step in (40, 45, 49)] == pytest.approx([1.0, 0.5, 0.1])


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5])
def test_a_share_of_decay_that_is_none(share: float) -> None:
    with pytest.raises(UserError, match=f"lr_decay_share is {share}: it must be above 0 and at most 1"):
        optimizer_config(lr_decay_share=share)


def test_everything_but_layer_norms_and_biases_is_decayed() -> None:
    params = nn.unbox(jax.eval_shape(lambda key: init_params(key, small_model(), 8), jax.random.key(0)))
    decays = flatten_dict(decayed(params, "layer_norm|bias"), sep="/")
    spared = {name for name, decay in decays.items() if not decay}
    assert all("layer_norm" in name or "bias" in name for name in spared)
    kept = {name for name, decay in decays.items() if decay}
    assert {name.split("/")[1] for name in kept if name.startswith("embeddings")} == {
        "word_embeddings",
        "position_embeddings",
        "token_type_embeddings",
    }
    assert all("kernel" in name or "embeddings" in name for name in kept)

"""Layer-wise learning rates: factors by hand, every parameter in one group, stacked layers apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.errors import UserError
from electra_jax.model.types import PyTree
from electra_jax.training.optimizer import layerwise_multipliers, make_optimizer
from support.tiny_model import optimizer_config


def tree(prefix: tuple[str, ...] = ()) -> PyTree:
    encoder = {
        "embeddings_project": {"kernel": jnp.ones((2, 3))},
        "layers": {"intermediate": {"kernel": jnp.ones((4, 3, 5)), "bias": jnp.ones((4, 5))}},
    }
    for name in prefix:
        encoder = {name: encoder}
    embeddings = {"word_embeddings": jnp.ones((7, 2)), "layer_norm": {"scale": jnp.ones(2)}}
    return {"embeddings": embeddings, "head": {"kernel": jnp.ones((3, 2))}} | encoder


@pytest.mark.parametrize("prefix", [("encoder",), ("encoder", "discriminator")])
@pytest.mark.parametrize(("top_exponent", "layers", "bottom"), [(1, [4, 3, 2, 1], 5), (2, [5, 4, 3, 2], 6)])
def test_factors_by_hand(prefix: tuple[str, ...], top_exponent: int, layers: list[int], bottom: int) -> None:
    factors = layerwise_multipliers(tree(prefix), decay=0.5, top_exponent=top_exponent)
    encoder = factors
    for name in reversed(prefix):
        encoder = encoder[name]
    assert float(factors["head"]["kernel"]) == 1
    assert float(factors["embeddings"]["word_embeddings"]) == 0.5**bottom
    assert float(factors["embeddings"]["layer_norm"]["scale"]) == 0.5**bottom
    assert float(encoder["embeddings_project"]["kernel"]) == 0.5**bottom
    kernel = encoder["layers"]["intermediate"]["kernel"]
    assert kernel.shape == (4, 1, 1)
    np.testing.assert_allclose(kernel[:, 0, 0], [0.5**exponent for exponent in layers])
    assert encoder["layers"]["intermediate"]["bias"].shape == (4, 1)


def test_parameters_in_no_group_are_listed() -> None:
    params = tree(("encoder",)) | {"generator": {"head": {"output_bias": jnp.ones(7)}}, "pooler": jnp.ones(1)}
    with pytest.raises(UserError, match="generator/head/output_bias, pooler"):
        layerwise_multipliers(params, decay=0.9, top_exponent=1)


def test_an_update_of_equal_gradients_is_scaled_layer_by_layer() -> None:
    """Weight decay is scaled too: the factor is of the learning rate."""
    settings = {"num_train_steps": 1000, "learning_rate": 0.1, "weight_decay_rate": 0.1}
    params = tree(("encoder",))
    grads = jax.tree.map(lambda leaf: jnp.full_like(leaf, 1e-3), params)
    updates = []
    for decay in (1.0, 0.5):
        rule = make_optimizer(optimizer_config(**settings, layerwise_lr_decay=decay))
        updates.append(rule.update(grads, rule.init(params), params)[0])
    factors = layerwise_multipliers(params, decay=0.5, top_exponent=1)
    for flat, scaled, factor in zip(*map(jax.tree.leaves, (*updates, factors)), strict=True):
        np.testing.assert_allclose(scaled, flat * factor, rtol=1e-6)

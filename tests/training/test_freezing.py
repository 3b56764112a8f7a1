"""Frozen embeddings and layers keep every bit, and do not count where gradients are clipped."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.training.freezing import freeze
from electra_jax.training.optimizer import make_optimizer
from support.tiny_model import optimizer_config


def tree(value: float) -> dict:
    return {
        "embeddings": {"word_embeddings": jnp.full((3, 2), value)},
        "discriminator": {
            "encoder": {
                "embeddings_project": {"kernel": jnp.full((2, 2), value)},
                "layers": {"query": {"kernel": jnp.full((3, 2, 2), value)}},
            }
        },
        "head": {"kernel": jnp.full((2, 1), value)},
    }


@pytest.mark.parametrize("frozen_layers", [0, 2, 3])
def test_frozen_parameters_keep_their_values(frozen_layers: int) -> None:
    config = optimizer_config(num_warmup_steps=0, weight_decay_rate=0.1, clip_norm=1.0)
    rule, params = freeze(make_optimizer(config), frozen_layers), tree(1.0)
    state, plain = rule.init(params), make_optimizer(config)
    # What is frozen has the largest gradients by far, which a common norm would have scaled to nothing.
    grads = tree(1e6)
    grads["head"] = {"kernel": jnp.full((2, 1), 0.1)}
    grads["discriminator"]["encoder"]["layers"] = {
        "query": {
            "kernel": jnp.array([1e6] * frozen_layers + [0.1] * (3 - frozen_layers))[:, None, None]
            + jnp.zeros((3, 2, 2))
        }
    }
    small = jax.tree.map(lambda leaf: jnp.where(leaf > 1, 0.0, leaf), grads)
    updates, _ = rule.update(grads, state, params)
    alone, _ = plain.update(small, plain.init(params), params)
    layers = updates["discriminator"]["encoder"]["layers"]["query"]["kernel"]
    assert not np.any(updates["embeddings"]["word_embeddings"])
    assert not np.any(updates["discriminator"]["encoder"]["embeddings_project"]["kernel"])
    assert [bool(np.any(layer)) for layer in layers] == [place >= frozen_layers for place in range(3)]
    expected = alone["discriminator"]["encoder"]["layers"]["query"]["kernel"]
    np.testing.assert_array_equal(layers[frozen_layers:], expected[frozen_layers:])
    np.testing.assert_array_equal(updates["head"]["kernel"], alone["head"]["kernel"])

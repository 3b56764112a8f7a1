"""Every objective trains every part of an encoder of ModernBERT's layers, and ELECTRA of each single switch."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict

from electra_jax.model.config import FULL, SLIDING
from electra_jax.model.types import PyTree
from electra_jax.pretraining import corruption, steps
from electra_jax.pretraining.objective import Keys
from support.objectives import COMPILE_FAST, VARIANTS, Variant
from support.tiny_model import MASKING, modern_encoder, random_batch, small_encoder

LENGTH = 32
SWITCHES = {
    "rotary": {"position_embedding_type": "rotary"},
    "pre-LayerNorm": {"norm_placement": "pre"},
    "gated": {"gated_mlp": True},
    "qk-norm": {"qk_norm": True},
    "no biases": {"attention_bias": False, "mlp_bias": False, "norm_bias": False, "classifier_bias": False},
    "windows": {"layer_types": (FULL, SLIDING), "local_attention": 8},
    "no token types": {"type_vocab_size": 0},
}
# By switch, how its parameters differ from BERT's.
WITHOUT = {
    "rotary": "position_embeddings",
    "no biases": "attention/query_bias intermediate/bias output_layer_norm/bias embeddings/layer_norm/bias",
    "no token types": "token_type_embeddings",
}
WITH = {"gated": "layers/gate/kernel", "qk-norm": "attention/query_norm/scale attention/key_norm/scale"}


# Of T5X's standard rules, for which parameters are named.
AXES = {"embed", "heads", "kv", "mlp", "vocab", "layers", "abspos_buckets", None}


def gradients(variant: Variant) -> dict[str, float]:
    """Return the largest gradient of the weighted losses in each parameter, by path."""
    rows = jax.tree.map(jnp.asarray, random_batch(4, LENGTH))
    masked = steps.as_masked(jax.random.key(3), rows, MASKING)
    key = jax.random.key(7)
    keys = Keys(corruption.row_keys(key, len(rows["input_ids"])), key, key)

    def loss(params: PyTree) -> jax.Array:
        terms, _ = variant.objective.losses(variant.model, params, masked, keys, masking=MASKING, deterministic=True)
        return jnp.stack(
            [weight * terms[name].sum / terms[name].weight for name, weight in variant.objective.loss_weights.items()]
        ).sum()

    found = jax.jit(jax.grad(loss), compiler_options=COMPILE_FAST)(variant.params())
    return {path: float(jnp.max(jnp.abs(leaf))) for path, leaf in flatten_dict(found, sep="/").items()}


def assert_trained(variant: Variant) -> None:
    """Check that every parameter has a gradient, but for those that have none in exact arithmetic."""
    for path, largest in gradients(variant).items():
        assert np.isfinite(largest)
        assert largest > 0 or "key_bias" in path, path


@pytest.mark.parametrize("name", VARIANTS)
def test_every_objective_trains_modern_blocks(name: str) -> None:
    """Both kinds of layer, in a loop over rounds."""
    variant = dataclasses.replace(VARIANTS[name], encoder=modern_encoder(scan_unroll=1))
    if variant.own_size:
        variant = dataclasses.replace(variant, encoder=dataclasses.replace(variant.encoder, embedding_size=8))
    assert_trained(variant)


@pytest.mark.parametrize("switch", SWITCHES)
def test_electra_trains_with_each_switch_alone(switch: str) -> None:
    changes: dict[str, Any] = SWITCHES[switch]
    variant = dataclasses.replace(VARIANTS["electra"], encoder=dataclasses.replace(small_encoder(), **changes))
    assert_trained(variant)
    paths = list(flatten_dict(variant.params(), sep="/"))
    for part in WITHOUT.get(switch, "").split():
        assert not [path for path in paths if part in path]
    for part in WITH.get(switch, "").split():
        assert len([path for path in paths if part in path]) == 2


def test_every_axis_of_modern_blocks_has_a_name_that_t5x_knows() -> None:
    model = dataclasses.replace(VARIANTS["gdes"], encoder=modern_encoder(qk_norm=True)).model
    boxed = jax.eval_shape(lambda key: steps.init_params(key, model, LENGTH), jax.random.key(0))
    names = nn.get_partition_spec(boxed)
    shapes = flatten_dict(nn.unbox(boxed), sep="/")
    for path, axes in flatten_dict(names, sep="/").items():
        assert set(axes) <= AXES, path
        assert len(axes) == len(shapes[path].shape), path
        assert ("layers" in axes) == ("/layers/" in path), path

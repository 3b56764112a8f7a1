"""Eight virtual devices give what one device gives."""

import functools
from typing import Any

import jax
import numpy as np
import pytest

from electra_jax import sharding, steps, training
from electra_jax.errors import UserError
from electra_jax.optimizer import make_optimizer
from electra_jax.sharding import MeshConfig
from small import MASKING, OBJECTIVE, ONE_AXIS, RULES, optimizer_config, random_batch, small_model


def one_update(config: MeshConfig, num_devices: int, *, accumulation_steps: int = 1, dropout: float = 0.1) -> Any:
    """State before and after an update, and the metric sums."""
    model = small_model(dropout=dropout)
    optimizer = make_optimizer(optimizer_config(clip_norm=1e9))
    mesh = sharding.make_mesh(config, num_devices)
    init = functools.partial(steps.init_state, model=model, optimizer=optimizer, sequence_length=32)
    before = sharding.initialise(init, jax.random.key(0), mesh, config)
    step = functools.partial(
        steps.pretrain_step,
        model=model,
        objective=OBJECTIVE,
        masking=MASKING,
        optimizer=optimizer,
        accumulation_steps=accumulation_steps,
    )
    batch = training.place(random_batch(16, 32), sharding.batch_sharding(mesh))
    after, sums = jax.jit(step)(before, batch)
    return jax.device_get((before, after, sums)), after


@pytest.mark.parametrize("axes", [(8, 1, 1), (1, 8, 1), (2, 4, 1)])
def test_eight_devices_equal_one(axes: tuple[int, int, int]) -> None:
    (before, after, sums), _ = one_update(ONE_AXIS, 1)
    config = MeshConfig(*axes, rules=RULES)
    (before_8, after_8, sums_8), on_mesh = one_update(config, 8)
    for one, eight in zip(jax.tree.leaves(before), jax.tree.leaves(before_8), strict=True):
        np.testing.assert_array_equal(one, eight)
    for name in sums:
        np.testing.assert_allclose(sums_8[name], sums[name], rtol=2e-5, atol=1e-5, err_msg=name)
    # Both moments after one update are the gradient's, linear and squared.
    for one, eight in zip(jax.tree.leaves(after.opt_state), jax.tree.leaves(after_8.opt_state), strict=True):
        np.testing.assert_allclose(eight, one, rtol=1e-3, atol=2e-6 * max(1.0, float(np.abs(one).max())))
    for one, eight in zip(jax.tree.leaves(after.params), jax.tree.leaves(after_8.params), strict=True):
        np.testing.assert_allclose(eight, one, atol=1e-4)
    table = on_mesh.params["embeddings"]["word_embeddings"]
    moment = on_mesh.opt_state[1].mu["embeddings"]["word_embeddings"]
    assert table.sharding == moment.sharding
    assert len({str(shard.index) for shard in table.addressable_shards}) == axes[1] * axes[2]


def test_micro_batches_on_eight_devices_equal_the_full_batch_on_one() -> None:
    # Without dropout, which is drawn for each micro-batch.
    (_, after, sums), _ = one_update(ONE_AXIS, 1, dropout=0.0)
    (_, after_8, sums_8), _ = one_update(ONE_AXIS, 8, accumulation_steps=2, dropout=0.0)
    for name in sums:
        np.testing.assert_allclose(sums_8[name], sums[name], rtol=2e-5, atol=1e-5, err_msg=name)
    for one, eight in zip(jax.tree.leaves(after.opt_state), jax.tree.leaves(after_8.opt_state), strict=True):
        np.testing.assert_allclose(eight, one, rtol=1e-3, atol=2e-6 * max(1.0, float(np.abs(one).max())))


@pytest.mark.parametrize("axes", [(-1, 3, 1), (2, 2, 1), (-1, -1, 1)])
def test_a_mesh_that_does_not_fit_is_refused(axes: tuple[int, int, int]) -> None:
    with pytest.raises(UserError, match="mesh axes"):
        sharding.make_mesh(MeshConfig(*axes, rules=RULES), 8)


def test_a_batch_that_does_not_divide_is_refused_with_one_that_does() -> None:
    mesh = sharding.make_mesh(ONE_AXIS, 8)
    with pytest.raises(UserError, match=r"batch size 12 .* nearest that fits is 16"):
        sharding.check_batch(12, 2, mesh)
    sharding.check_batch(16, 2, mesh)

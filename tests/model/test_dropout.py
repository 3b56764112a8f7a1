"""Dropout from packed random bits."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from scipy import stats

from electra_jax.errors import UserError
from electra_jax.model.layers import DROPOUT_GENERATORS, Dropout, keep_mask, warn_of_whole_draws
from electra_jax.training import sharding
from support.tiny_model import ONE_AXIS, small_encoder


# 2^18 decisions tell 0.1 from 0.1016 by 2.7 standard deviations: the rounded rate is the one that is met.
@pytest.mark.parametrize("prng", DROPOUT_GENERATORS)
@pytest.mark.parametrize(("bits", "rate", "dropped"), [(8, 0.1, 26 / 256), (16, 0.1, 6554 / 65536), (32, 0.1, 0.1)])
def test_elements_go_at_the_rounded_rate_and_apart_from_each_other(
    bits: int, rate: float, dropped: float, prng: str
) -> None:
    keep, probability = keep_mask(jax.random.key(1), (4, 256, 256), rate, bits, prng)
    gone = ~np.asarray(keep)
    assert probability == pytest.approx(1 - dropped, abs=1e-9)
    assert stats.binomtest(int(gone.sum()), gone.size, dropped).pvalue > 1e-3
    # Decisions from one draw are no more alike than those from two.
    rows = gone.reshape(-1, 256)
    for distance in (1, 2, 3, 4, 5):
        both = int((rows[:, :-distance] & rows[:, distance:]).sum())
        assert stats.binomtest(both, rows[:, distance:].size, dropped**2).pvalue > 1e-3
    assert stats.chisquare(rows.sum(axis=0)).pvalue > 1e-3


def test_a_last_axis_that_no_draw_fills() -> None:
    keep, _ = keep_mask(jax.random.key(0), (1000, 7), 0.5, 8, "threefry2x32")
    assert keep.shape == (1000, 7)
    assert stats.chisquare(np.asarray(keep).sum(axis=0)).pvalue > 1e-3


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_what_stays_is_scaled_so_that_the_mean_stays(bits: int) -> None:
    inputs = jnp.ones((64, 64), jnp.bfloat16)
    outputs = Dropout(0.25, bits, "threefry2x32").apply(
        {}, inputs, deterministic=False, rngs={"dropout": jax.random.key(0)}
    )
    assert outputs.dtype == jnp.bfloat16
    assert set(np.unique(outputs.astype(np.float32))) == {0.0, np.float32(jnp.asarray(4 / 3, jnp.bfloat16))}


def test_a_deterministic_pass_and_a_rate_of_zero_draw_nothing() -> None:
    inputs = jnp.arange(6.0).reshape(2, 3)
    for dropout, deterministic in ((Dropout(0.9, 8, "rbg"), True), (Dropout(0.0, 8, "rbg"), False)):
        np.testing.assert_array_equal(dropout.apply({}, inputs, deterministic=deterministic), inputs)


@pytest.mark.parametrize("prng", DROPOUT_GENERATORS)
def test_eight_devices_drop_what_one_does(prng: str) -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    inputs = jnp.ones((16, 8, 32))
    dropout = jax.jit(lambda key, x: Dropout(0.5, 16, prng).apply({}, x, deterministic=False, rngs={"dropout": key}))
    key = jax.random.key(3)
    rows = jax.device_put(inputs, NamedSharding(mesh, PartitionSpec("data")))
    shared = dropout(key, rows)
    assert len(shared.addressable_shards) == 8
    np.testing.assert_array_equal(shared, dropout(key, inputs))
    assert (np.asarray(shared) != dropout(jax.random.key(4), inputs)).any()
    # Two decisions a draw. By threefry no device computes the others' draws.
    text = dropout.lower(key, rows).compile().as_text()
    assert ("u32[16,8,16]" in text) == (prng == "rbg")


def test_several_devices_that_draw_as_much_as_one_are_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    mesh = sharding.make_mesh(ONE_AXIS, 8)
    warn_of_whole_draws.cache_clear()
    for prng in DROPOUT_GENERATORS:

        def draw(key: jax.Array, prng: str = prng) -> jax.Array:
            return keep_mask(key, (4, 8), 0.5, 16, prng)[0] & keep_mask(key, (4, 8), 0.1, 16, prng)[0]

        jax.eval_shape(draw, jax.random.key(0))
        # On one device there is nothing to say.
        assert not caplog.records
        jax.eval_shape(sharding.partitioned(draw, mesh, ONE_AXIS), jax.random.key(0))
        assert len(caplog.records) == (prng == "rbg")
    assert "on each of the 8 devices of the mesh: 'threefry2x32' draws" in caplog.text


def test_the_generators_differ_and_no_other_is_known() -> None:
    masks = [keep_mask(jax.random.key(0), (64, 64), 0.5, 16, prng)[0] for prng in DROPOUT_GENERATORS]
    assert 0.4 < np.mean(np.asarray(masks[0]) != masks[1]) < 0.6
    with pytest.raises(UserError, match="dropout_prng is 'philox': it must be one of threefry2x32, rbg"):
        dataclasses.replace(small_encoder(), dropout_prng="philox")

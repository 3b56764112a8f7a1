"""Schedules of hyperparameters: values by hand, and points that make no sense."""

import jax
import jax.numpy as jnp
import pytest

from electra_jax.errors import UserError
from electra_jax.training.schedules import (
    Schedule,
    check_schedule,
    largest_value,
    last_value,
    progress,
    value_at,
)

FALLS_THEN_STAYS = ((0.25, 2.0), (0.75, 1.0))


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 2.0), (25, 2.0), (26, 1.98), (50, 1.5), (75, 1.0), (99, 1.0), (100, 1.0), (140, 1.0)]
)
def test_values_of_points_by_hand(step: int, expected: float) -> None:
    """Constant, linear, constant; also in a jitted step, where the number of the step is on the device."""
    found = jax.jit(lambda step: value_at(FALLS_THEN_STAYS, progress(step, 100)))(jnp.int32(step))
    assert found.dtype == jnp.float32
    assert found.shape == ()
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_a_constant_stays_the_number_that_it_is() -> None:
    """A program with a constant temperature is the one without schedules."""
    assert type(value_at(1.0, jnp.float32(0.5))) is float
    assert value_at(0.15, 0.0) == last_value(0.15) == largest_value(0.15) == 0.15


def test_the_largest_and_the_last_value() -> None:
    points = ((0.0, 0.2), (0.5, 0.4), (1.0, 0.1))
    assert (largest_value(points), last_value(points)) == (0.4, 0.1)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (0.0, "RATE is 0.0: it must be positive"),
        (((0.0, 1.0), (1.0, -1.0)), "RATE has the value -1.0: it must be positive"),
        (((0.5, 1.0), (0.5, 2.0)), r"RATE has points at the shares \(0.5, 0.5\): they must increase, from 0 to 1"),
        (((0.0, 1.0), (100.0, 2.0)), "they must increase, from 0 to 1"),
        (((0.0, 1.0), (1.0,)), "it must be a number, or"),
        ((), "it must be a number, or"),
        ("2 -> 1", "it must be a number, or"),
        ((0.0, 1.0), "it must be a number, or"),
    ],
)
def test_points_that_are_none(schedule: Schedule, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_schedule("RATE", schedule, valid=lambda rate: rate > 0, rule="must be positive")

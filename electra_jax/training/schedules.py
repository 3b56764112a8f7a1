"""Schedule hyperparameters over the steps of a run: a constant number, or linear interpolation between points."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from electra_jax.errors import UserError

# One number for the whole run, or (share of the steps, value) points with increasing shares. The value is linear
# between two points, and constant before the first and after the last one.
Schedule = float | tuple[tuple[float, float], ...]


def check_schedule(name: str, schedule: Schedule, *, valid: Callable[[float], bool], rule: str) -> None:
    """Check the points of a schedule.

    Args:
        name: the setting, as the user knows it.
        schedule: a number, or points.
        valid: tells whether a value is in range.
        rule: the rest of the message "it ...", such as "must be positive".

    Raises:
        UserError: if the points are not pairs of increasing shares from 0 to 1 and numbers, or a value is out of range.
    """
    if isinstance(schedule, int | float):
        if not valid(schedule):
            raise UserError(f"{name} is {schedule}: it {rule}")
        return
    try:
        shares, values = zip(*((float(share), float(value)) for share, value in schedule), strict=True)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{name} is {schedule!r}: it must be a number, or (share of the steps, value) points such as "
            "((0.0, 2.0), (1.0, 1.0))"
        ) from error
    if list(shares) != sorted(set(shares)) or shares[0] < 0 or shares[-1] > 1:
        raise UserError(f"{name} has points at the shares {shares}: they must increase, from 0 to 1")
    wrong = [value for value in values if not valid(value)]
    if wrong:
        raise UserError(f"{name} has the value {wrong[0]}: it {rule}")


def progress(step: jax.Array | int, num_steps: int) -> jax.Array:
    """Return the share of `num_steps` that is over before an update, counted from 0; float32 [] in [0, 1]."""
    return jnp.minimum(jnp.asarray(step, jnp.float32), num_steps) / num_steps


def value_at(schedule: Schedule, share: jax.Array | float) -> jax.Array | float:
    """Return the value after a share of the steps: a Python number if it is constant, otherwise float32 []."""
    if isinstance(schedule, int | float):
        return schedule
    shares, values = jnp.asarray(schedule, jnp.float32).T
    return jnp.interp(jnp.asarray(share, jnp.float32), shares, values)


def last_value(schedule: Schedule) -> float:
    """Return the value at the end of a run, with which a model is evaluated at any point of its training."""
    return schedule if isinstance(schedule, int | float) else schedule[-1][1]


def largest_value(schedule: Schedule) -> float:
    """Return the largest value of a run, for which shapes are planned."""
    return schedule if isinstance(schedule, int | float) else max(value for _, value in schedule)

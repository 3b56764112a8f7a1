"""Accumulate gradients: cut a batch into micro-batches, and add up their gradients and metric sums."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

from electra_jax.model.types import PyTree

# A tree of sums.
_Sums = TypeVar("_Sums")


def accumulate(
    gradient: Callable[[jax.Array, PyTree], tuple[PyTree, _Sums]], rows: PyTree, accumulation_steps: int
) -> tuple[PyTree, _Sums]:
    """Add up the gradients and the metric sums of a batch's micro-batches, one after the other.

    Args:
        gradient: returns those of a micro-batch, given its number and its rows.
        rows: arrays [B, ...] of the whole batch.
        accumulation_steps: the number of micro-batches, which divides B.
    """
    if accumulation_steps == 1:
        return gradient(jnp.zeros((), jnp.int32), rows)

    def split(rows: jax.Array) -> jax.Array:
        # [B, ...] -> [n, B / n, ...], every n-th row, so that each device's rows stay on it.
        return rows.reshape(-1, accumulation_steps, *rows.shape[1:]).swapaxes(0, 1)

    micro = jax.tree.map(split, rows)
    indices = jnp.arange(accumulation_steps)
    shapes = jax.eval_shape(gradient, indices[0], jax.tree.map(lambda rows: rows[0], micro))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    total, _ = jax.lax.scan(
        lambda total, xs: (jax.tree.map(jnp.add, total, gradient(xs[0], xs[1])), None), zeros, (indices, micro)
    )
    return total

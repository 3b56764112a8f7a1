"""Cut a batch into micro-batches, and add up or join their results."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

from electra_jax.model.types import PyTree

Added = TypeVar("Added", bound=PyTree)


def split(rows: PyTree, number: int) -> PyTree:
    """Cut arrays [B, ...] into [n, B / n, ...], each of every n-th row, so that rows stay on their device."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, number, *leaf.shape[1:]).swapaxes(0, 1), rows)


def join(micro: PyTree) -> PyTree:
    """Join arrays [n, B / n, ...] to [B, ...]: the inverse of `split`."""
    return jax.tree.map(lambda leaf: leaf.swapaxes(0, 1).reshape(-1, *leaf.shape[2:]), micro)


def accumulate(compute: Callable[..., Added], rows: tuple[PyTree, ...], accumulation_steps: int) -> Added:
    """Add up the results of each micro-batch, such as gradients and metric sums, one after the other.

    Args:
        compute: takes the number of the micro-batch, and its part of each tree of `rows`.
        rows: trees of arrays [B, ...] of the whole batch.
        accumulation_steps: the number of micro-batches.
    """
    if accumulation_steps == 1:
        return compute(jnp.zeros((), jnp.int32), *rows)

    micro = split(rows, accumulation_steps)
    indices = jnp.arange(accumulation_steps)
    shapes = jax.eval_shape(compute, indices[0], *jax.tree.map(lambda rows: rows[0], micro))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    total, _ = jax.lax.scan(
        lambda total, xs: (jax.tree.map(jnp.add, total, compute(xs[0], *xs[1])), None), zeros, (indices, micro)
    )
    return total

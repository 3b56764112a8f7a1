"""Compute attention to a window in blocks, so that a query costs what the window costs.

A row of L tokens is cut into G blocks of W tokens, with W the number of tokens that a window has on each side. The
queries of a block then attend to 3 W keys, those of the block and of its two neighbours, whatever L is.
"""

import jax
import jax.numpy as jnp

# Rows of at least this many blocks are cut; in shorter ones three blocks are nearly the whole row, and copying them
# costs more than it saves.
MIN_BLOCKS = 4


def is_cut(length: int, reach: int) -> bool:
    """Return whether rows of L tokens are cut into blocks of `reach` tokens."""
    return length >= MIN_BLOCKS * reach


def num_attended(length: int, reach: int) -> int:
    """Return the number of keys that are multiplied with each query."""
    return 3 * reach if is_cut(length, reach) else length


def seen_in_row(attention_mask: jax.Array, reach: int) -> jax.Array:
    """Return which tokens of a row a token may attend to: those within reach, and itself, int32 [B, L, S].

    Args:
        attention_mask: int, [B, S] or [B, L, S], as `Encoder` takes it.
        reach: the tokens of a window on each side.
    """
    places_L = jnp.arange(attention_mask.shape[-1])
    seen_BLS = attention_mask if attention_mask.ndim == 3 else attention_mask[:, None, :]
    return _seen(seen_BLS, places_L[None] - places_L[:, None], reach)


def _seen(seen: jax.Array, distances_LS: jax.Array, reach: int) -> jax.Array:
    """Limit a mask [..., L, S] to a window."""
    leading = (None,) * (seen.ndim - 2)
    near_LS = (jnp.abs(distances_LS) <= reach).astype(seen.dtype)[leading]
    # Padding sees itself, because fused attention leaves the result undefined for a token that sees nothing.
    return jnp.maximum(seen * near_LS, (distances_LS == 0).astype(seen.dtype)[leading])


def in_blocks(values: jax.Array, axis: int, width: int) -> jax.Array:
    """Split an axis of length L into [G, W], padded with zeros.

    Args:
        values: an array of any shape.
        axis: the axis to split, not negative.
        width: W.
    """
    length = values.shape[axis]
    count = -(-length // width)
    padding = [(0, 0)] * values.ndim
    padding[axis] = (0, count * width - length)
    return jnp.pad(values, padding).reshape(*values.shape[:axis], count, width, *values.shape[axis + 1 :])


def with_neighbours(blocks: jax.Array, axis: int) -> jax.Array:
    """Join each block with the one before and the one after it, or with zeros at the ends of the row.

    Args:
        blocks: an array with axes [..., G, W, ...].
        axis: the axis of G.

    Returns:
        [..., G, 3 W, ...].
    """
    padding = [(0, 0)] * blocks.ndim
    padding[axis] = (1, 1)
    padded, count = jnp.pad(blocks, padding), blocks.shape[axis]
    shifted = [jax.lax.slice_in_dim(padded, start, start + count, axis=axis) for start in range(3)]
    return jnp.concatenate(shifted, axis=axis + 1)


def joined(blocks: jax.Array, axis: int, length: int) -> jax.Array:
    """Join [..., G, W, ...] to [..., L, ...]: the inverse of `in_blocks`."""
    rows = blocks.reshape(*blocks.shape[:axis], -1, *blocks.shape[axis + 2 :])
    return jax.lax.slice_in_dim(rows, 0, length, axis=axis)


def seen_in_blocks(attention_mask: jax.Array, reach: int) -> jax.Array:
    """Return which keys of three blocks a query of the middle one may attend to, int32 [B, G, W, 3 W].

    Args:
        attention_mask: int, [B, S] or [B, L, S], as `Encoder` takes it.
        reach: W.
    """
    if attention_mask.ndim == 2:
        seen_BGWS = with_neighbours(in_blocks(attention_mask, 1, reach), 1)[:, :, None]
    else:
        count = -(-attention_mask.shape[2] // reach)
        filled = count * reach - attention_mask.shape[2]
        around_BLS = jnp.pad(attention_mask, [(0, 0), (0, 0), (reach, reach + filled)])
        columns_GS = jnp.arange(count)[:, None] * reach + jnp.arange(3 * reach)[None]
        seen_BGWS = jnp.take_along_axis(in_blocks(around_BLS, 1, reach), columns_GS[None, :, None], axis=3)
    # Key s is s - W positions after the first query.
    return _seen(seen_BGWS, jnp.arange(3 * reach)[None] - reach - jnp.arange(reach)[:, None], reach)

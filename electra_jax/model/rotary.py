"""Apply rotary position embeddings (Su et al., 2021): rotate queries and keys by angles proportional to their position.

Channels C are taken in pairs (c, c + C/2), as in `transformers`, and pair c is rotated by `position / theta^(2c/C)`, so
that the product of a query and a key depends only on the distance between their positions.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Rotation(NamedTuple):
    """The cosines and sines of each position's angles, float32 [B or 1, L, C/2]."""

    cos: jax.Array
    sin: jax.Array


def rotation(position_ids_xL: jax.Array, channels: int, theta: float) -> Rotation:
    """Return the rotation of each position.

    Args:
        position_ids_xL: int32 [B, L], or [1, L] for all rows.
        channels: C, even.
        theta: the base of the angles; a larger base rotates more slowly, for longer sequences.
    """
    frequencies = theta ** -(jnp.arange(0, channels, 2, dtype=jnp.float32) / channels)
    angles = position_ids_xL[..., None].astype(jnp.float32) * frequencies[None, None]
    return Rotation(jnp.cos(angles), jnp.sin(angles))


def rotate(values: jax.Array, turn: Rotation, *, length_axis: int) -> jax.Array:
    """Rotate each head's channels by their position, in float32; return them in the dtype of `values`.

    Args:
        values: queries or keys, [B, H, L, C] or [B, L, H, C].
        turn: the rotation of the L positions.
        length_axis: the axis of L, 2 or 1.
    """
    head_axis = 3 - length_axis
    cos, sin = (jnp.expand_dims(part, head_axis) for part in turn)
    first, second = jnp.split(values.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(values.dtype)

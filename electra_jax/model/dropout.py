"""Dropout whose random bits are cheap: several decisions from one 32-bit draw."""

import jax
import jax.numpy as jnp
from flax import linen as nn

GENERATORS = ("threefry2x32", "rbg")
DECISION_TYPES = {8: jnp.uint8, 16: jnp.uint16, 32: jnp.uint32}


def keep_mask(key: jax.Array, shape: tuple[int, ...], rate: float, bits: int, prng: str) -> tuple[jax.Array, float]:
    """Which elements stay: bool of `shape`, independent, and the probability that one does.

    A 32-bit draw is cut into 32 / `bits` whole numbers, and an element goes where its number is below
    rate x 2^bits. The rate is thereby rounded to a multiple of 2^-bits; the returned probability is the rounded one,
    so that what is divided by it keeps its mean exactly.

    Args:
        key: PRNG key.
        shape: of what is dropped from; its last axis is where draws are cut.
        rate: probability that an element goes, in [0, 1).
        bits: 8 (0.1 becomes 0.1016), 16 (0.100006) or 32.
        prng: "threefry2x32" draws the same on every backend, and each device draws its own shard. "rbg" is XLA's
            generator, cheap where the hardware has one: it draws the same after a resume and whatever the sharding, but
            not on another kind of device or, perhaps, by another version of XLA; each device draws the whole array.
    """
    if prng == "rbg":
        key = jax.random.wrap_key_data(jnp.tile(jax.random.key_data(key), 2), impl="rbg")
    decision = DECISION_TYPES[bits]
    per_draw = 32 // bits
    draws = jax.random.bits(key, (*shape[:-1], -(-shape[-1] // per_draw)), jnp.uint32)
    numbers = jax.lax.bitcast_convert_type(draws, decision).reshape(*shape[:-1], -1)[..., : shape[-1]]
    threshold = round(rate * 2**bits)
    return numbers >= decision(threshold), 1 - threshold / 2**bits


class Dropout(nn.Module):
    """Zeroes elements with probability `rate` and divides the others by the probability that they stay.

    Attributes:
        rate, bits, prng: see `keep_mask`.
    """

    rate: float
    bits: int
    prng: str

    @nn.compact
    def __call__(self, inputs: jax.Array, *, deterministic: bool) -> jax.Array:
        """Any shape; draws from the key stream `dropout` unless `deterministic`."""
        if deterministic or not self.rate:
            return inputs
        keep, probability = keep_mask(self.make_rng("dropout"), inputs.shape, self.rate, self.bits, self.prng)
        return jnp.where(keep, inputs * jnp.asarray(1 / probability, inputs.dtype), jnp.zeros((), inputs.dtype))

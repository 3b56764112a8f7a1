"""Define the layers that encoders and heads are built from: linear maps, normalization, GELU and dropout.

Every parameter is float32 and declared at its true rank, with a logical name for each axis (T5X's vocabulary of names),
so that one set of rules shards it over any mesh.
"""

import functools
import logging
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from electra_jax.model import matmul

logger = logging.getLogger(__name__)

Initializer = Callable[..., jax.Array]

DROPOUT_GENERATORS = ("threefry2x32", "rbg")
DROPOUT_INTEGERS = {8: jnp.uint8, 16: jnp.uint16, 32: jnp.uint32}


def logical(initializer: Initializer, *axes: str | None) -> Initializer:
    """Attach the logical names of a parameter's axes to its initializer."""
    return nn.with_logical_partitioning(initializer, axes)


def constrain(values: jax.Array, *axes: str | None) -> jax.Array:
    """Lay values out over the mesh as the rules for these logical axes say; without rules, return them as they are.

    Without this, XLA may gather a whole batch to avoid gathering a layer's parameters.
    """
    return nn.with_logical_constraint(values, axes)


def expand_to(vector: jax.Array, values: jax.Array) -> jax.Array:
    """Give a vector leading axes of size 1, up to the rank of `values`, so that it applies to their last axis."""
    return vector.reshape((1,) * (values.ndim - 1) + vector.shape)


def gelu(inputs: jax.Array) -> jax.Array:
    """Apply the exact (erf) Gaussian error linear unit."""
    # In bfloat16, for x <= -2, 1 + erf(x) is 0 or too large by half; erfc(-x) keeps its digits.
    if inputs.dtype != jnp.float32:
        return jax.nn.gelu(inputs, approximate=False)
    # erfc costs more on CPU, where all products are float32.
    return 0.5 * inputs * (1 + jax.lax.erf(inputs * 0.5**0.5))


def unstacked(values: jax.Array) -> list[jax.Array]:
    """Return the N arrays of [N, ...].

    They are cut in one operation, whose gradient is one concatenation and not a sum of padded arrays.
    """
    return [part.squeeze(0) for part in jax.lax.split(values, (1,) * len(values))]


def take_positions(values_BLx: jax.Array, positions_BK: jax.Array) -> jax.Array:
    """Gather [B, K, ...] from [B, L, ...], row by row."""
    return jax.vmap(lambda values, positions: jnp.take(values, positions, axis=0))(values_BLx, positions_BK)


class Linear(nn.Module):
    """x W + b over the last axis, with a kernel [in, out], and b only with `use_bias`; multiplied in `dtype`."""

    features: int
    axes: tuple[str | None, str | None]
    kernel_init: Initializer
    dtype: Any
    use_bias: bool = True

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Map [..., in] to [..., out]."""
        kernel = self.param(
            "kernel", logical(self.kernel_init, *self.axes), (inputs.shape[-1], self.features), jnp.float32
        )
        outputs = matmul.dense(inputs, kernel, self.dtype)
        if not self.use_bias:
            return outputs
        bias = self.param("bias", logical(nn.initializers.zeros, self.axes[1]), (self.features,), jnp.float32)
        return outputs + expand_to(bias.astype(outputs.dtype), outputs)


class LayerNorm(nn.Module):
    """Layer normalization over the last axis, computed in float32 and returned in `dtype`.

    `of_residuals` says that the inputs are read by nothing but normalizations and sums: see `matmul.storing_mean`.
    """

    epsilon: float
    axis: str
    dtype: Any
    use_bias: bool = True
    of_residuals: bool = False

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Normalize an array of any shape."""
        size = inputs.shape[-1:]
        scale = self.param("scale", logical(nn.initializers.ones, self.axis), size, jnp.float32)
        inputs = inputs.astype(jnp.float32)
        mean = matmul.storing_mean(inputs) if self.of_residuals else jnp.mean(inputs, axis=-1, keepdims=True)
        centred = inputs - mean
        variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
        normalized = centred * jax.lax.rsqrt(variance + self.epsilon)
        normalized *= expand_to(scale, inputs)
        if self.use_bias:
            bias = self.param("bias", logical(nn.initializers.zeros, self.axis), size, jnp.float32)
            normalized += expand_to(bias, inputs)
        return normalized.astype(self.dtype)


def keep_mask(key: jax.Array, shape: tuple[int, ...], rate: float, bits: int, prng: str) -> tuple[jax.Array, float]:
    """Draw which elements dropout keeps, independently, bool of `shape`; return also the probability of keeping one.

    A 32-bit draw is cut into 32 / `bits` integers, and an element is dropped where its integer is below
    rate x 2^bits. This rounds the rate to a multiple of 2^-bits; the returned probability is the rounded one, so that
    dividing by it keeps the mean exactly.

    Args:
        key: PRNG key.
        shape: the shape of the array; draws are cut along its last axis.
        rate: probability that an element is dropped, in [0, 1).
        bits: 8 (0.1 becomes 0.1016), 16 (0.100006) or 32.
        prng: "threefry2x32" draws the same on every backend, and each device draws its own shard. "rbg" is XLA's
            generator, which is cheap where the hardware has one: it draws the same after a resume and whatever the
            sharding, but not on another kind of device or, perhaps, with another version of XLA. Each device draws the
            whole array, so it is meant for one device; a mesh of several logs one warning.
    """
    if prng == "rbg":
        if (devices := jax.sharding.get_abstract_mesh().size) > 1:
            warn_of_whole_draws(devices)
        key = jax.random.wrap_key_data(jnp.tile(jax.random.key_data(key), 2), impl="rbg")
    integer = DROPOUT_INTEGERS[bits]
    per_draw = 32 // bits
    draws = jax.random.bits(key, (*shape[:-1], -(-shape[-1] // per_draw)), jnp.uint32)
    # Side by side along the last axis: a new axis of 2, as a bitcast gives, takes 128 lanes of a TPU.
    parts = [(draws >> (part * bits)).astype(integer) for part in range(per_draw)]
    numbers = jnp.concatenate(parts, axis=-1)[..., : shape[-1]]
    threshold = round(rate * 2**bits)
    return numbers >= integer(threshold), 1 - threshold / 2**bits


@functools.cache
def warn_of_whole_draws(devices: int) -> None:
    """Warn, once per process, that each of several devices draws the dropout of the whole batch."""
    logger.warning(
        "PRNG 'rbg' draws the dropout of the whole batch on each of the %d devices of the mesh: 'threefry2x32' draws "
        "the device's own rows alone",
        devices,
    )


class Dropout(nn.Module):
    """Zeroes elements with probability `rate` and divides the others by the probability that they are kept.

    Several decisions come from one 32-bit draw, so that random bits are cheap.

    Attributes:
        rate, bits, prng: see `keep_mask`.
    """

    rate: float
    bits: int
    prng: str

    @nn.compact
    def __call__(self, inputs: jax.Array, *, deterministic: bool) -> jax.Array:
        """Drop elements of an array of any shape; draw from the key stream `dropout` unless `deterministic`."""
        if deterministic or not self.rate:
            return inputs
        keep, probability = keep_mask(self.make_rng("dropout"), inputs.shape, self.rate, self.bits, self.prng)
        return jnp.where(keep, inputs * jnp.asarray(1 / probability, inputs.dtype), jnp.zeros((), inputs.dtype))

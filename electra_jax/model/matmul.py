"""Compute matrix products and attention in the form that is fast on each backend; all backend-specific code is here.

XLA's CPU compiler (jaxlib 0.10.2) converts bfloat16 operands to float32 and multiplies those, unless the result is
float32 and the left operand is summed over its last axes: then it calls kernels that use the processor's bfloat16
instructions (AVX-512 BF16, AMX), about twice as fast as float32. On CPU, a bfloat16 product therefore has a float32
result, and its gradient consists of such products too.

The same compiler transposes the left operand of a product that sums over rows, such as the gradient of a kernel, where
JAX puts the incoming gradient. On CPU, the gradient of a float32 kernel therefore has the smaller operand on the left.
Other backends get plain products.
"""

import functools
import logging
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import backend as backends
from jax.typing import DTypeLike

logger = logging.getLogger(__name__)

ATTENTIONS = ("exact", "fused")


def backend() -> str:
    """Return "cpu", "tpu", "cuda", or another platform's name."""
    found = backends.get_backend()
    return "cuda" if found.platform == "gpu" and "cuda" in found.platform_version else found.platform


def dense(inputs: jax.Array, kernel: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Multiply [..., in] by [in, out] in `dtype`; the result has that dtype, but float32 for bfloat16 on CPU."""
    if has_layout_rule(dtype):
        rows = inputs.reshape(-1, inputs.shape[-1])
        return product(rows, kernel, False).reshape(*inputs.shape[:-1], kernel.shape[-1])
    multiply = float32_dense if backend() == "cpu" and jnp.dtype(dtype) == jnp.float32 else _multiplied
    return multiply(inputs.astype(dtype), kernel.astype(dtype))


def einsum(
    subscripts: str, left: jax.Array, right: jax.Array, dtype: DTypeLike, result: DTypeLike | None = None
) -> jax.Array:
    """Compute `jnp.einsum` of two arrays, multiplied in `dtype`.

    Args:
        subscripts: such as "BHLC,BHSC->BHLS"; each letter of an operand must be in the other one or in the result.
        left, right: of any float dtype.
        dtype: in which to multiply.
        result: the result's dtype; None for `dtype`, but float32 for bfloat16 on CPU.
    """
    if not has_layout_rule(dtype):
        return jnp.einsum(
            subscripts,
            left.astype(dtype),
            right.astype(dtype),
            precision=precision(dtype),
            preferred_element_type=result,
        )
    operands, to = subscripts.split("->")
    of_left, of_right = operands.split(",")
    both = [axis for axis in of_left if axis in of_right and axis in to]
    summed = [axis for axis in of_left if axis not in to]
    rows = [axis for axis in of_left if axis in to and axis not in both]
    columns = [axis for axis in of_right if axis in to and axis not in both]
    sizes = dict(zip(of_left + of_right, left.shape + right.shape, strict=True))

    def arranged(values: jax.Array, axes: str, *groups: list[str]) -> jax.Array:
        order = [axes.index(axis) for group in groups for axis in group]
        return values.transpose(order).reshape([math.prod(sizes[axis] for axis in group) for group in groups if group])

    # Transposing the right operand would keep XLA from calling the fast kernels.
    right_last = of_right.endswith("".join(summed))
    groups = (both, columns, summed) if right_last else (both, summed, columns)
    found = product(arranged(left, of_left, both, rows, summed), arranged(right, of_right, *groups), right_last)
    axes = [*both, *rows, *columns]
    return found.reshape([sizes[axis] for axis in axes]).transpose([axes.index(axis) for axis in to])


def has_layout_rule(dtype: DTypeLike) -> bool:
    """Return whether products in `dtype` must be computed by `product` on this backend."""
    return jnp.dtype(dtype) == jnp.bfloat16 and backend() == "cpu"


def precision(dtype: DTypeLike) -> lax.Precision | None:
    """Return the precision for products of operands of this dtype: float32 stays float32 on every device.

    This is the policy of all products of a model, in training, in evaluation and in prediction. GPUs otherwise round
    float32 operands to TF32 and TPUs to bfloat16, so that a run would train with fewer digits than it asks for and is
    evaluated with. For the faster products, set the dtype to bfloat16.
    """
    return lax.Precision.HIGHEST if jnp.dtype(dtype) == jnp.float32 else None


def storing_mean(values: jax.Array) -> jax.Array:
    """Return the mean over the last axis, kept with size 1; on CPU, force the values into memory.

    XLA's CPU compiler recomputes a sum in each consumer that it is fused with. Residuals are a sum of all updates
    before them, and LayerNorms read them many times, forward and backward: without this, the LayerNorms of a 12-layer
    model take half of its time. A matrix product cannot be fused, and needs its operand in memory.
    """
    if backend() != "cpu":
        return jnp.mean(values, axis=-1, keepdims=True)
    ones = jnp.ones((values.shape[-1], 1), values.dtype)
    return jnp.matmul(values, ones, precision=precision(values.dtype)) / values.shape[-1]


@jax.custom_vjp
def float32_dense(inputs: jax.Array, kernel: jax.Array) -> jax.Array:
    """Multiply float32 [..., in] by [in, out]; the kernel's gradient transposes the smaller of its two operands.

    JAX would transpose the incoming gradient. In a gated feed-forward without biases the compiler then computes that
    gradient twice: in transposed order, which reads across rows, and once more for the gradient of the inputs.
    """
    return _multiplied(inputs, kernel)


def _multiplied(left: jax.Array, right: jax.Array) -> jax.Array:
    return jnp.matmul(left, right, precision=precision(left.dtype))


def _float32_forward(inputs: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    # Rematerialization would not see a product within `float32_dense`.
    return _multiplied(inputs, kernel), (inputs, kernel)


def _float32_backward(kept: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    inputs, kernel = kept
    rows = tuple(range(inputs.ndim - 1))

    def over_rows(left: jax.Array, right: jax.Array) -> jax.Array:
        return lax.dot_general(left, right, ((rows, rows), ((), ())), precision=precision(left.dtype))

    inputs_move = kernel.shape[0] <= kernel.shape[1]
    to_kernel = over_rows(inputs, gradient) if inputs_move else over_rows(gradient, inputs).T
    return _multiplied(gradient, kernel.T), to_kernel


float32_dense.defvjp(_float32_forward, _float32_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def product(left: jax.Array, right: jax.Array, right_last: bool) -> jax.Array:
    """Multiply [..., M, K] by [..., K, N], or [..., N, K] if `right_last`, in bfloat16; return float32 [..., M, N].

    Gradients are computed in the same way, from the incoming gradient rounded to bfloat16, and have the operands'
    dtypes.
    """
    return _over_last(left.astype(jnp.bfloat16), right.astype(jnp.bfloat16), right_last)


def _forward(left: jax.Array, right: jax.Array, right_last: bool) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    rounded = left.astype(jnp.bfloat16), right.astype(jnp.bfloat16)
    # The empty arrays carry the operands' dtypes.
    return _over_last(*rounded, right_last), (*rounded, jnp.zeros(0, left.dtype), jnp.zeros(0, right.dtype))


def _backward(right_last: bool, kept: tuple[jax.Array, ...], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    left, right, of_left, of_right = kept
    gradient = gradient.astype(jnp.bfloat16)
    to_left = _over_last(gradient, right, not right_last)
    # Transpose the smaller of the two.
    left_moves = left.shape[-1] <= gradient.shape[-1]
    to_right = _over_first(left, gradient) if left_moves else _over_first(gradient, left)
    if left_moves == right_last:
        to_right = to_right.swapaxes(-1, -2)
    return to_left.astype(of_left.dtype), to_right.astype(of_right.dtype)


product.defvjp(_forward, _backward)


def _over_last(left: jax.Array, right: jax.Array, right_last: bool) -> jax.Array:
    """Multiply [..., M, K] by [..., K, N], or [..., N, K] if `right_last`; return float32 [..., M, N]."""
    batch = tuple(range(left.ndim - 2))
    axes = ((left.ndim - 1,), (right.ndim - (1 if right_last else 2),)), (batch, batch)
    return lax.dot_general(left, right, axes, preferred_element_type=jnp.float32)


def _over_first(left: jax.Array, right: jax.Array) -> jax.Array:
    """Multiply [..., K, M] by [..., K, N] through a transposed copy of the left; return float32 [..., M, N]."""
    moved = left.swapaxes(-1, -2)
    # XLA would fold a mere transposition back into the product; a row of zeros prevents that.
    padding = [(0, 0, 0)] * (moved.ndim - 2) + [(0, 1, 0), (0, 0, 0)]
    padded = lax.pad(moved, jnp.zeros((), moved.dtype), padding)
    return _over_last(padded, right, False)[..., :-1, :]


def fused_attention(
    query_BLHC: jax.Array, key_BSHC: jax.Array, value_BSHC: jax.Array, attention_mask: jax.Array
) -> jax.Array:
    """Compute attention without storing its probabilities; return [B, L, H, C] in the inputs' dtype.

    On NVIDIA GPUs this is cuDNN's kernel if it accepts the inputs, elsewhere XLA's own. A fallback to XLA's on a GPU is
    logged once.

    Args:
        query_BLHC, key_BSHC, value_BSHC: queries, keys and values of each head.
        attention_mask: int [B, S], 1 for a real token, with padding at the end of each row; or [B, L, S], 1 where
            token L may attend to token S, as for packed examples. The result is undefined for a token that may attend
            to no token.
    """
    seen: dict[str, jax.Array]
    if attention_mask.ndim == 3:
        seen = {"mask": attention_mask[:, None] > 0}
    else:
        # Nobody reads a row without tokens, but it must be finite, so it attends to its first position.
        seen = {"key_value_seq_lengths": jnp.maximum(jnp.sum(attention_mask, axis=-1, dtype=jnp.int32), 1)}
    implementation = "xla"
    if backend() == "cuda":
        obstacle = obstacle_to_cudnn(
            compute_capability(),
            query_BLHC.dtype,
            (query_BLHC.shape[1], key_BSHC.shape[1]),
            query_BLHC.shape[3],
            masked="mask" in seen,
        )
        if obstacle is None:
            implementation = "cudnn"
        else:
            warn_of_fallback(obstacle)
    # `dot_product_attention` takes the precision of its products from the context only.
    with jax.default_matmul_precision("highest" if precision(query_BLHC.dtype) is lax.Precision.HIGHEST else None):
        return jax.nn.dot_product_attention(query_BLHC, key_BSHC, value_BSHC, implementation=implementation, **seen)


def compute_capability() -> tuple[int, ...]:
    """Return the CUDA compute capability of this process's NVIDIA GPU, such as (8, 0) for an A100."""
    return tuple(map(int, backends.get_backend().local_devices()[0].compute_capability.split(".")))


def obstacle_to_cudnn(
    capability: tuple[int, ...], dtype: np.dtype, lengths: tuple[int, int], channels: int, *, masked: bool
) -> str | None:
    """Return why cuDNN's attention, forward and backward, does not accept such inputs; None if it does.

    JAX makes the same checks, except for the capability, and raises an error.

    Args:
        capability: see `compute_capability`.
        dtype: of the inputs.
        lengths: L and S.
        channels: C.
        masked: whether a mask [B, L, S] is given, rather than lengths.
    """
    most = 256 if capability >= (9, 0) else 128
    if capability < (8, 0):
        return f"the GPU's compute capability is {'.'.join(map(str, capability))}, and it needs 8.0"
    if dtype not in (jnp.bfloat16, jnp.float16):
        return f"products are in {jnp.dtype(dtype).name}, and it needs bfloat16: set DTYPE to 'bfloat16'"
    if channels % 8 or channels > most:
        return f"the heads have {channels} channels, and it needs a multiple of 8 up to {most}"
    # The backward pass takes a mask as a bias.
    if masked and any(length % 2 for length in lengths):
        return f"the length {max(lengths)} is odd, and packed rows and windows need an even one"
    return None


@functools.cache
def warn_of_fallback(obstacle: str) -> None:
    """Warn, once per process, why attention is not computed by cuDNN."""
    logger.warning("ATTENTION 'fused' is computed by XLA's own code, not by cuDNN's kernel: %s", obstacle)

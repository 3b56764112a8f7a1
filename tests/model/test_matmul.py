"""Products on CPU: exact to float32 rounding, and in bfloat16 compiled to what the fast kernels take."""

import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.model import matmul

# What the encoder and the head of words multiply: every size is drawn.
SUBSCRIPTS = (
    "BLD,ZDHC->ZBHLC",
    "BLD,ZDHC->ZBLHC",
    "BHLC,BHSC->BHLS",
    "BHLS,BHSC->BHLC",
    "BHLC,HCD->BLD",
    "BLHC,HCD->BLD",
    "BKE,VE->BKV",
)


def operands(subscripts: str, seed: int, sizes: range = range(1, 10)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two operands of random sizes, and a gradient of the result, whose numbers bfloat16 holds exactly."""
    draw = np.random.default_rng(seed)
    left, right, result = re.split(",|->", subscripts)
    size = {axis: int(draw.choice(sizes)) for axis in left + right}

    def numbers(axes: str) -> np.ndarray:
        values = draw.normal(size=[size[axis] for axis in axes])
        return np.array(jnp.asarray(values, jnp.bfloat16).astype(jnp.float32))

    return numbers(left), numbers(right), numbers(result)


@pytest.mark.parametrize("subscripts", SUBSCRIPTS)
def test_einsum_and_its_gradients_are_those_of_the_rounded_operands(subscripts: str) -> None:
    """In float64, where nothing is rounded: bfloat16 numbers multiply exactly, and are summed up in float32."""
    left_axes, right_axes, result_axes = re.split(",|->", subscripts)
    for seed in range(2):
        left, right, gradient = operands(subscripts, seed)
        found, pull = jax.vjp(lambda a, b: matmul.einsum(subscripts, a, b, jnp.bfloat16), left, right)
        of_left, of_right = pull(jnp.asarray(gradient))
        wide = [array.astype(np.float64) for array in (left, right, gradient)]
        expected = (
            np.einsum(subscripts, wide[0], wide[1]),
            np.einsum(f"{result_axes},{right_axes}->{left_axes}", wide[2], wide[1]),
            np.einsum(f"{left_axes},{result_axes}->{right_axes}", wide[0], wide[2]),
        )
        for one, other in zip((found, of_left, of_right), expected, strict=True):
            assert one.dtype == jnp.float32
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * math.sqrt(other.size))


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5)])
def test_dense_rounds_its_operands_and_keeps_their_dtypes(shape: tuple[int, ...]) -> None:
    draw = np.random.default_rng(len(shape))
    inputs, kernel = (jnp.asarray(draw.normal(size=size), jnp.float32) for size in (shape, (5, 4)))
    rounded = [np.asarray(array.astype(jnp.bfloat16), np.float64) for array in (inputs, kernel)]
    found, pull = jax.vjp(lambda *both: matmul.dense(*both, jnp.bfloat16), inputs.astype(jnp.bfloat16), kernel)
    np.testing.assert_allclose(found, rounded[0] @ rounded[1], rtol=1e-5, atol=1e-5)
    of_inputs, of_kernel = pull(jnp.ones_like(found))
    assert (of_inputs.dtype, of_kernel.dtype) == (jnp.bfloat16, jnp.float32)
    # A kernel's gradient is not rounded on its way back.
    expected = np.broadcast_to(rounded[0].reshape(-1, 5).sum(0)[:, None], (5, 4))
    np.testing.assert_allclose(of_kernel, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("features", [4, 9])
@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5)])
def test_the_gradients_of_a_float32_dense_are_those_of_its_product(shape: tuple[int, ...], features: int) -> None:
    """With fewer features than inputs, and with more: either operand of the kernel's gradient is transposed."""
    draw = np.random.default_rng(features)
    inputs, kernel = draw.normal(size=shape), draw.normal(size=(5, features))
    gradient = draw.normal(size=(*shape[:-1], features))
    single = [jnp.asarray(array, jnp.float32) for array in (inputs, kernel, gradient)]
    found, pull = jax.vjp(lambda *both: matmul.dense(*both, jnp.float32), *single[:2])
    np.testing.assert_allclose(found, inputs @ kernel, rtol=1e-5, atol=1e-5)
    of_inputs, of_kernel = pull(single[2])
    np.testing.assert_allclose(of_inputs, gradient @ kernel.T, rtol=1e-5, atol=1e-5)
    expected = inputs.reshape(-1, 5).T @ gradient.reshape(-1, features)
    np.testing.assert_allclose(of_kernel, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("subscripts", SUBSCRIPTS)
def test_the_compiler_leaves_every_product_in_the_form_of_the_fast_kernels(subscripts: str) -> None:
    """The left operand's last axis is summed over, also in the gradients, and no operand is float32."""

    def loss(left: jax.Array, right: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(matmul.einsum(subscripts, left, right, jnp.bfloat16)))

    # The compiler has other ways for the smallest.
    left, right, _ = operands(subscripts, 1, range(16, 24))
    text = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(left, right).compile().as_text()
    assert len(dots(text)) == 3
    for left_shape, contracted, types in dots(text):
        assert contracted == [len(left_shape) - 1]
        assert types == {"bf16"}


def dots(text: str) -> list[tuple[list[str], list[int], set[str]]]:
    """Of each product in a compiled program: the left operand's shape, its axes that are summed over, both types."""
    shapes = dict(re.findall(r"(%[\w.]+) = (\w+\[[\d,]*\])", text))
    found = []
    for left, right, axes in re.findall(r" dot\((%[\w.]+), (%[\w.]+)\),.*?lhs_contracting_dims={([\d,]*)}", text):
        kind, size = shapes[left].rstrip("]").split("[")
        found.append(
            (size.split(","), [int(axis) for axis in axes.split(",")], {kind, shapes[right].partition("[")[0]})
        )
    return found


def test_float32_is_float32_and_else_left_alone() -> None:
    left, right, _ = operands("BHLC,BHSC->BHLS", 0)

    def traced(function: Any) -> str:
        return str(jax.make_jaxpr(function)(left, right))

    assert traced(lambda a, b: matmul.einsum("BHLC,BHSC->BHLS", a, b, jnp.float32)) == traced(
        lambda a, b: jnp.einsum("BHLC,BHSC->BHLS", a, b, precision="highest")
    )


@pytest.mark.parametrize(
    ("capability", "dtype", "lengths", "channels", "masked", "obstacle"),
    [
        ((8, 0), jnp.bfloat16, (128, 128), 64, False, None),
        ((8, 0), jnp.bfloat16, (127, 127), 64, False, None),
        ((8, 0), jnp.bfloat16, (128, 128), 64, True, None),
        ((8, 6), jnp.bfloat16, (128, 128), 128, False, None),
        ((9, 0), jnp.bfloat16, (128, 128), 256, False, None),
        ((12, 0), jnp.float16, (128, 128), 64, False, None),
        ((7, 5), jnp.bfloat16, (128, 128), 64, False, "compute capability is 7.5, and it needs 8.0"),
        ((8, 0), jnp.float32, (128, 128), 64, False, "products are in float32, .*: set DTYPE to 'bfloat16'"),
        ((8, 0), jnp.bfloat16, (128, 128), 36, False, "heads have 36 channels, .* multiple of 8 up to 128"),
        ((8, 9), jnp.bfloat16, (128, 128), 256, False, "heads have 256 channels, .* multiple of 8 up to 128"),
        ((9, 0), jnp.bfloat16, (128, 128), 264, False, "heads have 264 channels, .* multiple of 8 up to 256"),
        ((8, 0), jnp.bfloat16, (127, 127), 64, True, "the length 127 is odd"),
        ((8, 0), jnp.bfloat16, (4, 15), 64, True, "the length 15 is odd"),
    ],
)
def test_what_cudnn_attention_accepts(
    capability: tuple[int, ...],
    dtype: Any,
    lengths: tuple[int, int],
    channels: int,
    masked: bool,
    obstacle: str | None,
) -> None:
    """By what jax.nn.dot_product_attention checks of its cuDNN implementation, and what cuDNN says of its own."""
    found = matmul.obstacle_to_cudnn(capability, jnp.dtype(dtype), lengths, channels, masked=masked)
    assert (found is None) == (obstacle is None)
    assert obstacle is None or re.search(obstacle, found)


def test_a_gpu_that_cannot_falls_back_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(matmul, "backend", lambda: "cuda")
    monkeypatch.setattr(matmul, "compute_capability", lambda: (7, 0))
    matmul.warn_of_fallback.cache_clear()
    query_BLHC = jax.random.normal(jax.random.key(0), (2, 5, 2, 8))
    expected = jax.nn.dot_product_attention(query_BLHC, query_BLHC, query_BLHC)
    for _ in range(2):
        found = matmul.fused_attention(query_BLHC, query_BLHC, query_BLHC, jnp.ones((2, 5), jnp.int32))
        np.testing.assert_allclose(found, expected, atol=1e-6)
    (record,) = caplog.records
    assert "computed by XLA's own code, not by cuDNN's kernel: the GPU's compute capability is 7.0" in record.message

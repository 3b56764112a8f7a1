"""What the compilers of GPUs and TPUs are given of a pre-training step, on a machine that has neither.

Each program is one dispatch of two steps, traced and lowered as on that platform, for the models of gin/models/ with
fewer layers. A change that no CPU minds, such as a gather of single numbers, is found here.
"""

import functools
import math
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from bench import models
from electra_jax.model import matmul
from electra_jax.training import sharding
from support.tiny_model import ONE_AXIS

ROWS, LENGTH, SLOTS, TOGETHER = 128, 128, 19, 2
# Modern layers come in rounds of three: one of whole rows and two of windows.
LAYERS = {"small": 2, "modern_small": 3}
SCALARS = ROWS * SLOTS


class Program(NamedTuple):
    """The lowered program of a dispatch, and the number of arrays of the state that it is given."""

    text: str
    state_leaves: int


class Moved(NamedTuple):
    """One gather or scatter: the shape of the array, how many slices are moved, and the numbers in each of them."""

    shape: tuple[int, ...]
    dtype: str
    slices: int
    slice_size: int


@pytest.fixture(scope="module", params=[(name, platform) for name in LAYERS for platform in ("cuda", "tpu")], ids=str)
def lowered(request: pytest.FixtureRequest) -> tuple[str, str, Program]:
    """Lowered in bfloat16; attention is fused for CUDA, and as published for a TPU, where dropout draws for it too."""
    name, platform = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matmul, "backend", lambda: platform)
        patch.setattr(matmul, "compute_capability", lambda: (9, 0))
        # JAX asks the library that only a machine with a GPU has.
        patch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91000)
        return name, platform, lower(name, platform)


def lower(name: str, platform: str) -> Program:
    layers = [f"encoder.EncoderConfig.{field} = {LAYERS[name]}" for field in ("num_hidden_layers", "scan_unroll")]
    recipe = models.recipe(name, dtype="bfloat16", fused=platform == "cuda", bindings=layers)
    mesh = sharding.make_mesh(ONE_AXIS, 1)
    state = sharding.abstract(recipe.init(LENGTH), jax.random.key(0), mesh, ONE_AXIS)
    rows = NamedSharding(mesh, PartitionSpec(None, sharding.BATCH_AXES))
    batches = {
        field: jax.ShapeDtypeStruct((TOGETHER, ROWS, LENGTH), jnp.int32, sharding=rows)
        for field in ("input_ids", "token_type_ids", "attention_mask")
    }
    update = sharding.jit_updates(recipe.update(), state, mesh, ONE_AXIS)
    text = update.trace(state, batches).lower(lowering_platforms=(platform,)).as_text()
    return Program(text, len(jax.tree.leaves(state)))


@functools.cache
def shapes(text: str) -> set[tuple[tuple[int, ...], str]]:
    """Every type of an array in a program."""
    return {parsed(words) for words in re.findall(r"tensor<([^>]*)>", text)}


def parsed(words: str) -> tuple[tuple[int, ...], str]:
    """The shape and the dtype of "128x19xf32"."""
    sizes, dtype = re.fullmatch(r"((?:\d+x)*)(.+)", words).groups()
    return tuple(map(int, sizes.split("x")[:-1])), dtype


def gathers(text: str) -> list[Moved]:
    found = re.findall(
        r'"stablehlo\.gather".*?slice_sizes = array<i64: ([\d, ]+)>.*?\(tensor<([^>]*)>.*?-> tensor<([^>]*)>', text
    )
    assert len(found) == text.count('"stablehlo.gather"')
    moved = []
    for sizes, words, result in found:
        size = math.prod(map(int, sizes.split(",")))
        moved.append(Moved(*parsed(words), math.prod(parsed(result)[0]) // size, size))
    return moved


def scatters(text: str) -> list[Moved]:
    moved = []
    for operation in text.split('"stablehlo.scatter"')[1:]:
        # Where it is 0 it is not written.
        axis = re.search(r"scatter_dimension_numbers = #stablehlo\.scatter<([^>]*)>", operation)[1]
        place = int((re.search(r"index_vector_dim = (\d+)", axis) or [0, 0])[1])
        words, indices, updates = re.search(
            r"\}\) : \(tensor<([^>]*)>, tensor<([^>]*)>, tensor<([^>]*)>\)", operation
        ).groups()
        places = parsed(indices)[0]
        slices = math.prod(places[:place] + places[place + 1 :])
        moved.append(Moved(*parsed(words), slices, math.prod(parsed(updates)[0]) // slices))
    return moved


def test_single_numbers_are_gathered_for_masked_positions_alone(lowered: tuple[str, str, Program]) -> None:
    """One number for each slot: ids, and logits of the original words. The sampler reads a block of logits as one."""
    _, _, (text, _) = lowered
    found = gathers(text)
    single = [gather for gather in found if gather.slice_size == 1]
    assert single
    assert max(gather.slices for gather in single) <= SCALARS
    vocab_size = 30522
    blocks = [gather for gather in found if gather.shape == (ROWS, SLOTS, vocab_size) and gather.slice_size > 1]
    assert [(block.slices, block.slice_size) for block in blocks] == [(SCALARS, 128)]


def test_nothing_is_scattered_but_gradients(lowered: tuple[str, str, Program]) -> None:
    """Neither ids, when a batch is corrupted, nor counts of logits for the AUC."""
    _, _, (text, _) = lowered
    found = scatters(text)
    assert found
    assert {scatter.dtype for scatter in found} <= {"f32", "bf16"}
    assert (1024,) not in {scatter.shape for scatter in found}
    # Of the logits of the original words.
    assert all(scatter.slices <= SCALARS for scatter in found if scatter.slice_size == 1)


def test_no_array_ends_in_an_axis_of_two(lowered: tuple[str, str, Program]) -> None:
    """Which a TPU pads to 128 lanes; but for the keys of the rows, which are two numbers each."""
    _, _, (text, _) = lowered
    assert not {shape for shape, _ in shapes(text) if shape[-1:] == (2,) and math.prod(shape) > 4 * ROWS}


def test_attention_is_fused_on_cuda(lowered: tuple[str, str, Program]) -> None:
    name, platform, (text, _) = lowered
    kernels = set(re.findall(r"@__cudnn\$fmha(\w+)", text))
    # Both towers have heads of 64 channels: the scores of a row are [4, L, L], or [1, L, L] of a narrow generator.
    scores = {
        shape for shape, dtype in shapes(text) if dtype != "i1" and shape[-2:] == (LENGTH, LENGTH) and len(shape) == 4
    }
    if platform == "tpu":
        assert not kernels
        assert scores
        return
    padded, masked = {"Softmax", "SoftmaxBackward"}, {"ScaleBiasSoftmax", "ScaleBiasSoftmaxBackward"}
    assert kernels == (padded if name == "small" else padded | masked)
    # Of windows there is a mask, which all heads share.
    assert {shape[:-2] for shape in scores} <= {(ROWS, 1)}


def test_products_of_float32_are_float32(lowered: tuple[str, str, Program]) -> None:
    """And of the model's own, only the last ones of the heads are; the counts for the AUC are exact as they come.

    The gradients of the words' logits belong to a product in bfloat16: on CUDA their operands are converted first.
    """
    _, _, (text, _) = lowered
    products = re.findall(
        r"stablehlo\.dot_general .*?precision = \[(\w+), \w+\] : \(tensor<(\S+)>, tensor<(\S+)>\) -> tensor<(\S+)>",
        text,
    )
    assert len(products) == text.count("stablehlo.dot_general")
    single = [
        (precision, result)
        for precision, *operands, result in products
        if all(operand.endswith("xf32") for operand in operands) and operands[0] != f"{ROWS}x{SLOTS}x30522xf32"
    ]
    assert {precision for precision, result in single if result != "32x32xf32"} == {"HIGHEST"}
    assert len(single) < len(products) / 2
    assert "chlo.erf " not in text


def test_every_array_of_the_state_is_updated_in_place(lowered: tuple[str, str, Program]) -> None:
    """Donated to a dispatch of several steps, as to one."""
    _, _, (text, state_leaves) = lowered
    assert "stablehlo.while" in text
    assert len(re.findall(r"tf\.aliasing_output|jax\.buffer_donor", text)) == state_leaves

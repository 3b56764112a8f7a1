"""`electra inspect`: what each device will hold, of this machine's mesh or of a larger one."""

import ast
import math
import re
from collections.abc import Callable

import pytest

from electra_jax import cli

Inspected = Callable[..., str]


@pytest.fixture
def inspected(capfd: pytest.CaptureFixture[str]) -> Inspected:
    """Runs the command line in this process, where there are eight devices, and returns what it printed or refused."""

    def run(model: str, **macros: object) -> str:
        bindings = [f"--gin.{name}={value!r}" for name, value in macros.items()]
        code = cli.main(["inspect", f"--gin_file=gin/runs/{model}.gin", *bindings])
        printed = capfd.readouterr()
        assert (code, bool(printed.err)) in ((0, False), (2, True)), printed
        return printed.out or printed.err

    return run


def rows(printed: str) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Shape and a device's part of each parameter of the table."""
    found = re.findall(r"^ +(\S+/\S+) +(\(.*?\)) +[\d,]+ +\(.*?\) +(\(.*?\)) *$", printed, flags=re.MULTILINE)
    return {name: (ast.literal_eval(shape), ast.literal_eval(part)) for name, shape, part in found}


def sizes(printed: str) -> tuple[int, ...]:
    """Bytes on a device: parameters, optimizer state, gradients."""
    line = re.search(r"parameters ([\d,]+), optimizer state ([\d,]+), gradients ([\d,]+);", printed)
    assert line is not None, printed
    return tuple(int(number.replace(",", "")) for number in line.groups())


def test_one_device_holds_all(inspected: Inspected) -> None:
    """The published number of parameters, four bytes each; Adam's two moments of each, and two counts."""
    printed = inspected("small", MESH_DATA=1)
    assert "mesh: data 1, fsdp 1, tensor 1 = 1 devices (this machine has 8)" in printed
    assert sizes(printed) == (4 * 14_196_219, 8 * 14_196_219 + 2 * 4, 4 * 14_196_219)


def test_a_mesh_larger_than_the_machine(inspected: Inspected) -> None:
    """Parts by hand, and their sum."""
    printed = inspected("base", MESH_DATA=16, MESH_FSDP=8, MESH_TENSOR=2)
    assert "mesh: data 16, fsdp 8, tensor 2 = 256 devices (this machine has 8)" in printed
    parts = rows(printed)
    assert parts["embeddings/word_embeddings"] == ((30522, 768), (15261, 96))
    layers = "discriminator/encoder/layers"
    assert parts[f"{layers}/attention/query_kernel"] == ((12, 768, 12, 64), (12, 96, 6, 64))
    assert parts[f"{layers}/intermediate/kernel"] == ((12, 768, 3072), (12, 96, 1536))
    assert parts["generator/head/dense/bias"] == ((768,), (768,))
    held = 4 * sum(math.prod(part) for _, part in parts.values())
    assert sizes(printed) == (held, 2 * held + 8, held)


def test_modern_blocks(inspected: Inspected) -> None:
    printed = inspected("modern_base", MESH_DATA=1, MESH_FSDP=4, MESH_TENSOR=2)
    parts = rows(printed)
    layers = "discriminator/encoder/layers"
    assert parts[f"{layers}/gate/kernel"] == ((22, 768, 1152), (22, 192, 576))
    assert parts[f"{layers}/attention/query_kernel"] == ((22, 768, 12, 64), (22, 192, 6, 64))
    assert parts[f"{layers}/output_layer_norm/scale"] == ((22, 768), (22, 192))
    assert not [name for name in parts if "bias" in name and "head" not in name]
    assert not [name for name in parts if "position_embeddings" in name or "token_type" in name]
    parts_of_a_layer = "rotary positions, pre-LayerNorm, gated feed-forward of 1152, no biases"
    assert f"generator: 6 layers of 768, 2 full and 4 with windows of 128; {parts_of_a_layer}\n" in printed
    assert "discriminator: 22 layers of 768, 8 full and 14 with windows of 128; rotary" in printed


def test_published_blocks(inspected: Inspected) -> None:
    said = "of 256; absolute positions, post-LayerNorm, feed-forward of 1024\n"
    assert f"discriminator: 12 layers {said}" in inspected("small", MESH_DATA=1)


def test_the_machines_own_mesh(inspected: Inspected) -> None:
    assert "mesh: data 4, fsdp 2, tensor 1 = 8 devices\n" in inspected("small", MESH_FSDP=2)


def test_what_a_run_would_refuse_is_refused(inspected: Inspected) -> None:
    said = inspected("base", MESH_DATA=1, MESH_TENSOR=4)
    assert "mesh axis tensor 4 does not divide vocab 30522 (embeddings/word_embeddings): on 4 devices" in said
    assert "tensor can be 1 or 2" in said
    assert "the nearest that fits is 300" in inspected("base", MESH_DATA=300)

"""The core runs where TensorFlow is not installed, and is imported in a second."""

import subprocess
import sys

import pytest

PURE = ("model", "training", "pretraining", "data")
BELOW = ("tensorflow", "seqio", "gin", "t5x", "orbax", "clu", "tensorflow_datasets")


def test_pure_rooms_load_nothing_from_below_the_wall() -> None:
    program = f"""
import importlib, pkgutil, sys
for room in {PURE!r}:
    package = importlib.import_module("electra_jax." + room)
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(package.__name__ + "." + module.name)
print(sorted(set({BELOW!r}) & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("module", ["electra_jax.cli", "electra_jax"])
def test_the_command_line_answers_before_anything_heavy_is_loaded(module: str) -> None:
    program = f"import sys, {module}; print(sorted({{'jax', 'numpy', 'tensorflow', 'gin', 'rich'}} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"

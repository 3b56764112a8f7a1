"""The core runs where TensorFlow is not installed, and is imported in a second."""

import subprocess
import sys

import pytest

CORE = (
    "blocks",
    "buckets",
    "carried",
    "corruption",
    "data",
    "description",
    "dropout",
    "electric",
    "encoder",
    "errors",
    "evaluation",
    "finetuning",
    "flops",
    "folding",
    "heads",
    "health",
    "health_checks",
    "health_history",
    "health_watch",
    "host_masking",
    "losses",
    "metrics",
    "metrics_file",
    "model",
    "optimizer",
    "packed_rows",
    "pretraining",
    "products",
    "reference_metrics",
    "sharding",
    "steps",
    "stop",
    "towers",
    "training",
    "types",
    "variants",
    "word_objectives",
)
BELOW = ("tensorflow", "seqio", "gin", "t5x", "orbax", "clu", "tensorflow_datasets")


def test_core_modules_load_nothing_from_below_the_wall() -> None:
    program = f"""
import importlib, sys
for name in {CORE!r}:
    importlib.import_module("electra_jax." + name)
print(sorted(set({BELOW!r}) & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("module", ["electra_jax.cli", "electra_jax"])
def test_the_command_line_answers_before_anything_heavy_is_loaded(module: str) -> None:
    program = f"import sys, {module}; print(sorted({{'jax', 'numpy', 'tensorflow', 'gin', 'rich'}} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"

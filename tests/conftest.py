"""Strict settings for every test, and where things are."""

import os
import tempfile

# Before JAX is imported: eight virtual devices, and no accelerator of a developer's machine. Tests compile far longer
# than they compute: without LLVM's optimisations it takes two thirds of the time, and of that about half with XLA's
# older code for fused operations, a program compiled in one piece.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        "--xla_backend_optimization_level=0",
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_cpu_parallel_codegen_split_count=1",
    ]
).strip()
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# What verbs keep for the next start goes here, and not among the user's own.
os.environ["ELECTRA_CACHE_DIR"] = tempfile.mkdtemp(prefix="electra_tests_")

import atexit
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

atexit.register(shutil.rmtree, os.environ["ELECTRA_CACHE_DIR"], ignore_errors=True)

# Before the first program is compiled, for then JAX decides: what one test has compiled, no other compiles again.
jax.config.update("jax_compilation_cache_dir", os.path.join(os.environ["ELECTRA_CACHE_DIR"], "xla"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

# A product of float32 and bfloat16, or an int that becomes a float, must be meant.
jax.config.update("jax_numpy_dtype_promotion", "strict")
# An axis that is added to fit another array must be written down.
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The top of the checkout."""
    return Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def clean_gin() -> Iterator[None]:
    """Clear what a test bound in Gin's global configuration."""
    yield
    if "gin" in sys.modules:
        sys.modules["gin"].clear_config(clear_constants=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB; `mount -o remount,size=64m` makes it larger."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)

"""What is compiled is kept, whatever its size; and what is computed can be had bit for bit again."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from electra_jax import cli
from electra_jax.distributed import processes

PROGRAM = """
from collections import Counter
import jax
from electra_jax.runtime import keep_compilations
seen = Counter()
jax.monitoring.register_event_listener(lambda name, **_: seen.update([name.rpartition("/")[2]]))
keep_compilations()
assert jax.jit(lambda x: 2 * x)(3) == 6
print(seen["cache_hits"], seen["cache_misses"])
"""


def test_a_second_process_does_not_compile_even_the_smallest_program(tmp_path: Path) -> None:
    environment = os.environ | {"ELECTRA_CACHE_DIR": str(tmp_path)}

    def run() -> list[int]:
        command = [sys.executable, "-c", PROGRAM]
        return list(map(int, subprocess.run(command, env=environment, capture_output=True, check=True).stdout.split()))

    hits, compiled = run()
    assert (hits, compiled > 0) == (0, True)
    assert run() == [compiled, 0]
    assert any((tmp_path / "xla").iterdir())


RUNS = {
    "pretrain": ["--gin_file=gin/runs/small.gin", "--gin.MODEL_DIR='run'", "--gin.TOKENIZER='vocab.txt'"],
    "finetune": ["--gin.MODEL_DIR='run'", "--gin.INIT_FROM='other'", "--gin.TASK='cola'"],
}


@pytest.mark.parametrize("command", RUNS)
@pytest.mark.parametrize("asked", [True, False])
def test_a_run_asks_xla_for_the_same_bits_before_jax_starts(
    command: str, asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """XLA reads its flags when JAX looks for devices, which it does where processes of one run find each other."""

    @contextlib.contextmanager
    def process_group(*_: str) -> Iterator[None]:
        flags.append(os.environ["XLA_FLAGS"])
        raise KeyboardInterrupt
        yield

    flags: list[str] = []
    monkeypatch.setattr(processes, "process_group", process_group)
    before = "--xla_gpu_deterministic_ops=false --xla_cpu_use_fusion_emitters=false"
    monkeypatch.setenv("XLA_FLAGS", before)
    assert cli.main([command, *RUNS[command], f"--gin.DETERMINISTIC={asked}"]) == 2
    # Of two values of a flag the last one counts.
    assert flags == [f"{before} --xla_gpu_deterministic_ops=true" if asked else before]

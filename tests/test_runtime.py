"""What is compiled is kept, whatever its size."""

import os
import subprocess
import sys
from pathlib import Path

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

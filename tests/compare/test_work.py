"""The processes of `electra compare`: those of one comparison at a time, and none that outlives it for long."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from electra_jax.locks import sole_builder
from electra_jax.training.stop import STOP_AT_EOF

HOLDER = """
import subprocess, sys, time
from pathlib import Path
from electra_jax.locks import sole_builder
with sole_builder(Path(sys.argv[1])) as lock:
    # A process of an item, which takes a while to save.
    subprocess.Popen(["sleep", "2"], pass_fds=(lock,))
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_comparison_waits_for_the_processes_that_a_killed_one_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = tmp_path / "items.lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(lock)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    holder.kill()
    holder.wait()
    began = time.monotonic()
    with sole_builder(lock):
        assert time.monotonic() - began > 0.5
        assert f"waiting for another process that holds {lock}" in capsys.readouterr().err
    # Nothing is left of it.
    with sole_builder(lock):
        assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("asked", "code"), [(True, -signal.SIGTERM), (False, 0)])
def test_a_process_stops_when_its_parent_ends(asked: bool, code: int) -> None:
    program = (
        "import time; from electra_jax.training.stop import stop_with_parent; "
        "stop_with_parent(); print('ready', flush=True); time.sleep(2)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | ({STOP_AT_EOF: "1"} if asked else {}),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    assert process.poll() is None
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(timeout=30) == code

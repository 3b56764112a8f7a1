"""The processes of `electra compare`: those of one comparison at a time, and none that outlives it for long."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from electra_jax.compare.work import locked
from electra_jax.errors import UserError
from electra_jax.training.stop import STOP_AT_EOF

HOLDER = """
import subprocess, sys, time
from pathlib import Path
from electra_jax.compare.work import locked
with locked(Path(sys.argv[1])) as lock:
    # A process of an item, which takes a while to save.
    subprocess.Popen(["sleep", "2"], pass_fds=(lock,))
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_comparison_waits_for_the_processes_that_a_killed_one_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match="another electra compare is at work in"), locked(tmp_path):
        pass
    holder.kill()
    holder.wait()
    began = time.monotonic()
    with locked(tmp_path):
        assert time.monotonic() - began > 0.5
        assert "waiting for the processes that a killed electra compare left" in capsys.readouterr().out
    # Nothing is left of it.
    with locked(tmp_path):
        assert capsys.readouterr().out == ""


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

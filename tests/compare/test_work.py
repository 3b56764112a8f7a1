"""The processes of `electra compare`: one comparison for a directory, and none that outlives it."""

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
import os, subprocess, sys, time
from pathlib import Path
from electra_jax.compare.work import locked
with locked(Path(sys.argv[1])) as lock:
    # A process of an item, which takes a while to save.
    subprocess.Popen(["sleep", sys.argv[2]], pass_fds=(lock,))
    print("held", flush=True)
    time.sleep(60)
"""


def hold(folder: Path, seconds: float) -> subprocess.Popen[str]:
    """A comparison at work in a folder, with a process that ends after some seconds."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), str(seconds)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_second_comparison_is_refused_and_one_after_a_kill_waits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    holder = hold(tmp_path, 2)
    try:
        with pytest.raises(UserError, match="another electra compare is at work in"), locked(tmp_path):
            pass
    finally:
        holder.kill()
        holder.wait()
    began = time.monotonic()
    with locked(tmp_path):
        assert time.monotonic() - began > 0.5
        assert "waiting for what a killed comparison left running" in capsys.readouterr().out
        assert (tmp_path / "compare.lock").read_text() == str(os.getpid())
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

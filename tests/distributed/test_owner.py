"""A MODEL_DIR has one owner: who is refused, what is taken over, and what is left."""

import errno
import fcntl
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from electra_jax.distributed import processes
from electra_jax.distributed.owner import owned
from electra_jax.errors import UserError

HOLDER = """
import sys, time
from electra_jax.distributed.owner import owned
with owned(sys.argv[1], "electra pretrain"):
    print("held", flush=True)
    time.sleep(60)
"""


def hold(model_dir: Path) -> subprocess.Popen[str]:
    """A process that owns a directory."""
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(model_dir)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_second_run_is_refused_and_a_dead_one_is_not_waited_for(tmp_path: Path) -> None:
    model_dir = tmp_path / "run"
    holder = hold(model_dir)
    told = (
        rf"{re.escape(str(model_dir))} is in use by `electra pretrain` \(process {holder.pid} on .+, since .+\): wait"
    )
    for _ in range(2):
        with pytest.raises(UserError, match=told), owned(model_dir, "electra finetune"):
            pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    # What it left is there, and holds nothing.
    assert (model_dir / "run.lock").read_text() != ""
    told = "in use by `electra finetune`"
    with (
        owned(model_dir, "electra finetune"),
        pytest.raises(UserError, match=told),
        owned(model_dir, "electra pretrain"),
    ):
        pass
    assert list(model_dir.iterdir()) == []


def test_a_directory_that_a_refused_run_made_is_not_left(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no corpus"), owned(tmp_path / "new" / "run", "electra pretrain"):
        raise UserError("no corpus")
    assert list(tmp_path.iterdir()) == []
    with owned(tmp_path / "new" / "run", "electra pretrain"):
        (tmp_path / "new" / "run" / "config.gin").touch()
    assert [path.name for path in (tmp_path / "new" / "run").iterdir()] == ["config.gin"]


def test_a_directory_whose_name_is_a_pattern_is_refused_before_it_is_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run\[1\] holds one of"), owned(tmp_path / "run[1]", "electra pretrain"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_its_holder_removes_meanwhile_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The holder ends after this process has opened the file and before it has locked it."""
    path, before = tmp_path / "run.lock", fcntl.flock
    path.write_text("{}")

    def flock(descriptor: int, operation: int) -> None:
        if not removed:
            path.unlink()
            removed.append(path)
        before(descriptor, operation)

    removed: list[Path] = []
    monkeypatch.setattr(fcntl, "flock", flock)
    with owned(tmp_path, "electra pretrain"):
        assert '"electra pretrain"' in path.read_text()


def test_a_file_system_without_locks_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def flock(*_: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with owned(tmp_path, "electra pretrain"):
        assert list(tmp_path.iterdir()) == []
    assert f"the file system of {tmp_path} has no locks (No locks available)" in caplog.text


def test_only_the_leader_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with owned(tmp_path, "electra pretrain"):
        monkeypatch.setattr(processes, "leader", lambda: False)
        with owned(tmp_path, "electra pretrain"):
            pass
        assert (tmp_path / "run.lock").exists()

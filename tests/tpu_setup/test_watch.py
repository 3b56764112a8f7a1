"""`tpu_setup/watch.sh` from nothing to the end of a run, in a cloud that pre-empts, refuses and loses workers."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

QUOTA = "ERROR: (gcloud.compute.tpus.queued-resources.create) RESOURCE_EXHAUSTED: Quota limit has been exceeded."
STOCKOUT = 'ERROR: (gcloud.compute.tpus.tpu-vm.create) There is no more capacity in the zone "us-east5-b".'
# As one process of a group of two: waits for the other, takes the next line "CODE STEP" of $CLOUD/codes, and ends so.
# Of the codes, "taken" is a pre-emption in the middle of the run, and "vanish" an end without a code.
ELECTRA = """#!/bin/sh
echo "$@" >> "$CLOUD/runs"
while [ $(($(wc -l < "$CLOUD/runs") % 2)) = 1 ]; do sleep 0.05; done
exec 9> "$CLOUD/lock"
flock 9
code=$(head -n 1 "$CLOUD/codes")
sed -i 1d "$CLOUD/codes"
flock -u 9
echo "step ${code#* }/9 train"
case $code in
  taken*) printf SUSPENDING > "$CLOUD/state"; rm -r "$CLOUD/workers" ;;
  vanish*) kill -9 $PPID ;;
  *) exit ${code% *} ;;
esac
"""
# Stands for Python on a worker: makes a virtual environment of itself, and installs an `electra`.
PYTHON = """#!/bin/sh
if [ "$2" = venv ]; then mkdir -p .venv/bin; cp "$0" .venv/bin/python; fi
if [ "$2" = pip ]; then cp "$CLOUD/electra" .venv/bin/electra; fi
"""


class Cloud:
    """What happens there, and what was asked of it."""

    command = ("pretrain", '--gin.MODEL_DIR="gs://b/r"')

    def __init__(self, repository: Path, folder: Path) -> None:
        self.folder = folder
        self.script = repository / "tpu_setup" / "watch.sh"
        for name, text in {
            "gcloud": f'#!/bin/sh\nexec {sys.executable} {repository}/tests/support/fake_gcloud.py "$@"\n',
            "electra": ELECTRA,
            "python": PYTHON,
        }.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        origin = folder / "origin"
        git = ["git", "-C", str(origin), "-c", "user.name=n", "-c", "user.email=e"]
        subprocess.run(["git", "init", "--quiet", "--initial-branch=main", str(origin)], check=True)
        subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message=x"], check=True)
        settings = (repository / "tpu_setup" / "config.env").read_text()
        settings += "PROJECT=p\nZONE=us-east5-b\nWATCH_SECONDS=0.2\nFAILURES=3\n"
        settings += f"REPO_URL='{origin}'\nPYTHON='{folder}/python'\n"
        (folder / "config.env").write_text(settings)

    def watch(self, codes: list[str], plan: dict[str, list[Any]], *options: str, queued: bool = True) -> Any:
        """`watch.sh` until it ends; each worker's run takes one of the codes, "EXIT STEP"."""
        (self.folder / "codes").write_text("".join(f"{code}\n" for code in codes))
        (self.folder / "plan.json").write_text(json.dumps(plan))
        with (self.folder / "config.env").open("a") as config:
            print(f"QUEUED={str(queued).lower()}", file=config)
        return subprocess.run(
            [str(self.script), f"--config={self.folder}/config.env", *options, *self.command],
            env=os.environ | {"PATH": f"{self.folder}{os.pathsep}{os.environ['PATH']}", "CLOUD": str(self.folder)},
            capture_output=True,
            text=True,
            timeout=600,
        )

    def changes(self) -> list[str]:
        """What was created, deleted, installed and launched, in order."""
        calls = [json.loads(line) for line in (self.folder / "calls").read_text().splitlines()]
        named = {"create": "create", "delete": "delete"}
        told = {"git clone": "install", "nohup": "launch"}
        return [
            named.get(call[3]) or next((name for text, name in told.items() if text in call[-1]), "")
            for call in calls
            if call[3] in named or any(text in call[-1] for text in told)
        ]

    def runs(self) -> list[str]:
        """The arguments of every `electra` that was started, on whichever worker."""
        return (self.folder / "runs").read_text().splitlines()


@pytest.fixture
def cloud(repository: Path, tmp_path: Path) -> Cloud:
    missing = [tool for tool in ("flock", "setsid") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"the workers' commands need {', '.join(missing)} (util-linux)")
    return Cloud(repository, tmp_path)


def test_from_nothing_through_preemptions_to_the_end(cloud: Cloud) -> None:
    # The processes are told of the first; the second takes the machines, with all that is on their disks.
    result = cloud.watch(["75 2", "75 2", "taken 4", "75 4", "0 9", "0 9"], {})
    assert result.returncode == 0, result.stdout + result.stderr
    assert "ended with exit code 75: launching again" in result.stdout
    assert "electra is SUSPENDED: deleting electra and requesting it again" in result.stdout
    assert result.stdout.rstrip().endswith("done")
    assert cloud.changes() == [
        "create",
        "install",
        "launch",
        "install",
        "launch",
        "delete",
        "create",
        "install",
        "launch",
    ]
    assert set(cloud.runs()) == {'pretrain --gin.MODEL_DIR="gs://b/r"'}
    # Nothing is left to do, whoever asks again.
    assert cloud.watch(["0 9", "0 9"], {}).returncode == 0


def test_refusals_and_a_worker_that_comes_late(cloud: Cloud) -> None:
    plan = {"create": [{"says": STOCKOUT}] * 4 + [{"says": QUOTA}], "ssh": [None, None, {"lost": 1}]}
    result = cloud.watch(["0 9", "0 9"], plan, queued=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "no capacity in us-east5-b at the moment" in result.stdout
    assert "electra could not be requested (1 of 3)" in result.stdout
    assert "Quota limit has been exceeded" in result.stderr
    # Worker 0 waited for worker 1 and was not started twice.
    assert len(cloud.runs()) == 2
    assert "a run is under way" in result.stdout


def test_a_quota_that_stays_is_given_up(cloud: Cloud) -> None:
    result = cloud.watch([], {"create": [{"says": QUOTA}] * 9})
    assert result.returncode == 1
    assert "electra could not be requested (3 of 3)" in result.stdout
    assert cloud.changes() == ["create"] * 3


def test_a_slice_whose_worker_stays_lost_is_replaced(cloud: Cloud) -> None:
    result = cloud.watch(["0 9", "0 9"], {"ssh": [{"lost": 1}] * 3})
    assert result.returncode == 0, result.stdout + result.stderr
    assert "nothing runs there: deleting electra and requesting it again" in result.stdout
    assert cloud.changes() == ["create", "delete", "create", "install", "launch"]


def test_a_crash_is_launched_again_as_long_as_steps_are_gained(cloud: Cloud) -> None:
    gaining = ["vanish 1", "75 0", "139 2", "75 0", "1 3", "75 0", "137 4", "137 0"]
    standing = ["1 4", "75 0"] * 2
    result = cloud.watch(gaining + standing, {})
    assert result.returncode == 1, result.stdout + result.stderr
    assert "exit code killed" in result.stdout
    assert "exit code 1; see electra-jax/logs on the workers) (3 of 3)" in result.stdout
    assert "given up: the checkpoints are where they were" in result.stdout
    assert len(cloud.runs()) == len(gaining + standing)


def test_a_mistake_is_shown_and_not_repeated(cloud: Cloud) -> None:
    result = cloud.watch(["2 0", "75 0"], {})
    assert result.returncode == 2, result.stdout + result.stderr
    assert "step 0/9 train" in result.stdout
    assert len(cloud.runs()) == 2
    # Once it is put right, what the run before it ended with says nothing of the new one.
    assert cloud.watch(["0 9", "0 9"], {}).returncode == 0
    assert len(cloud.runs()) == 4
    assert cloud.changes().count("create") == 1


def test_a_dry_run_shows_every_command_and_asks_nothing(cloud: Cloud) -> None:
    result = cloud.watch([], {}, "--dry-run")
    assert result.returncode == 0, result.stderr
    assert not (cloud.folder / "calls").exists()
    for script, arguments in {"create": [], "install": [], "launch": cloud.command, "delete": []}.items():
        alone = [str(cloud.script.with_name(f"{script}.sh")), f"--config={cloud.folder}/config.env", "--dry-run"]
        shown = subprocess.run([*alone, *arguments], capture_output=True, text=True, check=True).stdout
        assert shown in result.stdout

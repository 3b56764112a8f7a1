"""The scripts of tpu_setup/ against a stand-in `gcloud` that records its calls."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPTS = ("create.sh", "install.sh", "launch.sh", "watch.sh", "delete.sh")
# Prints $GCLOUD_PRINTS for a list; a call that changes something is refused with $GCLOUD_REFUSES.
STAND_IN = f"""#!{sys.executable}
import json, os, sys
with open(os.environ["GCLOUD_CALLS"], "a") as calls:
    print(json.dumps(sys.argv[1:]), file=calls)
if "list" in sys.argv:
    print(os.environ.get("GCLOUD_PRINTS", ""), end="")
    sys.exit("LIST_FAILS" in os.environ)
sys.exit(os.environ.get("GCLOUD_REFUSES", 0))
"""
QUEUED, DIRECT = ("queued-resources", "state.state"), ("tpu-vm", "state")
PLACE = ["--project=my-project", "--zone=us-east5-b"]


class Scripts:
    """Runs scripts and keeps what they asked of `gcloud`."""

    def __init__(self, folder: Path, tmp_path: Path) -> None:
        self.folder = folder
        self.config = tmp_path / "config.env"
        self.calls_file = tmp_path / "calls"
        self.bin = tmp_path / "bin"
        self.bin.mkdir()
        (self.bin / "gcloud").write_text(STAND_IN)
        (self.bin / "gcloud").chmod(0o755)
        self.configure()

    def configure(self, **settings: str) -> None:
        """The shipped configuration with these settings changed."""
        settings = {"PROJECT": "my-project", "ZONE": "us-east5-b", "REPO_URL": "git://host/electra.git"} | settings
        changed = [f'{name}="{value}"' for name, value in settings.items()]
        self.config.write_text("\n".join([(self.folder / "config.env").read_text(), *changed, ""]))

    def run(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """A script with the configuration."""
        path = os.pathsep.join([str(self.bin), os.environ["PATH"]])
        return subprocess.run(
            [str(self.folder / script), f"--config={self.config}", *arguments],
            capture_output=True,
            text=True,
            env=os.environ | {"PATH": path, "GCLOUD_CALLS": str(self.calls_file)} | environment,
        )

    def calls(self) -> list[list[str]]:
        """The arguments of every call so far."""
        if not self.calls_file.exists():
            return []
        return [json.loads(line) for line in self.calls_file.read_text().splitlines()]


@pytest.fixture
def scripts(repository: Path, tmp_path: Path) -> Scripts:
    return Scripts(repository / "tpu_setup", tmp_path)


def list_call(kind: str, field: str) -> list[str]:
    filters = ["--filter=name~(^|/)electra$", f"--format=value({field})"]
    return ["compute", "tpus", kind, "list", *PLACE, *filters]


def test_create_asks_the_queue_for_a_spot_slice(scripts: Scripts) -> None:
    result = scripts.run("create.sh")
    assert result.returncode == 0, result.stderr
    create = ["compute", "tpus", "queued-resources", "create", "electra", *PLACE, "--accelerator-type=v5litepod-16"]
    create += ["--runtime-version=v2-alpha-tpuv5-lite", "--node-id=electra", "--spot"]
    assert scripts.calls() == [list_call(*QUEUED), create]


def test_create_without_queue_and_spot(scripts: Scripts) -> None:
    scripts.configure(QUEUED="false", SPOT="false")
    assert scripts.run("create.sh").returncode == 0
    create = ["compute", "tpus", "tpu-vm", "create", "electra", *PLACE, "--accelerator-type=v5litepod-16"]
    assert scripts.calls() == [list_call(*DIRECT), [*create, "--version=v2-alpha-tpuv5-lite"]]


def test_create_leaves_alone_what_exists_and_says_how_far_it_is(scripts: Scripts) -> None:
    result = scripts.run("create.sh", GCLOUD_PRINTS="PROVISIONING\n")
    assert (result.returncode, result.stdout) == (0, "electra exists: PROVISIONING\n")
    assert scripts.calls() == [list_call(*QUEUED)]


@pytest.mark.parametrize(
    ("queued", "kind", "extra"), [("true", QUEUED, ["--force"]), ("false", DIRECT, [])], ids=["queued", "direct"]
)
def test_delete(scripts: Scripts, queued: str, kind: tuple[str, str], extra: list[str]) -> None:
    scripts.configure(QUEUED=queued)
    assert scripts.run("delete.sh", GCLOUD_PRINTS="ACTIVE\n").returncode == 0
    delete = ["compute", "tpus", kind[0], "delete", "electra", *PLACE, "--quiet", *extra]
    assert scripts.calls() == [list_call(*kind), delete]


def test_delete_of_nothing_is_done(scripts: Scripts) -> None:
    result = scripts.run("delete.sh")
    assert (result.returncode, result.stdout) == (0, "electra does not exist\n")
    assert scripts.calls() == [list_call(*QUEUED)]


@pytest.mark.parametrize("script", ["create.sh", "delete.sh"])
def test_a_list_that_fails_is_not_taken_for_an_empty_one(scripts: Scripts, script: str) -> None:
    result = scripts.run(script, LIST_FAILS="1")
    assert result.returncode == 1
    assert "not exist" not in result.stdout
    assert len(scripts.calls()) == 1


@pytest.mark.parametrize(
    ("arguments", "found", "refusal"),
    [
        (("create.sh",), "", "RESOURCE_EXHAUSTED: Quota limit has been exceeded."),
        (("delete.sh",), "ACTIVE", "PERMISSION_DENIED"),
        (("install.sh",), "", "worker 1: Connection timed out"),
        (("launch.sh", "pretrain"), "", "worker 1: Connection timed out"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_gcloud_refuses_is_not_taken_for_done(
    scripts: Scripts, arguments: tuple[str, ...], found: str, refusal: str
) -> None:
    result = scripts.run(*arguments, GCLOUD_PRINTS=found, GCLOUD_REFUSES=refusal)
    assert (result.returncode, result.stdout) == (1, "")
    assert refusal in result.stderr


@pytest.mark.parametrize("arguments", [("create.sh",), ("install.sh",), ("launch.sh", "pretrain", "--x='a b'")])
def test_a_dry_run_prints_exactly_the_commands_of_the_real_one(scripts: Scripts, arguments: tuple[str, ...]) -> None:
    script, *rest = arguments
    dry = scripts.run(script, "--dry-run", *rest)
    assert dry.returncode == 0, dry.stderr
    assert scripts.calls() == []
    assert scripts.run(script, *rest).returncode == 0
    real = scripts.calls()
    scripts.calls_file.unlink()
    # What was printed, pasted into a shell.
    path = os.pathsep.join([str(scripts.bin), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "GCLOUD_CALLS": str(scripts.calls_file)}
    subprocess.run(["bash", "-c", dry.stdout], check=True, env=environment)
    assert scripts.calls() == real


def test_every_command_of_the_page_can_be_tried(scripts: Scripts, repository: Path) -> None:
    page = (repository / "docs" / "tpu.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    commands = [command for block in blocks for command in re.findall(r"^tpu_setup/[^#\n]*", block, re.MULTILINE)]
    assert len(commands) > 6
    for command in commands:
        first, *after = command.split(" && ")
        for part in (first, *after):
            script, *arguments = shlex.split(part)
            result = scripts.run(script.removeprefix("tpu_setup/"), "--dry-run", *arguments)
            assert result.returncode == 0, (part, result.stderr)
            assert "gcloud compute tpus" in result.stdout
    assert scripts.calls() == []


def test_the_pages_table_of_accelerators_has_the_one_of_the_configuration(repository: Path) -> None:
    shipped = dict(re.findall(r'^(\w+)="([^"]*)"', (repository / "tpu_setup" / "config.env").read_text(), re.MULTILINE))
    kind = shipped["ACCELERATOR_TYPE"].rpartition("-")[0]
    rows = [
        line for line in (repository / "docs" / "tpu.md").read_text().splitlines() if line.startswith(f"| `{kind}-N`")
    ]
    assert [row.rstrip("| ").rpartition(" | ")[2] for row in rows] == [f"`{shipped['RUNTIME_VERSION']}`"]


def test_a_dry_run_of_delete_deletes_nothing(scripts: Scripts) -> None:
    result = scripts.run("delete.sh", "--dry-run")
    assert "queued-resources delete electra --project=my-project --zone=us-east5-b --quiet --force" in result.stdout
    assert scripts.calls() == []


class Worker:
    """A home directory in which the commands for the workers are really run."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.repository = home / "electra-jax"

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-c", command],
            timeout=60,
            cwd=self.home,
            env=os.environ | {"HOME": str(self.home)},
            capture_output=True,
            text=True,
        )

    def let_the_run_end(self) -> None:
        """Opens and closes the gate once the run waits there, which is refused until then."""
        deadline = time.monotonic() + 60
        while True:
            try:
                os.close(os.open(self.repository / "gate", os.O_WRONLY | os.O_NONBLOCK))
                return
            except OSError:
                assert time.monotonic() < deadline, "nothing was started"
                time.sleep(0.02)


def worker_command(scripts: Scripts) -> str:
    (call,) = scripts.calls()
    *before, command = call
    assert before == ["compute", "tpus", "tpu-vm", "ssh", "electra", *PLACE, "--worker=all"]
    assert command.startswith("--command=")
    return command.removeprefix("--command=")


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    """A worker whose `electra` writes its arguments to a file and then reads a named pipe until that is closed."""
    missing = [tool for tool in ("flock", "setsid") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"the workers' commands need {', '.join(missing)} (util-linux)")
    home = tmp_path / "home"
    electra = home / "electra-jax" / ".venv" / "bin" / "electra"
    electra.parent.mkdir(parents=True)
    program = (
        "import json, signal, sys; signal.alarm(120); print(json.dumps(sys.argv[1:]), flush=True); open('gate').read()"
    )
    electra.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{program}" "$@"\n')
    electra.chmod(0o755)
    os.mkfifo(home / "electra-jax" / "gate")
    return Worker(home)


ARGUMENTS = [
    "pretrain",
    "--gin_file=gin/runs/small.gin",
    "--gin.MODEL_DIR=\"gs://bucket/a run of 'mine'\"",
    '--gin.CORPUS="$HOME/`id`/*.txt"',
    "--gin.DROPOUT = 0.1",
    "",
    "a\\b\nc",
]


def test_launch_runs_the_command_detached_once_with_its_arguments_intact(scripts: Scripts, worker: Worker) -> None:
    assert scripts.run("launch.sh", *ARGUMENTS).returncode == 0
    command = worker_command(scripts)
    started = worker.run(command)
    assert started.returncode == 0, started.stderr
    assert ": started" in started.stdout
    assert ": a run is under way" in worker.run(command).stdout
    worker.let_the_run_end()
    (log,) = (worker.repository / "logs").glob("*.log")
    assert [json.loads(line) for line in log.read_text().splitlines()] == [ARGUMENTS]
    # After its end, the same command starts it again.
    subprocess.run(["flock", worker.repository / "logs" / "lock", "true"], check=True, timeout=60)
    assert ": started" in worker.run(command).stdout
    worker.let_the_run_end()
    assert [json.loads(line) for line in log.read_text().splitlines()] == [ARGUMENTS, ARGUMENTS]


def test_launch_twice_in_a_moment_starts_once(
    scripts: Scripts, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine the first run is still starting when the second command comes."""
    slow = worker.home / "bin" / "nohup"
    slow.parent.mkdir()
    slow.write_text(f'#!/bin/sh\nsleep 1\nexec {shutil.which("nohup")} "$@"\n')
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}{os.pathsep}{os.environ['PATH']}")
    assert scripts.run("launch.sh", *ARGUMENTS).returncode == 0
    command = worker_command(scripts)
    assert ": started" in worker.run(command).stdout
    assert ": a run is under way" in worker.run(command).stdout
    worker.let_the_run_end()
    subprocess.run(["flock", worker.repository / "logs" / "lock", "true"], check=True, timeout=60)
    (log,) = (worker.repository / "logs").glob("*.log")
    assert [json.loads(line) for line in log.read_text().splitlines()] == [ARGUMENTS]


def test_launch_before_install_says_so(scripts: Scripts, worker: Worker) -> None:
    (worker.repository / ".venv" / "bin" / "electra").unlink()
    assert scripts.run("launch.sh", "pretrain").returncode == 0
    result = worker.run(worker_command(scripts))
    assert result.returncode == 1
    assert "run install.sh" in result.stderr


def test_install_clones_installs_and_updates(scripts: Scripts, tmp_path: Path) -> None:
    origin, home = tmp_path / "origin of it", tmp_path / "home"
    git = ["git", "-C", str(origin), "-c", "user.name=n", "-c", "user.email=e"]
    origin.mkdir()
    home.mkdir()
    subprocess.run([*git, "init", "--quiet", "--initial-branch=main"], check=True)

    def commit(content: str) -> None:
        (origin / "constraints.txt").write_text(content)
        subprocess.run([*git, "add", "."], check=True)
        subprocess.run([*git, "commit", "--quiet", "--message=x"], check=True)

    # Stands for Python: makes a virtual environment of itself, and writes down what it is told.
    python = scripts.bin / "python-of-worker"
    python.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/python_calls\n'
        'if [ "$2" = venv ]; then mkdir -p .venv/bin && cp "$0" .venv/bin/python; fi\n'
    )
    python.chmod(0o755)
    scripts.configure(REPO_URL=str(origin), PYTHON=str(python))
    assert scripts.run("install.sh").returncode == 0
    command = worker_command(scripts)
    for content in ("first", "second"):
        commit(content)
        result = Worker(home).run(command)
        assert result.returncode == 0, result.stderr
        assert (home / "electra-jax" / "constraints.txt").read_text() == content
    install = "-m pip install --quiet --editable .[tpu] --constraint constraints.txt"
    assert (tmp_path / "python_calls").read_text().splitlines() == ["-m venv .venv", install, install]


@pytest.mark.parametrize(
    ("script", "setting"), [("create.sh", "ACCELERATOR_TYPE"), ("install.sh", "REPO_URL"), ("delete.sh", "PROJECT")]
)
def test_an_empty_setting_is_named(scripts: Scripts, script: str, setting: str) -> None:
    scripts.configure(**{setting: ""})
    expect_mistake(scripts, scripts.run(script), f"{script}: {setting} is empty: set it in {scripts.config}")


def test_mistakes(scripts: Scripts) -> None:
    expect_mistake(scripts, scripts.run("launch.sh"), "no command for the workers")
    expect_mistake(scripts, scripts.run("watch.sh"), "no command for the workers")
    expect_mistake(scripts, scripts.run("create.sh", "--dryrun"), "unknown option --dryrun")
    expect_mistake(scripts, scripts.run("delete.sh", "other"), "unknown argument other")
    # Not noticed, it would really delete or launch.
    expect_mistake(scripts, scripts.run("launch.sh", "pretrain", "--dry-run"), "put it first")
    scripts.configure(SPOT="yes")
    expect_mistake(scripts, scripts.run("create.sh"), "SPOT is 'yes'")
    scripts.config.unlink()
    expect_mistake(scripts, scripts.run("create.sh"), f"there is no configuration {scripts.config}")


def test_the_shipped_configuration_is_refused_until_it_is_filled_in(scripts: Scripts) -> None:
    scripts.config = scripts.folder / "config.env"
    for script in ("create.sh", "install.sh", "delete.sh"):
        expect_mistake(scripts, scripts.run(script), "PROJECT is empty")


def test_without_gcloud(scripts: Scripts) -> None:
    (scripts.bin / "gcloud").unlink()
    for tool in ("bash", "basename", "dirname"):
        (scripts.bin / tool).symlink_to(shutil.which(tool))
    result = scripts.run("create.sh", PATH=str(scripts.bin))
    expect_mistake(scripts, result, "gcloud is not on the PATH")


def expect_mistake(scripts: Scripts, result: subprocess.CompletedProcess[str], sentence: str) -> None:
    assert (result.returncode, result.stdout) == (2, "")
    assert sentence in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert scripts.calls() == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_the_comment_at_the_top(scripts: Scripts, script: str) -> None:
    result = scripts.run(script, "--help")
    assert result.returncode == 0
    assert f"tpu_setup/{script} [--dry-run]" in result.stdout
    assert "common.sh" not in result.stdout


def test_shellcheck(repository: Path) -> None:
    # The extra `dev` brings it, beside the interpreter.
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    shellcheck = shutil.which("shellcheck", path=beside)
    assert shellcheck, "shellcheck is not installed: install the extra dev"
    files = [repository / "tpu_setup" / name for name in ("common.sh", *SCRIPTS)]
    result = subprocess.run([shellcheck, *files], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout

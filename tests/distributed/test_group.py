"""Processes connect, exchange values, stop and end together; and how a process finds out that it is one of several."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from electra_jax.distributed import processes as distributed
from electra_jax.distributed.address import find_address
from electra_jax.distributed.group import connect, free_port
from electra_jax.errors import UserError

VARIABLES = [name for name in os.environ if name.startswith(("JAX_COORD", "JAX_NUM", "JAX_PROC", "SLURM_", "TPU_"))]


@pytest.fixture
def address() -> str:
    """Of this machine, where nobody listens."""
    return f"127.0.0.1:{free_port()}"


@pytest.fixture
def threads() -> Iterator[Callable[..., Future]]:
    """Runs a function aside."""
    with ThreadPoolExecutor(8) as pool:
        yield pool.submit


def test_processes_connect_in_any_order(address: str, threads: Callable[..., Future]) -> None:
    # Process 0 comes last: the others try until it is there.
    later = [threads(connect, address, index, 4, seconds=20) for index in (3, 1, 2)]
    time.sleep(0.5)
    groups = [connect(address, 0, 4, seconds=20), *(future.result() for future in later)]
    groups.sort(key=lambda group: group.index)
    assert [group.count for group in groups] == [4] * 4
    assert groups[3].hosts == [socket.gethostname()] * 4
    assert len({group.port for group in groups}) == 1
    for group in groups:
        group.leave(0)


def test_a_coordinator_that_is_not_there(address: str) -> None:
    began = time.monotonic()
    with pytest.raises(UserError, match=rf"process 1 of 2 could not reach the coordinator at {address} within 1 sec"):
        connect(address, 1, 2, seconds=1)
    assert time.monotonic() - began >= 0.5
    with pytest.raises(UserError, match=r"coordinator at nowhere\.invalid:1234 .*(not known|resolution)"):
        connect("nowhere.invalid:1234", 1, 2, seconds=1)


def test_processes_that_do_not_come(address: str, threads: Callable[..., Future]) -> None:
    came = threads(connect, address, 2, 4, seconds=10)
    with pytest.raises(UserError, match=rf"waited 2 seconds at {address} for 4 processes, .* did not come: 1, 3;"):
        connect(address, 0, 4, seconds=2)
    # Those that came are told as well, and do not wait for longer.
    with pytest.raises(UserError, match="did not come: 1, 3;"):
        came.result()


@pytest.mark.parametrize(("index", "count"), [(1, 2), (0, 3), (3, 3), (1, 4)])
def test_two_of_the_same_number(address: str, threads: Callable[..., Future], index: int, count: int) -> None:
    first = threads(connect, address, 0, 3, seconds=20)
    right = threads(connect, address, 1, 3, seconds=20)
    time.sleep(0.3)
    if index:
        with pytest.raises(UserError, match=f"says it is {index} of {count} came to {address}, where the others of 3"):
            connect(address, index, count, seconds=20)
    else:
        with pytest.raises(UserError, match=r"cannot listen on port \d+ .* choose another port"):
            connect(address, index, count, seconds=20)
    # A stranger that says nothing of use holds nobody up either.
    with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
    third = connect(address, 2, 3, seconds=20)
    for group in (first.result(), right.result(), third):
        assert group.count == 3
        group.leave(0)


MEMBER = """
import sys, time
from electra_jax.distributed.address import find_address
from electra_jax.distributed.group import connect
group = connect(sys.argv[1], int(sys.argv[2]), 3, seconds=60)
print("ready", flush=True)
if sys.argv[2] == sys.argv[3]:
    time.sleep(0.2)
    group.leave(int(sys.argv[4]), "the disk is full")
    sys.exit(int(sys.argv[4]))
time.sleep(60)
"""


def _members(code: str, address: str, *arguments: str, count: int = 3) -> list[subprocess.Popen[str]]:
    """Start processes that run `code`, which prints a line when it is ready."""
    command = [sys.executable, "-c", code, address]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([*command, str(index), *arguments], **pipes) for index in range(count)]
    for process in processes:
        assert process.stdout.readline() == "ready\n", process.communicate()
    return processes


@pytest.mark.parametrize("killed", [0, 2])
def test_a_process_that_is_killed_ends_the_others_at_once(address: str, killed: int) -> None:
    processes = _members(MEMBER, address, "none", "0")
    processes[killed].send_signal(signal.SIGKILL)
    for index, process in enumerate(processes):
        _, stderr = process.communicate(timeout=50)
        if index != killed:
            assert process.returncode == 75
            assert stderr == (
                f"electra: process {killed} on {socket.gethostname()} ended, and this one with it: it was killed, or "
                "its machine is gone\n"
            )


@pytest.mark.parametrize("leaving", [0, 1])
def test_a_process_that_fails_says_why_to_all_and_they_end_with_its_code(address: str, leaving: int) -> None:
    processes = _members(MEMBER, address, str(leaving), "2")
    for index, process in enumerate(processes):
        _, stderr = process.communicate(timeout=50)
        assert process.returncode == 2
        if index != leaving:
            assert (
                f"process {leaving} on {socket.gethostname()} ended, and this one with it: the disk is full" in stderr
            )


JAX_ALONE = """
import sys, time
import jax
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]), cluster_detection_method="deactivate",
                           initialization_timeout=int(sys.argv[3]), heartbeat_timeout_seconds=4)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("killed", [0, 1])
def test_jax_alone_aborts_where_a_process_is_killed(address: str, killed: int) -> None:
    """Why `group` exists: when this fails, JAX may have learnt to do it."""
    processes = _members(JAX_ALONE, address, "60", count=2)
    processes[killed].send_signal(signal.SIGKILL)
    _, stderr = processes[1 - killed].communicate(timeout=50)
    assert processes[1 - killed].returncode == -signal.SIGABRT
    assert "Check failure stack trace" in stderr
    processes[killed].communicate()


def test_jax_alone_aborts_where_the_other_process_is_missing(address: str) -> None:
    command = [sys.executable, "-c", JAX_ALONE, address, "1", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == -signal.SIGABRT
    assert "Check failure stack trace" in done.stderr


BUSY = """
import os, sys
os.environ |= {"JAX_COORDINATOR_ADDRESS": sys.argv[1], "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": sys.argv[2]}
from electra_jax.distributed import processes
with processes.process_group("SEED = 0"):
    print("ready", flush=True)
    while True:
        # Holds the interpreter's lock for longer than JAX takes to abort, but not for as long as the abort is delayed.
        sum(range(50_000_000))
"""


def test_a_process_that_is_busy_reports_the_death_of_process_0_before_jax_aborts_it(address: str) -> None:
    """Why aborts are delayed: see `processes.delay_aborts`."""
    processes = _members(BUSY, address, count=2)
    processes[0].send_signal(signal.SIGKILL)
    _, stderr = processes[1].communicate(timeout=50)
    assert processes[1].returncode == 75
    assert "electra: process 0 on " in stderr
    processes[0].communicate()


TOGETHER = """
import os, signal, sys, time
os.environ |= {"JAX_COORDINATOR_ADDRESS": sys.argv[1], "JAX_NUM_PROCESSES": "3", "JAX_PROCESS_ID": sys.argv[2]}
from electra_jax.distributed import processes
from electra_jax.distributed.stop_signals import stop_signals
index = int(sys.argv[2])
with processes.process_group("SEED = 0"):
    for number in range(3):
        assert processes.gather([index, number]) == [[other, number] for other in range(3)]
    # More than a message of gRPC holds by default.
    assert list(map(len, processes.gather("x" * 5_000_000))) == [5_000_000] * 3
    print("ready", flush=True)
    if sys.argv[4] == "outside":
        time.sleep(60)
    with stop_signals() as stop:
        for step in range(1, 2000):
            # No process can do a step without the others, nor wait for them while they wait for it.
            processes.coordination_client().wait_at_barrier(f"step {step}", 20_000)
            time.sleep(0.002 * (index == 1))
            if step == 5 and sys.argv[3] in (sys.argv[2], "all"):
                signal.raise_signal(signal.Signals[sys.argv[4]])
            if stop.after_step():
                print(step, stop.requested, flush=True)
                break
"""


@pytest.mark.parametrize(("asking", "number"), [("0", "SIGTERM"), ("2", "SIGINT"), ("all", "SIGTERM")])
def test_all_stop_after_the_same_step_which_none_has_passed(address: str, asking: str, number: str) -> None:
    processes = _members(TOGETHER, address, asking, number)
    ends = [process.communicate(timeout=50) for process in processes]
    assert [process.returncode for process in processes] == [0] * 3, ends
    assert len({stdout for stdout, _ in ends}) == 1, ends
    step, requested = ends[0][0].split()
    assert 5 <= int(step) < 2000
    assert requested == number


def test_outside_the_loop_sigterm_ends_a_process_and_the_others_with_it(address: str) -> None:
    processes = _members(TOGETHER, address, "none", "outside")
    processes[1].send_signal(signal.SIGTERM)
    assert [process.wait(timeout=50) for process in processes] == [75, -signal.SIGTERM, 75]
    for process in processes:
        process.communicate()


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that says nothing of other processes."""
    for name in VARIABLES:
        monkeypatch.delenv(name)
    return monkeypatch


SLURM = {
    "SLURM_JOB_ID": "4096",
    "SLURM_STEP_NODELIST": "node[007-010],other3",
    "SLURM_NTASKS": "5",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        (
            {"JAX_COORDINATOR_ADDRESS": "10.0.0.1:99", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "2"},
            ("10.0.0.1:99", 4, 2, None),
        ),
        (SLURM, ("node007:61440", 5, 3, [1])),
        (SLURM | {"JAX_COORDINATOR_ADDRESS": "node007:99"}, ("node007:99", 5, 3, [1])),
        # One task; a batch script's own shell; and a process that wants to be alone.
        (SLURM | {"SLURM_NTASKS": "1"}, None),
        ({name: value for name, value in SLURM.items() if name != "SLURM_STEP_NODELIST"}, None),
        (SLURM | {"JAX_NUM_PROCESSES": "1"}, None),
    ],
)
def test_where_it_finds_out_that_it_is_one_of_several(
    alone: pytest.MonkeyPatch, variables: dict[str, str], expected: tuple[Any, ...] | None
) -> None:
    for name, value in variables.items():
        alone.setenv(name, value)
    assert find_address() == expected


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"JAX_COORDINATOR_ADDRESS": "a:1"}, "set JAX_NUM_PROCESSES, JAX_PROCESS_ID; or JAX_NUM_PROCESSES=1"),
        (
            {"JAX_COORDINATOR_ADDRESS": "a", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"},
            "JAX_COORDINATOR_ADDRESS is 'a': it must be HOST:PORT",
        ),
        (
            {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "2"},
            "JAX_PROCESS_ID is 2: of 2 processes it must be from 0 to 1",
        ),
        ({"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES is 'two'"),
    ],
)
def test_half_an_address_is_refused(alone: pytest.MonkeyPatch, variables: dict[str, str], message: str) -> None:
    for name, value in variables.items():
        alone.setenv(name, value)
    with pytest.raises(UserError, match=message):
        find_address()


def test_an_indexed_job_that_cannot_ask_kubernetes(alone: pytest.MonkeyPatch) -> None:
    alone.setenv("JOB_COMPLETION_INDEX", "1")
    alone.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    # As if the package were not installed, which it need not be.
    alone.setitem(sys.modules, "kubernetes", None)
    with pytest.warns(UserWarning, match="kubernetes"), pytest.raises(UserError, match=r"processes \(Kubernetes\)"):
        find_address()


def test_gins_text_is_compared_setting_by_setting() -> None:
    text = (
        "# Macros:\nBATCH_SIZE = 8\n\nMeshConfig.rules = \\\n    (('embed', 'fsdp'),\n     ('mlp', None))\nSEED = 1\n"
    )
    assert distributed.parse_settings(text) == {
        "BATCH_SIZE": "8",
        "MeshConfig.rules": "\\ (('embed', 'fsdp'), ('mlp', None))",
        "SEED": "1",
    }


def test_without_a_group_nothing_is_waited_for() -> None:
    assert distributed.leader()
    assert distributed.group() is None
    assert distributed.gather({"a": 1}) == [{"a": 1}]
    done = []
    distributed.on_leader(done.append, 1)
    with distributed.leader_first():
        done.append(2)
    assert done == [1, 2]

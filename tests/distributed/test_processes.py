"""Real processes on this machine, with collectives over loopback: the losses of one, and what survives of a group."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from electra_jax.distributed.group import free_port

STEPS, SAVE_EVERY = 24, 5
SHARDED, MIXED = [1, -1, 1], [2, -1, 1]
WORKER, TWO_STORES = (Path(__file__).with_name(f"{name}.py") for name in ("worker", "two_stores"))
Done = subprocess.CompletedProcess[str]


class Runs:
    """Processes that share compiled programs; each method is one story, told in its own MODEL_DIR."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, name: str, count: int, *, script: Path = WORKER, **changes: Any) -> list[subprocess.Popen[str]]:
        port = free_port()
        explicit = [
            {
                "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
                "JAX_NUM_PROCESSES": str(count),
                "JAX_PROCESS_ID": str(index),
            }
            for index in range(count)
        ]
        places = explicit if count > 1 else [{}]
        return [self.process(self.folder / name, where, script=script, **changes) for where in places]

    def process(
        self, model_dir: Path, where: dict[str, str], *, script: Path = WORKER, **changes: Any
    ) -> subprocess.Popen[str]:
        options = {"steps": STEPS, "save_every": SAVE_EVERY, "mesh": SHARDED, "pace": 0.0} | changes
        one_device = "--xla_force_host_platform_device_count=1"
        return subprocess.Popen(
            [sys.executable, str(script), str(model_dir), json.dumps(options)],
            env=os.environ
            | {
                "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {one_device}",
                "ELECTRA_CACHE_DIR": str(self.folder / "cache"),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                "ELECTRA_JOIN_SECONDS": "200",
            }
            | where,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def slurm(self, name: str, count: int, **changes: Any) -> list[Done]:
        """A step of SLURM on this machine, as far as a process can tell."""
        job = {
            "SLURM_JOB_ID": str(random.SystemRandom().randrange(1, 2**20)),
            "SLURM_STEP_NODELIST": "localhost",
            "SLURM_NTASKS": str(count),
        }
        tasks = [{"SLURM_PROCID": str(index), "SLURM_LOCALID": str(index)} for index in range(count)]
        return finish([self.process(self.folder / name, job | task, **changes) for task in tasks])

    def whole(self, name: str, count: int, **changes: Any) -> list[Done]:
        done = finish(self.start(name, count, **changes))
        assert [one.returncode for one in done] == [0] * count, done
        return done

    def killed(self, name: str) -> list[Done]:
        """Of two processes the second is killed, then the first; the third group comes to the end."""
        ends = []
        for victim, after in ((1, 6), (0, 11)):
            processes = self.start(name, 2, pace=0.1)
            self.wait_for(processes, name, after)
            processes[victim].send_signal(signal.SIGKILL)
            ends.append(finish(processes)[1 - victim])
        self.whole(name, 2)
        return ends

    def stopped(self, name: str) -> list[list[Done]]:
        """Two processes, of which one is asked to stop, then one alone, then two to the end."""
        ends = []
        for count, after in ((2, 2), (1, 12)):
            processes = self.start(name, count, pace=0.3, steps=STEPS)
            self.wait_for(processes, name, after)
            processes[-1].send_signal(signal.SIGTERM)
            ends.append(finish(processes))
        self.whole(name, 2)
        return ends

    def wait_for(self, processes: list[subprocess.Popen[str]], name: str, step: int) -> None:
        """Until a run has reported a step; fails if it ends before that."""
        path = self.folder / name / "metrics.jsonl"
        while not path.exists() or f'"step": {step}, ' not in path.read_text():
            assert all(process.poll() is None for process in processes), finish(processes)
            time.sleep(0.01)

    def losses(self, name: str) -> dict[int, float]:
        lines = map(json.loads, (self.folder / name / "metrics.jsonl").read_text().splitlines())
        return {line["step"]: line["loss"] for line in lines if "loss" in line}

    def states(self, name: str) -> dict[int, set[str]]:
        """Every digest that the state after a step had; one, if what was done twice was done alike."""
        found: dict[int, set[str]] = {}
        for line in (self.folder / name / "states.jsonl").read_text().splitlines():
            step, digest = json.loads(line)
            found.setdefault(step, set()).add(digest)
        return found

    def rows(self, name: str) -> dict[int, list[list[int]]]:
        """What all processes read for each step, in the order of the global batch."""
        found: dict[int, list[list[int]]] = {}
        for path in sorted((self.folder / name).glob("rows.*.jsonl")):
            own = dict(map(json.loads, path.read_text().splitlines()))
            found = {step: found.get(step, []) + own.get(step, []) for step in found.keys() | own.keys()}
        return found


def finish(processes: list[subprocess.Popen[str]]) -> list[Done]:
    outputs = [process.communicate(timeout=300) for process in processes]
    return [Done(one.args, one.returncode, *output) for one, output in zip(processes, outputs, strict=True)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("processes"))


@pytest.fixture(scope="module")
def stories(runs: Runs) -> Iterator[dict[str, Future]]:
    """All of them, two at a time: most of each is importing."""
    with ThreadPoolExecutor(2) as pool:
        two = pool.submit(runs.whole, "two", 2)
        yield {
            "one": pool.submit(runs.whole, "one", 1),
            "two": two,
            "four": pool.submit(runs.slurm, "four", 4, mesh=MIXED),
            "killed": pool.submit(runs.killed, "killed"),
            "stopped": pool.submit(runs.stopped, "stopped"),
        }


@pytest.mark.parametrize("name", ["two", "four"])
def test_the_same_losses_as_one_process(runs: Runs, stories: dict[str, Future], name: str) -> None:
    stories["one"].result()
    done = stories[name].result()
    assert [one.returncode for one in done] == [0] * len(done), done
    assert runs.rows(name) == runs.rows("one")
    expected, found = runs.losses("one"), runs.losses(name)
    assert list(found) == list(expected) == list(range(1, STEPS + 1))
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-5)


def test_a_group_of_which_one_was_killed_ends_and_resumes_exactly(runs: Runs, stories: dict[str, Future]) -> None:
    stories["two"].result()
    for victim, survivor in zip((1, 0), stories["killed"].result(), strict=True):
        assert survivor.returncode == 75, survivor
        assert f"electra: process {victim} on " in survivor.stderr
        assert "it was killed, or its machine is gone" in survivor.stderr
    assert runs.states("killed") == runs.states("two")
    assert all(len(digests) == 1 for digests in runs.states("killed").values())
    assert runs.losses("killed") == runs.losses("two")


def test_a_request_to_stop_one_process_saves_all_at_the_same_step(runs: Runs, stories: dict[str, Future]) -> None:
    stories["two"].result()
    two, one = stories["stopped"].result()
    assert [done.returncode for done in (*two, *one)] == [75] * 3, (two, one)
    # One process speaks.
    reached = int(two[0].stdout.partition("stopped by SIGTERM at step ")[2].partition(",")[0])
    assert 2 <= reached < STEPS
    assert "stopped" not in two[1].stdout
    alike = {step: digests for step, digests in runs.states("two").items() if step <= reached}
    assert alike == {step: digests for step, digests in runs.states("stopped").items() if step <= reached}


def test_a_run_goes_on_with_another_number_of_processes(runs: Runs, stories: dict[str, Future]) -> None:
    stories["one"].result()
    stories["stopped"].result()
    # What was restored is what was saved, to the bit; no row was read twice or lost; and the losses are those of one.
    assert all(len(digests) == 1 for digests in runs.states("stopped").values())
    assert sorted(runs.states("stopped")) == list(range(STEPS + 1))
    assert runs.rows("stopped") == runs.rows("one")
    expected, found = runs.losses("one"), runs.losses("stopped")
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-5)


@pytest.mark.parametrize("what", ["configuration", "MODEL_DIR"])
def test_processes_that_disagree_are_refused(runs: Runs, what: str) -> None:
    address = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}", "JAX_NUM_PROCESSES": "2"}
    processes = []
    for index in range(2):
        same = what == "MODEL_DIR"
        configuration = f"BATCH_SIZE = {8 if same else 8 + index}\nSEED = 0\n"
        folder = runs.folder / f"{what} {index if same else 0}"
        processes.append(runs.process(folder, address | {"JAX_PROCESS_ID": str(index)}, configuration=configuration))
    for done in finish(processes):
        assert done.returncode == 2, done
        if what == "configuration":
            assert "disagrees with process 0" in done.stderr
            assert "about the configuration: BATCH_SIZE is 9 there and 8 in process 0" in done.stderr
            assert "SEED" not in done.stderr
        else:
            assert "does not see what process 0" in done.stderr
            # Each calls it by its own name for it.
            assert re.search(rf"wrote to {runs.folder}/MODEL_DIR [01]: MODEL_DIR must be on", done.stderr)
    assert not list(runs.folder.glob(f"{what} *//checkpoints"))


def test_two_stores_of_checkpoints_write_the_same_step_at_once(runs: Runs) -> None:
    """As a fine-tuning does at its last step: its state, and the model that it keeps."""
    done = finish(runs.start("stores", 2, script=TWO_STORES))
    assert [one.returncode for one in done] == [0, 0], done
    assert [os.listdir(runs.folder / "stores" / name / "checkpoints") for name in ("run", "best")] == [["12"], ["12"]]

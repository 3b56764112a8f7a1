"""Do the work of a comparison or a sweep: one process for each item, several side by side, no item twice."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

from electra_jax.compare.item import Item
from electra_jax.compare.plan import Timing, ready, seconds_left
from electra_jax.compare.records import Records, command_of
from electra_jax.config.comparison import PAIRS
from electra_jax.errors import PREEMPTED
from electra_jax.files import regular, replacing_directory
from electra_jax.training.stop import STOP_AT_EOF, Stop

# Seconds between polls of the processes, and between lines that say what is running when nothing else happens.
_POLL, _SILENCE = 0.2, 60.0


class _Running(NamedTuple):
    """The process of an item: its slot on the machine, when it was started, and what was done before."""

    item: Item
    process: subprocess.Popen
    log: TextIO
    slot: int
    started: float
    share: float


class Work:
    """The processes of a comparison or a sweep; `failures` says how those that failed ended, by item name."""

    def __init__(
        self,
        records: Records,
        failures: dict[str, str],
        *,
        processes: int,
        lock: int,
        tell: Callable[[str, bool], None],
    ) -> None:
        """Prepare the work without starting a process.

        Args:
            records: what is done, and where the rest is written.
            failures: how items that are not to be tried again ended; new failures are added.
            processes: the largest number of processes side by side.
            lock: the file descriptor of a lock that every process inherits; the last of them to end releases it.
            tell: called for every event with a line and whether an item has ended.
        """
        self.records, self.failures = records, failures
        self._processes, self._lock, self._tell_caller = processes, lock, tell
        self._running: dict[str, _Running] = {}
        self._stopping = False
        self._told = time.monotonic()

    def timings(self) -> dict[str, Timing]:
        """Return the timings of finished items, and of running ones so far."""
        found = self.records.timings()
        for name, run in self._running.items():
            share = self.records.share(run.item)
            found[name] = Timing(time.monotonic() - run.started, max(0.0, share - run.share), max(0.0, 1 - share))
        return found

    def run(self, stop: Stop) -> None:
        """Work until nothing is left that can be started, or until asked to stop; then the processes save and stop.

        An item that fails stops neither the others nor items that do not need it.
        """
        try:
            while True:
                if not stop.after_step():
                    self._start_ready()
                elif not self._stopping:
                    self._stopping = True
                    for run in self._running.values():
                        run.process.terminate()
                if not self._running:
                    return
                if time.monotonic() - self._told > _SILENCE:
                    self._tell(f"at work: {', '.join(self._running)}", ended=False)
                time.sleep(_POLL)
                for run in list(self._running.values()):
                    if run.process.poll() is not None:
                        self._end(run)
        finally:
            for run in self._running.values():
                run.process.kill()
                run.process.wait()
                run.log.close()

    def _tell(self, line: str, *, ended: bool) -> None:
        self._told = time.monotonic()
        self._tell_caller(line, ended)

    def _start_ready(self) -> None:
        begun = self._running.keys() | self.failures.keys()
        free = sorted(set(range(self._processes)) - {run.slot for run in self._running.values()})
        for slot, item in zip(free, ready(self.records.items, done=self.records.done, begun=begun), strict=False):
            self._running[item.name] = self._start(item, slot)
            self._tell(f"begun: {item.name}", ended=False)

    def _start(self, item: Item, slot: int) -> _Running:
        """Start the process of an item; a later fraction resumes from a copy of the one before."""
        directory = self.records.directory(item)
        directory.parent.mkdir(parents=True, exist_ok=True)
        if item.task is not None and item.task.startswith(PAIRS):
            directory.mkdir(exist_ok=True)
        if item.task is None and item.needs is not None and not directory.exists():
            with replacing_directory(directory) as part:
                shutil.copytree(self.records.model_dir / item.needs, part, dirs_exist_ok=True)
        log = self.records.log(item).open("a", encoding="utf-8")
        log.write(f"\n$ {command_of(item)}\n")
        log.flush()
        share = self.records.share(item)
        process = subprocess.Popen(
            [sys.executable, "-m", "electra_jax", *item.arguments],
            stdout=log,
            stderr=subprocess.STDOUT,
            # The pipe closes with this process: what a killed comparison or sweep leaves running then saves and stops.
            stdin=subprocess.PIPE,
            env=os.environ | gpu_share(slot, self._processes, visible_gpus()) | {STOP_AT_EOF: "1"},
            pass_fds=(self._lock,),
            # Ctrl-C is for this process, which then asks the others to save and stop.
            start_new_session=True,
        )
        pin(process.pid, slot, self._processes)
        return _Running(item, process, log, slot, time.monotonic(), share)

    def _end(self, run: _Running) -> None:
        """Record how a process ended."""
        item, code, seconds = run.item, run.process.returncode, time.monotonic() - run.started
        run.log.close()
        del self._running[item.name]
        # A process that is told to stop before it has begun to train has nothing to save.
        if code == PREEMPTED or (self._stopping and code == -signal.SIGTERM):
            self._tell(f"stopped: {item.name}", ended=True)
        elif code == 0 and (item.task is None or self.records.results(item) is not None):
            self.records.add(item, seconds=seconds, share=1 - run.share)
            self._tell(f"done: {item.name} in {readable(seconds)}", ended=True)
        else:
            log = self.records.log(item)
            self.failures[item.name] = (
                f"{how_it_ended(code)}; its last words: {last_words(log)}; all of them are in {log}"
            )
            self._tell(f"failed: {item.name} {self.failures[item.name]}", ended=True)


def progress(work: Work, items: Sequence[Item], processes: int) -> str:
    """Describe how many items are done and, as far as is known, how long the rest takes.

    Args:
        work: the processes.
        items: all items, including those that must not be started yet.
        processes: number of processes side by side.
    """
    seconds, unknown = seconds_left(items, work.timings(), processes=processes)
    left = f"left: {readable(seconds)}" if seconds or not unknown else "left: not known yet"
    if seconds and unknown:
        left += f" and {len(unknown)} pieces of a kind that has not been timed yet"
    return f"{len(work.records.done)} of {len(items)} pieces done, {left}"


def failed(failures: Mapping[str, str]) -> str:
    """Return one sentence about what failed."""
    first, *others = failures
    more = f"; {len(others)} more failed: {', '.join(others)}" if others else ""
    return f"{first} {failures[first]}{more}; the same command tries again what is not done"


def readable(seconds: float) -> str:
    """Return a time as hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def how_it_ended(code: int) -> str:
    """Describe a process's exit code, which is negative for a signal."""
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return "ended without its result" if code == 0 else f"ended with exit code {code}"


def last_words(log: Path) -> str:
    """Return the sentence with which `electra` ended, or else the last line that a process wrote."""
    text = regular(log).read_text(encoding="utf-8", errors="replace").rpartition("\n$ electra ")[2]
    lines = [line.strip() for line in text.splitlines()[1:] if line.strip()]
    return next((line for line in reversed(lines[-20:]) if line.startswith("electra: ")), (lines or ["none"])[-1])


def visible_gpus() -> list[str]:
    """Return the indices of this machine's NVIDIA GPUs, or those that CUDA_VISIBLE_DEVICES names."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [path.name[6:] for path in sorted(Path("/dev").glob("nvidia[0-9]*"))]


def gpu_share(slot: int, processes: int, gpus: Sequence[str]) -> dict[str, str]:
    """Return the environment of one of several processes: one GPU, and a part of its memory if others share it."""
    if processes == 1 or not gpus:
        return {}
    sharing = len(range(slot % len(gpus), processes, len(gpus)))
    environment = {"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]}
    if sharing > 1:
        environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 / sharing:.3g}"
    return environment


def pin(process: int, slot: int, processes: int) -> None:
    """Pin a newly started process to its share of the cores, if the system can."""
    if not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    if 1 < processes <= len(cores):
        # The process may have ended already.
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(process, cores[slot::processes])

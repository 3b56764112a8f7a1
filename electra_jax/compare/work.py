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

# Seconds between looks at the processes, and between lines that say what is running when nothing else happens.
_POLL, _SILENCE = 0.2, 60.0


class _Running(NamedTuple):
    """An item's process: the slot of the machine that it has, when it was started, what was done before it."""

    item: Item
    process: subprocess.Popen
    log: TextIO
    slot: int
    started: float
    share: float


class Work:
    """The processes of a comparison or a sweep; `failures` says how those ended that failed, by the items' names."""

    def __init__(
        self,
        records: Records,
        failures: dict[str, str],
        *,
        processes: int,
        lock: int,
        tell: Callable[[str, bool], None],
    ) -> None:
        """Start nothing yet.

        Args:
            records: what is done, and where the rest goes.
            failures: how items ended that are not to be tried again; those that fail are added.
            processes: the largest number of processes side by side.
            lock: the file descriptor of a lock that every process inherits, and that ends with the last of them.
            tell: called with a line for everything that happens, and whether an item has ended.
        """
        self.records, self.failures = records, failures
        self._processes, self._lock, self._tell_caller = processes, lock, tell
        self._running: dict[str, _Running] = {}
        self._stopping = False
        self._told = time.monotonic()

    def timings(self) -> dict[str, Timing]:
        """Return the timings of what is done, and of what is running so far."""
        found = self.records.timings()
        for name, run in self._running.items():
            share = self.records.share(run.item)
            found[name] = Timing(time.monotonic() - run.started, max(0.0, share - run.share), max(0.0, 1 - share))
        return found

    def run(self, stop: Stop) -> None:
        """Work until nothing is left that can be started, or until asked to stop; then the processes save and stop.

        An item that fails ends neither the others nor what does not need it.
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
        """Start an item's process; a later fraction resumes from a copy of the one before."""
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
            # The pipe ends with this process: what a killed comparison or sweep left saves and stops.
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
        # One that is told to stop before it has begun to train has nothing to save.
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
    """Return how many items are done, and how long the rest takes as far as that is known.

    Args:
        work: the processes.
        items: all items, those included that are not to be started yet.
        processes: number of processes side by side.
    """
    seconds, unknown = seconds_left(items, work.timings(), processes=processes)
    left = f"left: {readable(seconds)}" if seconds or not unknown else "left: not known yet"
    if seconds and unknown:
        left += f" and {len(unknown)} pieces of a kind that has not been timed yet"
    return f"{len(work.records.done)} of {len(items)} pieces done, {left}"


def failed(failures: Mapping[str, str]) -> str:
    """Return one sentence on what failed."""
    first, *others = failures
    more = f"; {len(others)} more failed: {', '.join(others)}" if others else ""
    return f"{first} {failures[first]}{more}; the same command tries again what is not done"


def readable(seconds: float) -> str:
    """Return a time as hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def how_it_ended(code: int) -> str:
    """Return the words for a process's exit code, negative for a signal."""
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return "ended without its result" if code == 0 else f"ended with exit code {code}"


def last_words(log: Path) -> str:
    """Return the sentence that `electra` ended with, or else the last line that a process wrote."""
    text = regular(log).read_text(encoding="utf-8", errors="replace").rpartition("\n$ electra ")[2]
    lines = [line.strip() for line in text.splitlines()[1:] if line.strip()]
    return next((line for line in reversed(lines[-20:]) if line.startswith("electra: ")), (lines or ["none"])[-1])


def visible_gpus() -> list[str]:
    """Return the numbers of this machine's NVIDIA GPUs, or those that CUDA_VISIBLE_DEVICES names."""
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
    """Keep a process, which has only just started, to its share of the cores, where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    if 1 < processes <= len(cores):
        # It may have ended already.
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(process, cores[slot::processes])

"""Runs the pieces of a comparison: each a process of its own, side by side, none of them twice."""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

from electra_jax.compare.pieces import Piece, Timing, ready
from electra_jax.compare.records import Records, command_of
from electra_jax.errors import PREEMPTED, UserError
from electra_jax.monitoring.reporter import say
from electra_jax.training.stop import Stop

# How often the processes are looked at, and how often something is said while nothing happens.
_SECONDS, _SECONDS_OF_SILENCE = 0.2, 60.0


class _Process(NamedTuple):
    """A piece under way."""

    piece: Piece
    process: subprocess.Popen
    slot: int
    began: float
    share: float
    log: TextIO


class Work:
    """The processes under way."""

    def __init__(self, records: Records, *, processes: int, keep_alive: int) -> None:
        """Nothing runs yet.

        Args:
            records: of what is done, and where the rest goes.
            processes: at most so many side by side.
            keep_alive: a file descriptor that every process inherits: see `sole_owner`.
        """
        self.records, self._keep_alive = records, keep_alive
        self._slots: list[int] = list(range(processes))
        self._shares = shares(processes)
        self._stopping = False
        self._running: dict[str, _Process] = {}
        self.failures: dict[str, str] = {}

    def timings(self) -> dict[str, Timing]:
        """Of what is done, and of what is under way so far."""
        found = self.records.timings()
        for name, run in self._running.items():
            share = self.records.share(run.piece)
            found[name] = Timing(time.monotonic() - run.began, max(0.0, share - run.share), max(0.0, 1 - share))
        return found

    def run(self, stop: Stop, changed: Callable[[str, bool], None]) -> None:
        """Works until nothing is left that can be begun, or until asked to stop, which the processes then are too.

        A piece that fails ends neither the others nor what does not need it.

        Args:
            stop: asked again and again.
            changed: told in a line what has begun or ended (`ended`), or what is at work if nothing did for a minute.
        """
        said = time.monotonic()

        def tell(line: str, ended: bool) -> None:
            nonlocal said
            said = time.monotonic()
            changed(line, ended)

        try:
            while not stop.after_step():
                begun = self._running.keys() | self.failures.keys()
                for piece in ready(self.records.pieces, done=self.records.done, begun=begun)[: len(self._slots)]:
                    self._begin(piece)
                    tell(f"begun: {piece.name}", False)
                if not self._running:
                    return
                if time.monotonic() - said > _SECONDS_OF_SILENCE:
                    tell(f"at work: {', '.join(self._running)}", False)
                time.sleep(_SECONDS)
                for line in self._ended():
                    tell(line, True)
            self._stopping = True
            for run in self._running.values():
                run.process.terminate()
            while self._running:
                time.sleep(_SECONDS)
                for line in self._ended():
                    tell(line, True)
        finally:
            for run in self._running.values():
                run.process.kill()
                run.process.wait()
                run.log.close()

    def _begin(self, piece: Piece) -> None:
        """Starts a process; a later fraction goes on from a copy of the one before."""
        directory = self.records.directory(piece)
        directory.parent.mkdir(parents=True, exist_ok=True)
        before = None if piece.task is not None or piece.needs is None else self.records.model_dir / piece.needs
        if before is not None and before.exists() and not directory.exists():
            part = directory.with_name(directory.name + ".part")
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(before, part)
            part.rename(directory)
        slot = self._slots.pop(0)
        log = self.records.log(piece).open("a", encoding="utf-8")
        log.write(f"\n$ {command_of(piece)}\n")
        log.flush()
        share = self.records.share(piece)
        process = subprocess.Popen(
            [sys.executable, "-m", "electra_jax.compare.child", *piece.arguments],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=os.environ | self._shares[slot].environment,
            pass_fds=(self._keep_alive,),
            # Ctrl-C is for this process, which then asks the others to save and stop.
            start_new_session=True,
        )
        self._shares[slot].pin(process.pid)
        self._running[piece.name] = _Process(piece, process, slot, time.monotonic(), share, log)

    def _ended(self) -> Iterator[str]:
        """Takes up what has ended, and says how."""
        for name, run in list(self._running.items()):
            code = run.process.poll()
            if code is None:
                continue
            run.log.close()
            del self._running[name]
            self._slots.append(run.slot)
            seconds = time.monotonic() - run.began
            # One that is told to stop before it has begun to train has nothing to save.
            if code == PREEMPTED or (self._stopping and code == -signal.SIGTERM):
                yield f"stopped: {name}"
            elif code == 0 and (run.piece.task is None or self.records.results(run.piece) is not None):
                self.records.add(run.piece, seconds=seconds, share=1 - run.share)
                yield f"done: {name} in {readable(seconds)}"
            else:
                log = self.records.log(run.piece)
                self.failures[name] = (
                    f"{how_it_ended(code)}; its last words: {last_words(log)}; all of them are in {log}"
                )
                yield f"failed: {name} {self.failures[name]}"


def readable(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def how_it_ended(code: int) -> str:
    """In words."""
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return "ended without its result" if code == 0 else f"ended with exit code {code}"


def last_words(log: Path) -> str:
    """The sentence that `electra` ended with, or else the last line that a process said."""
    text = log.read_text(encoding="utf-8", errors="replace").rpartition("\n$ electra ")[2]
    lines = [line.strip() for line in text.splitlines()[1:] if line.strip()]
    return next((line for line in reversed(lines[-20:]) if line.startswith("electra: ")), (lines or ["none"])[-1])


class Share:
    """The part of the machine that one of several processes side by side gets."""

    def __init__(self, environment: Mapping[str, str], cores: Sequence[int]) -> None:
        """Environment variables, and the cores (none: all of them)."""
        self.environment, self._cores = dict(environment), cores

    def pin(self, process: int) -> None:
        """Keeps a process, which has only begun, to its cores."""
        if self._cores and hasattr(os, "sched_setaffinity"):
            # It may have ended already.
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(process, self._cores)


def shares(processes: int) -> list[Share]:
    """The machine in equal parts: each its own GPU, or part of one, where there are any; its own cores."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [path.name[6:] for path in sorted(Path("/dev").glob("nvidia[0-9]*"))]
    return [
        Share(gpu_share(index, processes, gpus), cores[index::processes] if 1 < processes <= len(cores) else [])
        for index in range(processes)
    ]


def gpu_share(index: int, processes: int, gpus: Sequence[str]) -> dict[str, str]:
    """The environment of one of several processes: one GPU, and of its memory a part where others share it."""
    if processes == 1 or not gpus:
        return {}
    on_the_same = len(range(index % len(gpus), processes, len(gpus)))
    environment = {"CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)]}
    if on_the_same > 1:
        environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 / on_the_same:.2f}"
    return environment


@contextlib.contextmanager
def sole_owner(model_dir: Path) -> Iterator[int]:
    """Holds a comparison's directory; waits for the processes that a killed comparison left, which save and stop.

    Gives the file descriptor to hand to every process: the directory stays taken until the last has ended.

    Raises:
        UserError: another comparison is at work there.
    """
    with (model_dir / "compare.lock").open("w") as own, (model_dir / "pieces.lock").open("w") as theirs:
        try:
            fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another electra compare is at work in {model_dir}: wait for it, or stop it") from error
        try:
            fcntl.flock(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for what a killed comparison left running: it saves and stops")
            fcntl.flock(theirs, fcntl.LOCK_EX)
        fcntl.flock(theirs, fcntl.LOCK_SH)
        yield theirs.fileno()

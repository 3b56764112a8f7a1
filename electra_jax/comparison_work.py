"""Runs the pieces of a comparison: each a process of its own, side by side, none of them twice."""

import contextlib
import datetime
import fcntl
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import jax
import numpy as np

from electra_jax import stored
from electra_jax.comparison import Piece, different_settings, ready
from electra_jax.errors import PREEMPTED, UserError
from electra_jax.finetune_results import RESULTS
from electra_jax.paths import absolute
from electra_jax.reporting import say
from electra_jax.run_record import replace_text
from electra_jax.stopping import Stop

# How often the processes are looked at.
_SECONDS = 0.2

Record = dict[str, Any]


class Places:
    """The files of a comparison's pieces."""

    def __init__(self, model_dir: Path, seeds: Sequence[int]) -> None:
        """The comparison's directory, and the seeds that every fine-tuning must have."""
        self.model_dir = model_dir
        self._seeds = seeds

    def directory(self, piece: Piece) -> Path:
        """The MODEL_DIR of a piece's process."""
        return self.model_dir / piece.name

    def record(self, piece: Piece) -> Path:
        """What is kept of a piece that is done."""
        return self.directory(piece).with_name(self.directory(piece).name + ".json")

    def log(self, piece: Piece) -> Path:
        """What its processes said."""
        return self.directory(piece).with_name(self.directory(piece).name + ".log")

    def results(self, piece: Piece) -> Record | None:
        """A fine-tuning's results; None where it has none, or fewer seeds than are asked for."""
        path = self.directory(piece) / RESULTS
        if not path.exists():
            return None
        results = json.loads(path.read_text(encoding="utf-8"))
        return results if set(self._seeds) <= {seed["seed"] for seed in results["seeds"]} else None

    def done(self, pieces: Sequence[Piece]) -> dict[str, Record]:
        """The records of what is done, by the pieces' names.

        Raises:
            UserError: something was done with other settings, or from weights that were made anew since.
        """
        found: dict[str, Record] = {}
        for piece in pieces:
            path = self.record(piece)
            if not path.exists():
                continue
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
                held, source = record["settings"], record["source_sha256"]
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"{path} is damaged ({error}): remove it and {self.directory(piece)}") from error
            different = different_settings(held, piece.settings)
            if different:
                raise UserError(
                    f"{self.directory(piece)} was made by other settings ({'; '.join(different[:5])}): use another "
                    "MODEL_DIR, or remove that folder and its .json to make it again"
                )
            if piece.task is None:
                found[piece.name] = record
                continue
            if piece.needs is not None and found.get(piece.needs, {}).get("sha256") != source:
                raise UserError(
                    f"{self.directory(piece)} was fine-tuned from other weights than {self.model_dir / piece.needs} "
                    "holds: remove that folder and its .json to fine-tune again"
                )
            if self.results(piece) is not None:
                found[piece.name] = record
        return found


class Work:
    """The processes under way."""

    def __init__(self, places: Places, pieces: Sequence[Piece], *, processes: int, keep_alive: int) -> None:
        """Nothing runs yet.

        Args:
            places: of the pieces' files.
            pieces: all of them, in the order in which they are begun.
            processes: at most so many side by side.
            keep_alive: a file descriptor that every process inherits: see `sole_owner`.
        """
        self._places, self._pieces, self._keep_alive = places, pieces, keep_alive
        self._slots: list[int] = list(range(processes))
        self._shares = shares(processes)
        self._stopping = False
        self._running: dict[str, tuple[Piece, subprocess.Popen, int, float, TextIO]] = {}
        self.records = places.done(pieces)
        self.failures: dict[str, str] = {}

    @property
    def running(self) -> dict[str, float]:
        """Seconds since each process began."""
        return {name: time.monotonic() - began for name, (*_, began, _) in self._running.items()}

    def run(self, stop: Stop, changed: Callable[["Work", str], None]) -> None:
        """Works until nothing is left that can be begun, or until asked to stop, which the processes then are too.

        A piece that fails ends neither the others nor what does not need it.

        Args:
            stop: asked again and again.
            changed: told what has begun, ended or failed, in a line.
        """
        try:
            while not stop.after_step():
                begun = self._running.keys() | self.failures.keys()
                for piece in ready(self._pieces, done=self.records, begun=begun)[: len(self._slots)]:
                    self._begin(piece)
                    changed(self, f"begun: {piece.name}")
                if not self._running:
                    return
                time.sleep(_SECONDS)
                self._collect(changed)
            self._stopping = True
            for _, process, *_ in self._running.values():
                process.terminate()
            while self._running:
                time.sleep(_SECONDS)
                self._collect(changed)
        finally:
            for _, process, *_, log in self._running.values():
                process.kill()
                process.wait()
                log.close()

    def _begin(self, piece: Piece) -> None:
        """Starts a process; a later fraction goes on from a copy of the one before."""
        directory = self._places.directory(piece)
        directory.parent.mkdir(parents=True, exist_ok=True)
        before = None if piece.task is not None or piece.needs is None else self._places.model_dir / piece.needs
        if before is not None and before.exists() and not directory.exists():
            part = directory.with_name(directory.name + ".part")
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(before, part)
            part.rename(directory)
        slot = self._slots.pop(0)
        log = self._places.log(piece).open("a", encoding="utf-8")
        log.write(f"\n$ {command_of(piece)}\n")
        log.flush()
        process = subprocess.Popen(
            [sys.executable, "-m", "electra_jax.comparison_piece", *piece.arguments],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=os.environ | self._shares[slot].environment,
            pass_fds=(self._keep_alive,),
            # Ctrl-C is for this process, which then asks the others to save and stop.
            start_new_session=True,
        )
        self._shares[slot].pin(process.pid)
        self._running[piece.name] = piece, process, slot, time.monotonic(), log

    def _collect(self, changed: Callable[["Work", str], None]) -> None:
        """Takes up what has ended."""
        for name, (piece, process, slot, began, log) in list(self._running.items()):
            if process.poll() is None:
                continue
            log.close()
            del self._running[name]
            self._slots.append(slot)
            seconds = time.monotonic() - began
            # One that is told to stop before it has begun to train has nothing to save.
            if process.returncode == PREEMPTED or (self._stopping and process.returncode == -signal.SIGTERM):
                changed(self, f"stopped: {name}")
            elif process.returncode == 0 and (record := self._recorded(piece, seconds)) is not None:
                self.records[name] = record
                changed(self, f"done: {name} in {readable(seconds)}")
            else:
                self.failures[name] = (
                    f"{how_it_ended(process.returncode)}; its last words: {last_words(self._places.log(piece))}; all "
                    f"of them are in {self._places.log(piece)}"
                )
                changed(self, f"failed: {name} {self.failures[name]}")

    def _recorded(self, piece: Piece, seconds: float) -> Record | None:
        """Writes the record of a piece that is done; None where its result is not there."""
        directory = self._places.directory(piece)
        if piece.task is not None and self._places.results(piece) is None:
            return None
        made = {}
        if piece.task is None:
            made = {"sha256": parameters_sha256(directory)}
        earlier = self._places.record(piece)
        record = {
            "command": command_of(piece),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds, 1),
            "steps": piece.steps,
            "flops": piece.flops,
            **made,
            "source_sha256": self.records[piece.needs]["sha256"] if piece.needs else None,
            "settings": dict(piece.settings),
        }
        replace_text(absolute(earlier), json.dumps(record, indent=1) + "\n")
        return record


def command_of(piece: Piece) -> str:
    """What makes a piece, to be pasted into a shell."""
    return shlex.join(["electra", *piece.arguments])


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


def parameters_sha256(model_dir: Path) -> str:
    """A hash of the newest checkpoint's parameters: names, types, shapes and values, whatever way they are stored."""
    found = hashlib.sha256()
    params = stored.read_params(absolute(model_dir), "params").params
    named = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    for name, leaf in sorted(named.items()):
        found.update(f"{name} {leaf.dtype} {leaf.shape}\n".encode())
        found.update(np.ascontiguousarray(leaf).tobytes())
    return found.hexdigest()


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

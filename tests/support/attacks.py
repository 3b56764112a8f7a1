"""The command line in this process, given what it may not have been made for: it succeeds, or says one sentence."""

import contextlib
import io
import random
import shlex
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import pytest

from electra_jax import cli

# Many times what any of these small commands takes: one that takes so long hangs.
MOST_SECONDS = 60

# In CI, and where `make test-long` has an hour.
FEW_AND_MANY = [False, pytest.param(True, marks=pytest.mark.long)]

Case = Callable[[random.Random, Path], list[str]]


class Outcome(NamedTuple):
    """Hold what a command gave.

    Attributes:
        code: its exit code.
        stdout, stderr: what it printed.
    """

    code: int
    stdout: str
    stderr: str


class HangsError(BaseException):
    """A command took too long; no library catches this."""


def outcome(arguments: list[str]) -> Outcome:
    """Run `electra ARGUMENTS` with an empty standard input.

    Raises:
        Exception: if it is not caught by the command line, which would print a traceback.
        HangsError: if it takes more than `MOST_SECONDS`.
    """
    # As Python opens them.
    handlers = ("surrogateescape", "strict", "backslashreplace")
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors=errors) for errors in handlers]
    with _unchanged_process(*streams), _within(MOST_SECONDS):
        try:
            code = cli.main(arguments)
        except SystemExit as end:
            # Of argparse.
            code = end.code if isinstance(end.code, int) else 1
    texts = []
    for stream in streams[1:]:
        stream.flush()
        texts.append(stream.buffer.getvalue().decode("utf-8", "backslashreplace"))
    return Outcome(code, *texts)


def fault_of(found: Outcome) -> str | None:
    """Return what is wrong with how a command ended; None if it succeeded, or ended with 2 and one sentence."""
    if found.code not in (0, 2):
        return f"exit code {found.code}"
    if "Traceback (most recent call last)" in found.stderr:
        return "a traceback"
    last = found.stderr.rstrip("\n").rpartition("\n")[2]
    said = [line for line in found.stderr.split("\n") if line.startswith("electra")]
    if found.code == 2 and (not last.startswith("electra") or len(said) != 1):
        return f"not one sentence: {found.stderr[-400:]!r}"
    return None


def attack(case: Case, *, name: str, count: int, folder: Path) -> list[Outcome]:
    """Run cases, each drawn from the name and its number, and return how they ended.

    Args:
        case: writes what it needs into a folder of its own, and returns a command line.
        name: of the kind of case.
        count: how many.
        folder: holds the folders of the cases.

    Raises:
        AssertionError: if one of them neither succeeds nor ends with a sentence; with the commands of all that do not.
    """
    faults, ends = [], []
    for number in range(count):
        place = folder / f"{name} {number}"
        place.mkdir()
        arguments = case(random.Random(f"{name} {number}"), place)
        try:
            ends.append(outcome(arguments))
            fault = fault_of(ends[-1])
        except (Exception, HangsError) as error:
            frames = traceback.extract_tb(error.__traceback__)
            fault = f"{type(error).__name__}: {str(error)[:300]} at {frames[-1].filename}:{frames[-1].lineno}"
            fault += f" in {' < '.join(frame.name for frame in reversed(frames[-6:]))}"
        if fault is not None:
            faults.append(f"{number}: electra {shlex.join(arguments)[-600:]}\n    {fault}")
            print(faults[-1].encode("utf-8", "backslashreplace").decode(), file=sys.stderr, flush=True)
    assert not faults, "\n".join([f"{len(faults)} of {count}:", *faults])
    return ends


@contextlib.contextmanager
def _unchanged_process(stdin: io.TextIOWrapper, stdout: io.TextIOWrapper, stderr: io.TextIOWrapper) -> Iterator[None]:
    """Give the process other streams, and undo what the command line changes of it."""
    before = sys.stdin, sys.stdout, sys.stderr, sys.unraisablehook, threading.excepthook
    sys.stdin, sys.stdout, sys.stderr = stdin, stdout, stderr
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.stdin, sys.stdout, sys.stderr, sys.unraisablehook, threading.excepthook = before


@contextlib.contextmanager
def _within(seconds: int) -> Iterator[None]:
    def give_up(number: int, frame: FrameType | None) -> None:
        raise HangsError(f"after {seconds} seconds")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)

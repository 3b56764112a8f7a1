"""A stopwatch for wall and CPU time, the statistics that every table here gives, and what ran it all."""

import datetime
import importlib.metadata
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Elapsed(NamedTuple):
    """Seconds on the wall, and of all threads of this process and of its children that have ended."""

    wall: float
    cpu: float


class Part(NamedTuple):
    """Something that is timed.

    Attributes:
        name: for people.
        unit: of `amount`.
        amount: handled by one call of `work`.
        work: what is timed; any state that it needs is made before.
    """

    name: str
    unit: str
    amount: float
    work: Callable[[], None]


class Spread(NamedTuple):
    """Of n numbers: the middle, the ends, and the quartiles (linear between neighbours)."""

    n: int
    median: float
    minimum: float
    maximum: float
    lower_quartile: float
    upper_quartile: float


def stopwatch(work: Callable[[], None]) -> Elapsed:
    """Runs `work` once."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    work()
    return Elapsed(time.perf_counter() - wall, cpu_seconds() - cpu)


def cpu_seconds() -> float:
    """User and system time so far. It says what work costs also where other programs take turns with this one."""
    uses = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in uses)


def spread(numbers: Sequence[float]) -> Spread:
    """Statistics of at least one number."""
    minimum, lower, median, upper, maximum = np.percentile(numbers, [0, 25, 50, 75, 100]).tolist()
    return Spread(len(numbers), median, minimum, maximum, lower, upper)


def peak_memory_bytes() -> int:
    """The largest resident set that this process has had."""
    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def machine(packages: Sequence[str]) -> str:
    """One line: date, processor, cores that may be used, how busy they were, versions of Python and `packages`."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = os.getloadavg()[0]
    return (
        f"{now}; {processor()}, {cores} cores, load {load:.1f} before; Python {platform.python_version()}, {versions}"
    )


def processor() -> str:
    """The processor's name, its model number where the name says little."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    lines = (line.partition(":") for line in info.read_text().splitlines())
    facts = {key.strip(): value.strip() for key, _, value in lines}
    if "model name" not in facts:
        return platform.machine()
    return f"{facts['model name']} (family {facts.get('cpu family')}, model {facts.get('model')})"


def in_words(seconds: Sequence[float]) -> str:
    """The statistics of times, in milliseconds below ten seconds."""
    found = spread(seconds)
    unit, scale = ("s", 1.0) if found.median >= 10 else ("ms", 1e3)
    median, low, high, best = (
        scale * value for value in (found.median, found.lower_quartile, found.upper_quartile, found.minimum)
    )
    digits = 1 if median < 100 else 0
    return (
        f"median {median:.{digits}f} {unit}, quartiles {low:.{digits}f} to {high:.{digits}f}, "
        f"min {best:.{digits}f}, n {found.n}"
    )

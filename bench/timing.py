"""Measure wall time and CPU time, compute the statistics of every table, and describe the machine."""

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
    """Hold wall time, and the CPU time of all threads of this process and of its finished children, in seconds."""

    wall: float
    cpu: float


class Part(NamedTuple):
    """Describe a function to be timed.

    Attributes:
        name: its name in the output.
        unit: the unit of `amount`.
        amount: the amount that one call of `work` processes.
        work: the function; any state that it needs is made beforehand.
    """

    name: str
    unit: str
    amount: float
    work: Callable[[], None]


class Spread(NamedTuple):
    """Hold the median, the extremes and the quartiles of n numbers, with linear interpolation."""

    n: int
    median: float
    minimum: float
    maximum: float
    lower_quartile: float
    upper_quartile: float


def stopwatch(work: Callable[[], None]) -> Elapsed:
    """Run `work` once and measure its wall time and CPU time."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    work()
    return Elapsed(time.perf_counter() - wall, cpu_seconds() - cpu)


def cpu_seconds() -> float:
    """Return the user and system time so far, which other programs on the machine hardly affect."""
    uses = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in uses)


def spread(numbers: Sequence[float]) -> Spread:
    """Return the statistics of at least one number."""
    minimum, lower, median, upper, maximum = np.percentile(numbers, [0, 25, 50, 75, 100]).tolist()
    return Spread(len(numbers), median, minimum, maximum, lower, upper)


def peak_memory_bytes() -> int:
    """Return the largest resident set size of this process so far."""
    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def machine(packages: Sequence[str]) -> str:
    """Return a line with date, processor, usable cores, load, and the versions of Python and of `packages`."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = os.getloadavg()[0]
    return (
        f"{now}; {processor()}, {cores} cores, load {load:.1f} before; Python {platform.python_version()}, {versions}"
    )


def processor() -> str:
    """Return the name, family and model of the processor."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    lines = (line.partition(":") for line in info.read_text().splitlines())
    facts = {key.strip(): value.strip() for key, _, value in lines}
    if "model name" not in facts:
        return platform.machine()
    return f"{facts['model name']} (family {facts.get('cpu family')}, model {facts.get('model')})"


def in_words(seconds: Sequence[float]) -> str:
    """Format the statistics of times, in milliseconds if the median is below ten seconds."""
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

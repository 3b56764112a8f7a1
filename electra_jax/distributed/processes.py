"""Several processes as one run: found from the environment, joined before JAX starts, ended together.

A process that is alone, as on a laptop, imports nothing for it and waits for nobody. Where there are several,
`joined` makes them one JAX runtime; `leader`, `gather` and `leader_first` are what the rest of the code asks for.

What is looked at, in this order (docs/outgrowing.md has the commands):

    JAX_COORDINATOR_ADDRESS=HOST:PORT, JAX_NUM_PROCESSES, JAX_PROCESS_ID    an explicit address
    JAX_NUM_PROCESSES=1                                                     alone, whatever else there is
    a step of SLURM with several tasks; an Indexed Job of Kubernetes; a Cloud TPU slice, also under GKE
    ELECTRA_JOIN_SECONDS                                                    how long to wait for the others: 300
"""

import contextlib
import ctypes
import hashlib
import importlib.metadata
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from electra_jax.distributed.group import Group, meet
from electra_jax.errors import Preempted, UserError

# JAX's own watch is behind ours, for a process that hangs without being dead.
HEARTBEAT_SECONDS = 60
# How long an error that another process's death may have caused waits for that death to be known.
GRACE_SECONDS = 5
VERSIONS = ("electra-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint")

_group: Group | None = None


class Place(NamedTuple):
    """Where this process stands: the coordinator's HOST:PORT, how many processes, which of them, which devices."""

    address: str
    count: int
    index: int
    local_devices: list[int] | None


def group() -> Group | None:
    """The processes that this one is of; None where it is alone."""
    return _group


def leader() -> bool:
    """Whether this process is the one that speaks and writes records: the only one, or process 0."""
    return _group is None or _group.index == 0


def gather(value: Any) -> list[Any]:
    """Every process's value, by index; all of them must call it, in the same order.

    Args:
        value: what JSON can hold.
    """
    return [value] if _group is None else _group.gather(value)


@contextlib.contextmanager
def leader_first() -> Iterator[None]:
    """The body runs in process 0, and then in the others, which find what it made."""
    if not leader():
        gather(None)
    yield
    if leader():
        gather(None)


def led(action: Callable[..., None], *arguments: Any) -> None:
    """Process 0 does it, and nobody goes on before it is done."""
    if leader():
        action(*arguments)
    gather(None)


def cluster() -> str | None:
    """What the environment says that this process is one of several of; None where it is alone."""
    if os.environ.get("JAX_NUM_PROCESSES") == "1":
        return None
    if "JAX_COORDINATOR_ADDRESS" in os.environ:
        return "JAX_COORDINATOR_ADDRESS"
    # What a batch script runs without srun is no step: it is alone.
    if "SLURM_STEP_NODELIST" in os.environ and os.environ.get("SLURM_NTASKS", "1") != "1":
        return "SLURM"
    if "JOB_COMPLETION_INDEX" in os.environ and "KUBERNETES_SERVICE_HOST" in os.environ:
        return "Kubernetes"
    from jax._src import cloud_tpu_init

    # JAX has looked for the chips when it was imported.
    return "Cloud TPU" if cloud_tpu_init.running_in_cloud_tpu_vm else None


def find_place() -> Place | None:
    """This process's place among several, None where it is alone.

    Raises:
        UserError: the environment says only half of it.
    """
    found_by = cluster()
    if found_by is None:
        return None
    # JAX's own detection, which asks SLURM's variables, the pod's Job or the TPU's metadata for what is not given.
    from jax._src.clusters import ClusterEnv

    address, count, index, devices = ClusterEnv.auto_detect_unset_distributed_params(
        os.environ.get("JAX_COORDINATOR_ADDRESS"),
        number("JAX_NUM_PROCESSES"),
        number("JAX_PROCESS_ID"),
        None,
        None,
        wait_seconds(),
    )
    if found_by == "Cloud TPU" and (address is None or count == 1):
        return None
    missing = [
        variable
        for variable, value in (
            ("JAX_COORDINATOR_ADDRESS=HOST:PORT", address),
            ("JAX_NUM_PROCESSES", count),
            ("JAX_PROCESS_ID", index),
        )
        if value is None
    ]
    if missing:
        hint = " (or install the package kubernetes, and let the pod read its Job)" if found_by == "Kubernetes" else ""
        raise UserError(
            f"this is one of several processes ({found_by}), and the rest cannot be found out: set "
            f"{', '.join(missing)}{hint}; or JAX_NUM_PROCESSES=1 where it is alone"
        )
    if not address.rpartition(":")[2].isdigit():
        raise UserError(f"JAX_COORDINATOR_ADDRESS is {address!r}: it must be HOST:PORT, of process 0")
    if not 0 <= index < count:
        raise UserError(f"JAX_PROCESS_ID is {index}: of {count} processes it must be from 0 to {count - 1}")
    return Place(address, count, index, None if devices is None else list(devices))


def number(variable: str) -> int | None:
    """An environment variable that holds a whole number; None where it is not set.

    Raises:
        UserError: it holds something else.
    """
    text = os.environ.get(variable)
    try:
        return None if text is None else int(text)
    except ValueError as error:
        raise UserError(f"{variable} is {text!r}: it must be a whole number") from error


def wait_seconds() -> int:
    """How long processes wait for one another at the start."""
    return number("ELECTRA_JOIN_SECONDS") or 300


@contextlib.contextmanager
def joined(configuration: str) -> Iterator[None]:
    """Makes this process one of its group for the body; without a group, only runs the body.

    Args:
        configuration: what every process must have the same of, a setting a line.

    Raises:
        UserError: the others cannot be found or reached, or have another configuration.
    """
    place = find_place()
    if place is None:
        yield
        return
    global _group
    _group = meet(place.address, place.index, place.count, seconds=wait_seconds())
    agree("the configuration", settings_of(configuration) | versions())
    start_jax(place)
    try:
        yield
    except Preempted:
        shut_down()
        raise
    shut_down()


def start_jax(place: Place) -> None:
    """Connects the JAX runtimes, on a port of process 0 that is free."""
    import jax

    delay_aborts()
    # It would take SIGTERM over; and both this loop and Orbax would ask it, each counting steps in its own way.
    jax.config.update("jax_enable_preemption_service", False)
    host = place.address.rpartition(":")[0]
    port = gather(free_port() if leader() else None)[0]
    jax.distributed.initialize(
        coordinator_address=f"{host}:{port}",
        num_processes=place.count,
        process_id=place.index,
        local_device_ids=place.local_devices,
        cluster_detection_method="deactivate",
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
    )
    devices = gather(jax.local_device_count())
    if len(set(devices)) > 1:
        raise UserError(f"the processes have different numbers of devices ({devices}): give every one the same")


def delay_aborts() -> None:
    """Lets the process that aborts sleep for some seconds first.

    JAX aborts the moment that process 0 is gone, from a thread of its own and with a stack trace. In these seconds our
    watch, which the same death has woken, says what happened and exits with the code that stands for it.
    """
    libc = ctypes.CDLL(None)
    libc.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
    libc.signal.restype = ctypes.c_void_p
    # A handler is called with the signal's number, which is how many seconds `sleep` sleeps: 6.
    libc.signal(signal.SIGABRT, ctypes.cast(libc.sleep, ctypes.c_void_p))


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def shut_down() -> None:
    """Waits for the others to be done, and lets go of them."""
    global _group
    import jax

    _group.gather(None, last=True)
    jax.distributed.shutdown()
    _group = None


def leave(code: int, sentence: str) -> None:
    """Ends this process if it is one of a group, and the others with it; returns where there is no group.

    An error may be the echo of another process's death: that one is to be told of, and is known within a moment.
    """
    if _group is None:
        return
    if code != 2:
        time.sleep(GRACE_SECONDS)
    _group.leave(code, sentence)
    sys.stdout.flush()
    sys.stderr.flush()
    # JAX's own shutdown, at a normal exit, would wait for the others.
    os._exit(code)


def agree(what: str, facts: Mapping[str, Any]) -> None:
    """Compares a hash of what every process must have the same of.

    Args:
        what: for people, such as "the configuration".
        facts: by names for people; values that JSON can hold.

    Raises:
        UserError: the processes differ (says in what).
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    if len(set(gather(digest))) == 1:
        return
    everyones = gather(facts)
    for index, theirs in enumerate(everyones):
        different = [
            f"{name} is {theirs.get(name, 'not set')} there and {everyones[0].get(name, 'not set')} in process 0"
            for name in sorted(theirs.keys() | everyones[0].keys())
            if theirs.get(name) != everyones[0].get(name)
        ]
        if different:
            more = f"; and {len(different) - 5} more" if len(different) > 5 else ""
            raise UserError(
                f"process {index} on {_group.hosts[index]} disagrees with process 0 on {_group.hosts[0]} about {what}: "
                f"{'; '.join(different[:5])}{more}"
            )


def settings_of(configuration: str) -> dict[str, str]:
    """The settings of Gin's text by their names; a value may go over several lines."""
    settings: dict[str, str] = {}
    name = ""
    for line in configuration.splitlines():
        if line.startswith((" ", "\t", ")", "]", "}")) and name:
            settings[name] += f" {line.strip()}"
        elif "=" in line and not line.startswith("#"):
            name, _, value = (part.strip() for part in line.partition("="))
            settings[name] = value
    return settings


def versions() -> dict[str, str]:
    """Of what computes."""
    return {f"the version of {name}": importlib.metadata.version(name) for name in VERSIONS}


def check_shared(directory: Path) -> None:
    """Refuses a directory that is another one on another machine.

    Args:
        directory: exists where process 0 is.

    Raises:
        UserError: names a process that does not see what process 0 wrote there.
    """
    if _group is None:
        return
    mark = directory / ".seen-by-all"
    text = f"{socket.gethostname()} {os.getpid()} {time.time_ns()}"
    if leader():
        mark.write_text(text)
    text = gather(text)[0]
    seen = gather(wait_for(mark, text))
    if leader():
        mark.unlink()
    if not all(seen):
        index = seen.index(False)
        raise UserError(
            f"process {index} on {_group.hosts[index]} does not see what process 0 on {_group.hosts[0]} wrote to "
            f"{directory}: MODEL_DIR must be on a file system that all of them share"
        )


def wait_for(path: Path, text: str) -> bool:
    """Whether a file holds a text, now or within the seconds that a network file system may take."""
    for _ in range(2 * GRACE_SECONDS):
        with contextlib.suppress(OSError):
            if path.read_text() == text:
                return True
        time.sleep(1.0)
    return False

"""Run several processes as one: connect them before JAX starts, let them agree, and end them together.

A process that is alone, as on a laptop, imports nothing for this and waits for no other. If there are several,
`process_group` makes them one JAX runtime, and `leader`, `gather`, `on_leader` and `leader_first` coordinate them.
"""

import contextlib
import ctypes
import hashlib
import importlib.metadata
import itertools
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from electra_jax.distributed.address import ProcessAddress, find_address, wait_seconds
from electra_jax.distributed.group import Group, connect
from electra_jax.errors import Preempted, UserError

# JAX's own heartbeat backs up ours, for a process that hangs without being dead.
HEARTBEAT_SECONDS = 60
# An error may be caused by another process's death: wait this long for that death to be noticed, and report it instead.
GRACE_SECONDS = 5
# A process that dies ends the wait of `gather`, so it needs no shorter limit.
GATHER_MILLISECONDS = 30 * 24 * 3600 * 1000
VERSIONS = ("electra-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint")

_group: Group | None = None
_gathers = itertools.count()


def group() -> Group | None:
    """Return the group that this process belongs to, or None if it is alone."""
    return _group


def leader() -> bool:
    """Return whether this process prints and writes records: it is the only one, or process 0."""
    return _group is None or _group.index == 0


def coordination_client() -> Any:
    """Return JAX's client of its coordination service, which Orbax uses too; JAX has no public name for it."""
    from jax._src import distributed

    return distributed.global_state.client


def gather(value: Any) -> list[Any]:
    """Return every process's value, by index; all processes must call this, in the same order.

    Args:
            value: anything that JSON can hold.
    """
    if _group is None:
        return [value]
    client, number = coordination_client(), next(_gathers)
    client.key_value_set(f"electra/{number}/{_group.index}", json.dumps(value))
    values = [
        json.loads(client.blocking_key_value_get(f"electra/{number}/{index}", GATHER_MILLISECONDS))
        for index in range(_group.count)
    ]
    # Every process has reached this gather, so every one has read the values of the previous one.
    if number:
        client.key_value_delete(f"electra/{number - 1}/{_group.index}")
    return values


@contextlib.contextmanager
def leader_first() -> Iterator[None]:
    """Run the body in process 0, and then in the others, which find its results."""
    if not leader():
        gather(None)
    yield
    if leader():
        gather(None)


def on_leader(action: Callable[..., None], *arguments: Any) -> None:
    """Run an action in process 0, while the others wait until it is done."""
    if leader():
        action(*arguments)
    gather(None)


def print_on_leader(sentence: str) -> None:
    """Print a line in process 0 only."""
    if leader():
        print(sentence, flush=True)


@contextlib.contextmanager
def process_group(configuration: str) -> Iterator[None]:
    """Make this process one of its group during the body; a process that is alone only runs the body.

    Args:
        configuration: one setting a line, the same in every process.

    Raises:
        UserError: if the others cannot be found or reached, or have another configuration.
    """
    address = find_address()
    if address is None:
        yield
        return
    global _group
    _group = connect(address.coordinator, address.index, address.count, seconds=wait_seconds())
    start_jax(address, _group.port)
    check_same_everywhere("the configuration", parse_settings(configuration) | versions())
    check_devices()
    try:
        yield
    except Preempted:
        shut_down()
        raise
    shut_down()


def start_jax(address: ProcessAddress, port: int) -> None:
    """Connect the JAX runtimes, on a port of process 0."""
    import jax

    delay_aborts()
    # JAX's service would take over SIGTERM for good; `stop_signals` does so only during the loop, and by its steps.
    jax.config.update("jax_enable_preemption_service", False)
    host = address.coordinator.rpartition(":")[0]
    jax.distributed.initialize(
        coordinator_address=f"{host}:{port}",
        num_processes=address.count,
        process_id=address.index,
        local_device_ids=address.local_devices,
        cluster_detection_method="deactivate",
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
    )


def check_devices() -> None:
    """Refuse processes that have different numbers of devices.

    Raises:
        UserError: if the numbers differ.
    """
    import jax

    devices = gather(jax.local_device_count())
    if len(set(devices)) > 1:
        raise UserError(f"the processes have different numbers of devices ({devices}): give every one the same")


def delay_aborts() -> None:
    """Make the process sleep for some seconds before it aborts.

    JAX aborts it a moment after process 0 is gone, from a thread of its own and with a stack trace. During these
    seconds our own watch, which may have to wait until the main thread lets it run, notices the same death, prints what
    happened and exits with the corresponding code.
    """
    libc = ctypes.CDLL(None)
    libc.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
    libc.signal.restype = ctypes.c_void_p
    # The handler is called with the signal's number, which `sleep` takes as seconds: 6.
    libc.signal(signal.SIGABRT, ctypes.cast(libc.sleep, ctypes.c_void_p))


def shut_down() -> None:
    """Wait until all processes are done, and release them."""
    global _group
    import jax

    gather(None)
    _group.leave(0)
    jax.distributed.shutdown()
    _group = None


def leave(code: int, sentence: str) -> None:
    """End this process and the others of its group; return if there is no group.

    Args:
        code: the exit code of all of them.
        sentence: the reason, which the others print.
    """
    if _group is None:
        return
    # Only a user's own mistake cannot be the consequence of another process's death.
    if code != 2:
        time.sleep(GRACE_SECONDS)
    _group.leave(code, sentence)
    sys.stdout.flush()
    sys.stderr.flush()
    # JAX's own shutdown, at a normal exit, would wait for the others.
    os._exit(code)


def check_same_everywhere(what: str, facts: Mapping[str, Any]) -> None:
    """Check that facts are the same in every process.

    Args:
        what: the subject of the facts, for the message, such as "the configuration".
        facts: values that JSON can hold, by name.

    Raises:
        UserError: if the facts of two processes differ.
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    if len(set(gather(digest))) == 1:
        return
    gathered = gather(facts)
    for index, theirs in enumerate(gathered):
        different = [
            f"{name} is {theirs.get(name, 'not set')} there and {gathered[0].get(name, 'not set')} in process 0"
            for name in sorted(theirs.keys() | gathered[0].keys())
            if theirs.get(name) != gathered[0].get(name)
        ]
        if different:
            more = f"; and {len(different) - 5} more" if len(different) > 5 else ""
            raise UserError(
                f"process {index} on {_group.hosts[index]} disagrees with process 0 on {_group.hosts[0]} about {what}: "
                f"{'; '.join(different[:5])}{more}"
            )


def parse_settings(configuration: str) -> dict[str, str]:
    """Parse Gin's text into values by setting; a value may continue over several lines."""
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
    """Return the versions of the libraries that affect results."""
    return {f"the version of {name}": importlib.metadata.version(name) for name in VERSIONS}


def check_shared(directory: Path) -> None:
    """Check that all processes see the same directory.

    Args:
        directory: it must exist on process 0's machine.

    Raises:
        UserError: if a process does not see what process 0 wrote there.
    """
    if _group is None:
        return
    mark = directory / ".seen-by-all"
    text = f"{socket.gethostname()} {os.getpid()} {time.time_ns()}"
    if leader():
        mark.write_text(text)
    text = gather(text)[0]
    seen = gather(wait_for_text(mark, text))
    if leader():
        mark.unlink()
    if not all(seen):
        index = seen.index(False)
        raise UserError(
            f"process {index} on {_group.hosts[index]} does not see what process 0 on {_group.hosts[0]} wrote to "
            f"{directory}: MODEL_DIR must be on a file system that all of them share"
        )


def wait_for_text(path: Path, text: str) -> bool:
    """Return whether a file holds a text, now or within the seconds that a network file system may take."""
    for _ in range(2 * GRACE_SECONDS):
        with contextlib.suppress(OSError):
            if path.read_text() == text:
                return True
        time.sleep(1.0)
    return False

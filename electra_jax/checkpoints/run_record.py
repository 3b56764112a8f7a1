"""Record how a run was made: `MODEL_DIR/config.gin` runs it again, `MODEL_DIR/run.json` says what ran it."""

import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import shlex
import sys
from typing import Any

import jax
from etils import epath

from electra_jax import run_directory
from electra_jax.distributed import processes
from electra_jax.files import regular, replace_file, set_aside

PACKAGES = [
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "seqio",
    "tensorflow",
    "tokenizers",
    "numpy",
    "gin-config",
]


def write_run_record(
    model_dir: epath.Path, configuration: str, facts: dict[str, Any], *, weights: dict[str, Any] | None = None
) -> None:
    """Write both files; a resumed run keeps the record of its earlier starts, and their configurations.

    Args:
        model_dir: the run directory, which must exist.
        configuration: resolved Gin.
        facts: anything else worth knowing, such as the corpus and the number of parameters; JSON values.
        weights: where this start took weights from; None if it resumes, or has random ones.
    """
    path = model_dir / run_directory.RUN
    earlier = read_run_record(model_dir).get("starts", [])
    start = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
        **({} if weights is None else {"weights": weights}),
    }
    record = {
        "command": start["command"],
        "date": start["date"],
        **facts,
        "machine": machine(),
        "versions": versions(),
        "starts": [*earlier, start],
    }
    replace_file(path, json.dumps(record, indent=1) + "\n", durable=True)
    keep_configuration(model_dir, unlike=configuration)
    replace_file(model_dir / run_directory.CONFIG, configuration, durable=True)


def keep_configuration(model_dir: epath.Path, *, unlike: str) -> None:
    """Copy the configuration of the last start to the next free name of config.1.gin, config.2.gin and so on.

    Args:
        model_dir: the run directory.
        unlike: the configuration of this start; an equal one is not copied.
    """
    path = model_dir / run_directory.CONFIG
    if not path.exists() or (held := regular(path).read_bytes()) == unlike.encode():
        return
    number, newest = 1, None
    while (model_dir / run_directory.EARLIER_CONFIG.format(number)).exists():
        newest = model_dir / run_directory.EARLIER_CONFIG.format(number)
        number += 1
    # A start that was killed after the copy and before writing its own configuration has left the copy.
    if newest is None or regular(newest).read_bytes() != held:
        replace_file(model_dir / run_directory.EARLIER_CONFIG.format(number), held, durable=True)


def read_run_record(model_dir: epath.Path) -> dict[str, Any]:
    """Return the record of a run; empty if there is none. A damaged one is set aside with a warning."""
    path = model_dir / run_directory.RUN
    if not path.exists():
        return {}
    try:
        record = json.loads(regular(path).read_text(encoding="utf-8"))
        if not isinstance(record, dict) or not isinstance(record.get("starts", []), list):
            raise ValueError("it is not the record of a run")
        return record
    except (ValueError, RecursionError) as error:
        if processes.leader():
            set_aside(path, str(error))
        return {}


def machine() -> dict[str, Any]:
    """Describe the machine and the devices of this process."""
    devices = jax.devices()
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "processes": jax.process_count(),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python, of this project and of the libraries it uses, as far as they are installed."""
    found = {"python": platform.python_version()}
    for name in ("electra-jax", *PACKAGES):
        # A machine that trains from a cache needs neither SeqIO nor TensorFlow.
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found

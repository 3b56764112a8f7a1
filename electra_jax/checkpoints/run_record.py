"""Record how a run was made: `MODEL_DIR/config.gin` runs it again, `MODEL_DIR/run.json` says what ran it."""

import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import shlex
import sys
from typing import Any, TypedDict

import jax
from etils import epath

from electra_jax import run_directory
from electra_jax.files import replace_file
from electra_jax.json_files import read_json

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
    """Write both files; a run that is resumed keeps the record of its earlier starts.

    Args:
        model_dir: the run directory, which must exist.
        configuration: resolved Gin.
        facts: anything else worth knowing, such as the corpus and the number of parameters; JSON values.
        weights: where this start took weights from; None where it resumes, or has random ones.

    Raises:
        UserError: if the earlier record is damaged.
    """
    path = model_dir / run_directory.RUN
    earlier = earlier_starts(path)
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
    replace_file(model_dir / run_directory.CONFIG, configuration, durable=True)


class Starts(TypedDict, total=False):
    """What is read of an earlier run.json."""

    starts: list[dict[str, Any]]


def earlier_starts(path: epath.Path) -> list[dict[str, Any]]:
    """Return the starts that a record holds; none if there is no record.

    Raises:
        UserError: if the record is damaged.
    """
    if not path.exists():
        return []
    remedy = "remove it, and the run resumes without the record of its earlier starts"
    return read_json(path, Starts, remedy=remedy).get("starts", [])


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

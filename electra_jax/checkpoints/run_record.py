"""How a run was made: `MODEL_DIR/config.gin` runs it again, `MODEL_DIR/run.json` says what ran it."""

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

from electra_jax.errors import UserError

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


def write_record(model_dir: epath.Path, configuration: str, facts: dict[str, Any]) -> None:
    """Writes both files; a run that goes on keeps the record of its earlier starts.

    Args:
        model_dir: the run directory, which exists.
        configuration: resolved Gin.
        facts: what else is worth knowing, such as the corpus and the number of parameters.
    """
    path = model_dir / "run.json"
    earlier = earlier_starts(path)
    start = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
    }
    record = {
        "command": start["command"],
        "date": start["date"],
        **facts,
        "machine": machine(),
        "versions": versions(),
        "starts": [*earlier, start],
    }
    replace_text(path, json.dumps(record, indent=1) + "\n")
    replace_text(model_dir / "config.gin", configuration)


def earlier_starts(path: epath.Path) -> list[dict[str, Any]]:
    """The starts that a record holds; none where there is no record.

    Raises:
        UserError: it is damaged.
    """
    if not path.exists():
        return []
    try:
        return json.loads(path.read_text(encoding="utf-8")).get("starts", [])
    except (ValueError, AttributeError) as error:
        raise UserError(
            f"{path} is damaged ({error}): remove it, and the run goes on without the record of its earlier starts"
        ) from error


def machine() -> dict[str, Any]:
    """Where this process runs."""
    devices = jax.devices()
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "processes": jax.process_count(),
    }


def versions() -> dict[str, str]:
    """Of Python, of this project and of what it stands on."""
    found = {name: importlib.metadata.version(name) for name in ("electra-jax", *PACKAGES)}
    return {"python": platform.python_version(), **found}


def replace_text(path: epath.Path, text: str) -> None:
    """Writes a file so that it is whole or not there."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)

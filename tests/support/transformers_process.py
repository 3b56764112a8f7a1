"""Ask transformers in a process of its own, whose Python need not have this package.

`TRANSFORMERS_PYTHON` names a Python that has torch and transformers, such as that of another virtual environment with
another version; otherwise this one is used, if it has both.
"""

import functools
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("ask_transformers.py")
VARIABLE = "TRANSFORMERS_PYTHON"


def ask_transformers(requests: list[dict[str, Any]]) -> list[Any]:
    """Return what transformers answers to each request of `ask_transformers.py`; skip the test where there is none."""
    found = subprocess.run(
        [transformers_python(), "-I", str(SCRIPT)],
        input=json.dumps(requests),
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
        check=False,
    )
    assert found.returncode == 0, found.stderr[-4000:]
    return json.loads(found.stdout.splitlines()[-1])


@functools.cache
def transformers_python() -> str:
    """Return the Python that has transformers; skip the test where there is none.

    A test calls it before it exports anything.
    """
    if named := os.environ.get(VARIABLE):
        return named
    missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(
            f"{' and '.join(missing)} not installed (extra bench), and {VARIABLE} names no Python that has both"
        )
    return sys.executable

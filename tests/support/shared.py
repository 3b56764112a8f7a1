"""Recorded numbers and real data beside the checkout, and the one way to skip a test where they are absent."""

import os
from pathlib import Path
from typing import Any

import pytest

ORACLE = Path(os.environ.get("ELECTRA_ORACLE", Path(__file__).parents[3] / "shared" / "oracle"))
DATA = ORACLE.parent / "data"
CASES = ORACLE.parent / "cases"


def absent(path: Path) -> str:
    """Return why a test that reads `path` is skipped."""
    return f"no recorded numbers or data at {path} (set ELECTRA_ORACLE)"


def existing(path: Path) -> Path:
    """Return `path`, or skip the running test if it does not exist."""
    if not path.exists():
        pytest.skip(absent(path))
    return path


def needs(path: Path) -> pytest.MarkDecorator:
    """Return the mark that skips a test if `path` does not exist."""
    return pytest.mark.skipif(not path.exists(), reason=absent(path))


def skipped(path: Path, *values: Any) -> Any:
    """Return a parameter set that is skipped because nothing was recorded at `path`."""
    return pytest.param(*(values or (None,)), marks=pytest.mark.skip(reason=absent(path)))

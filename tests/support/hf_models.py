"""Provide a small directory of transformers, and run imports of damaged ones."""

import shutil
from pathlib import Path

import pytest

from electra_jax.cli import main

SUBSET = Path(__file__).parents[1] / "parity" / "data" / "hf" / "subset"


def discriminator_in(folder: Path) -> Path:
    """Return a copy of a small discriminator, to be damaged."""
    return Path(shutil.copytree(SUBSET / "pretraining", folder / "source"))


def refusal(capsys: pytest.CaptureFixture[str], *command: object) -> str:
    """Return the standard error of a command, which must fail without a traceback."""
    capsys.readouterr()
    assert main([str(part) for part in command]) == 2
    error = capsys.readouterr().err
    assert error.startswith("electra: ")
    assert "Traceback" not in error
    return error

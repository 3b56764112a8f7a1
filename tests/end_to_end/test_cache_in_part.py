"""A cache that was copied in part is not trained on."""

import re
import shutil
from pathlib import Path

import pytest

from electra_jax.cli import main
from support.command_line import SMALL, small_run, write_small_text


def test_a_cache_without_its_validation_split_is_refused_before_a_run_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_small_text(tmp_path)
    made = {name: SMALL[name] for name in ("SEQUENCE_LENGTH", "HELD_OUT_FRACTION", "NUM_PROCESSES")}
    places = {"CORPUS": "text.txt", "VOCAB_FILE": "vocab.txt", "CACHE_DIR": "caches"}
    made |= {name: str(tmp_path / place) for name, place in places.items()}
    assert main(["cache", *(f"--gin.{name}={value!r}" for name, value in made.items())]) == 0
    (lost,) = tmp_path.glob("caches/*/validation.blocks")
    shutil.rmtree(lost)
    assert main(small_run(tmp_path, tmp_path / "run")) == 2
    *_, sentence = capsys.readouterr().err.splitlines()
    assert re.search(r"caches/\S+ holds 0 of the \d+ examples of its validation split: it was copied in part", sentence)
    assert not lost.exists()
    assert not (tmp_path / "run/checkpoints").exists()

"""A run of `electra pretrain` is read from its MODEL_DIR alone, wherever that stands, and never with other ids."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import electra_jax
from electra_jax import cli
from electra_jax.checkpoints.model_record import read_model_record
from electra_jax.errors import UserError

TEXT = "ba dalo mira"


@pytest.fixture
def moved(whole: Path, tmp_path: Path) -> Path:
    """The undisturbed run somewhere else, its tokenizer named by a path that is not there."""
    model_dir = tmp_path / "run"
    shutil.copytree(whole, model_dir)
    config = model_dir / "config.gin"
    config.write_text(re.sub(r"^VOCAB_FILE = .*$", "VOCAB_FILE = 'vocab/vocab.txt'", config.read_text(), flags=re.M))
    return model_dir


def test_a_moved_run_is_predicted_and_exported_from_another_folder(
    moved: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert cli.main(["predict", f"--gin.MODEL_DIR='{moved}'", TEXT]) == 0
    assert json.loads(capfd.readouterr().out) == {"index": 0} | electra_jax.load(whole)(TEXT)[0]
    assert cli.main(["export", str(moved), "out", "--format=transformers"]) == 0
    exported = (tmp_path / "elsewhere" / "out" / "discriminator" / "vocab.txt").read_text()
    assert exported == (whole / "vocab.txt").read_text()


def test_the_description_is_what_the_configuration_says(moved: Path) -> None:
    """A directory of an earlier version has no description, and is described by its configuration."""
    found = electra_jax.load(moved)
    described = read_model_record(moved)
    assert (described.kind, described.facts["made by"]) == ("pretraining", "electra pretrain")
    (moved / "model.json").unlink()
    earlier = electra_jax.load(moved)
    assert found.description == earlier.description == described
    ids = [[2, 7, 9, 4, 3]]
    np.testing.assert_array_equal(found.logits(ids), earlier.logits(ids))


@pytest.mark.parametrize("command", ["load", "evaluate", "predict", "export", "finetune"])
def test_two_lines_of_the_vocabulary_that_change_places_are_refused(
    command: str, moved: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    vocabulary = moved / "vocab.txt"
    lines = vocabulary.read_text().splitlines()
    lines[10], lines[11] = lines[11], lines[10]
    vocabulary.write_text("".join(f"{line}\n" for line in lines))
    told = f"the vocabulary of {moved} is not the one that {moved} was trained with"
    if command == "load":
        with pytest.raises(UserError, match=re.escape(told)):
            electra_jax.load(moved)
        return
    out = tmp_path / "out"
    arguments = {
        "evaluate": [f"--gin.MODEL_DIR='{moved}'"],
        "predict": [f"--gin.MODEL_DIR='{moved}'", TEXT],
        "export": [str(moved), str(out), "--format=transformers"],
        "finetune": ["--gin.TASK='cola'", f"--gin.MODEL_DIR='{out}'", f"--gin.INIT_FROM='{moved}'"],
    }[command]
    assert cli.main([command, *arguments]) == 2
    assert told in capfd.readouterr().err
    assert not out.exists()


def test_a_vocabulary_outside_is_checked_too(moved: Path, whole: Path, tmp_path: Path) -> None:
    """As a run of an earlier version names it, with its casing."""
    for name in ("vocab.txt", "vocab.json"):
        (moved / name).unlink()
    config = moved / "config.gin"
    named = config.read_text().replace("'vocab/vocab.txt'", repr(str(tmp_path / "vocab.txt")))
    config.write_text(named)
    shutil.copy(whole / "vocab.txt", tmp_path)
    assert electra_jax.load(moved).vocabulary == electra_jax.load(whole).vocabulary
    config.write_text(f"{named}\nLOWERCASE = False\n")
    with pytest.raises(UserError, match=r"was trained with .*or another casing"):
        electra_jax.load(moved)

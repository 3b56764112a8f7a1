"""What cannot be written is said in one sentence, and nothing of it is left; what is only read needs no writing."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import electra_jax
from electra_jax.cli import main
from support.finetuned_model import write_tuned
from support.hf_models import SUBSET
from support.tuned_runs import SETTINGS

pytestmark = pytest.mark.usefixtures("compilations")

Commands = dict[str, Callable[[Path, Path], list[str]]]
COLUMNS = ["TEXT_COLUMN='text'", "LABEL_COLUMN='label'", "EPOCHS=1", "EVALUATE_EVERY=None", "NUM_SEEDS=1"]
# What writes a folder of the disk, given another folder with a text, a table and a model.
COMMANDS: Commands = {
    "vocab": lambda disk, given: [
        "vocab",
        f"--gin.CORPUS='{given / 'text.txt'}'",
        f"--gin.TOKENIZER='{disk / 'new' / 'tokenizer.json'}'",
        "--gin.ALGORITHM='bpe'",
        "--gin.VOCAB_SIZE=600",
    ],
    "cache": lambda disk, given: [
        "cache",
        f"--gin.CORPUS='{given / 'text.txt'}'",
        f"--gin.TOKENIZER='{given / 'vocab.txt'}'",
        f"--gin.CACHE_DIR='{disk / 'new'}'",
        "--gin.SEQUENCE_LENGTH=32",
        "--gin.NUM_PROCESSES=1",
    ],
    "import": lambda disk, given: ["import", str(SUBSET / "pretraining"), str(disk / "new")],
    "export": lambda disk, given: ["export", str(given / "model"), str(disk / "new"), "--format", "transformers"],
    "predict": lambda disk, given: [
        "predict",
        str(given / "model"),
        str(given / "text.txt"),
        "--output",
        str(disk / "new"),
    ],
    "finetune": lambda disk, given: [
        "finetune",
        *(f"--gin.{name}={value!r}" for name, value in SETTINGS.items()),
        f"--gin.INIT_FROM='{given / 'model'}'",
        f"--gin.MODEL_DIR='{disk / 'new'}'",
        "--gin.TASK='classification'",
        f"--gin.TRAIN_FILE='{given / 'train.csv'}'",
        f"--gin.DEV_FILE='{given / 'dev.csv'}'",
        *(f"--gin.{binding}" for binding in COLUMNS),
    ],
}


@pytest.fixture
def given(place: Path, tmp_path: Path) -> Path:
    """A folder with `text.txt`, `vocab.txt`, `train.csv`, `dev.csv` and `model`."""
    folder = tmp_path / "given"
    write_tuned(folder / "model", "discriminator", labels=(), task=None)
    for name in ("text.txt", "vocab.txt"):
        shutil.copy(place / name, folder)
    for split, end in (("train", "ran"), ("dev", "sat")):
        rows = [f"{text} {end},{label}" for text, label in [("the cat", "good"), ("a dog", "bad")] * 8]
        (folder / f"{split}.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk(command: str, given: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With 8 kB left; after room was made, the same command gives what was asked for."""
    filler = small_disk / "filler"
    filler.write_bytes(bytes(2**21 - 2**13 - 2**12))
    arguments = COMMANDS[command](small_disk, given)
    assert main(arguments) == 2
    *_, sentence = capsys.readouterr().err.splitlines()
    assert sentence.startswith("electra: ")
    assert "full" in sentence or "No space left" in sentence, sentence
    # A run keeps what it has; what is written once is there whole, or not at all.
    if command in ("import", "export", "predict"):
        assert [path.name for path in small_disk.iterdir()] == ["filler"]
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert main(arguments) == 0
    assert not [path for path in small_disk.rglob("*") if ".part" in path.name or "tmp" in path.name]


@pytest.mark.long
def test_a_read_only_directory(
    whole: Path, given: Path, small_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    run = Path(shutil.copytree(whole, small_disk / "run"))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert main(["evaluate", f"--gin.MODEL_DIR='{run}'"]) == 2
    said = capsys.readouterr()
    assert re.search(r"discriminator_auc\W+[01]\.\d{4}", said.out)
    *_, sentence = said.err.splitlines()
    assert sentence.startswith(
        f"electra: {run} cannot be written (Read-only file system): its metrics are printed above"
    )
    # What reads alone does not mind.
    assert electra_jax.load(run).step == 40
    assert main(["predict", str(run), "ba be"]) == 0
    assert main(["export", str(run), str(tmp_path / "out"), "--format", "transformers"]) == 0
    # What writes says so, before it works for long.
    for command in COMMANDS:
        assert main(COMMANDS[command](small_disk, given)) == 2
        *_, sentence = capsys.readouterr().err.splitlines()
        assert "Read-only file system" in sentence, command

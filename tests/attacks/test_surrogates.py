"""Halves of surrogate pairs, which JSON and arguments can hold and UTF-8 cannot, are read as unknown characters."""

import json
from pathlib import Path

import pytest

from electra_jax.cli import main
from support.command_line import SPECIAL, WORDS
from support.finetuned_model import write_tuned

ARGUMENT = "the \udcff cat"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `text.jsonl`, `vocab.txt` and `model`."""
    folder = tmp_path_factory.mktemp("surrogates")
    records = [{"text": f"{' '.join(WORDS[number:][:9])} \ud800 {WORDS[0]}"} for number in range(60)]
    (folder / "text.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    assert "\\ud800" in (folder / "text.jsonl").read_text()
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in [*SPECIAL, *WORDS]))
    write_tuned(folder / "model", "discriminator", labels=(), task=None)
    return folder


@pytest.mark.parametrize("command", ["vocab", "cache"])
def test_text(command: str, folder: Path, tmp_path: Path) -> None:
    places = {"CORPUS": folder / "text.jsonl", "TOKENIZER": folder / "vocab.txt", "CACHE_DIR": tmp_path / "caches"}
    if command == "vocab":
        places = {"CORPUS": folder / "text.jsonl", "TOKENIZER": tmp_path / "new" / "vocab.txt"}
    settings = {"vocab": {"VOCAB_SIZE": 60}, "cache": {"SEQUENCE_LENGTH": 32, "NUM_PROCESSES": 1}}[command]
    bindings = {name: str(path) for name, path in places.items()} | settings
    assert main([command, *(f"--gin.{name}={value!r}" for name, value in bindings.items())]) == 0
    assert [*tmp_path.rglob("vocab.txt"), *tmp_path.rglob("COMPLETED")]


@pytest.mark.parametrize("source", ["argument", "file"])
def test_what_is_predicted(source: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ARGUMENT if source == "argument" else str(folder / "text.jsonl")
    assert main(["predict", str(folder / "model"), given]) == 0
    said = capsys.readouterr()
    records = [json.loads(line) for line in said.out.splitlines()]
    assert len(records) == (1 if source == "argument" else 60)
    assert all("logits" in record for record in records)


def test_a_name_that_no_path_can_hold_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "no\ud800where", "the cat"]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert sentence.startswith("electra: ")

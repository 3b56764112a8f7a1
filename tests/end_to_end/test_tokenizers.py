"""Any tokenizer.json from the text to a pre-trained model, its masks and its special tokens."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

from electra_jax.checkpoints import model_dir
from electra_jax.cli import main
from electra_jax.data.blocks import open_blocks
from electra_jax.tasks.tokenizer_file import load_tokenizer
from support.command_line import FILES, SMALL, STEPS
from support.tokenizers import NASTY, TEXTS, tokenizer_json, write_tokenizer_json

SHAPES = ["roberta", "modernbert", "xlm_roberta"]


@pytest.fixture(autouse=True)
def compilations(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compiled programs are kept where the tests keep theirs, and only while a test lasts."""
    monkeypatch.setenv("ELECTRA_CACHE_DIR", str(place / "cache"))
    kept = jax.config.jax_compilation_cache_dir
    yield
    jax.config.update("jax_compilation_cache_dir", kept)


def electra(verb: str, *arguments: str, **macros: Any) -> int:
    return main([verb, *arguments, *(f"--gin.{name}={value!r}" for name, value in macros.items())])


def write_text(folder: Path) -> Path:
    """Documents in several scripts, with special tokens spelled out in them."""
    draw = random.Random(0)
    lines = [*(text.replace("\n", " ").replace("\r", " ") for text in NASTY[2:]), *TEXTS, "the <mask> </s> [SEP] <s>"]
    documents = ["\n".join(draw.choices(lines, k=4)) for _ in range(40)]
    path = folder / "text.txt"
    path.write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    return path


def pretrain(folder: Path, shape: str, **changes: Any) -> int:
    tokenizer = write_tokenizer_json(folder, shape)
    size = load_tokenizer(tokenizer, lowercase=None).vocab_size
    texts = {"CORPUS": str(write_text(folder)), "TOKENIZER": str(tokenizer), "CACHE_DIR": str(folder / "caches")}
    settings = SMALL | {"VOCAB_SIZE": size, "MODEL_DIR": str(folder / "run"), **STEPS, "TRAIN_STEPS": 4} | texts
    return electra("pretrain", *FILES, **(settings | changes))


def caches(folder: Path) -> list[Path]:
    return [path.parent for path in (folder / "caches").glob("*/COMPLETED")]


@pytest.mark.parametrize("shape", SHAPES)
def test_pretraining(shape: str, tmp_path: Path) -> None:
    assert pretrain(tmp_path, shape) == 0
    vocabulary = load_tokenizer(tmp_path / "tokenizer.json", lowercase=None)
    (cache,) = caches(tmp_path)
    made_by = json.loads((cache / "made_by.json").read_text())
    assert made_by["vocabulary_fingerprint"] == vocabulary.fingerprint
    blocks = open_blocks(cache / "train.blocks")
    cls, sep, mask = vocabulary.cls_id, vocabulary.sep_id, vocabulary.mask_id
    for start, end in zip(blocks.offsets[:-1], blocks.offsets[1:], strict=True):
        row = blocks.tokens[start:end].tolist()
        assert (row[0], row[-1]) == (cls, sep)
        # None of those that the text spells out.
        assert row.count(sep) in (1, 2)
        assert row.count(cls) == 1
        assert mask not in row
    assert model_dir.load(tmp_path / "run").vocabulary == vocabulary


def test_another_tokenizer_has_another_cache_and_cannot_resume(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same tokens, of which two are merged in another order: no size and no name would tell."""
    assert pretrain(tmp_path, "roberta") == 0
    (cache,) = caches(tmp_path)
    values = json.loads(tokenizer_json("roberta"))
    merges = values["model"]["merges"]
    merges[0], merges[-1] = merges[-1], merges[0]
    other = tmp_path / "other.json"
    other.write_text(json.dumps(values))
    assert pretrain(tmp_path, "roberta", TOKENIZER=str(other), CORPUS=str(cache)) == 2
    assert "was tokenised with another vocabulary" in capsys.readouterr().err
    assert pretrain(tmp_path, "roberta", TOKENIZER=str(other)) == 2
    assert "was trained with another vocabulary than" in capsys.readouterr().err
    assert len(caches(tmp_path)) == 2


def test_a_tokenizer_of_another_size_than_the_model_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pretrain(tmp_path, "albert", VOCAB_SIZE=77) == 2
    size = load_tokenizer(tmp_path / "tokenizer.json", lowercase=None).vocab_size
    said = capsys.readouterr().err
    assert f"tokenizer.json has {size} entries and the model has 77: set --gin.VOCAB_SIZE={size}" in said
    assert not (tmp_path / "run").exists()


def test_the_older_name_of_the_macro(tmp_path: Path) -> None:
    """Users and recorded runs that say VOCAB_FILE get what they got."""
    tokenizer = write_tokenizer_json(tmp_path, "albert")
    size = load_tokenizer(tokenizer, lowercase=None).vocab_size
    texts = {"CORPUS": str(write_text(tmp_path)), "VOCAB_FILE": str(tokenizer), "CACHE_DIR": str(tmp_path)}
    run = SMALL | {"VOCAB_SIZE": size, "MODEL_DIR": str(tmp_path / "run"), **STEPS, "TRAIN_STEPS": 2} | texts
    assert electra("pretrain", *FILES, **run) == 0
    assert f"VOCAB_FILE = '{tokenizer}'" in (tmp_path / "run/config.gin").read_text().replace("\\\n    ", "")
    assert electra("evaluate", f"--gin_file={tmp_path / 'run/config.gin'}") == 0
    assert model_dir.load(tmp_path / "run").vocabulary is not None

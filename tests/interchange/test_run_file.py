"""The config.gin of an import: a recipe for its size, from wherever the directory stands."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

import electra_jax
from electra_jax.cli import main
from electra_jax.config import gin_files
from electra_jax.config.pretraining import PretrainingRun
from electra_jax.config.recorded import RecordedFile
from electra_jax.interchange import run_file
from electra_jax.model.config import EncoderConfig
from support.hf_models import SUBSET
from support.tiny_model import small_encoder

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = [*"abcdefghijklmnopqrstuvwxyz", *(f"##{letter}" for letter in "abcdefghijklmnop")]


def bound(config: EncoderConfig, resumes_at: int | None) -> dict[str, float]:
    pairs = (line.split(" = ") for line in run_file.recipe(config, resumes_at).splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


@pytest.mark.parametrize(
    ("width", "rate", "published", "steps", "batch"),
    [(256, 2.5e-4, 5e-4, 1_000_000, 128), (768, 1e-4, 2e-4, 766_000, 256), (1024, 1e-4, 2e-4, 400_000, 2048)],
)
def test_a_recipe_is_for_the_size(width: int, rate: float, published: float, steps: int, batch: int) -> None:
    config = dataclasses.replace(small_encoder(), hidden_size=width)
    continued, resumed = bound(config, None), bound(config, 1000)
    assert (continued["LEARNING_RATE"], continued["TRAIN_STEPS"], continued["WARMUP_STEPS"]) == (rate, 20_000, 1_000)
    assert resumed == {"LEARNING_RATE": published, "TRAIN_STEPS": steps, "BATCH_SIZE": batch}
    # A model that has had all of its steps has some left.
    assert bound(config, 4_000_000)["TRAIN_STEPS"] == 4_020_000


@pytest.fixture(params=["pretraining", "seqcls"])
def moved(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Import a discriminator or a classifier with its vocabulary, and move the model directory; its source is gone."""
    source = shutil.copytree(SUBSET / request.param, tmp_path / "source")
    rows = json.loads((source / "config.json").read_text())["vocab_size"]
    (source / "vocab.txt").write_text("\n".join([*SPECIAL, *LETTERS][:rows]) + "\n")
    (source / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    assert main(["import", str(source), str(tmp_path / "first")]) == 0
    shutil.rmtree(source)
    return (tmp_path / "first").rename(tmp_path / "moved")


def gin_file(directory: Path) -> Path:
    """Return the recipe; a fine-tuned model's is not its config.gin, which commands take for a fine-tuning's."""
    (found,) = directory.glob("*.gin")
    assert found.name == (
        "config.gin" if json.loads((directory / "model.json").read_text())["head"] is None else "pretrain.gin"
    )
    return found


def test_an_import_that_was_moved_is_trained_further(moved: Path, tmp_path: Path) -> None:
    text = "\n\n".join(" ".join("abcdefgh"[i : i + 4]) for i in range(4)) + "\n"
    (tmp_path / "text.txt").write_text(text * 30)
    assert str(tmp_path / "first") not in "".join(
        line for line in gin_file(moved).read_text().splitlines() if not line.startswith("#")
    )
    settings = {
        "CORPUS": str(tmp_path / "text.txt"),
        "CACHE_DIR": str(tmp_path / "caches"),
        "INIT_FROM": str(moved),
        "MODEL_DIR": str(tmp_path / "run"),
        "TRAIN_STEPS": 1,
        "WARMUP_STEPS": 0,
        "BATCH_SIZE": 8,
        "SEQUENCE_LENGTH": 12,
        "EVALUATION_EXAMPLES": 8,
        "HELD_OUT_FRACTION": 0.1,
        "NUM_PROCESSES": 1,
        "ALLOW_UNKNOWN": True,
    }
    # No Gin file: the sizes and the recipe are INIT_FROM's, and so is the tokenizer.
    assert main(["pretrain", *(f"--gin.{name}={value!r}" for name, value in settings.items())]) == 0
    before, after = electra_jax.load(moved), electra_jax.load(tmp_path / "run")
    assert after.description.discriminator == before.description.discriminator
    assert (tmp_path / "run/vocab.txt").read_text() == (moved / "vocab.txt").read_text()
    assert "LEARNING_RATE = 0.00025" in (tmp_path / "run/config.gin").read_text()
    weights = json.loads((tmp_path / "run/run.json").read_text())["starts"][0]["weights"]
    assert weights["taken"] == [
        "discriminator" if before.description.head is None else "discriminator/encoder",
        "embeddings",
    ]


def test_the_tokenizer_beside_a_config_counts_where_the_named_one_is_gone(moved: Path, tmp_path: Path) -> None:
    config = gin_file(moved)
    given = ['CORPUS="embedded"', 'MODEL_DIR="run"']

    def tokenizer() -> str:
        return gin_files.build(
            PretrainingRun, [RecordedFile(str(config), True)], given, search_paths=[]
        ).cache.vocab_file

    assert tokenizer() == str(moved / "vocab.txt")
    config.write_text(config.read_text() + f"TOKENIZER = {str(tmp_path / 'gone.txt')!r}\n")
    assert tokenizer() == str(moved / "vocab.txt")
    # As version 0.1 named it.
    config.write_text(config.read_text() + f"VOCAB_FILE = {str(tmp_path / 'gone.txt')!r}\n")
    assert tokenizer() == str(moved / "vocab.txt")
    given.append(f"TOKENIZER = {str(tmp_path / 'mine.txt')!r}")
    config.write_text(config.read_text().replace("VOCAB_FILE", "# "))
    assert tokenizer() == str(tmp_path / "mine.txt")


def test_without_a_config_anywhere_both_places_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = [f"--gin.MODEL_DIR={str(tmp_path / 'run')!r}", f"--gin.INIT_FROM={str(tmp_path / 'model')!r}"]
    assert main(["pretrain", *settings]) == 2
    said = capsys.readouterr().err
    assert str(tmp_path / "run/config.gin") in said
    assert str(tmp_path / "model/config.gin") in said

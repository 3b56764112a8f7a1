"""The advice of each error of `electra pretrain`, followed to the letter, leads to a run and not to the next error."""

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gin
import pytest

from electra_jax.cli import main
from electra_jax.tasks.corpora.corpus import text_hash
from electra_jax.tasks.pretraining import cache
from electra_jax.tasks.pretraining.cache_worker import run_job
from support.command_line import FILES, SMALL, SPECIAL, WORDS, checkpoint_steps, write_small_text

OTHER_WORDS = ["xyz", "zyx", "yzx", *WORDS[3:]]
SETTINGS: dict[str, Any] = SMALL | {"EVALUATE_EVERY": 1, "SAVE_EVERY": 1, "TRAIN_STEPS": 2, "MAX_POSITIONS": 32}
del SETTINGS["encoder.EncoderConfig.max_position_embeddings"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """`text.txt`, `vocab.txt`, two other vocabularies, and a run of two steps in `run`."""
    folder = tmp_path_factory.mktemp("advice")
    write_small_text(folder)
    for name, words in (("other.txt", OTHER_WORDS), ("larger.txt", [*OTHER_WORDS, "more"])):
        (folder / name).write_text("\n".join([*SPECIAL, *words]) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        # Tokenise in this process, which has all the modules already.
        patch.setattr(cache._Worker, "run", lambda worker, job: run_job(worker._setup, job))
        assert electra(folder, folder / "run") == 0
        yield folder


def electra(place: Path, model_dir: Path, *more: str, **changes: Any) -> int:
    files = {"CORPUS": str(place / "text.txt"), "TOKENIZER": str(place / "vocab.txt"), "CACHE_DIR": str(place / "c")}
    macros = SETTINGS | files | {"MODEL_DIR": str(model_dir)} | changes
    gin.clear_config(clear_constants=True)
    return main(["pretrain", *FILES, *(f"--gin.{name}={value!r}" for name, value in macros.items()), *more])


def advised(said: str) -> list[str]:
    """The settings that a sentence tells to add, as a shell takes them."""
    return shlex.split(" ".join(re.findall(r"--gin\.\w+=(?:'\"[^']*\"'|\w+)", said)))


def test_the_size_of_the_vocabulary(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert electra(place, tmp_path / "run", VOCAB_SIZE=70) == 2
    said = capsys.readouterr().err
    assert advised(said) == [f"--gin.VOCAB_SIZE={SMALL['VOCAB_SIZE']}"]
    assert electra(place, tmp_path / "run", *advised(said), VOCAB_SIZE=70) == 0


@pytest.mark.parametrize("changes", [{"BATCH_SIZE": 16}, {"PACKING": True}, {"TOKENIZER": "other.txt"}])
def test_a_run_that_does_not_go_on_so(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any]
) -> None:
    """Given what it was started with it goes on, and with what is given now it begins anew."""
    model_dir = tmp_path / "run"
    shutil.copytree(place / "run", model_dir)
    if "TOKENIZER" in changes:
        changes = {"TOKENIZER": str(place / changes["TOKENIZER"])}
    assert electra(place, model_dir, TRAIN_STEPS=3, **changes) == 2
    said = capsys.readouterr().err
    assert re.search("give what it was started with|use the same CORPUS|name the one it was trained with", said)
    assert "another MODEL_DIR" in said
    assert electra(place, tmp_path / "anew", *advised(said), TRAIN_STEPS=1, **changes) == 0
    assert electra(place, model_dir, TRAIN_STEPS=3) == 0
    assert checkpoint_steps(model_dir)[-1] == 3


def test_fewer_steps_than_a_run_has_had(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model_dir = tmp_path / "run"
    shutil.copytree(place / "run", model_dir)
    assert electra(place, model_dir, TRAIN_STEPS=1) == 0
    said = capsys.readouterr().out
    (steps,) = re.findall(r"for 1 more, set TRAIN_STEPS to (\d+)", said)
    assert electra(place, tmp_path / "anew", *advised(said), TRAIN_STEPS=1) == 0
    assert electra(place, model_dir, TRAIN_STEPS=int(steps)) == 0
    assert checkpoint_steps(model_dir)[-1] == 3


def test_the_weights_of_another_vocabulary(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = {"TOKENIZER": str(place / "larger.txt"), "VOCAB_SIZE": SMALL["VOCAB_SIZE"] + 1, "TRAIN_STEPS": 1}
    changes["INIT_FROM"] = str(place / "run")
    assert electra(place, tmp_path / "run", **changes) == 2
    own, mapped = map(advised, capsys.readouterr().err.split("; or set"))
    assert [argument.split("=")[0] for argument in own] == ["--gin.TOKENIZER", "--gin.VOCAB_SIZE"]
    assert mapped == ["--gin.MAP_VOCABULARY=True"]
    assert electra(place, tmp_path / "own", *own, **changes) == 0
    assert electra(place, tmp_path / "mapped", *mapped, **changes) == 0
    assert f"{len(SPECIAL) + len(WORDS) - 3} of {changes['VOCAB_SIZE']} by token" in capsys.readouterr().out


def test_longer_rows_than_weights_have_positions(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"SEQUENCE_LENGTH": 48, "INIT_FROM": str(place / "run"), "TRAIN_STEPS": 1}
    assert electra(place, tmp_path / "run", **changes) == 2
    assert "set SEQUENCE_LENGTH or MAX_POSITIONS" in capsys.readouterr().err
    changes["MAX_POSITIONS"] = 48
    assert electra(place, tmp_path / "run", **changes) == 2
    said = capsys.readouterr().err
    copy, fewer = advised(said)
    assert electra(place, tmp_path / "copy", copy, **changes) == 0
    assert "'\"interpolate\"'" in said
    assert electra(place, tmp_path / "between", copy.replace("copy", "interpolate"), **changes) == 0
    assert "and no larger SEQUENCE_LENGTH" in said
    assert electra(place, tmp_path / "fewer", fewer, **changes | {"SEQUENCE_LENGTH": 32}) == 0


ONE = [[f"{one} {other}" for one in WORDS[:6] for other in WORDS[:6]]]
TOO_FEW = {
    "a document": (ONE, 0.005, "has no two different documents"),
    "a document that is held out": (ONE, 0.999, "is 100% of its tokens (0 training examples are left)"),
    # Of a share of less than a document, the one of the smallest hash is held out.
    "documents of unequal size": ([[max(WORDS, key=text_hash)], *ONE], 0.001, "% of its tokens (1 training example"),
}


@pytest.mark.parametrize("name", TOO_FEW)
def test_documents_that_a_share_cannot_be_taken_of(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    documents, share, sentence = TOO_FEW[name]
    text = tmp_path / "text.txt"
    files = {"CORPUS": str(text), "TOKENIZER": str(place / "vocab.txt"), "CACHE_DIR": str(tmp_path / "c")}
    settings = files | {"HELD_OUT_FRACTION": share, "NUM_PROCESSES": 1, "SEQUENCE_LENGTH": 32}

    def cached(between_lines: str, **changes: Any) -> int:
        text.write_text("\n\n".join(between_lines.join(lines) for lines in documents) + "\n")
        gin.clear_config(clear_constants=True)
        return main(["cache", *(f"--gin.{name}={value!r}" for name, value in (settings | changes).items())])

    assert cached("\n") == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert "divide plain text with blank lines or TEXT_FORMAT 'lines', a document a line, or set HELD_OUT_FR" in said
    assert cached("\n", HELD_OUT_FRACTION=0.0) == 0
    settings["HELD_OUT_FRACTION"] = min(share, 0.1)
    assert cached("\n", TEXT_FORMAT="lines") == 0
    assert cached("\n\n") == 0

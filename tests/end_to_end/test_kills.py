"""Commands that write, killed at many moments: the same command then gives what an undisturbed one gives."""

import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import electra_jax
from electra_jax.cli import main
from electra_jax.errors import UserError
from support.command_line import arrays, assert_same_arrays, electra, finish, signal_when, start
from support.finetuned_model import write_tuned
from support.hf_models import SUBSET
from support.kills import Kills, killing
from support.tuned_runs import SETTINGS

pytestmark = pytest.mark.usefixtures("compilations")

KILLED = -signal.SIGKILL


@pytest.fixture(scope="module")
def kills(place: Path) -> Iterator[Kills]:
    with killing(place / "cache") as server:
        yield server


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pre-trained model without a task."""
    return write_tuned(tmp_path_factory.mktemp("model") / "model", "discriminator", labels=(), task=None)


def command(verb: str, *arguments: object, **macros: Any) -> list[str]:
    return [verb, *map(str, arguments), *(f"--gin.{name}={value!r}" for name, value in macros.items())]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def moments(changes: int, few: int) -> list[int]:
    """Some of the changes of a run: the first two, the last two, and some between them."""
    between = np.linspace(2, changes - 1, few).round().astype(int)
    return sorted({1, *between.tolist(), changes})


@pytest.mark.parametrize("tokenizer", ["vocab.txt", "tokenizer.json"])
def test_vocab_killed_before_each_change(kills: Kills, place: Path, tmp_path: Path, tokenizer: str) -> None:
    def learning(folder: Path) -> list[str]:
        kind = {"ALGORITHM": "bpe", "VOCAB_SIZE": 300} if tokenizer == "tokenizer.json" else {"VOCAB_SIZE": 60}
        return command("vocab", CORPUS=str(place / "text.txt"), TOKENIZER=str(folder / tokenizer), **kind)

    (tmp_path / "whole").mkdir()
    changes = kills.run(learning(tmp_path / "whole"), tmp_path / "whole", before=None).changes
    whole = content(tmp_path / "whole")
    assert changes > 2 * len(whole) - 1
    for moment in range(1, changes + 1):
        folder = tmp_path / f"killed {moment}"
        folder.mkdir()
        assert kills.run(learning(folder), folder, before=moment).code == KILLED
        # What has its name is whole, and the vocab.txt has it last.
        assert {name: found for name, found in content(folder).items() if name in whole}.items() < whole.items()
        assert not (folder / "vocab.txt").exists()
        assert main(learning(folder)) == 0
        assert content(folder) == whole


def test_vocab_leaves_the_tokenizer_of_another_alone(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A record without its vocab.txt was left by a killed command; the tokenizer beside it may still be another's."""
    (tmp_path / "vocab.json").write_text('{"lowercase": true, "strip_accents": true}')
    (tmp_path / "tokenizer.json").write_text("{}")
    before = content(tmp_path)
    learning = command("vocab", CORPUS=str(place / "text.txt"), TOKENIZER=str(tmp_path / "vocab.txt"), VOCAB_SIZE=60)
    assert main(learning) == 2
    assert "tokenizer.json exists and is another tokenizer's: nothing was written" in capsys.readouterr().err
    assert content(tmp_path) == before


def test_cache_killed_while_it_joins(kills: Kills, place: Path, tmp_path: Path) -> None:
    """Those in the midst of tokenising are in tests/tasks/pretraining/test_cache.py."""

    def caching(folder: Path) -> list[str]:
        places = {"CORPUS": str(place / "text.txt"), "TOKENIZER": str(place / "vocab.txt"), "CACHE_DIR": str(folder)}
        return command("cache", **places, SEQUENCE_LENGTH=32, NUM_PROCESSES=1, HELD_OUT_FRACTION=0.1)

    (tmp_path / "whole").mkdir()
    changes = kills.run(caching(tmp_path / "whole"), tmp_path / "whole", before=None).changes
    whole = content(tmp_path / "whole")
    assert any(name.endswith("/COMPLETED") for name in whole)
    folder = tmp_path / "killed"
    folder.mkdir()
    # The jobs are done after the first kill; the last one falls after the cache has its name.
    for moment in (changes // 2, 3, 1):
        before = content(folder)
        assert kills.run(caching(folder), folder, before=moment).code == KILLED, moment
        assert not list(folder.glob("*/COMPLETED")) or content(folder) == before
    assert main(caching(folder)) == 0
    assert content(folder) == whole
    assert {path.name for path in folder.rglob("*")} == {path.name for path in (tmp_path / "whole").rglob("*")}


def test_what_a_cache_that_was_killed_at_its_end_has_left_is_removed(place: Path, tmp_path: Path) -> None:
    places = {"CORPUS": str(place / "text.txt"), "TOKENIZER": str(place / "vocab.txt"), "CACHE_DIR": str(tmp_path)}
    caching = command("cache", **places, SEQUENCE_LENGTH=32, NUM_PROCESSES=1, HELD_OUT_FRACTION=0.1)
    assert main(caching) == 0
    whole = content(tmp_path)
    (completed,) = tmp_path.glob("*/COMPLETED")
    (completed.parent / "jobs").mkdir()
    (completed.parent / "jobs" / "000000.json").write_text("{}")
    assert main(caching) == 0
    assert content(tmp_path) == whole


@pytest.mark.parametrize("many", [False, pytest.param(True, marks=pytest.mark.long)])
def test_import_killed(kills: Kills, tmp_path: Path, many: bool) -> None:
    def importing(folder: Path) -> list[str]:
        return command("import", SUBSET / "pretraining", folder / "new")

    (tmp_path / "whole").mkdir()
    changes = kills.run(importing(tmp_path / "whole"), tmp_path / "whole", before=None).changes
    whole = tmp_path / "whole" / "new"
    expected = arrays(whole, 0)
    for moment in range(1, changes + 1) if many else moments(changes, 4):
        folder = tmp_path / f"killed {moment}"
        folder.mkdir()
        assert kills.run(importing(folder), folder, before=moment).code == KILLED, moment
        with pytest.raises(UserError, match="no such directory"):
            electra_jax.load(folder / "new")
        assert main(importing(folder)) == 0
        assert [path.name for path in folder.iterdir()] == ["new"]
        assert_same_arrays(arrays(folder / "new", 0), expected)
        # Its own name, which a config.gin holds, is another.
        ours, theirs = (
            {name: found.replace(bytes(one), b"") for name, found in content(one).items() if "checkpoints" not in name}
            for one in (folder / "new", whole)
        )
        assert ours == theirs


@pytest.mark.parametrize("many", [False, pytest.param(True, marks=pytest.mark.long)])
def test_export_killed(kills: Kills, model: Path, tmp_path: Path, many: bool) -> None:
    def exporting(folder: Path) -> list[str]:
        return command("export", model, folder / "new", "--format", "transformers")

    (tmp_path / "whole").mkdir()
    changes = kills.run(exporting(tmp_path / "whole"), tmp_path / "whole", before=None).changes
    whole = content(tmp_path / "whole")
    assert changes > len(whole)
    for moment in range(1, changes + 1) if many else moments(changes, 4):
        folder = tmp_path / f"killed {moment}"
        folder.mkdir()
        assert kills.run(exporting(folder), folder, before=moment).code == KILLED, moment
        assert [path.name for path in folder.iterdir()] in ([], ["new.part"])
        assert main(exporting(folder)) == 0
        assert content(folder) == whole


def test_predict_killed(kills: Kills, model: Path, tmp_path: Path) -> None:
    """Its output has its name once it is whole."""

    def predicting(folder: Path) -> list[str]:
        return command("predict", model, "the cat sat", "--output", folder / "answers.csv")

    (tmp_path / "whole").mkdir()
    changes = kills.run(predicting(tmp_path / "whole"), tmp_path / "whole", before=None).changes
    whole = content(tmp_path / "whole")
    folder = tmp_path / "killed"
    folder.mkdir()
    for moment in range(1, changes + 1):
        assert kills.run(predicting(folder), folder, before=moment).code == KILLED, moment
        if (folder / "answers.csv").exists():
            assert (folder / "answers.csv").read_bytes() == whole["answers.csv"]
            (folder / "answers.csv").unlink()
    assert main(predicting(folder)) == 0
    assert content(folder) == whole


def test_predict_killed_goes_on(place: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("the cat sat on the mat\n" * 8_000)

    def predicting(name: str) -> list[str]:
        return command("predict", model, tmp_path / "in.txt", "--output", tmp_path / name, BATCH_SIZE=1)

    process = start(predicting("out.jsonl"), place / "cache")
    part = tmp_path / "out.jsonl.part"
    signal_when(process, signal.SIGKILL, lambda: part.exists() and part.stat().st_size > 100_000)
    assert finish(process).returncode == KILLED
    assert not (tmp_path / "out.jsonl").exists()
    again = electra(predicting("out.jsonl"), place / "cache")
    assert again.returncode == 0, again
    done = re.fullmatch(rf"continuing after the ([\d,]+) records in {part}\n", again.stdout)
    assert done, again
    assert 0 < int(done[1].replace(",", "")) < 8_000
    assert electra(predicting("whole.jsonl"), place / "cache").returncode == 0
    assert sorted(os.listdir(tmp_path)) == ["in.txt", "out.jsonl", "whole.jsonl"]
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def tuning(model: Path, folder: Path) -> list[str]:
    for split, count in (("train", 32), ("dev", 8)):
        rows = [f"{'the cat' if row % 2 else 'a dog'} sat,{'good' if row % 2 else 'bad'}" for row in range(count)]
        (folder / f"{split}.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    files = {"TRAIN_FILE": str(folder / "train.csv"), "DEV_FILE": str(folder / "dev.csv")}
    places = {"INIT_FROM": str(model), "MODEL_DIR": str(folder / "run"), "TASK": "classification"}
    columns = {"TEXT_COLUMN": "text", "LABEL_COLUMN": "label"}
    settings = {"BATCH_SIZE": 8, "EPOCHS": 2, "NUM_SEEDS": 2, "EVALUATE_EVERY": 3, "SAVE_EVERY": 2, "LOG_EVERY": 1}
    return command("finetune", **SETTINGS | files | places | columns | settings)


@pytest.mark.parametrize("many", [False, pytest.param(True, marks=pytest.mark.long)])
def test_finetune_killed(kills: Kills, model: Path, tmp_path: Path, many: bool) -> None:
    """One run is killed in each of its two seeds, and while the best one becomes its model."""
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    run, whole = tmp_path / "killed" / "run", tmp_path / "whole" / "run"
    ended = kills.run(tuning(model, tmp_path / "whole"), whole, before=None)
    assert ended.code == 0, kills.log.read_text()
    # What is done is not done again: a start comes to fewer changes than one that nothing disturbed.
    for share in np.linspace(0.02, 0.6, 40) if many else (0.25, 0.35):
        killed = kills.run(tuning(model, tmp_path / "killed"), run, before=round(ended.changes * share))
        if many and killed.code == 0:
            # The kills before had left less to do than that: this moment is one of a run that begins anew.
            shutil.rmtree(run)
            killed = kills.run(tuning(model, tmp_path / "killed"), run, before=round(ended.changes * share))
        assert killed.code == KILLED, kills.log.read_text()
        assert not (run / "results.json").exists()
    # All seeds are done but for the last one's result.
    assert kills.run(tuning(model, tmp_path / "killed"), run, before=ended.changes).code == 0, kills.log.read_text()
    last = kills.run(tuning(model, tmp_path / "killed"), run, before=None).changes
    for moment in range(1, last + 1, 1 if many else 5):
        (run / "results.json").unlink(missing_ok=True)
        assert kills.run(tuning(model, tmp_path / "killed"), run, before=moment).code == KILLED, kills.log.read_text()
    # On one device, as all that came before it: another number rounds otherwise.
    assert kills.run(tuning(model, tmp_path / "killed"), run, before=None).code == 0, kills.log.read_text()
    theirs, ours = (json.loads((one / "results.json").read_text()) for one in (whole, run))
    assert ours == theirs
    assert (run / "predictions.jsonl").read_bytes() == (whole / "predictions.jsonl").read_bytes()
    (step,) = (int(path.name) for path in (whole / "checkpoints").iterdir())
    assert_same_arrays(arrays(run, step), arrays(whole, step))
    assert not [path for path in run.rglob("*") if ".part" in path.name or "tmp" in path.name]
    # What is done is not done again, and nothing of a command that does nothing is recorded.
    before = (run / "config.gin").read_bytes()
    again = [*tuning(model, tmp_path / "killed"), "--gin.LOG_EVERY=2"]
    assert kills.run(again, run, before=None).code == 0, kills.log.read_text()
    assert (run / "config.gin").read_bytes() == before

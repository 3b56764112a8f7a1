"""Model directories of which one file is damaged: the same answer as before, or 2 and one sentence."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from support.attacks import FEW_AND_MANY, attack, outcome
from support.finetuned_model import text_facts, write_tuned
from support.hf_models import SUBSET

LABELS = ("bad", "good")


def truncate(path: Path, draw: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: draw.randrange(len(content))] if content else b"x")


def flip(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes() or b"x")
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def delete(path: Path, draw: random.Random) -> None:
    path.unlink()


def replace_by_a_folder(path: Path, draw: random.Random) -> None:
    path.unlink()
    path.mkdir()


def replace_by_another(path: Path, draw: random.Random) -> None:
    top = next(folder for folder in path.parents if folder.name == "model")
    shutil.copy(draw.choice(sorted(other for other in top.rglob("*") if other.is_file() and other != path)), path)


def replace_by_a_pipe(path: Path, draw: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def replace_by_a_device(path: Path, draw: random.Random) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


DAMAGES = (
    truncate,
    flip,
    delete,
    replace_by_a_folder,
    replace_by_another,
    replace_by_a_pipe,
    replace_by_a_device,
)
COMMANDS: dict[str, Callable[[Path, Path], list[str]]] = {
    "predict": lambda model, place: ["predict", str(model), "the cat sat on the mat"],
    "export": lambda model, place: ["export", str(model), str(place / "new"), "--format=transformers"],
    "import": lambda model, place: ["import", str(model), str(place / "new")],
    "finetune": lambda model, place: [
        "finetune",
        f"--gin.INIT_FROM={str(model)!r}",
        "--gin.TASK='own'",
        f"--gin.TRAIN_FILE={str(place / 'no.csv')!r}",
        f"--gin.MODEL_DIR={str(place / 'run')!r}",
    ],
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Model directories, each called `model`."""
    folder = tmp_path_factory.mktemp("models")
    facts = text_facts("own", LABELS, pair=False)
    tuned = write_tuned(folder / "tuned/model", "sequence_classification", labels=LABELS, task=facts)
    both = write_tuned(folder / "pretraining/model", "pretraining", labels=(), task=None)
    theirs = Path(shutil.copytree(SUBSET / "seqcls", folder / "theirs/model"))
    return {"tuned": tuned, "pretraining": both, "theirs": theirs}


@pytest.mark.parametrize("many", FEW_AND_MANY)
@pytest.mark.parametrize(
    ("name", "command"),
    [("tuned", "predict"), ("tuned", "export"), ("pretraining", "finetune"), ("theirs", "import")],
)
def test_a_damaged_file(name: str, command: str, many: bool, models: dict[str, Path], tmp_path: Path) -> None:
    model = models[name]
    files = sorted(path.relative_to(model) for path in model.rglob("*") if path.is_file())
    pairs = [(file, damage) for damage in DAMAGES for file in files]
    random.Random(0).shuffle(pairs)
    damaged: list[Path] = []

    def case(draw: random.Random, place: Path) -> list[str]:
        copy = Path(shutil.copytree(model, place / "model"))
        file, damage = pairs[int(place.name.rpartition(" ")[2]) % len(pairs)]
        damage(copy / file, draw)
        damaged.append(file)
        return COMMANDS[command](copy, place)

    ends = attack(case, name=command, count=4 * len(pairs) if many else 20, folder=tmp_path)
    if command == "predict":
        # What a checkpoint holds is sealed: nothing of it is another number without a word.
        sound = outcome(COMMANDS[command](model, tmp_path)).stdout
        assert sound
        changed = {str(file) for file, end in zip(damaged, ends, strict=True) if end.code == 0 and end.stdout != sound}
        assert not [file for file in changed if file.startswith("checkpoints/")]


@pytest.mark.parametrize("damage", [replace_by_a_pipe, replace_by_a_device])
@pytest.mark.parametrize(("name", "command"), [("tuned", "predict"), ("theirs", "import")])
def test_no_file_is_waited_for_or_read_without_end(
    name: str, command: str, damage: Callable[..., None], models: dict[str, Path], tmp_path: Path
) -> None:
    """A pipe would keep its reader waiting, and a device never ends; each file is one in turn."""
    files = sorted(path.relative_to(models[name]) for path in models[name].rglob("*") if path.is_file())

    def case(draw: random.Random, place: Path) -> list[str]:
        copy = Path(shutil.copytree(models[name], place / "model"))
        damage(copy / files[int(place.name.rpartition(" ")[2])], draw)
        return COMMANDS[command](copy, place)

    attack(case, name="no file", count=len(files), folder=tmp_path)


def other_order(path: Path) -> None:
    first, *rest = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*rest[:20], first, *rest[20:]]))


def other_casing(path: Path) -> None:
    path.with_suffix(".json").write_text(path.with_suffix(".json").read_text().replace("true", "false"))


@pytest.mark.parametrize("change", [other_order, other_casing])
@pytest.mark.parametrize("imported", [False, True])
def test_a_vocabulary_that_has_changed_is_refused(
    imported: bool, change: Callable[[Path], None], models: dict[str, Path], tmp_path: Path
) -> None:
    """Of what was fine-tuned and of what was imported, as of a pre-training."""
    model = tmp_path / "model"
    if imported:
        assert outcome(["export", str(models["tuned"]), str(tmp_path / "out"), "--format", "transformers"]).code == 0
        assert outcome(["import", str(tmp_path / "out"), str(model)]).code == 0
    else:
        shutil.copytree(models["tuned"], model)
    assert outcome(["predict", str(model), "the cat"]).code == 0
    change(model / "vocab.txt")
    end = outcome(["predict", str(model), "the cat"])
    assert end.code == 2
    assert f"is not the one that {model} was trained with" in end.stderr

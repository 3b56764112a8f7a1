"""Command lines and Gin values that nobody should give: each command succeeds, or ends with 2 and one sentence."""

import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from electra_jax.commands.table import COMMANDS
from support.attacks import FEW_AND_MANY, attack, outcome
from support.command_line import FILES, SMALL, write_small_text
from support.finetuned_model import text_facts, write_tuned

ROOT = Path(__file__).parents[2]
# As Gin reads them from a command line.
VALUES = (
    *("None", "True", "-1", "0", "1", "2.5", "-0.5", "1e-30", "1e400", "-1e400", "10**3", "1_0", "0x10"),
    *(str(10**9), str(2**31), str(2**63), "9" * 400, "-" + "9" * 400, "9" * 5000),
    *("''", "' '", "'wide'", "'float32'", "'\\ud800'", "'\\x00'", "'/dev/null'", "'*'", "'['", "'gs://x'", "'a' 'b'"),
    *("()", "(1,)", "[]", "[1]", "[None]", "{}", "{'default': 'x'}", "((0.0, 1.0), (1.0, -1.0))", "('a', 1)", "[[]]"),
    *("@x", "@os.system()", "%NO_SUCH", "%BATCH_SIZE", "%gin.REQUIRED", "nan", "inf", "", " ", "'", "(", "\n", "1\n2"),
    *(
        "'x'\nBATCH_SIZE = 3",
        "((((" * 50 + "))))" * 50,
        "1 if True else 2",
        "lambda: 1",
        "# 1",
        "1e308",
        "b'x'",
        "...",
        "1j",
    ),
)
WORDS = (
    *(
        "",
        " ",
        "-",
        "--",
        "-h",
        "--help",
        "--version",
        "--gin.",
        "--gin.=",
        "--gin.=1",
        "--gin.A",
        "--gin",
    ),
    *(
        "--gin.A=1",
        "--gin..=1",
        "--gin./=1",
        "--gin.@=@",
        "--gin_file",
        "--gin_file=",
        "--gin_file=/",
        "--gin_file=\udcff",
    ),
    *(
        "--gin_file=gin/runs/small.gin",
        "--gin_file=gin/models/tiny.gin",
        "--gin_search_paths=",
        "--gin_search_paths=\udcff",
    ),
    *(
        "--average=0",
        "--average=-1",
        "--average=x",
        "--batch_size=0",
        "--batch_size=x",
        "--output=",
        "--output=/",
        "[1",
    ),
    *(
        "--format=transformers",
        "--format=tf1",
        "--format=x",
        "--gin.MODEL_DIR=''",
        "--gin.MODEL_DIR='/'",
        "{}",
        "\udcff",
    ),
    *(
        "--gin.MODEL_DIR='no'",
        "--gin.TASK='cola'",
        "--gin.TASK=''",
        "--gin.SPLIT='dev'",
        "no",
        "/",
        ".",
        "a" * 5000,
    ),
    *COMMANDS,
)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text, its vocabulary, a model `tuned`, and `table.csv` for a task, `tags.txt` for a probe."""
    folder = tmp_path_factory.mktemp("attacks")
    write_small_text(folder)
    facts = text_facts("classification", ("bad", "good"), pair=False)
    write_tuned(folder / "tuned", "sequence_classification", labels=("bad", "good"), task=facts)
    write_tuned(folder / "pretrained", "discriminator", labels=(), task=None)
    (folder / "table.csv").write_text("text,label\nthe cat,good\nthe dog,bad\n")
    (folder / "empty.csv").write_text("text,label\n")
    (folder / "tags.txt").write_text("the DT B-NP\ncat NN I-NP\nsat VB B-VP\n\n" * 6)
    return folder


def settings_of(*files: str) -> list[str]:
    """Return the macros and fields that Gin files and what they include bind, but for whole configurations."""
    names, left = set(), list(files)
    for file in left:
        content = (ROOT / file).read_text()
        left += [name for name in re.findall(r"^include '(.*)'", content, re.MULTILINE) if name not in left]
        names |= set(re.findall(r"^([A-Z][A-Z_0-9]*) =", content, re.MULTILINE))
        names |= set(re.findall(r"^(\w+\.\w+\.\w+) =", content, re.MULTILINE))
        for block in re.finditer(r"^(\w+\.\w+):\n((?:  .*\n)+)", content, re.MULTILINE):
            fields = re.findall(r"^  (\w+) = (?!@)", block[2], re.MULTILINE)
            names |= {f"{block[1]}.{field}" for field in fields}
    return sorted(names)


@pytest.mark.parametrize("many", FEW_AND_MANY)
def test_command_lines(many: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words in any order; in an empty folder, where nothing can begin."""
    monkeypatch.chdir(tmp_path)

    def case(draw: random.Random, place: Path) -> list[str]:
        monkeypatch.chdir(place)
        command = [draw.choice(list(COMMANDS))] if draw.random() < 0.9 else []
        return command + draw.choices(WORDS, k=draw.randint(0, 4))

    ends = attack(case, name="words", count=3000 if many else 100, folder=tmp_path)
    assert sum(end.code == 2 for end in ends) > len(ends) / 2


def sound_settings(text: Path, place: Path) -> dict[str, dict[str, Any]]:
    """Settings with which a command succeeds, or ends before it trains, serves or starts other processes."""
    corpus = {"CORPUS": str(text / "text.txt"), "TOKENIZER": str(text / "vocab.txt"), "CACHE_DIR": str(text / "caches")}
    run, encoder = {"MODEL_DIR": str(place / "run")}, {"INIT_FROM": str(text / "pretrained")}
    table, tags = str(text / "table.csv"), str(text / "tags.txt")
    columns = {"TEXT_COLUMN": "text", "LABEL_COLUMN": "label", "DEV_FILE": table}
    # A train split without an example.
    untrained = {
        **encoder,
        **columns,
        **run,
        "TASK": "classification",
        "TRAIN_FILE": str(text / "empty.csv"),
        "MAX_SEQ_LENGTH": 32,
        "BUCKETS": (32,),
    }
    cache = {"SEQUENCE_LENGTH": 32, "NUM_PROCESSES": 1, "HELD_OUT_FRACTION": 0.1}
    splits = {"TRAIN_FILE": tags, "DEV_FILE": tags, "TEST_FILE": tags, "MAX_SEQ_LENGTH": 32}
    return {
        "inspect": SMALL | corpus,
        "vocab": {"CORPUS": corpus["CORPUS"], "VOCAB_SIZE": 60, "TOKENIZER": str(place / "new.txt")},
        "predict": {"MODEL_DIR": str(text / "tuned")},
        "evaluate": columns | {"MODEL_DIR": str(text / "tuned"), "OUTPUT": str(place / "scores.json")},
        "probe": {"TASK": "chunk", "MAX_ITERATIONS": 2, **splits, **encoder, **run},
        "trigram": corpus | cache | splits | run,
        "finetune": untrained,
        "sweep": untrained | {"SPACE": {"LEARNING_RATE": (1e-4, 2e-4)}},
        # No step for so few FLOPs.
        "compare": {name: corpus[name] for name in ("CORPUS", "TOKENIZER")} | run | {"FLOPS": 1, "TASKS": ("rte",)},
        # An address of documentation, which no machine has.
        "serve": {"MODEL_DIR": str(text / "tuned"), "HOST": "203.0.113.1", "MAX_BATCH_SIZE": 1},
    }


SUCCEED = ("inspect", "vocab", "predict", "evaluate", "probe", "trigram")
# What would let a command begin what takes long.
KEPT = ("FLOPS", "HOST", "comparison.ComparisonRun.flops", "serving.ServingRun.host")
FEW = {"inspect": 60, "vocab": 25, "finetune": 25, "predict": 25, "evaluate": 25}


@pytest.mark.parametrize("many", FEW_AND_MANY)
@pytest.mark.parametrize("command", [*SUCCEED, "finetune", "sweep", "compare", "serve"])
def test_gin_values(command: str, many: bool, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One or two settings of a sound command have values of another type, or that nothing can be."""
    files = {"inspect": [file.partition("=")[2] for file in FILES]}.get(command, [f"gin/runs/{command}.gin"])
    settings = [name for name in settings_of(*files) if name not in KEPT]
    assert len(settings) > 12

    def arguments(place: Path, changes: Mapping[str, str]) -> list[str]:
        # A glob such as '*' finds nothing here.
        monkeypatch.chdir(place)
        bindings = {name: repr(value) for name, value in sound_settings(text, place)[command].items()} | changes
        given = [*(f"--gin_file={file}" for file in files), *(f"--gin.{name}={one}" for name, one in bindings.items())]
        return [command, *given, *(["the cat"] if command == "predict" else [])]

    def case(draw: random.Random, place: Path) -> list[str]:
        names = draw.sample(settings, k=1 if draw.random() < 0.8 else 2)
        return arguments(place, {name: draw.choice(VALUES) for name in names})

    (tmp_path / "sound").mkdir()
    sound = outcome(arguments(tmp_path / "sound", {}))
    assert sound.code == (0 if command in SUCCEED else 2), sound
    ends = attack(case, name=command, count=1000 if many else FEW.get(command, 15), folder=tmp_path)
    assert sum(end.code == 2 for end in ends) > len(ends) / 4
    # What is given reaches what it is for, and is not all refused for the same reason.
    assert len({end.stderr for end in ends if end.stderr != sound.stderr}) > len(ends) / 4

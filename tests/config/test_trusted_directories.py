"""A model directory's config.gin is data: nothing that it names runs, whichever command opens the directory."""

import importlib
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

import electra_jax
from electra_jax.cli import main
from electra_jax.config import gin_files
from electra_jax.config.pretraining import PretrainingRun
from electra_jax.config.recorded import RecordedFile
from electra_jax.config.recorded_check import CLASSES, SHIPPED, checked
from electra_jax.errors import UserError
from electra_jax.interchange import run_file
from electra_jax.model.electra import Electra

ROOT = Path(__file__).parents[2]
ARCHIVE = ROOT / "tests/checkpoints/data/version_0_1_0.tar.xz"
BATCH = "run_config.PretrainingRun.batch_size"

# Appended to a pre-training's configuration, where `run_config` and `training` are imported; each creates `canary` in
# the working folder if it runs.
HOSTILE = {
    "a reference": f"import os\nos.system.command = 'touch canary'\n{BATCH} = @os.system()\n",
    "from os": f"from os import system\nfrom subprocess import run\nrun.args = ['touch', 'canary']\n{BATCH} = @run()\n",
    "an alias": f"import os as training\ntraining.system.command = 'touch canary'\n{BATCH} = @training.system()\n",
    "our name": "import os as run_config\nrun_config.system.command = 'touch canary'\nX = @run_config.system()\n",
    "in a list": f"import os\nos.system.command = 'touch canary'\n{BATCH} = [1, (2, {{'a': @os.system()}})]\n",
    "a key": f"import os\nos.system.command = 'touch canary'\n{BATCH} = {{@os.system(): 1, 2: 3}}\n",
    "a macro": "import os\nos.system.command = 'touch canary'\nBATCH_SIZE = @os.system()\n",
    "a scope": f"import os\na/os.system.command = 'touch canary'\n{BATCH} = @a/os.system()\n",
    "a scoped macro": f"import os\nos.system.command = 'touch canary'\na/B = @os.system()\n{BATCH} = %a/B\n",
    "several lines": (
        f"import os\nos.system:\n  # a comment\n  command = (\n  'touch '\n 'canary')\n{BATCH} = \\\n  @os.system()\n"
    ),
    "continued": f"import \\\n  os\nos.system.command = 'touch canary'\n{BATCH} = @os.system()\n",
    "an include": "include 'evil.gin'\n",
    "an include of T5X": "include 'gin/t5x/pretrain.gin'\n",
    "a module's attribute": f"{BATCH} = @run_config.dataclasses.sys.exit()\n",
    "a function of a module": f"{BATCH} = @run_config.registry.check()\n",
    "a function of ours": f"from electra_jax.training import optimizer as o\n{BATCH} = @o.make_optimizer()\n",
    "a method": f"{BATCH} = @run_config.PretrainingRun.setup()\n",
    "a module of ours": f"import electra_jax.cli\n{BATCH} = @electra_jax.cli.main()\n",
    "a chain": f"import electra_jax.config.pretraining\n{BATCH} = @electra_jax.cli.os.system()\n",
    "Gin's own": f"{BATCH} = @gin.singleton()\n",
    "a class of others": f"from electra_jax.config import data\n{BATCH} = @data.Path()\n",
    "a module of the folder": "import evil\n",
    "no registration": None,
}
COMMANDS: dict[str, Callable[[], int]] = {
    "evaluate": lambda: main(["evaluate", "--gin.MODEL_DIR='pretrained'"]),
    "pretrain": lambda: main(["pretrain", "--gin.MODEL_DIR='pretrained'"]),
    "inspect": lambda: main(["inspect", "--gin.MODEL_DIR='pretrained'"]),
    "export": lambda: main(["export", "pretrained", "out", "--format", "transformers"]),
    "predict": lambda: main(["predict", "pretrained", "some text"]),
    "score": lambda: main(["score", "pretrained", "some text"]),
    "finetune": lambda: main(
        ["finetune", "--gin.INIT_FROM='pretrained'", "--gin.TASK='cola'", "--gin.MODEL_DIR='new'", "--gin.DATA_DIR='x'"]
    ),
    "evaluate a task": lambda: main(["evaluate", "--gin.MODEL_DIR='tuned'"]),
    "predict a task": lambda: main(["predict", "tuned", "some text"]),
    "predict a split": lambda: main(["predict", "--gin.MODEL_DIR='tuned'", "--gin.SPLIT='dev'"]),
}
EVIL = "__import__('pathlib').Path('canary').touch()\n"


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the model directories `pretrained` and `tuned`, and an evil module and Gin file."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "evil.py").write_text(EVIL)
    (tmp_path / "evil.gin").write_text("from __gin__ import dynamic_registration\nimport evil\n")
    return tmp_path


def spoil(runs: Path, hostile: str | None) -> None:
    """Append hostile lines to both recorded configurations; None takes away what limits names to imported ones."""
    for name in ("pretrained", "tuned"):
        path = runs / name / "config.gin"
        text = path.read_text()
        if hostile is None:
            path.write_text(text.replace("from __gin__ import dynamic_registration\n", ""))
            continue
        imports = "from electra_jax import run_config\nfrom electra_jax import training\n" if name == "tuned" else ""
        path.write_text(f"{text}{imports}{hostile}")


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_hostile_lines_do_not_run(runs: Path, capsys: pytest.CaptureFixture[str], hostile: str | None) -> None:
    spoil(runs, hostile)
    for command in ("evaluate", "evaluate a task", "predict a task"):
        assert COMMANDS[command]() == 2, command
        sentence = capsys.readouterr().err
        assert sentence.count("\n") == 1, sentence
        assert "config.gin, line " in sentence
        assert "--gin_file" in sentence
        assert not (runs / "canary").exists(), command
    # What only loads a model does not need the modules of its run, and leaves them out.
    if hostile == "import evil\n":
        assert electra_jax.load("pretrained").step == 8
    else:
        with pytest.raises(UserError, match=r"config\.gin, line \d+"):
            electra_jax.load("pretrained")
    assert not (runs / "canary").exists()


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_no_command_runs_what_a_directory_names(
    runs: Path, capsys: pytest.CaptureFixture[str], command: Callable[[], int]
) -> None:
    hostile = "import os\nos.system.command = 'touch canary'\nrun_config.PretrainingRun.num_passages = @os.system()\n"
    for more in ("", "from electra_jax import scoring_run\nscoring_run.PredictionRun.batch_size = @os.system()\n"):
        spoil(runs, hostile + more)
        assert command() == 2
        assert "config.gin, line " in capsys.readouterr().err
        assert not (runs / "canary").exists()


@pytest.mark.parametrize(
    "line",
    [
        "OUTPUT = 'elsewhere'\n",
        "OUTPUT_DIR = 'elsewhere'\n",
        "run_config.PretrainingRun.model_dir = 'elsewhere'\n",
        "from electra_jax import scoring_run\nscoring_run.EvaluationRun.output = 'elsewhere'\n",
    ],
)
def test_a_directory_does_not_say_where_to_write(runs: Path, capsys: pytest.CaptureFixture[str], line: str) -> None:
    spoil(runs, line)
    for command in ("evaluate", "evaluate a task", "predict a task"):
        assert COMMANDS[command]() == 2
        assert "config.gin, line " in capsys.readouterr().err


def test_a_directory_does_not_say_who_may_reach_a_server(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(runs, "HOST = '0.0.0.0'\n")
    assert main(["serve", "tuned"]) == 2
    assert "sets HOST, which is for the command line" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["A = (1,\n", "A = " + "[" * 5000, "A = $\n", "A = 'b\n", "  A = 1\n B = 2\n", "A:\n"])
def test_damaged_text_is_one_sentence(runs: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    spoil(runs, text)
    assert COMMANDS["evaluate"]() == 2
    assert "pretrained/config.gin" in capsys.readouterr().err


def test_a_file_that_the_user_gives_is_code(runs: Path) -> None:
    spoil(runs, "import evil\n")
    assert main(["inspect", "--gin_file=pretrained/config.gin"]) == 0
    assert (runs / "canary").exists()


def test_a_module_that_the_user_imports_may_be_recorded(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(runs, "import evil\n")
    assert COMMANDS["predict a task"]() == 2
    assert "imports evil" in capsys.readouterr().err
    assert main(["predict", "tuned", "some text", "--gin_file=evil.gin"]) == 0
    (runs / "outer.gin").write_text("include 'evil.gin'\n")
    assert main(["predict", "tuned", "some text", "--gin_file=outer.gin"]) == 0
    assert main(["predict", "tuned", "some text", "--gin_file=tuned/config.gin"]) == 0


def test_recorded_configurations_are_read(runs: Path) -> None:
    assert main(["inspect", "--gin.MODEL_DIR='pretrained'"]) == 0
    assert main(["predict", "tuned", "some text"]) == 0
    assert electra_jax.load("pretrained").step == 8
    # As today's code records them.
    gin_files.build(PretrainingRun, ["pretrained/config.gin"], [], search_paths=[])
    (runs / "pretrained/config.gin").write_text(gin_files.resolved())
    assert main(["inspect", "--gin.MODEL_DIR='pretrained'"]) == 0


def test_an_include_of_ours_is_the_packages(runs: Path) -> None:
    """`electra import` includes shipped files: one of the same name in the working folder is not read."""
    (runs / "gin/runs").mkdir(parents=True)
    (runs / "gin/runs/pretrain.gin").write_text("from __gin__ import dynamic_registration\nimport evil\n")
    (runs / "config.gin").write_text("include 'gin/models/bert.gin'\ninclude 'gin/runs/pretrain.gin'\n")
    gin_files.parse([RecordedFile("config.gin", needs_imports=True)], [], [str(runs)])
    assert not (runs / "canary").exists()
    assert "include 'gin/objectives/electric.gin'" in Path(run_file.__file__).read_text()
    assert all((ROOT / file).is_file() for file in SHIPPED)


def test_what_may_be_bound_is_there() -> None:
    for module, names in CLASSES.items():
        for name in names:
            found = getattr(importlib.import_module(module), name)
            assert found.__module__.startswith("electra_jax.")
            assert hasattr(found, "__dataclass_fields__")
            assert not issubclass(found, Electra)


def is_recorded(file: Path) -> bool:
    """Return whether what a Gin file binds is recorded for a model directory."""
    return file.parent.name != "t5x" and file.stem not in (
        "evaluate",
        "predict",
        "probe",
        "serve",
        "compare",
        "sweep",
        "trigram",
    )


RECORDED = [file for file in sorted(ROOT.glob("gin/**/*.gin")) if is_recorded(file)]


@pytest.mark.parametrize("file", RECORDED, ids=lambda path: path.stem)
def test_shipped_files_bind_what_may_be_recorded(file: Path) -> None:
    text = file.read_text()
    text = "\n".join("" if line.startswith("include ") else line for line in text.split("\n"))
    assert checked(text, RecordedFile(str(file), needs_imports=True), also=set()) == text

"""The table of commands: what a command line means, before anything heavy is imported."""

import argparse
import importlib.metadata
import importlib.util
import json
from pathlib import Path

import pytest

from electra_jax.cli import parse_arguments
from electra_jax.commands import gin_choice, table
from electra_jax.commands.table import COMMANDS, Command
from electra_jax.config.recorded import RecordedFile
from electra_jax.errors import UserError
from electra_jax.run_directory import CHECKPOINTS, CONFIG, MODEL

ROOT = Path(__file__).parents[2]
EVERY = {**COMMANDS, "evaluate of a task": COMMANDS["evaluate"].for_task}


@pytest.fixture
def tuned(tmp_path: Path) -> Path:
    """The directory of a fine-tuned model, as far as a command line looks into it."""
    (tmp_path / CHECKPOINTS).mkdir()
    (tmp_path / CONFIG).write_text("")
    (tmp_path / MODEL).write_text(json.dumps({"head": {"kind": "regression"}}))
    return tmp_path


@pytest.mark.parametrize("command", EVERY.values(), ids=EVERY)
def test_every_command_has_its_module_and_its_gin_file(command: Command) -> None:
    assert importlib.util.find_spec(f"electra_jax.commands.{command.module}")
    assert command.processes in ("apart", "leader", "together")
    if command.configuration and command.gin_files is not gin_choice.given_or_recorded:
        assert (ROOT / command.gin_files([], [])[0]).is_file()


def test_no_two_commands_share_a_module() -> None:
    modules = [command.module for command in EVERY.values()]
    assert len(set(modules)) == len(modules)


def test_a_macro_is_bound_to_its_last_value() -> None:
    bindings = ['TASK="sst2"', "SPLIT=None", "TASK = 'cola'"]
    assert gin_choice.bound(bindings, "TASK") == "cola"
    assert gin_choice.bound(bindings, "SPLIT") is None
    assert gin_choice.bound(bindings, "MODEL_DIR") is None


def test_gin_files_of_a_command_line(tuned: Path) -> None:
    bindings = [f'MODEL_DIR="{tuned}"']
    recorded = RecordedFile(str(tuned / CONFIG), needs_imports=True)
    assert gin_choice.given_or_recorded(["a"], bindings) == ["a"]
    assert gin_choice.given_or_recorded([], bindings) == [recorded]
    assert gin_choice.given_or("d")(["a"], bindings) == ["a"]
    assert gin_choice.given_or("d")([], bindings) == ["d"]
    assert gin_choice.default_first("d")(["a", "d"], bindings) == ["d", "a"]
    assert gin_choice.recorded_after("d")(["a", "d"], bindings) == ["d", recorded, "a"]
    given = str(tuned / CONFIG)
    assert gin_choice.recorded_after("d")([given], bindings) == ["d", given]
    # A pre-training's record is Gin of another command.
    (tuned / MODEL).write_text(json.dumps({"head": None}))
    assert gin_choice.recorded_after("d")(["a"], bindings) == ["d", "a"]


def test_a_run_without_a_gin_file_needs_a_record(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give --gin_file=PATH"):
        gin_choice.given_or_recorded([], [])
    with pytest.raises(UserError, match=r"config\.gin does not exist"):
        gin_choice.given_or_recorded([], [f"MODEL_DIR={str(tmp_path)!r}"])


def test_evaluate_is_of_a_task_where_one_is_named_or_the_model_has_a_head(tuned: Path, tmp_path: Path) -> None:
    assert gin_choice.evaluates_task(['TASK="sst2"'])
    assert gin_choice.evaluates_task(['PREDICTIONS="answers.json"'])
    assert gin_choice.evaluates_task([f'MODEL_DIR="{tuned}"'])
    assert not gin_choice.evaluates_task([f'MODEL_DIR="{tmp_path / "none"}"'])
    assert not gin_choice.evaluates_task([])


def predict(*arguments: str) -> tuple[list[str], argparse.Namespace]:
    options, bindings = parse_arguments(["predict", *arguments])
    return table.place_predict_arguments(options, bindings), options


def test_the_first_argument_of_predict_is_the_model_unless_it_is_bound() -> None:
    added, options = predict("runs/x", "a text", "--batch_size=4")
    assert (added, options.input) == (["MODEL_DIR='runs/x'", "BATCH_SIZE=4"], "a text")
    added, options = predict('--gin.MODEL_DIR="runs/x"', "a text")
    assert (added, options.input) == ([], "a text")
    # argparse takes an open number of arguments from one place.
    added, options = predict("runs/x", "--output", "file", "-")
    assert (added, options.input, options.output) == (["MODEL_DIR='runs/x'"], "-", "file")
    assert predict("runs/x")[1].input is None


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "needs a model"),
        (["runs/x", "two", "texts"], "put a sentence in quotes$"),
        (['--gin.MODEL_DIR="runs/x"', "two", "texts"], "already given by MODEL_DIR"),
        (["runs/x", "text", '--gin.SPLIT="test"'], "give one of them"),
    ],
)
def test_arguments_of_predict_that_cannot_be_placed(arguments: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        predict(*arguments)


def test_the_version_is_that_of_the_project(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_arguments(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"electra-jax {importlib.metadata.version('electra-jax')}\n"


def test_the_vocabulary_to_extend_is_an_option_of_electra_vocab() -> None:
    options, bindings = parse_arguments(["vocab", "--extend", "old/vocab.txt", "--gin.VOCAB_SIZE=9"])
    assert COMMANDS["vocab"].place_arguments(options, bindings) == ["EXTEND='old/vocab.txt'"]
    assert COMMANDS["vocab"].place_arguments(*parse_arguments(["vocab"])) == []
    options, bindings = parse_arguments(["vocab", "--extend", "old", "--gin.EXTEND='other'"])
    with pytest.raises(UserError, match="EXTEND is bound in addition to --extend old: give one of them"):
        COMMANDS["vocab"].place_arguments(options, bindings)

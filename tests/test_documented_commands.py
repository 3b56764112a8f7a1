"""Every command of the README and of docs/ is one that `electra` takes: its arguments, Gin files and names exist."""

import re
import shlex
from pathlib import Path

import pytest

from electra_jax.cli import parse_arguments
from electra_jax.commands.gin_choice import bound, evaluates_task, given_or_recorded
from electra_jax.commands.table import COMMANDS
from electra_jax.config import gin_files
from electra_jax.errors import UserError

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md")])
# Stands for the configuration that a model directory recorded.
RECORDED = "gin/runs/small.gin"
# What an ellipsis, or the record of a run, has.
LEFT_OUT = [
    *(f"{name} = 'left out'" for name in ("MODEL_DIR", "CORPUS", "TOKENIZER", "INIT_FROM", "TASK")),
    "FLOPS = 1.0",
]


def commands_of(text: str) -> list[str]:
    """Return the lines of code blocks, and the code within lines, that begin with `electra`."""
    blocks = "".join(re.findall(r"^```(?:sh)?\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)).replace("\\\n", "")
    lines = re.findall(r"^(?:\$ )?(?:\w+=\S+ )*(electra .*)$", blocks, re.MULTILINE)
    return lines + [code for code in re.findall(r"`(electra [^`\n]+)`", text) if "--gin" in code]


def check(command_line: str) -> None:
    """Parse a command line as the command does, without running it.

    Raises:
        UserError: if a file or name of Gin is unknown.
        SystemExit: if an argument is unknown.
    """
    words = shlex.split(command_line.replace("gs://", ""), comments=True)[1:]
    options, bindings = parse_arguments([word for word in words if not word.endswith("...")])
    command = COMMANDS[options.command]
    if command.configuration is None:
        return
    # What MODEL_DIR holds is not known: of a fine-tuned model `evaluate` has a split.
    if command.for_task is not None and (evaluates_task(bindings) or bound(bindings, "SPLIT") is not None):
        command = command.for_task
    bindings += command.place_arguments(options, bindings)
    # A file of the reader's own, such as weather.gin, is not here.
    given = [file for file in options.gin_file if (ROOT / file).exists()]
    files = [RECORDED] if command.gin_files is given_or_recorded and not given else command.gin_files(given, bindings)
    gin_files.check_macros(gin_files.parse(files, [*LEFT_OUT, *bindings], [str(ROOT)]), bindings)
    gin_files.check_types()


def written_by(command_line: str) -> str | None:
    """Return the folder or tokenizer that a command makes and refuses to find made otherwise; None for any other."""
    words = shlex.split(command_line, comments=True)[1:]
    options, bindings = parse_arguments([word for word in words if not word.endswith("...")])
    if options.command in ("pretrain", "finetune", "probe", "compare", "sweep"):
        return bound(bindings, "MODEL_DIR")
    if options.command == "vocab":
        # A vocab.txt and the tokenizer.json beside it are one.
        return (bound(bindings, "TOKENIZER") or "").replace("/vocab.txt", "/tokenizer.json") or None
    return getattr(options, "dest", None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_can_be_parsed(page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    refused = []
    for command_line in commands_of(page.read_text(encoding="utf-8")):
        try:
            check(command_line)
        except (UserError, SystemExit) as error:
            refused.append((command_line, error))
    assert refused == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_two_commands_of_a_page_write_to_one_place(page: Path) -> None:
    """The second would be refused, or resume the first."""
    commands = {" ".join(line.split()) for line in commands_of(page.read_text(encoding="utf-8"))}
    # DEST and OUT stand for any name.
    places = [place for place in map(written_by, commands) if place is not None and not place.isupper()]
    assert sorted(place for place in set(places) if places.count(place) > 1) == []

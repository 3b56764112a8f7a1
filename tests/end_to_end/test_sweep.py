"""`electra sweep` killed, failing and finished, and `electra finetune` with FOLDS, by the command."""

import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from electra_jax.cli import main
from support.command_line import finish, reported_steps, signal_when, start
from support.tuned_runs import NOUNS, SETTINGS, VERBS, electra, sentence

pytestmark = pytest.mark.usefixtures("compilations")

# More layers than the encoder has cannot be frozen, which a trial says only once it has begun.
SPACE = {"FROZEN_LAYERS": (None, 9, 2)}
TRIALS = [f"trials/FROZEN_LAYERS={value}" for value in SPACE["FROZEN_LAYERS"]]


@pytest.fixture
def task(whole: Path, tmp_path: Path) -> dict[str, Any]:
    """A small table of two classes, and the settings with which it is learnt."""
    rows = [f"{sentence(NOUNS if number % 2 else VERBS, 6)},{number % 2}\n" for number in range(60)]
    (tmp_path / "train.csv").write_text("text,label\n" + "".join(rows))
    columns = {"TRAIN_FILE": str(tmp_path / "train.csv"), "TEXT_COLUMN": "text", "LABEL_COLUMN": "label"}
    return {**SETTINGS, **columns, "INIT_FROM": str(whole), "TASK": "classification", "LOG_EVERY": 1}


def flags(**macros: Any) -> list[str]:
    return [f"--gin.{name}={value!r}" for name, value in macros.items()]


def sweep(place: Path, arguments: list[str]) -> subprocess.Popen[str]:
    """`electra sweep`, running."""
    return start(["sweep", *arguments], place / "cache")


def test_a_sweep_is_killed_and_resumed(place: Path, tmp_path: Path, task: dict[str, Any]) -> None:
    run = tmp_path / "run"
    arguments = flags(**{**task, "EPOCHS": 40, "EVALUATE_EVERY": 1000}, MODEL_DIR=str(run), SPACE=SPACE)
    first = run / TRIALS[0]
    process = sweep(place, arguments)
    signal_when(process, signal.SIGKILL, lambda: len(reported_steps(first / "seeds/0")) > 3)
    assert re.findall(r"^begun: (\S+)", finish(process).stdout, re.MULTILINE) == TRIALS[:1]
    assert not (run / "best.gin").exists()
    done = finish(sweep(place, [*arguments, "--gin.PROCESSES=2"]))
    # One that fails ends neither the others nor the table, and is told at the end.
    assert done.returncode == 2, done
    assert re.findall(r"^begun: (\S+)", done.stdout, re.MULTILINE) == TRIALS
    (said,) = done.stderr.splitlines()[-1:]
    assert said.startswith(f"electra: {TRIALS[1]} ended with exit code 2; its last words: electra: FROZEN_LAYERS is 9")
    assert re.search(r"stopped by SIGTERM, saved.*resuming from step \d+", log_of(first), re.DOTALL)
    found = json.loads((run / "trials.json").read_text())
    assert [sorted(entry.keys() & {"score", "error"}) for entry in found["trials"]] == [["score"], ["error"], ["score"]]
    assert (found["metric"], found["chosen_on"]) == ("accuracy", "dev")
    assert found["chosen"]["directory"] == TRIALS[0]
    assert found["chosen"]["score"] > found["trials"][2]["score"]
    assert "best: FROZEN_LAYERS = None; the best of 3 scores is a little too high" in done.stdout
    # What was killed and resumed is what nothing disturbed, and the file of the best makes it again.
    best = f"--gin_file={run / 'best.gin'}"
    assert main(["finetune", best, *flags(MODEL_DIR=str(tmp_path / "again"))]) == 0
    again, swept = (json.loads((folder / "results.json").read_text()) for folder in (tmp_path / "again", first))
    assert again["seeds"] == swept["seeds"]
    assert again["seeds"][0]["metrics"]["accuracy"] == found["chosen"]["score"]
    assert not (run / TRIALS[1] / "checkpoints").exists()
    assert (run / TRIALS[2] / "report.html").exists()


def log_of(trial: Path) -> str:
    return trial.with_name(f"{trial.name}.log").read_text()


@pytest.mark.long
def test_a_killed_sweep_finds_what_an_undisturbed_one_does(place: Path, tmp_path: Path, task: dict[str, Any]) -> None:
    """Random trials, each a cross-validation: the same bytes."""
    space = {"LEARNING_RATE": "loguniform(1e-4, 1e-2)"}
    macros = {**task, "SPACE": space, "TRIALS": 2, "FOLDS": 2, "TEST_FILE": task["TRAIN_FILE"]}
    found = []
    for name in ("killed", "whole"):
        run = tmp_path / name
        arguments = flags(**macros, MODEL_DIR=str(run))
        if name == "killed":
            process = sweep(place, arguments)
            signal_when(process, signal.SIGKILL, lambda: any(run.glob("trials/*/folds/1/seeds/0/metrics.jsonl")))  # noqa: B023
            finish(process)
        assert finish(sweep(place, arguments)).returncode == 0
        found.append((run / "trials.json").read_text())
    assert found[0] == found[1]
    assert json.loads(found[0])["chosen"]["reported"].keys() == {"test"}


def test_a_cross_validation(tmp_path: Path, task: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "folds"
    given = {**task, "FOLDS": 2, "MODEL_DIR": str(run), "EPOCHS": 40, "EVALUATE_EVERY": 1000}
    electra("finetune", **given)
    said = capsys.readouterr().out
    results = json.loads((run / "results.json").read_text())
    assert results["num_examples"] == {"dev": 60}
    assert [fold["num_examples"] for fold in results["folds"]] == [{"train": 30, "dev": 30}] * 2
    scores = [fold["metrics"]["accuracy"] for fold in results["folds"]]
    assert min(scores) > 80
    assert results["summary"]["accuracy"]["mean"] == pytest.approx(sum(scores) / 2)
    assert results["summary"]["accuracy"]["n"] == 2
    assert re.search(rf"fold 1 +│ +{scores[1]:.2f}", said)
    # Each example is predicted by the model that has not seen it, and half of each fold is of each class.
    predicted = [
        json.loads(line)
        for fold in results["folds"]
        for line in (run / fold["directory"] / "predictions.jsonl").read_text().splitlines()
    ]
    assert sorted(record["index"] for record in predicted) == list(range(60))
    assert [sum(record["gold"] == "1" for record in predicted[start : start + 30]) for start in (0, 30)] == [15, 15]
    # A fold is a run of its own, whose dev split is the fold.
    electra("evaluate", MODEL_DIR=str(run / "folds/1"), OUTPUT=str(tmp_path / "scores.json"))
    evaluated = json.loads((tmp_path / "scores.json").read_text())
    assert evaluated["metrics"] == results["folds"][1]["metrics"]
    # A fold that is missing is trained again, and is the same; the other one is done.
    record = (run / "run.json").read_text()
    (run / "folds/1/seeds/0/result.json").unlink()
    capsys.readouterr()
    electra("finetune", **given)
    assert re.findall(r"seed 0: \d+ steps", capsys.readouterr().out) == ["seed 0: 80 steps"]
    assert json.loads((run / "results.json").read_text()) == results
    assert (run / "run.json").read_text() == record
    for changes, refusal in (
        ({"FOLDS": 4}, "FOLDS 2 there, 4 here"),
        ({"FOLDS": None}, f"{run} holds a run with FOLDS: use another MODEL_DIR"),
        ({"MODEL_DIR": str(run / "folds/0")}, "holds a run that is no cross-validation: use another MODEL_DIR"),
        ({"MODEL_DIR": str(tmp_path / "new"), "DEV_FILE": task["TRAIN_FILE"]}, "has a dev split of its own: leave"),
        ({"FOLDS": 1}, "FOLDS (task_options.TaskOptions.folds) is 1: it must be at least 2"),
    ):
        assert main(["finetune", *flags(**{**given, **changes})]) == 2
        assert refusal in capsys.readouterr().err

"""What a run leaves in metrics.jsonl and says in a log."""

import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from electra_jax.config import gin_files
from electra_jax.config.pretraining import PretrainingRun
from electra_jax.monitoring.metrics_file import drop_after, read_rows
from electra_jax.monitoring.reporter import COLUMNS, LiveView, RunReporter
from electra_jax.pretraining import metrics

TRAIN = {
    "loss": 31.0,
    "generator_loss": 2.5,
    "discriminator_loss": 0.25,
    "generator_accuracy": 0.375,
    "discriminator_accuracy": 0.875,
    "unreplaced_share": 0.8125,
    "discriminator_recall": 0.125,
    "discriminator_precision": math.nan,
    "discriminator_auc": 0.625,
    "learning_rate": 1e-4,
    "grad_norm": 0.5,
    "examples_per_second": 400.0,
    "tokens_per_second": 51200.0,
    "data_wait_share": 0.0125,
    "seconds": 8.0,
}

OBJECTIVES = sorted(path.name for path in (Path(__file__).parents[2] / "gin" / "objectives").glob("*.gin"))


def _lines(model_dir: Path) -> list[dict[str, float | str | None]]:
    return [json.loads(line) for line in (model_dir / "metrics.jsonl").read_text().splitlines()]


def test_a_line_in_the_file_and_in_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reporter = RunReporter(tmp_path, start_step=0, num_train_steps=100)
    reporter.report(25, "train", TRAIN)
    reporter.report(25, "validation", {"generator_loss": 2.75, "discriminator_auc": 0.5})
    reporter.close()
    first, second = _lines(tmp_path)
    # JSON has no NaN: what could not be computed is null.
    assert first == {"step": 25, "split": "train", **TRAIN, "discriminator_precision": None}
    assert second == {"step": 25, "split": "validation", "generator_loss": 2.75, "discriminator_auc": 0.5}
    train, validation = capsys.readouterr().out.splitlines()
    assert train.startswith("step 25/100 train")
    # The accuracy stands beside that of predicting "all original".
    for cell in ("gen loss 2.500", "disc loss 0.2500", "gen acc 0.375", "disc acc 0.8750 | all-original 0.8125"):
        assert cell in train
    for cell in ("recall 0.125", "AUC 0.625", "ex/s 400", "tok/s 51200", "data wait 1.2%"):
        assert cell in train
    assert train.split("left ")[1].count(":") == 2
    assert "AUC 0.500" in validation
    assert all(list((tmp_path / "tensorboard" / split).iterdir()) for split in ("train", "validation"))


@pytest.mark.parametrize("file", OBJECTIVES)
def test_every_loss_of_an_objective_is_on_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str
) -> None:
    files = ["gin/models/tiny.gin", "gin/runs/pretrain.gin", f"gin/objectives/{file}"]
    bindings = ["MODEL_DIR='run'", "CORPUS='embedded'", "VOCAB_FILE='vocab.txt'"]
    weights = gin_files.build(PretrainingRun, files, bindings, search_paths=[]).objective.loss_weights
    # Numbers by which each loss is known again.
    sums = {f"{name}_loss": 2.125 + number for number, name in enumerate(weights)}
    reported = metrics.finish({**sums, **{f"{name}_loss_weight": 1.0 for name in weights}}, weights)
    reporter = RunReporter(tmp_path, start_step=0, num_train_steps=100)
    reporter.report(25, "train", reported)
    reporter.close()
    cells = capsys.readouterr().out.split(" | ")[1:-1]
    assert {float(cell.split(" loss ")[1]) for cell in cells} == set(sums.values())


def test_a_live_view_has_the_columns_that_are_reported() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    view = LiveView(console, 0, 100, COLUMNS)
    view.update(25, "train", {"prediction_loss": 9.125, "prediction_accuracy": 0.0625, "tokens_per_second": 512.0}, "?")
    view.update(25, "validation", {"prediction_loss": 9.5, "prediction_accuracy": 0.125}, "?")
    view.close()
    shown = console.file.getvalue()
    for text in ("pred loss", "9.125", "pred acc", "0.062", "512", "9.500", "0.125"):
        assert text in shown
    assert "gen loss" not in shown


def test_going_on_drops_what_will_be_reported_again(tmp_path: Path) -> None:
    first = RunReporter(tmp_path, start_step=0, num_train_steps=100)
    for step in (10, 20, 30):
        first.report(step, "train", TRAIN)
    first.report(20, "validation", TRAIN)
    first.close()
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 40, "split": "tra')  # killed while it wrote
    second = RunReporter(tmp_path, start_step=20, num_train_steps=100)
    second.report(30, "train", TRAIN)
    second.close()
    found = [(line["step"], line["split"]) for line in _lines(tmp_path)]
    assert found == [(10, "train"), (20, "train"), (20, "validation"), (30, "train")]


def test_an_evaluation_that_is_made_again_is_reported_once(tmp_path: Path) -> None:
    """A run that resumes where one is due cannot know whether it came to it before it ended."""
    for start, steps in ((0, (5, 10)), (10, (10, 15)), (15, (15, 20))):
        reporter = RunReporter(tmp_path, start_step=start, num_train_steps=20)
        for step in steps:
            reporter.report(step, "train", TRAIN)
            if step != 15 or start == 15:
                reporter.report(step, "validation", {"generator_loss": float(step)})
        reporter.close()
    reported = [line["step"] for line in _lines(tmp_path) if line["split"] == "validation"]
    assert reported == [5, 10, 15, 20]


def test_a_torn_line_alone(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1')
    drop_after(path, 5)
    assert path.read_text() == ""
    drop_after(tmp_path / "none.jsonl", 5)
    assert not (tmp_path / "none.jsonl").exists()


SOUND = b'{"step": 1, "split": "train", "loss": 2.5}\n'


@pytest.mark.parametrize(
    "damage",
    [
        b'{"step": 2, "spl\n',
        b"\xff\xfe\n",
        b"5\n",
        b'{"split": "train"}\n',
        b'{"step": 2, "split": "train", "loss": "x"}\n',
        b'{"step": 2, "split": "health"}\n',
        b"[" * 100_000 + b"\n",
        b"\x00\x00\n",
    ],
)
def test_a_damaged_file_is_set_aside_and_its_reports_stay(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(SOUND + damage + SOUND.replace(b"1", b"3") + SOUND.replace(b"1", b"7"))
    drop_after(path, 5)
    assert path.read_bytes() == SOUND + SOUND.replace(b"1", b"3")
    assert (tmp_path / "metrics.jsonl.damaged1").read_bytes().startswith(SOUND + damage)
    assert (
        "(1 of its lines are no reports, the first is line 2): it is set aside as metrics.jsonl.damaged1" in caplog.text
    )
    assert [row["step"] for row in read_rows(path)] == [1, 3]


def test_an_empty_file_is_gone_on_with(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "metrics.jsonl"
    path.touch()
    reporter = RunReporter(tmp_path, start_step=20, num_train_steps=100)
    reporter.report(30, "train", TRAIN)
    reporter.close()
    assert [line["step"] for line in _lines(tmp_path)] == [30]
    assert caplog.text == ""

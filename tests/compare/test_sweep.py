"""`electra sweep` without training: what is tried, what is refused, which trial is chosen, and what is said of it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from electra_jax.cli import main
from electra_jax.compare.records import Records
from electra_jax.compare.sweep_results import show, sweep_of, text_of
from electra_jax.compare.trials import Trial, check_data, folder_of, make_trials
from electra_jax.config import gin_files
from electra_jax.config.finetuning import FinetuningRun
from electra_jax.config.sweeping import SweepRun
from electra_jax.errors import UserError
from support.command_line import SPECIAL, WORDS

GRID = {"LEARNING_RATE": (1e-4, 3e-4), "EPOCHS": (3, 10)}


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Any]:
    """A file of texts, and random weights for them."""
    (tmp_path / "vocab.txt").write_text("".join(f"{token}\n" for token in [*SPECIAL, *WORDS]))
    rows = "".join(f"{word},{'yes' if number % 2 else 'no'}\n" for number, word in enumerate(WORDS[:20]))
    (tmp_path / "train.csv").write_text(f"text,label\n{rows}")
    return {
        "MODEL_DIR": str(tmp_path / "sweep"),
        "INIT_FROM": None,
        "TOKENIZER": str(tmp_path / "vocab.txt"),
        "VOCAB_SIZE": len(SPECIAL) + len(WORDS),
        "TASK": "classification",
        "TRAIN_FILE": str(tmp_path / "train.csv"),
        "TEXT_COLUMN": "text",
        "LABEL_COLUMN": "label",
    }


FILES = ["gin/runs/sweep.gin", "gin/models/tiny.gin"]


def configured(places: dict[str, Any], **macros: Any) -> SweepRun:
    bindings = [f"{name}={value!r}" for name, value in {**places, "SPACE": GRID, **macros}.items()]
    return gin_files.build(SweepRun, FILES, bindings, search_paths=[])


def test_a_grid_is_every_combination(places: dict[str, Any]) -> None:
    trials = make_trials(configured(places, NUM_SEEDS=2))
    assert [trial.values for trial in trials] == [
        {"LEARNING_RATE": rate, "EPOCHS": epochs} for rate in (1e-4, 3e-4) for epochs in (3, 10)
    ]
    last = trials[-1]
    assert last.name == "trials/LEARNING_RATE=0.0003,EPOCHS=10"
    directory = f"{places['MODEL_DIR']}/{last.name}"
    assert last.arguments == ("finetune", f"--gin_file={directory}.gin", f"--gin.MODEL_DIR={directory!r}")
    # They differ in what is tried, and in nothing else.
    assert dict(last.settings.items() - trials[0].settings.items()) == {
        "OptimizerConfig.learning_rate": "0.0003",
        "FinetuningRun.epochs": "10",
    }
    assert {"FinetuningRun.init_from", "TaskOptions.train_file"} <= last.settings.keys()
    assert not {"FinetuningRun.num_seeds", "FinetuningRun.model_dir", "SweepRun.space"} & last.settings.keys()


def test_a_trials_file_is_a_configuration_of_electra_finetune(places: dict[str, Any], tmp_path: Path) -> None:
    trial = make_trials(configured(places))[-1]
    (tmp_path / "it.gin").write_text(trial.config)
    files = ["gin/runs/finetune.gin", str(tmp_path / "it.gin")]
    built = gin_files.build(FinetuningRun, files, ["MODEL_DIR='runs/mine'"], search_paths=[])
    assert (built.model_dir, built.epochs, built.task.task) == ("runs/mine", 10, "classification")
    assert built.optimizer(num_train_steps=5, num_warmup_steps=1.0).learning_rate == 3e-4
    assert not {"SPACE", "TRIALS", "PROCESSES"} & set(gin_files.macros())
    with pytest.raises(UserError, match="the macro MODEL_DIR has no value"):
        gin_files.build(FinetuningRun, files, [], search_paths=[])


def test_random_samples_are_drawn_with_a_seed(places: dict[str, Any]) -> None:
    space = {"LEARNING_RATE": "loguniform(1e-5, 1e-3)", "DROPOUT": "uniform(0.0, 0.2)", "EPOCHS": (3, 5, 10)}
    samples = configured(places, SPACE=space, TRIALS=200).combinations
    assert samples == configured(places, SPACE=space, TRIALS=200).combinations
    # More trials keep the first ones.
    assert configured(places, SPACE=space, TRIALS=3).combinations == samples[:3]
    assert configured(places, SPACE=space, TRIALS=3, TRIALS_SEED=1).combinations != samples[:3]
    rates = sorted(sample["LEARNING_RATE"] for sample in samples)
    assert 1e-5 <= rates[0] < 1.3e-5
    assert 0.8e-3 < rates[-1] <= 1e-3
    # The middle of the logarithms, of 200 within a quarter of a decade; of the values it would be 5e-4.
    assert 10**-4.25 < rates[100] < 10**-3.75
    assert 0.08 < sorted(sample["DROPOUT"] for sample in samples)[100] < 0.12
    assert {sample["EPOCHS"] for sample in samples} == {3, 5, 10}


def test_listed_values_are_sampled_without_repetition(places: dict[str, Any]) -> None:
    samples = configured(places, TRIALS=4).combinations
    assert sorted(map(str, samples)) == sorted(map(str, configured(places).combinations))
    with pytest.raises(UserError, match="TRIALS is 5, and SPACE has only 4 different combinations: set TRIALS to 4 or"):
        _ = configured(places, TRIALS=5).combinations


def test_directories_of_other_values_have_other_names() -> None:
    assert folder_of(["EPOCHS=3", "DTYPE='float32'"]).startswith("EPOCHS=3,DTYPE=_float32_-")
    assert folder_of(["A='x/y'"]) != folder_of(["A='x y'"])
    long = [folder_of([f"A={'9' * 200}{number}"]) for number in range(2)]
    assert long[0] != long[1]
    assert {len(name) for name in long} == {100}


REFUSED = [
    ({"SPACE": {}}, "SPACE is empty: name settings and the values to try, as in"),
    (
        {"SPACE": {"LEARNIN_RATE": (1e-4,)}},
        "SPACE names LEARNIN_RATE, which is not a setting of electra finetune; did you ",
    ),
    ({"SPACE": {"TRIALS": (1, 2)}}, "SPACE names TRIALS, which is not a setting of electra finetune"),
    ({"SPACE": {"optimizer.OptimizerConfig.beta": (0.9,)}}, "SPACE has optimizer.OptimizerConfig.beta=0.9: "),
    ({"SPACE": {"MODEL_DIR": ("a", "b")}}, "SPACE names MODEL_DIR, which all trials share (each trial has its own"),
    ({"SPACE": {"SEED": (0, 1)}}, "SPACE names SEED, which all trials share (a seed is nothing to choose"),
    ({"SPACE": {"DEV_FILE": ("a", "b")}}, "SPACE names DEV_FILE, which all trials share (scores of other examples"),
    ({"SPACE": {"EPOCHS": 3}}, "SPACE has 3 for EPOCHS: it must be a list of values, as in (1e-4, 3e-4)"),
    ({"SPACE": {"EPOCHS": ()}}, "SPACE has () for EPOCHS: it must be a list of values"),
    ({"SPACE": {"EPOCHS": (3, 3)}}, "SPACE has 3 twice for EPOCHS: list each value once"),
    (
        {"SPACE": {"EPOCHS": (3, -1)}},
        "EPOCHS=-1: EPOCHS (finetune_run.FinetuningRun.epochs) is -1: it must be positive",
    ),
    (
        {"SPACE": {"EPOCHS": ("x",)}},
        "EPOCHS='x': EPOCHS (finetune_run.FinetuningRun.epochs) is 'x': it must be float |",
    ),
    (
        {"SPACE": {name: tuple(range(1, 300)) for name in ("BATCH_SIZE", "EPOCHS", "WARMUP_FRACTION")}},
        "SPACE has 26730899 combinations: set TRIALS to the number of random samples",
    ),
    ({"TRIALS": 10**9}, "TRIALS (sweeping.SweepRun.trials) is 1000000000: it must be from 1 to 10000"),
    (
        {"SPACE": {"DROPOUT": "uniform(0, 0.2)"}},
        "SPACE has the range 'uniform(0, 0.2)' for DROPOUT, which has infinitely many values",
    ),
    ({"SPACE": {"DROPOUT": "normal(0, 1)"}, "TRIALS": 2}, "SPACE has 'normal(0, 1)' for DROPOUT: it must be a list"),
    ({"SPACE": {"DROPOUT": "uniform(a, 1)"}, "TRIALS": 2}, "SPACE has 'uniform(a, 1)' for DROPOUT: it must be a list"),
    ({"SPACE": {"DROPOUT": "uniform(1, 0)"}, "TRIALS": 2}, "a range is from a lower to a higher number"),
    ({"SPACE": {"DROPOUT": "loguniform(0, 1)"}, "TRIALS": 2}, "that of loguniform is above 0"),
    ({"TRIALS": 0}, "TRIALS (sweeping.SweepRun.trials) is 0: it must be from 1 to 10000"),
    ({"PROCESSES": 0}, "PROCESSES (sweeping.SweepRun.processes) is 0: it must be from 1 to 10000"),
    ({"FOLDS": 50}, "FOLDS = 50 cannot divide 20 training examples of 20 different texts: set FOLDS to 20 or less"),
    ({"TEXT_COLUMN": None}, "TEXT_COLUMN is not set"),
]


@pytest.mark.parametrize(("macros", "sentence"), REFUSED)
def test_what_cannot_be_tried_is_refused_before_anything_is_written(
    places: dict[str, Any], macros: dict[str, Any], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {**places, "SPACE": GRID, **macros}
    flags = [f"--gin_file={FILES[1]}", *(f"--gin.{name}={value!r}" for name, value in given.items())]
    assert main(["sweep", *flags]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert sentence in said
    assert not Path(places["MODEL_DIR"]).exists()


def seed(number: int, dev: float, failed: str | None = None, **splits: float) -> dict[str, Any]:
    """The entry of a seed whose checkpoint was chosen by a dev score; it reports other scores."""
    metrics = {"accuracy": next(iter(splits.values()), dev)}
    return {"seed": number, "metrics": metrics, "failed": failed, "chosen_by": {"dev": dev}}


def write_results(records: Records, trial: Trial, results: dict[str, Any]) -> None:
    directory = records.directory(trial)
    directory.mkdir(parents=True)
    shared = {"main_metric": "accuracy", "num_examples": {"dev": 4}, "split": "dev", "summary": {}, "other_splits": {}}
    (directory / "results.json").write_text(json.dumps(shared | results))
    records.add(trial, seconds=1.0, share=1.0)


def statistics(mean: float) -> dict[str, Any]:
    return {"accuracy": {"mean": mean}}


@pytest.fixture
def swept(places: dict[str, Any]) -> tuple[SweepRun, list[Trial], Records]:
    """Four trials with two seeds: three that are done, of which the second has the best mean, and one that failed."""
    run = configured(places, NUM_SEEDS=2)
    trials = make_trials(run)
    records = Records(Path(run.model_dir), trials, run.finetuning().seeds)
    for trial, scores in zip(trials, ((50.0, 60.0), (70.0, 64.0), (90.0, float("nan"))), strict=False):
        tested = statistics(99.0 if scores[0] == 50.0 else 41.0)
        seeds = [seed(number, score, "says no" if number else None) for number, score in enumerate(scores)]
        write_results(records, trial, {"seeds": seeds, "other_splits": {"test": tested}})
    return run, trials, records


def test_the_best_mean_on_dev_is_chosen(
    swept: tuple[SweepRun, list[Trial], Records], capsys: pytest.CaptureFixture[str]
) -> None:
    run, trials, records = swept
    log = f"{run.model_dir}/{trials[3].name}.log"
    sweep = sweep_of(run, trials, records, {trials[3].name: f"ended with exit code 1; all of them are in {log}"})
    first, best, _, failed = sweep["trials"]
    assert (best["score"], best["scores"], best["failed"]) == (67.0, {"0": 70.0, "1": 64.0}, ["1"])
    assert best["sd"] == pytest.approx(18**0.5)
    assert failed["error"] == f"ended with exit code 1; all of them are in MODEL_DIR/{trials[3].name}.log"
    # The best test score is another one's, and is told of none but the chosen trial.
    assert sweep["chosen"] == best | {"reported": {"test": statistics(41.0)}}
    assert "99.0" not in json.dumps(sweep)
    assert text_of(first) == "55.00 ± 7.07 (1 failed)"
    assert text_of(failed) == "failed"
    show(sweep)
    table, said = capsys.readouterr().out.rsplit("\n", 2)[0:2]
    assert said == "best: LEARNING_RATE = 0.0001, EPOCHS = 10; test accuracy 41.00"
    assert "classification: accuracy on dev, mean ± standard deviation over 2 seeds" in " ".join(table.split())
    # The best first; NaN and what failed last.
    assert [row for row in ("67.00", "55.00", "nan", "failed ") if row in table] == ["67.00", "55.00", "nan", "failed "]
    assert table.index("67.00") < table.index("55.00") < table.index("nan") < table.rindex("failed ")


def test_a_cross_validation_counts_by_its_folds(places: dict[str, Any]) -> None:
    run = configured(places, FOLDS=2, SPACE={"EPOCHS": (3,)})
    (trial,) = trials = make_trials(run)
    assert (trial.folds, trial.data.keys()) == (2, {"weights", "vocabulary", "train", "dev"})
    records = Records(Path(run.model_dir), trials, range(1))
    folds = [{**seed(0, score), "fold": number} for number, score in enumerate((40.0, 60.0))]
    write_results(records, trial, {"seeds": [seed(0, 50.0)], "folds": folds})
    sweep = sweep_of(run, trials, records, {})
    assert (sweep["over"], sweep["trials"][0]["scores"]) == ("folds", {"0": 40.0, "1": 60.0})
    assert text_of(sweep["trials"][0]) == "50.00 ± 14.14"


def test_the_share_of_a_cross_validation_that_is_done(places: dict[str, Any]) -> None:
    run = configured(places, FOLDS=4, NUM_SEEDS=2)
    trial, *_ = trials = make_trials(run)
    records = Records(Path(run.model_dir), trials, range(2))
    for place in ("folds/0/seeds/0", "folds/0/seeds/1", "folds/1/seeds/0", "folds/1/seeds/7"):
        (records.directory(trial) / place).mkdir(parents=True)
        (records.directory(trial) / place / "result.json").write_text("{}")
    assert records.share(trial) == 3 / 8


def test_trials_of_other_settings_or_data_are_not_taken_over(
    swept: tuple[SweepRun, list[Trial], Records], places: dict[str, Any]
) -> None:
    run, trials, records = swept
    check_data(records, trials)
    # A larger grid keeps what is done.
    larger = configured(places, NUM_SEEDS=2, SPACE=GRID | {"EPOCHS": (2, 3, 10)})
    assert len(Records(Path(run.model_dir), make_trials(larger), range(2)).done) == 3
    other = make_trials(configured(places, NUM_SEEDS=2, BATCH_SIZE=7))
    with pytest.raises(UserError, match=r"made by other settings \(FinetuningRun.batch_size 32 there, 7 here\)"):
        Records(Path(run.model_dir), other, range(2))
    file = Path(places["TRAIN_FILE"])
    file.write_text(file.read_text().replace(",yes", ",no", 1))
    corrected = make_trials(configured(places, NUM_SEEDS=2))
    records = Records(Path(run.model_dir), corrected, range(2))
    with pytest.raises(UserError, match=r"made from other data \(changed since: train\): use another MODEL_DIR"):
        check_data(records, corrected)
    trained_on = [dataclasses.replace(trial, data=dict(trial.data) | {"weights": "other"}) for trial in trials]
    with pytest.raises(UserError, match=r"made from other data \(changed since: weights\): use another MODEL_DIR"):
        check_data(records, trained_on)

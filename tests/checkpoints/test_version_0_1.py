"""Model directories of version 0.1.0: data/version_0_1_0.tar.xz holds a pre-training, a fine-tuning and their data."""

import json
import re
import tarfile
from pathlib import Path

import pytest

import electra_jax
from electra_jax.cli import main
from electra_jax.config import gin_files
from electra_jax.config.finetuning import FinetuningRun
from electra_jax.config.pretraining import PretrainingRun
from support.command_line import electra, reported_steps

ARCHIVE = Path(__file__).parent / "data" / "version_0_1_0.tar.xz"


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of both runs, whose configurations hold relative paths."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_fine_tuned_model_predicts_what_it_predicted(runs: Path) -> None:
    model = electra_jax.load(runs / "tuned")
    recorded = [json.loads(line) for line in (runs / "tuned/predictions.jsonl").read_text().splitlines()]
    assert len(recorded) == 8
    for now, then in zip(model([one["text_a"] for one in recorded]), recorded, strict=True):
        assert now["label"] == then["prediction"]["label"]
        assert now["probabilities"] == pytest.approx(then["prediction"]["probabilities"], rel=1e-4)


def test_recorded_configurations_build(runs: Path) -> None:
    pretraining = gin_files.build(PretrainingRun, ["pretrained/config.gin"], [], search_paths=[])
    assert (pretraining.encoder.hidden_size, pretraining.loop.num_train_steps, pretraining.packing) == (8, 8, False)
    finetuning = gin_files.build(FinetuningRun, ["tuned/config.gin"], [], search_paths=[])
    assert (finetuning.task.task, finetuning.task.train_file) == ("classification", "train.tsv")
    assert (finetuning.task.multi_label, finetuning.task.main_metric, finetuning.patience) == (False, None, None)
    assert (finetuning.pool_batches, finetuning.scan_unroll) == (64, 1)


def test_a_pre_training_is_resumed(runs: Path) -> None:
    done = electra(["pretrain", "--gin_file=pretrained/config.gin", "--gin.TRAIN_STEPS=12"], runs / "cache")
    assert done.returncode == 0, done
    assert reported_steps(runs / "pretrained") == list(range(1, 13))


def test_a_fine_tuning_that_has_finished_is_shown_and_not_added_to(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its batches were ordered and weighed otherwise than those of another seed would be."""
    seed = runs / "tuned/seeds/0/result.json"
    first = seed.read_bytes()
    done = electra(["finetune", "--gin_file=tuned/config.gin"], runs / "cache")
    assert done.returncode == 0, done
    assert seed.read_bytes() == first
    results = json.loads((runs / "tuned/results.json").read_text())
    # Its score is that of the examples that chose the checkpoint, and the table says so.
    assert [seed.get("selection") for seed in results["seeds"]] == [None]
    assert results["selection"] is None
    assert "chosen on the examples that are scored, which is a little too high" in " ".join(done.stdout.split())
    # Also after the run was recorded anew.
    assert main(["finetune", "--gin_file=tuned/config.gin", "--gin.NUM_SEEDS=2"]) == 2
    said = capsys.readouterr().err
    assert "(an earlier version began it, which ordered and weighed the rows of batches in another way)" in said
    assert not (runs / "tuned/seeds/1").exists()


@pytest.mark.parametrize(
    ("removed", "sentence"),
    [
        ("run_config.PretrainingRun.packing = %PACKING\n", "PretrainingRun has no binding for 'packing'"),
        ("training.LoopConfig.steps_per_dispatch = %STEPS_PER_DISPATCH\n", "'steps_per_dispatch'"),
        ("encoder.EncoderConfig.attention = %ATTENTION\n", "EncoderConfig has no binding for 'attention'"),
        ("optimizer.OptimizerConfig.lr_decay_share = %LR_DECAY_SHARE\n", "'lr_decay_share'"),
    ],
)
def test_a_configuration_that_lacks_a_field_is_refused(
    runs: Path, capsys: pytest.CaptureFixture[str], removed: str, sentence: str
) -> None:
    """As one that was recorded before the field was there."""
    path = runs / "pretrained/config.gin"
    text = path.read_text()
    assert removed in text
    macro = removed.split("%")[1].strip()
    path.write_text(re.sub(rf"^{macro} = .*\n", "", text.replace(removed, ""), flags=re.MULTILINE))
    assert main(["inspect", f"--gin_file={path}"]) == 2
    assert sentence in capsys.readouterr().err

"""A run of detection with correction: resumed bit for bit, evaluated, and taken as any other discriminator."""

import json
from pathlib import Path

import numpy as np
import pytest

import electra_jax
from electra_jax.cli import main
from electra_jax.compare.records import parameters_sha256
from support.command_line import small_run


@pytest.mark.usefixtures("compilations")
def test_a_run_is_resumed_evaluated_and_used(place: Path, tmp_path: Path) -> None:
    def train(name: str, *, until: int) -> Path:
        changes = {"TRAIN_STEPS": 6, "SAVE_EVERY": 3, "EVALUATE_EVERY": 6, "training.LoopConfig.num_train_steps": until}
        command = small_run(place, tmp_path / name, **changes)
        assert main([*command, "--gin_file=gin/objectives/correction.gin"]) == 0
        return tmp_path / name

    whole = train("whole", until=6)
    train("parts", until=3)
    assert parameters_sha256(train("parts", until=6)) == parameters_sha256(whole)
    assert main(["evaluate", f"--gin.MODEL_DIR={str(whole)!r}"]) == 0
    found = json.loads((whole / "evaluation.json").read_text())["metrics"]
    assert 0 <= found["correction_accuracy"] <= 1
    assert found["loss"] == pytest.approx(
        found["generator_loss"] + 50 * found["discriminator_loss"] + 20 * found["correction_loss"], rel=1e-5
    )
    reported = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert {"correction_loss", "correction_accuracy"} <= reported[0].keys()
    assert "correction accuracy" in (whole / "report.html").read_text()
    # Without the head of the choice it is a pair like any other.
    model = electra_jax.load(whole)
    assert (model.description.kind, set(model.params["discriminator"])) == ("pretraining", {"encoder", "head"})
    assert np.isfinite(model.logits([[2, 7, 9, 3]])).all()
    assert model.generator_logits([[2, 4, 9, 3]]).shape[-1] == model.description.generator.vocab_size

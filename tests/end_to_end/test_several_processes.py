"""`electra pretrain`, `evaluate` and `finetune` as two processes: what one process gives, written once."""

import json
import random
import signal
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from electra_jax.cli import main
from support.command_line import (
    STEPS,
    WORDS,
    checkpoint_steps,
    electra,
    finish,
    reported_steps,
    signal_when,
    small_run,
    start_group,
)

LOSSES = ("loss", "generator_loss", "discriminator_loss", "grad_norm")


def _lines(model_dir: Path) -> list[dict[str, Any]]:
    return list(map(json.loads, (model_dir / "metrics.jsonl").read_text().splitlines()))


def _assert_same_losses(model_dir: Path, other: Path, names: tuple[str, ...]) -> None:
    ours, theirs = _lines(model_dir), _lines(other)
    assert [(line["step"], line["split"]) for line in ours] == [(line["step"], line["split"]) for line in theirs]
    for name in names:
        values, expected = ([line[name] for line in lines if name in line] for lines in (ours, theirs))
        assert expected
        np.testing.assert_allclose(values, expected, rtol=2e-4, err_msg=name)


def test_pretraining_by_two_stopped_and_ended_by_one(place: Path, whole: Path) -> None:
    model_dir, cache = place / "two", place / "cache"
    command = small_run(place, model_dir, **STEPS)
    processes = start_group(command, cache, count=2)
    signal_when(processes[1], signal.SIGTERM, lambda: len(reported_steps(model_dir)) >= 5)
    first, second = map(finish, processes)
    assert (first.returncode, second.returncode) == (75, 75), (first, second)
    assert f"stopped by SIGTERM at step {checkpoint_steps(model_dir)[-1]}, saved" in first.stdout
    # One process speaks.
    assert "step 1/" in first.stdout
    assert "step" not in second.stdout
    reached = checkpoint_steps(model_dir)[-1]
    done = electra(command, cache)
    assert done.returncode == 0, done
    assert f"resuming from step {reached}" in done.stdout
    assert json.loads((model_dir / "run.json").read_text())["machine"]["processes"] == 1
    _assert_same_losses(model_dir, whole, LOSSES)


def test_evaluation_by_two(place: Path, whole: Path) -> None:
    processes = start_group(
        ["evaluate", f"--gin.MODEL_DIR={str(whole)!r}", "--gin.EVALUATION_EXAMPLES=16"], place / "cache", count=2
    )
    first, second = map(finish, processes)
    assert (first.returncode, second.returncode) == (0, 0), (first, second)
    assert "evaluation:" in first.stdout
    assert "evaluation:" not in second.stdout
    found = json.loads((whole / "evaluation.json").read_text())
    # All of them, of which training looked at the first eight.
    assert found["num_examples"] > 8
    last = _lines(whole)[-1]
    assert found["metrics"]["loss"] == pytest.approx(last["loss"], rel=0.1)
    assert len(found["passages"]) == 12
    assert (whole / "report.html").exists()


def test_finetuning_by_two(place: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(0)
    (tmp_path / "CoLA").mkdir()
    for split, count in (("train", 45), ("dev", 13)):
        rows = [(number % 2, " ".join(draw.choices(WORDS[number % 2 :: 2], k=5))) for number in range(count)]
        (tmp_path / f"CoLA/{split}.tsv").write_text("".join(f"src\t{label}\t\t{text}\n" for label, text in rows))

    def command(name: str) -> list[str]:
        settings = {
            "TASK": "cola",
            "DATA_DIR": str(tmp_path),
            "INIT_FROM": str(whole),
            "MODEL_DIR": str(tmp_path / name),
            "BUCKETS": (32,),
            "MAX_SEQ_LENGTH": 32,
            "BATCH_SIZE": 16,
            "EVALUATION_BATCH_SIZE": 8,
            "LEARNING_RATE": 1e-3,
            "EPOCHS": 4,
            "LOG_EVERY": 1,
        }
        return ["finetune", *(f"--gin.{macro}={value!r}" for macro, value in settings.items())]

    first, second = map(finish, start_group(command("two"), place / "cache", count=2))
    assert (first.returncode, second.returncode) == (0, 0), (first, second)
    assert "results:" in first.stdout
    assert "seed" not in second.stdout
    # One process, here, on eight devices.
    monkeypatch.setenv("ELECTRA_CACHE_DIR", str(place / "cache"))
    kept = jax.config.jax_compilation_cache_dir
    try:
        assert main(command("one")) == 0
    finally:
        jax.config.update("jax_compilation_cache_dir", kept)
    _assert_same_losses(tmp_path / "two/seeds/0", tmp_path / "one/seeds/0", ("loss", "grad_norm", "matthews"))
    results, expected = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("two", "one"))
    assert results["num_examples"] == expected["num_examples"] == {"train": 45, "dev": 13}
    assert results["seeds"][0]["metrics"] == pytest.approx(expected["seeds"][0]["metrics"], abs=1e-4)
    assert (tmp_path / "two/checkpoints").is_dir()

"""Prompts to a model that was not trained for one: its answers and scores, and models that have no head to ask."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import electra_jax
from electra_jax.checkpoints.model_record import check_finds_replaced
from electra_jax.cli import main
from electra_jax.errors import UserError
from support.finetuned_model import write_tuned

PROMPT = [
    "--gin.TASK='prompt'",
    "--gin.TEMPLATE='{text} in {label}.'",
    "--gin.LABEL_WORDS={'far': 'paris', 'near': 'cats'}",
]


@pytest.mark.parametrize("kind", ["discriminator", "pretraining"])
def test_answers_and_scores_without_training(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model_dir = write_tuned(tmp_path / "model", kind, labels=(), task=None)
    assert main(["predict", str(model_dir), "the dog ran", *PROMPT]) == 0
    found = json.loads(capsys.readouterr().out)
    # By hand: [CLS] the dog ran in WORD . [SEP], whose word is at place 5, and at 5 and 6 of two pieces.
    model = electra_jax.load(model_dir)
    scores = []
    for pieces in ([17], [6, 7]):
        logits = model.logits([[2, 5, 11, 12, 18, *pieces, 20, 3]])[0, 5 : 5 + len(pieces)]
        scores.append(-np.mean(np.log1p(np.exp(logits.astype(np.float64)))))
    shares = np.exp(scores) / np.exp(scores).sum()
    assert list(found["probabilities"].values()) == pytest.approx(shares, abs=1e-5)
    assert found["label"] == ("far", "near")[int(np.argmax(scores))]
    (tmp_path / "dev.csv").write_text("text,label\nthe dog ran,far\nthe dog ran,near\n")
    data = [f"--gin.DEV_FILE={str(tmp_path / 'dev.csv')!r}", "--gin.TEXT_COLUMN='text'", "--gin.LABEL_COLUMN='label'"]
    assert main(["evaluate", f"--gin.MODEL_DIR={str(model_dir)!r}", *PROMPT, *data]) == 0
    assert json.loads((model_dir / "prompt.json").read_text())["metrics"]["accuracy"] == 50.0
    assert not (model_dir / "evaluation.json").exists()
    # Without a prompt it answers as before.
    assert "replaced_probability" in electra_jax.load(model_dir)("the dog ran")[0]


def test_models_without_the_head(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model_dir = write_tuned(tmp_path / "model", "generator", labels=(), task=None)
    assert main(["predict", str(model_dir), "the dog ran", *PROMPT]) == 2
    said = "is a model of kind 'generator', without a head that detects replaced tokens, which prompts need"
    assert f"MODEL_DIR {said}" in capsys.readouterr().err
    places = [f"--gin.INIT_FROM={str(model_dir)!r}", f"--gin.MODEL_DIR={str(tmp_path / 'run')!r}"]
    assert main(["finetune", *places, *PROMPT]) == 2
    assert said in capsys.readouterr().err
    description = electra_jax.load(write_tuned(tmp_path / "other", "discriminator", labels=(), task=None)).description
    check_finds_replaced(description, "MODEL_DIR")
    with pytest.raises(UserError, match="of kind 'discriminator' trained by Electric, without a head"):
        check_finds_replaced(dataclasses.replace(description, facts={"objective": "Electric"}), "MODEL_DIR")


def test_an_empty_template_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model_dir = write_tuned(tmp_path / "model", "discriminator", labels=(), task=None)
    assert main(["predict", str(model_dir), "the dog ran", "--gin.TASK='prompt'"]) == 2
    assert "LABEL_WORDS is None: give each label of the data a word" in capsys.readouterr().err

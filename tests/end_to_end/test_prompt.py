"""A prompt to a pre-trained discriminator without training, and the same prompt fine-tuned on few examples."""

import json
from pathlib import Path

import pytest

import electra_jax
from electra_jax.cli import main
from support.command_line import WORDS
from support.tuned_runs import NOUNS, OTHERS, VERBS, best_of, electra, evaluated, sentence, tune

pytestmark = pytest.mark.usefixtures("compilations")

PROMPT = {
    "TEMPLATE": f"{WORDS[55]} {{label}} {{text}}",
    "LABEL_WORDS": {"noun": OTHERS[0], "verb": OTHERS[1]},
    "TEXT_COLUMN": "text",
    "LABEL_COLUMN": "label",
}


def test_prompts(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split, number in (("train", 128), ("dev", 24)):
        kinds = [(NOUNS, "noun"), (VERBS, "verb")] * (number // 2)
        rows = [f"{sentence(words, 6)},{label}" for words, label in kinds]
        (tmp_path / f"{split}.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    asked = {"TASK": "prompt", **PROMPT, "MAX_SEQ_LENGTH": 32}
    text = sentence(NOUNS, 6)
    electra("evaluate", MODEL_DIR=str(whole), DATA_DIR=str(tmp_path), OUTPUT=str(tmp_path / "zero.json"), **asked)
    zero = json.loads((tmp_path / "zero.json").read_text())
    assert zero["num_examples"] == 24
    capsys.readouterr()
    electra("predict", text, MODEL_DIR=str(whole), **asked)
    before = json.loads(capsys.readouterr().out)
    assert sum(before["probabilities"].values()) == pytest.approx(1.0)
    # A random word says nothing of the text, and 128 examples teach what it means.
    results = tune(whole, tmp_path, "prompt", **PROMPT, EPOCHS=40, EVALUATE_EVERY=160, LEARNING_RATE=1e-3)
    said = capsys.readouterr().out
    assert "the embeddings, the encoder and the head of replaced tokens" in said
    assert "new:  nothing" in said
    assert best_of(results)["accuracy"] > 90 > zero["metrics"]["accuracy"]
    assert (tmp_path / "run/report.html").exists()
    # The model knows its prompt.
    assert evaluated(tmp_path)["metrics"] == best_of(results)
    capsys.readouterr()
    electra("predict", text, MODEL_DIR=str(tmp_path / "run"))
    after = json.loads(capsys.readouterr().out)
    assert after["label"] == "noun"
    assert after["probabilities"]["noun"] > before["probabilities"]["noun"]
    assert electra_jax.load(tmp_path / "run")(text)[0]["probabilities"] == pytest.approx(
        after["probabilities"], abs=1e-5
    )
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "hf"), "--format", "transformers"]) == 0
    assert json.loads((tmp_path / "hf/config.json").read_text())["architectures"] == ["ElectraForPreTraining"]
    assert "transformers gives the logits of tokens alone" in capsys.readouterr().err

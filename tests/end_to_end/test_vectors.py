"""`electra finetune` of similarity and of retrieval, from a pre-training run, to `evaluate`, `embed` and exports."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import electra_jax
from support.command_line import WORDS
from support.tuned_runs import DRAW, NOUNS, VERBS, electra, sentence

pytestmark = pytest.mark.usefixtures("compilations")

SETTINGS = {
    "BUCKETS": (16, 32),
    "MAX_SEQ_LENGTH": 16,
    "BATCH_SIZE": 16,
    "EVALUATION_BATCH_SIZE": 16,
    "LEARNING_RATE": 3e-3,
    "DROPOUT": 0.0,
    "LAYERWISE_LR_DECAY": 1.0,
    "EVALUATE_EVERY": 20,
    "TEXT_COLUMN": "one",
    "TEXT_B_COLUMN": "other",
    "LABEL_COLUMN": "score",
}


def pair() -> tuple[str, str, int]:
    """Two texts, each of words of one of two kinds, and 3 if it is the same kind, else 0: no word says it by itself."""
    kinds = [DRAW.choice((NOUNS, VERBS)) for _ in range(2)]
    one, other = (sentence(words, 4) for words in kinds)
    return one, other, 3 * (kinds[0] == kinds[1])


def tune(whole: Path, folder: Path, task: str, **macros: Any) -> dict[str, Any]:
    for split, number in (("train", 64), ("dev", 24)):
        rows = [",".join(map(str, pair())) for _ in range(number)]
        (folder / f"{split}.csv").write_text("\n".join(["one,other,score", *rows]) + "\n")
    places = {"TASK": task, "INIT_FROM": str(whole), "DATA_DIR": str(folder), "MODEL_DIR": str(folder / "run")}
    electra("finetune", **(SETTINGS | places | macros))
    return json.loads((folder / "run/results.json").read_text())


def test_similarity(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tune(whole, tmp_path, "similarity", EPOCHS=20)
    said = capsys.readouterr().out
    vectors = results["vectors"]
    assert (
        f"vectors: the {vectors['pooling']} of layer {vectors['layer']} of 2, the best on dev before training" in said
    )
    scores = {(each["layer"], each["pooling"]): each["spearman"] for each in vectors["candidates"]}
    assert len(scores) == 4
    assert scores[vectors["layer"], vectors["pooling"]] == max(scores.values())
    best = results["seeds"][0]["metrics"]
    assert best["spearman"] > max(scores.values())
    # Resuming takes what was chosen, and the scores of the model are those of the run.
    tune_again = SETTINGS | {"TASK": "similarity", "INIT_FROM": str(whole), "DATA_DIR": str(tmp_path), "EPOCHS": 20}
    electra("finetune", MODEL_DIR=str(tmp_path / "run"), **tune_again)
    assert json.loads((tmp_path / "run/results.json").read_text())["vectors"] == vectors
    electra("evaluate", MODEL_DIR=str(tmp_path / "run"), OUTPUT=str(tmp_path / "scores.json"))
    assert json.loads((tmp_path / "scores.json").read_text())["metrics"] == pytest.approx(best, abs=1e-3)
    model = electra_jax.load(tmp_path / "run")
    assert model.description.encoder.num_hidden_layers == vectors["layer"]
    one, other, _ = pair()
    (found,) = model([(one, other)])
    first, second = model.encode([one, other])
    assert np.linalg.norm(first) == pytest.approx(1.0, abs=1e-5)
    assert found == pytest.approx({"similarity": first @ second, "value": 3 * (first @ second)}, abs=1e-5)
    capsys.readouterr()
    electra("embed", str(tmp_path / "run"), one)
    assert json.loads(capsys.readouterr().out)["vector"] == pytest.approx(first.tolist(), abs=1e-5)
    # Its layer, length and pooling go out and come back.
    electra("export", str(tmp_path / "run"), str(tmp_path / "out"), "--format", "transformers")
    electra("import", str(tmp_path / "out"), str(tmp_path / "again"))
    long_text = sentence(WORDS, 40)
    texts = [one, other, long_text]
    again = electra_jax.load(tmp_path / "again").encode(texts)
    np.testing.assert_allclose(again, model.encode(texts), rtol=0, atol=1e-5)


def test_retrieval(whole: Path, tmp_path: Path) -> None:
    results = tune(whole, tmp_path, "retrieval", EPOCHS=4, LAYER=1, POOLING="mean")
    assert results["vectors"] == {"layer": 1, "of_layers": 2, "pooling": "mean", "candidates": []}
    curve = [point["mrr"] for point in results["seeds"][0]["curve"]]
    best = results["seeds"][0]["metrics"]
    assert list(best) == ["mrr", "accuracy_at_1"]
    # Of the last checkpoint.
    assert best["mrr"] == curve[-1]
    electra("evaluate", MODEL_DIR=str(tmp_path / "run"), OUTPUT=str(tmp_path / "scores.json"))
    assert json.loads((tmp_path / "scores.json").read_text())["metrics"] == pytest.approx(best, abs=1e-3)
    electra("predict", MODEL_DIR=str(tmp_path / "run"), SPLIT="dev")
    lines = (tmp_path / "run/predictions/retrieval_dev.jsonl").read_text().splitlines()
    assert len(lines) == 24
    assert json.loads(lines[0]).keys() == {"index", "similarity"}

"""Directories of sentence-transformers, of old and new layouts, in and out: the same vectors, and no fact is lost."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import electra_jax
from electra_jax.cli import main
from electra_jax.inference.api import Model
from support.finetuned_model import write_tuned
from support.hf_models import refusal
from support.transformers_process import ask_transformers, transformers_python

TEXTS = ["the cat sat on the mat .", "paris", "dogs ran home", "cat " * 40]
FACTS = {
    "task": "similarity",
    "kind": "similarity",
    "target": [0.0, 5.0],
    "pair": True,
    "rules": "standard",
    "length": 12,
}


def exported(folder: Path, *more: str, kind: str = "pretraining") -> tuple[Model, Path]:
    """A model and its export."""
    fields = {"labels": (), "task": None} if kind == "pretraining" else {"labels": (), "task": FACTS}
    head = (
        {}
        if kind == "pretraining"
        else {"head_kind": "normalized_pooling", "num_labels": 16, "dropout_prob": 0.0, "classifier_pooling": "cls"}
    )
    write_tuned(folder / "model", kind, **fields, **head)
    arguments = ["export", str(folder / "model"), str(folder / "out"), "--format", "sentence-transformers", *more]
    assert main(arguments) == 0
    return electra_jax.load(folder / "model"), folder / "out"


def imported(source: Path, dest: Path) -> Model:
    assert main(["import", str(source), str(dest)]) == 0
    return electra_jax.load(dest)


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_a_layer_of_a_pretrained_model_goes_out(tmp_path: Path) -> None:
    model, out = exported(tmp_path, "--layer", "1", "--pooling", "cls")
    assert [entry["type"].rpartition(".")[2] for entry in read(out / "modules.json")] == ["Transformer", "Pooling"]
    assert read(out / "config.json")["num_hidden_layers"] == 1
    assert read(out / "config.json")["architectures"] == ["ElectraModel"]
    pooling = read(out / "1_Pooling/config.json")
    assert pooling["word_embedding_dimension"] == 16
    assert [field for field, value in pooling.items() if value is True] == ["pooling_mode_cls_token"]
    assert read(out / "sentence_bert_config.json")["max_seq_length"] == 32
    again = imported(out, tmp_path / "again").encode(TEXTS)
    np.testing.assert_allclose(again, model.encode(TEXTS, layer=1, pooling="cls"), rtol=0, atol=2e-6)


def test_a_tuned_model_goes_out_with_its_length_and_normalized(tmp_path: Path) -> None:
    model, out = exported(tmp_path, kind="sentence_embedding")
    assert [entry["path"] for entry in read(out / "modules.json")] == ["", "1_Pooling", "2_Normalize"]
    assert (out / "2_Normalize").is_dir()
    assert read(out / "sentence_bert_config.json")["max_seq_length"] == 12
    assert read(out / "tokenizer_config.json")["model_max_length"] == 12
    again = imported(out, tmp_path / "again")
    assert again.description.head == model.description.head
    np.testing.assert_allclose(again.encode(TEXTS), model.encode(TEXTS), rtol=0, atol=2e-6)
    # And once more out of an import.
    assert main(["export", str(tmp_path / "again"), str(tmp_path / "twice"), "--format", "transformers"]) == 0
    for name in ("modules.json", "1_Pooling/config.json", "sentence_bert_config.json", "config.json"):
        assert read(tmp_path / "twice" / name) == read(out / name)


NEW = "sentence_transformers.sentence_transformer.modules"


@pytest.mark.parametrize("layout", ["old", "new"])
def test_other_versions_layouts_are_read(layout: str, tmp_path: Path) -> None:
    model, out = exported(tmp_path, kind="sentence_embedding")
    modules = read(out / "modules.json")
    if layout == "old":
        (out / "0_Transformer").mkdir()
        for path in [*out.iterdir()]:
            if path.is_file() and path.name not in ("modules.json", "config_sentence_transformers.json"):
                shutil.move(path, out / "0_Transformer" / path.name)
        modules[0]["path"] = "0_Transformer"
    else:
        modules[0]["type"] = "sentence_transformers.base.modules.transformer.Transformer"
        modules[1]["type"] = f"{NEW}.pooling.Pooling"
        modules[2]["type"] = f"{NEW}.normalize.Normalize"
        pooling = {"embedding_dimension": 16, "pooling_mode": "cls", "include_prompt": True}
        (out / "1_Pooling/config.json").write_text(json.dumps(pooling))
        # It leaves the length to the tokenizer.
        (out / "sentence_bert_config.json").write_text(json.dumps({"transformer_task": "feature-extraction"}))
    (out / "modules.json").write_text(json.dumps(modules))
    again = imported(out, tmp_path / "again").encode(TEXTS)
    np.testing.assert_allclose(again, model.encode(TEXTS), rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "the pooling is max: only mean and cls are read"),
        (
            "1_Pooling/config.json",
            {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
            "the pooling is cls and mean",
        ),
        ("sentence_bert_config.json", {"max_seq_length": "long"}, "max_seq_length is 'long'"),
        (
            "modules.json",
            [{"type": "m.Transformer"}, {"type": "m.Pooling"}, {"type": "m.Dense"}],
            "Pooling, Dense: only",
        ),
        ("modules.json", [{"type": "m.Transformer", "path": "../.."}, {"type": "m.Pooling"}], "outside its directory"),
        ("modules.json", {"type": "m.Transformer"}, "must be a list"),
    ],
)
def test_what_is_no_mean_and_no_cls_is_refused(
    file: str, content: Any, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out = exported(tmp_path)
    (out / file).write_text(json.dumps(content))
    assert sentence in refusal(capsys, "import", out, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_prompts_are_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out = exported(tmp_path)
    (out / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {"query": "query: "}}))
    imported(out, tmp_path / "again")
    assert "{'query': 'query: '}: put them before your texts" in capsys.readouterr().err


def test_layer_and_pooling_are_of_that_format_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tuned(tmp_path / "model", "pretraining", labels=(), task=None)
    error = refusal(capsys, "export", tmp_path / "model", tmp_path / "out", "--format", "t5x", "--layer", "1")
    assert "--layer and --pooling are for --format sentence-transformers, and it is t5x" in error


def test_the_same_vectors_by_transformers(tmp_path: Path) -> None:
    """Pooled from the states of its AutoModel, as the modules say."""
    transformers_python()
    made = {kind: exported(tmp_path / kind, kind=kind) for kind in ("pretraining", "sentence_embedding")}
    found = ask_transformers([{"of": "vectors", "folder": str(out), "inputs": TEXTS} for _, out in made.values()])
    for (model, _), (vectors, states, arrays) in zip(made.values(), found, strict=True):
        np.testing.assert_allclose(model.encode(TEXTS), np.asarray(vectors), rtol=0, atol=1e-5)
        tokens = [np.asarray(arrays[name]) for name in ("input_ids", "attention_mask", "token_type_ids")]
        real = tokens[1] == 1
        np.testing.assert_allclose(
            model.hidden_states(*tokens)[:, real], np.asarray(states)[:, real], rtol=0, atol=1e-5
        )


def test_a_similarity_comes_back_in_its_own_units(tmp_path: Path) -> None:
    """The scores that training read go from 0 to 5, and so do those of an import, of either format."""
    model, _ = exported(tmp_path, kind="sentence_embedding")
    assert main(["export", str(tmp_path / "model"), str(tmp_path / "other"), "--format", "transformers"]) == 0
    pair = ("the cat sat", "dogs ran home")
    (before,) = model([pair])
    assert before["value"] == pytest.approx(5 * before["similarity"], abs=1e-6)
    for name in ("out", "other"):
        again = imported(tmp_path / name, tmp_path / f"{name}_again")
        assert again([pair])[0] == pytest.approx(before, abs=1e-5)
        assert again.description.task == model.description.task

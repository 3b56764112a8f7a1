"""`electra export --format onnx`: ONNX Runtime gives our logits, at any batch size and length."""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnx
import onnxruntime
import pytest

import electra_jax
from electra_jax import interchange
from electra_jax.checkpoints.model_dir import write_model
from electra_jax.checkpoints.model_record import Description, abstract_params
from electra_jax.cli import main
from electra_jax.inference.network import Network
from electra_jax.model.config import EncoderConfig
from electra_jax.tasks.vocabulary import Vocabulary
from support.finetuned_model import TAGGING, TAGS, TOKENS, write_tuned
from support.tiny_model import head_config, modern_encoder, random_batch, small_encoder

SHAPES = ((1, 8), (2, 16), (3, 32))


def exported(source: Path, *arguments: str) -> onnxruntime.InferenceSession:
    """The session of a model directory's export, beside it."""
    dest = source.with_name(f"{source.name}_onnx")
    assert main(["export", str(source), str(dest), "--format", "onnx", *arguments]) == 0
    onnx.checker.check_model(str(dest / "model.onnx"), full_check=True)
    return onnxruntime.InferenceSession(dest / "model.onnx", providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a session gives, by name."""
    fed = {one.name: batch[one.name].astype(np.int64) for one in session.get_inputs()}
    names = [one.name for one in session.get_outputs()]
    return dict(zip(names, session.run(names, fed), strict=True))


def expect_equal(model: Network, session: onnxruntime.InferenceSession) -> None:
    """Compare rows of different lengths, padded, in several shapes."""
    for rows, length in SHAPES:
        batch = dict(random_batch(rows, length, seed=rows))
        found, expected = run(session, batch), model.logits(**batch)
        named = expected if isinstance(expected, dict) else {"logits": expected}
        assert found.keys() == named.keys()
        for name, values in named.items():
            assert found[name].shape == values.shape
            assert found[name].dtype == values.dtype
            np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-4, err_msg=f"{name} {rows} {length}")


def write_encoder(directory: Path, encoder: EncoderConfig, kind: str, head: Any) -> Network:
    """A model directory of any encoder, with weights of chance."""
    labels = ("a", "b") if kind == "sequence_classification" else ()
    description = Description(kind, encoder, None, False, head, labels, {})
    draw = np.random.default_rng(5)
    params = jax.tree.map(
        lambda leaf: draw.normal(0.0, 0.3, leaf.shape).astype(np.float32), abstract_params(description)
    )
    directory.mkdir()
    write_model(directory, description, {"params": params}, step=1, vocabulary=Vocabulary(TOKENS, True, True))
    return electra_jax.load(directory)


def test_a_pair_gives_its_discriminator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tuned(tmp_path / "pair", "pretraining", labels=(), task=None)
    session = exported(tmp_path / "pair")
    expect_equal(electra_jax.load(tmp_path / "pair"), session)
    assert "the generator was left out" in capsys.readouterr().err
    assert [(one.name, one.type, one.shape) for one in session.get_inputs()] == [
        (name, "tensor(int64)", ["batch", "sequence"]) for name in ("input_ids", "attention_mask", "token_type_ids")
    ]
    (logits,) = session.get_outputs()
    assert (logits.type, logits.shape) == ("tensor(float)", ["batch", "sequence"])
    proto = onnx.load(tmp_path / "pair_onnx" / "model.onnx")
    assert [(one.domain, one.version) for one in proto.opset_import] == [("", 17)]
    assert json.loads((tmp_path / "pair_onnx" / "config.json").read_text())["architectures"] == [
        "ElectraForPreTraining"
    ]
    assert (tmp_path / "pair_onnx" / "tokenizer.json").is_file()


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        ("sequence_classification", "sequence_classification"),
        ("sequence_classification", "sequence_classification_reference"),
        ("multi_label_classification", "sequence_classification"),
    ],
)
def test_classification(tmp_path: Path, kind: str, head: str) -> None:
    labels = ("no", "ja\N{LATIN SMALL LETTER SHARP S}")
    write_tuned(tmp_path / "model", kind, labels=labels, task=None, head_kind=head)
    session = exported(tmp_path / "model")
    expect_equal(electra_jax.load(tmp_path / "model"), session)
    properties = session.get_modelmeta().custom_metadata_map
    assert (properties["kind"], json.loads(properties["labels"])) == (kind, list(labels))
    # transformers has no class for the original's head, and what reads config.json would take it for another.
    assert (tmp_path / "model_onnx" / "config.json").exists() == (head == "sequence_classification")


def test_a_regression_has_the_units_of_its_task(tmp_path: Path) -> None:
    task = {"task": "own", "kind": "regression", "target": [100.0, 300.0], "pair": False, "clips": False}
    task |= {"metrics": ["pearson"], "rules": "standard", "length": 32}
    write_tuned(tmp_path / "value", "regression", labels=(), task=task)
    model, session = electra_jax.load(tmp_path / "value"), exported(tmp_path / "value")
    ids = model.pieces.encode_batch(["the cat sat on the mat"])[0]
    row = np.array([[model.pieces.cls_id, *ids, model.pieces.sep_id]])
    found = run(session, {"input_ids": row, "attention_mask": np.ones_like(row), "token_type_ids": np.zeros_like(row)})
    expected = model("the cat sat on the mat")[0]["value"]
    # 1e-4 of the interval would be 0.02.
    np.testing.assert_allclose(found["logits"], [[expected]], rtol=0, atol=2e-3)


def test_tagging(tmp_path: Path) -> None:
    write_tuned(tmp_path / "tags", "token_classification", labels=TAGS, task=TAGGING)
    session = exported(tmp_path / "tags")
    expect_equal(electra_jax.load(tmp_path / "tags"), session)
    assert json.loads(session.get_modelmeta().custom_metadata_map["labels"]) == list(TAGS)


@pytest.mark.parametrize(
    ("head", "fields"),
    [
        ("question_answering", {"mask_questions": False, "answerable": "none"}),
        ("question_answering", {"answerable": "start"}),
        ("question_answering", {"answerable": "cls", "final_sep_answers": True}),
        ("joint_question_answering", {"answerable": "start", "beam_size": 6}),
        ("joint_question_answering", {"mask_questions": False, "answerable": "none", "beam_size": 4}),
    ],
)
def test_question_answering(tmp_path: Path, head: str, fields: dict[str, Any]) -> None:
    write_tuned(tmp_path / "qa", "question_answering", labels=(), task=None, head_kind=head, **fields)
    expect_equal(electra_jax.load(tmp_path / "qa"), exported(tmp_path / "qa"))


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        ("discriminator", None),
        ("sequence_classification", head_config("modernbert_sequence_classification", classifier_pooling="mean")),
        ("question_answering", head_config("modernbert_question_answering")),
    ],
)
def test_modernbert_with_windows(tmp_path: Path, kind: str, head: Any) -> None:
    # A window of 8 is cut into blocks at length 16, and reaches over the whole row at length 8.
    model = write_encoder(tmp_path / "modern", modern_encoder(), kind, head)
    session = exported(tmp_path / "modern")
    assert [one.name for one in session.get_inputs()] == ["input_ids", "attention_mask"]
    expect_equal(model, session)


def test_parts_of_both(tmp_path: Path) -> None:
    fields = {"type_vocab_size": 2, "qk_norm": True, "norm_bias": True, "attention_bias": True, "embedding_size": 8}
    model = write_encoder(tmp_path / "mixed", modern_encoder(**fields), "discriminator", None)
    expect_equal(model, exported(tmp_path / "mixed"))
    assert not (tmp_path / "mixed_onnx" / "config.json").exists()


@pytest.mark.parametrize("kind", ["generator", "encoder", "multiple_choice", "sentence_embedding"])
def test_a_kind_that_has_no_graph(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    if kind == "encoder":
        write_encoder(tmp_path / kind, small_encoder(), kind, None)
    elif kind == "sentence_embedding":
        write_tuned(tmp_path / kind, kind, labels=(), task=None, head_kind="normalized_pooling", num_labels=16)
    else:
        write_tuned(tmp_path / kind, kind, labels=(), task=None, head_kind="sequence_classification")
    assert main(["export", str(tmp_path / kind), str(tmp_path / "out"), "--format", "onnx"]) == 2
    error = capsys.readouterr().err
    assert f"a model of kind {kind!r} cannot be exported to ONNX: only a pre-trained discriminator" in error
    assert not (tmp_path / "out").exists()


def test_the_library_may_be_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tuned(tmp_path / "model", "discriminator", labels=(), task=None)
    for name in ("onnx_export", "onnx_graph", "onnx_heads"):
        monkeypatch.delitem(sys.modules, f"electra_jax.interchange.{name}", raising=False)
    monkeypatch.delattr(interchange, "onnx_export", raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main(["export", str(tmp_path / "model"), str(tmp_path / "out"), "--format", "onnx"]) == 2
    assert "--format onnx needs onnx, which is not installed: install electra-jax[onnx]" in capsys.readouterr().err


def test_a_row_that_is_too_long_fails(tmp_path: Path) -> None:
    write_tuned(tmp_path / "model", "discriminator", labels=(), task=None)
    session = exported(tmp_path / "model")
    with pytest.raises(Exception, match="Add"):
        run(session, dict(random_batch(1, 33)))

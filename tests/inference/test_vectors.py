"""`Model.encode`, `Model.hidden_states` and `electra embed`: vectors of texts from any layer of any model."""

import functools
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import electra_jax
from electra_jax.cli import main
from electra_jax.errors import UserError
from electra_jax.inference.api import Model
from support.finetuned_model import TAGGING, TAGS, text_facts, write_tuned

SUBSET = Path(__file__).parents[1] / "parity" / "data" / "hf" / "subset"
TEXTS = ["the cat sat on the mat .", "paris", "dogs ran home", "", "who did the dog ?"]
LABELS = ("bad", "good")
MODELS: dict[str, tuple[str, tuple[str, ...], dict[str, Any] | None]] = {
    "pretraining": ("pretraining", (), None),
    "generator": ("generator", (), None),
    "tuned": ("sequence_classification", LABELS, text_facts("own", LABELS, pair=False)),
    "tags": ("token_classification", TAGS, TAGGING),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vectors")
    for name, (kind, labels, task) in MODELS.items():
        write_tuned(path / name, kind, labels=labels, task=task)
    return path


@functools.cache
def load(path: Path) -> Model:
    return electra_jax.load(path)


def rows_of(model: Model, texts: list[str]) -> list[list[int]]:
    """The token ids of each text, unpadded."""
    cls, sep = model.pieces.cls_id, model.pieces.sep_id
    return [[cls, *ids, sep] for ids in model.pieces.encode_batch(texts)]


@pytest.mark.parametrize("name", MODELS)
def test_a_vector_is_the_mean_or_the_first_of_a_layers_states(folder: Path, name: str) -> None:
    """By hand from the states of each text alone, of kinds with any head."""
    model = load(folder / name)
    for layer, pooling, place in ((1, "mean", 1), (2, "mean", 2), (-2, "cls", 1), (None, None, 2)):
        found = model.encode(TEXTS, layer=layer, pooling=pooling)
        assert found.shape == (len(TEXTS), 16)
        assert found.dtype == np.float32
        for ids, vector in zip(rows_of(model, TEXTS), found, strict=True):
            states_LD = model.hidden_states([ids])[place, 0]
            expected = states_LD[0] if pooling == "cls" else states_LD.mean(0)
            np.testing.assert_allclose(vector, expected, rtol=0, atol=2e-6)


def test_neighbours_and_padding_change_no_vector(folder: Path) -> None:
    model = load(folder / "pretraining")
    together = model.encode(TEXTS, layer=1)
    for batch_size in (1, 2):
        np.testing.assert_allclose(model.encode(TEXTS, layer=1, batch_size=batch_size), together, rtol=0, atol=2e-6)
    np.testing.assert_allclose(model.encode(TEXTS[0], layer=1), together[:1], rtol=0, atol=2e-6)
    assert model.encode([]).shape == (0, 16)
    pair = model.encode([("the cat", "ran home")], layer=1)
    assert not np.allclose(pair, model.encode("the cat ran home", layer=1), atol=1e-3)


def test_texts_of_new_lengths_compile_nothing(folder: Path) -> None:
    model = electra_jax.load(folder / "pretraining")
    for words in range(1, 15):
        model.encode(["cat " * words, "the"], layer=1)
    encoder = model._encoders[1, None]
    (compiled,) = encoder._functions.values()
    # Rows of up to 16 tokens.
    assert compiled._cache_size() == 1


@pytest.mark.parametrize("name", ["pretraining", "maskedlm", "seqcls"])
def test_states_and_attentions_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    """Recorded from its ELECTRA, with padding."""
    recorded = np.load(SUBSET / name / "io.npz")
    assert main(["import", str(SUBSET / name), str(tmp_path / "model")]) == 0
    model = electra_jax.load(tmp_path / "model")
    inputs = [recorded[field] for field in ("input_ids", "attention_mask", "token_type_ids")]
    real = inputs[1] == 1
    states = model.hidden_states(*inputs)
    np.testing.assert_allclose(states[:, real], recorded["hidden_states"][:, real], rtol=0, atol=1e-5)
    attentions = model.attentions(*inputs)
    assert attentions.shape == (2, 3, model.description.encoder.num_attention_heads, 10, 10)
    # Each query's probabilities, of which none is a padding token's.
    np.testing.assert_allclose(attentions.sum(-1), 1.0, rtol=0, atol=1e-5)
    assert np.abs(np.where(real[None, :, None, None, :], 0.0, attentions)).max() < 1e-6


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"layer": 0}, "layer is 0: this model has layers 1 to 2, or from the last one -1 to -2"),
        ({"layer": 3}, "layer is 3"),
        ({"pooling": "max"}, "pooling is 'max': it must be one of 'mean', 'cls'"),
        ({"inputs": [3]}, "input 1 is 3"),
    ],
)
def test_what_cannot_be_encoded(folder: Path, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        load(folder / "tuned").encode(**({"inputs": ["a"]} | arguments))
    assert sentence in str(refused.value)


def embed(folder: Path, *arguments: str) -> None:
    assert main(["embed", str(folder / "tuned"), *arguments]) == 0


def test_the_command_gives_what_python_gives(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = load(folder / "tuned").encode(TEXTS, layer=1, pooling="cls")
    chosen = ["--layer", "1", "--pooling", "cls"]
    (tmp_path / "in.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    (tmp_path / "in.csv").write_text("id,text\n" + "".join(f"n{row},{text}\n" for row, text in enumerate(TEXTS)))
    embed(folder, str(tmp_path / "in.txt"), *chosen)
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["index"] for record in records] == list(range(len(TEXTS)))
    # What is printed is the same float32.
    np.testing.assert_array_equal(np.array([record["vector"] for record in records], np.float32), expected)
    embed(folder, str(tmp_path / "in.csv"), *chosen)
    named = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert named == [{"index": row, "id": f"n{row}", "vector": records[row]["vector"]} for row in range(len(TEXTS))]
    embed(folder, str(tmp_path / "in.txt"), *chosen, "--output", str(tmp_path / "out.npy"))
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"the cat sat on the mat .\n")))
    embed(folder, *chosen)
    embed(folder, TEXTS[0], *chosen)
    typed, given = (json.loads(line)["vector"] for line in capsys.readouterr().out.splitlines())
    assert typed == given
    np.testing.assert_allclose(given, expected[0], rtol=0, atol=2e-6)


def test_a_bad_line_is_an_error_or_a_row_of_nan(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    long_text = "cat " * 40
    lines = ['{"text": "the cat"}', "[2, 99, 3]", "{", "[2, 5, 6, 3]", json.dumps(long_text)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n")
    embed(folder, str(tmp_path / "in.jsonl"))
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert "input_ids goes from 2 to 99" in records[1]["error"]
    assert "line 3: not JSON" in records[2]["error"]
    # The same two words, as text and as their ids; the long text is cut, and counted once.
    np.testing.assert_allclose(records[0]["vector"], records[3]["vector"], rtol=0, atol=2e-6)
    assert "1 of 2 texts, 24 % of tokens, cut at 32" in caplog.text
    embed(folder, str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.npy"))
    array = np.load(tmp_path / "out.npy")
    assert np.isnan(array).all(1).tolist() == [False, True, True, False, False]
    kept = (tmp_path / "out.npy").read_bytes()
    capsys.readouterr()
    for arguments in (["the cat", "--output", str(tmp_path / "out.npy")], ["the cat", "--layer", "7"]):
        assert main(["embed", str(folder / "tuned"), *arguments]) == 2
    said = capsys.readouterr().err
    assert "out.npy exists: nothing was written" in said
    assert "layer is 7" in said
    assert (tmp_path / "out.npy").read_bytes() == kept

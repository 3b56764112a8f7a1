"""A ModernBERT that transformers wrote goes through all commands, and what comes out is what transformers computes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

import electra_jax
from electra_jax.cli import main
from electra_jax.inference import network
from electra_jax.inference.api import Model
from electra_jax.model.types import Tokens
from support.command_line import SMALL, STEPS
from support.tokenizers import NASTY, SIZE, TEXTS, write_tokenizer_json
from support.transformers_process import ask_transformers, transformers_python

LOGITS = 2e-5
FILES = ["--gin_file=gin/models/modern_tiny.gin", "--gin_file=gin/runs/pretrain.gin"]
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 64,
    "local_attention": 8,
}
# A row longer than the window, and one that is padded.
IDS = np.random.default_rng(3).integers(5, SIZE, (2, 40))
MASK = np.stack([np.ones(40, int), np.arange(40) < 23])


@pytest.fixture(autouse=True)
def compilations(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compiled programs are kept where the tests keep theirs, and only while a test lasts."""
    monkeypatch.setenv("ELECTRA_CACHE_DIR", str(place / "cache"))
    kept = jax.config.jax_compilation_cache_dir
    yield
    jax.config.update("jax_compilation_cache_dir", kept)


def electra(verb: str, *arguments: str, **macros: Any) -> None:
    assert main([verb, *arguments, *(f"--gin.{name}={value!r}" for name, value in macros.items())]) == 0


def of_tokens(folder: Path, asked: str) -> dict[str, Any]:
    """Return the request for what an Auto class computes, which must find every tensor and none in excess."""
    inputs = {"input_ids": IDS.tolist(), "attention_mask": MASK.tolist()}
    return {"of": "numbers", "folder": str(folder), "asked": asked, "inputs": inputs}


def assert_same(ours: np.ndarray, theirs: Any, real: np.ndarray = MASK == 1) -> None:
    assert np.abs(ours[real]).max() > 0.1
    np.testing.assert_allclose(ours[real], np.asarray(theirs)[real], rtol=0, atol=LOGITS)


def hidden_states(model: Model) -> np.ndarray:
    """Return the last hidden states of a pre-trained pair's discriminator."""
    config, tokens = model.description.encoder, Tokens(jnp.asarray(IDS), jnp.zeros_like(IDS), jnp.asarray(MASK))
    embedded = network.embed(config, model.params["embeddings"], tokens)
    return np.asarray(network.encode(config, model.params["discriminator"]["encoder"], embedded, tokens.attention_mask))


def linear(head: dict[str, np.ndarray], name: str, values_BLD: np.ndarray) -> np.ndarray:
    """Return what a layer of the replaced-token head gives, whose weight is stored as [out, in]."""
    weight, bias = (head[f"discriminator_predictions.{name}.{part}"] for part in ("weight", "bias"))
    return values_BLD @ weight.T + bias


def test_round_trip(tmp_path: Path) -> None:
    source = tmp_path / "source"
    transformers_python()
    source.mkdir()
    write_tokenizer_json(source, "modernbert")
    sizes = {"vocab_size": SIZE, "classifier_pooling": "mean", "pad_token_id": 1, "cls_token_id": 2, "sep_token_id": 3}
    wanted = {"of": "write_modernbert", "folder": str(source), "sizes": sizes | SIZES}
    _, written = ask_transformers([wanted, of_tokens(source, "fill-mask")])
    electra("import", str(source), str(tmp_path / "model"))
    imported = electra_jax.load(tmp_path / "model")
    assert_same(imported.logits(IDS, MASK), written)

    # A few steps of replaced-token detection, in which both towers start from the words that it knows.
    (tmp_path / "text.txt").write_text("\n\n".join(TEXTS * 4) + "\n", encoding="utf-8")
    places = {
        "CORPUS": str(tmp_path / "text.txt"),
        "TOKENIZER": str(tmp_path / "model/tokenizer.json"),
        "INIT_FROM": str(tmp_path / "model"),
        "MODEL_DIR": str(tmp_path / "run"),
        "CACHE_DIR": str(tmp_path / "caches"),
    }
    sizes = {f"encoder.EncoderConfig.{name}": value for name, value in (SIZES | {"embedding_size": 16}).items()}
    settings = SMALL | STEPS | sizes | {"VOCAB_SIZE": SIZE, "TRAIN_STEPS": 4, "LEARNING_RATE": 1e-3, "WARMUP_STEPS": 0}
    electra("pretrain", *FILES, **settings, **places, **{"run_config.PretrainingRun.generator_depth_fraction": 1.0})
    start = json.loads((tmp_path / "run/run.json").read_text())["starts"][0]
    assert "discriminator/encoder" in json.dumps(start)
    pair = electra_jax.load(tmp_path / "run")
    assert np.abs(pair.generator_logits(IDS, MASK) - imported.logits(IDS, MASK)).max() > 1e-2
    electra("export", str(tmp_path / "run"), str(tmp_path / "pair"), "--format", "transformers")
    electra("import", str(tmp_path / "pair"), str(tmp_path / "again"))
    assert jax.tree.all(jax.tree.map(np.array_equal, electra_jax.load(tmp_path / "again").params, pair.params))

    (tmp_path / "CoLA").mkdir()
    for split in ("train", "dev"):
        lines = [f"src\t{label}\t\t{('the cat sat', 'on the mat')[label]}" for label in [0, 1] * 8]
        (tmp_path / f"CoLA/{split}.tsv").write_text("\n".join(lines) + "\n")
    tuning = {"BATCH_SIZE": 8, "LEARNING_RATE": 3e-3, "EPOCHS": 1, "BUCKETS": (32,), "MAX_SEQ_LENGTH": 32}
    places = {"INIT_FROM": str(tmp_path / "run"), "DATA_DIR": str(tmp_path), "MODEL_DIR": str(tmp_path / "tuned")}
    electra("finetune", TASK="cola", **tuning, **places)
    electra("export", str(tmp_path / "tuned"), str(tmp_path / "classifier"), "--format", "transformers")
    tuned = electra_jax.load(tmp_path / "tuned")

    texts = [text for text in NASTY if text.strip()]
    states, words, classes, rows = ask_transformers(
        [
            of_tokens(tmp_path / "pair/discriminator", "states"),
            of_tokens(tmp_path / "pair/generator", "fill-mask"),
            of_tokens(tmp_path / "classifier", "text-classification"),
            {"of": "rows", "folder": str(tmp_path / "pair/discriminator"), "inputs": texts},
        ]
    )
    assert_same(hidden_states(pair), states)
    assert_same(pair.generator_logits(IDS, MASK), words)
    assert_same(tuned.logits(IDS, MASK), classes, np.ones(2, bool))
    # The head that transformers has no class for stands beside the encoder.
    head = load_file(tmp_path / "pair/discriminator/replaced_token_head.safetensors")
    dense_BLD = jax.nn.gelu(linear(head, "dense", np.asarray(states, np.float32)), approximate=False)
    assert_same(pair.logits(IDS, MASK), linear(head, "dense_prediction", np.asarray(dense_BLD))[..., 0])
    # Rows of AutoTokenizer's are what the model here reads.
    assert [record["input_ids"] for record in pair(texts)] == [ids for ids, _ in rows]

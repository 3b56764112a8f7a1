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


def write_modernbert(folder: Path) -> Path:
    """What transformers saves of a masked language model whose every weight shows, with a tokenizer.json."""
    import torch
    import transformers

    config = transformers.ModernBertConfig(
        vocab_size=SIZE, classifier_pooling="mean", pad_token_id=1, cls_token_id=2, sep_token_id=3, **SIZES
    )
    model = transformers.ModernBertForMaskedLM(config)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            weights.normal_(float("norm" in name), 0.2)
    model.save_pretrained(folder)
    write_tokenizer_json(folder, "modernbert")
    return folder


def theirs(folder: Path, auto: str) -> Any:
    """Return what an Auto class of transformers computes, which must find every tensor and none in excess."""
    import torch
    import transformers

    model, found = getattr(transformers, auto).from_pretrained(folder, output_loading_info=True)
    assert not any(found.values()), found
    with torch.no_grad():
        return model.eval()(torch.tensor(IDS), torch.tensor(MASK))


def assert_same(ours: np.ndarray, theirs: Any, real: np.ndarray = MASK == 1) -> None:
    assert np.abs(ours[real]).max() > 0.1
    np.testing.assert_allclose(ours[real], theirs.numpy()[real], rtol=0, atol=LOGITS)


def hidden_states(model: Model) -> np.ndarray:
    """Return the last hidden states of a pre-trained pair's discriminator."""
    config, tokens = model.description.encoder, Tokens(jnp.asarray(IDS), jnp.zeros_like(IDS), jnp.asarray(MASK))
    embedded = network.embed(config, model.params["embeddings"], tokens)
    return np.asarray(network.encode(config, model.params["discriminator"]["encoder"], embedded, tokens))


def test_round_trip(tmp_path: Path) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    source = write_modernbert(tmp_path / "source")
    electra("import", str(source), str(tmp_path / "model"))
    imported = electra_jax.load(tmp_path / "model")
    assert_same(imported.logits(IDS, MASK), theirs(source, "AutoModelForMaskedLM").logits)

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
    states = theirs(tmp_path / "pair/discriminator", "AutoModel").last_hidden_state
    assert_same(hidden_states(pair), states)
    assert_same(pair.generator_logits(IDS, MASK), theirs(tmp_path / "pair/generator", "AutoModelForMaskedLM").logits)
    # The head that transformers has no class for stands beside the encoder.
    head = load_file(tmp_path / "pair/discriminator/replaced_token_head.safetensors")
    dense, prediction = (
        {part: torch.tensor(head[f"discriminator_predictions.{name}.{part}"]) for part in ("weight", "bias")}
        for name in ("dense", "dense_prediction")
    )
    linear, gelu = torch.nn.functional.linear, torch.nn.functional.gelu
    assert_same(pair.logits(IDS, MASK), linear(gelu(linear(states, **dense)), **prediction)[..., 0])
    electra("import", str(tmp_path / "pair"), str(tmp_path / "again"))
    assert jax.tree.all(jax.tree.map(np.array_equal, electra_jax.load(tmp_path / "again").params, pair.params))

    # Rows of AutoTokenizer's are what AutoModel takes, and what the model here reads.
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "pair/discriminator")
    texts = [text for text in NASTY if text.strip() and len(tokenizer(text)["input_ids"]) <= 64]
    auto = transformers.AutoModel.from_pretrained(tmp_path / "pair/discriminator").eval()
    with torch.no_grad():
        rows = [auto(**tokenizer(text, return_tensors="pt")).last_hidden_state.shape[1] for text in texts]
    assert [len(record["input_ids"]) for record in pair(texts)] == rows

    (tmp_path / "CoLA").mkdir()
    for split in ("train", "dev"):
        lines = [f"src\t{label}\t\t{('the cat sat', 'on the mat')[label]}" for label in [0, 1] * 8]
        (tmp_path / f"CoLA/{split}.tsv").write_text("\n".join(lines) + "\n")
    tuning = {"BATCH_SIZE": 8, "LEARNING_RATE": 3e-3, "EPOCHS": 1, "BUCKETS": (32,), "MAX_SEQ_LENGTH": 32}
    places = {"INIT_FROM": str(tmp_path / "run"), "DATA_DIR": str(tmp_path), "MODEL_DIR": str(tmp_path / "tuned")}
    electra("finetune", TASK="cola", **tuning, **places)
    electra("export", str(tmp_path / "tuned"), str(tmp_path / "classifier"), "--format", "transformers")
    logits = electra_jax.load(tmp_path / "tuned").logits(IDS, MASK)
    assert_same(logits, theirs(tmp_path / "classifier", "AutoModelForSequenceClassification").logits, np.ones(2, bool))

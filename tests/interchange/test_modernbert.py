"""Directories of ModernBERT: what is read of config.json, what comes back, and what is refused."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import electra_jax
from electra_jax.checkpoints.model_dir import Loaded
from electra_jax.checkpoints.model_record import Description, abstract_params
from electra_jax.cli import main
from electra_jax.config import gin_files
from electra_jax.config.pretraining import PretrainingRun
from electra_jax.errors import UserError
from electra_jax.interchange import hf, hf_modernbert, modernbert_config, tf1
from electra_jax.model.config import FULL, SLIDING, EncoderConfig
from electra_jax.tasks.tokenizer_file import tokenizer_of
from support.hf_models import refusal
from support.tiny_model import head_config, modern_encoder, small_encoder
from support.tokenizers import SIZE, tokenizer_json

PATH = Path("config.json")
ENCODER = modern_encoder(num_hidden_layers=3, vocab_size=SIZE, global_rope_theta=160000.0, scan_unroll=1)
VOCABULARY = tokenizer_of(tokenizer_json("modernbert"), [])


def described(kind: str, encoder: EncoderConfig = ENCODER, head: str | None = None) -> Description:
    towers = {
        "discriminator": None if kind == "generator" else encoder,
        "generator": encoder if kind in ("generator", "pretraining") else None,
    }
    config = head_config(head, dropout_prob=0.0) if head else None
    labels = ("no", "yes") if kind in ("sequence_classification", "token_classification") else ()
    return Description(kind, **towers, generator_embeddings=False, head=config, labels=labels, facts={})


def loaded(description: Description) -> Loaded:
    """A model of chance with a byte-level tokenizer."""
    draw = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: draw.normal(size=leaf.shape).astype(np.float32), abstract_params(description))
    return Loaded(description, params, VOCABULARY, step=0)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A masked language model, to be damaged."""
    hf.write(loaded(described("generator")), tmp_path / "source")
    return tmp_path / "source"


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def encoder_of(config: dict[str, Any], depth: int = 3) -> EncoderConfig:
    return modernbert_config.encoder_config({"num_hidden_layers": depth, **config}, {}, PATH, prefix="")


def test_a_pair_comes_back_with_both_heads_and_its_tokenizer(tmp_path: Path) -> None:
    """The head that transformers has no class for stands in a file of its own."""
    model = loaded(described("pretraining"))
    notes = hf.write(model, tmp_path / "pair")
    assert any("it is in replaced_token_head.safetensors" in note for note in notes)
    folder = tmp_path / "pair/discriminator"
    assert not [name for name in load_file(folder / "model.safetensors") if name.startswith(("head", "discr"))]
    assert "replaced_token_head.safetensors" in (folder / "README.md").read_text()
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["ModernBertModel"]
    ids = {role: config[f"{role}_token_id"] for role in ("pad", "cls", "bos", "sep", "eos")}
    special = VOCABULARY.special_ids
    assert ids == {
        "pad": special["pad"],
        **dict.fromkeys(("cls", "bos"), special["cls"]),
        **dict.fromkeys(("sep", "eos"), special["sep"]),
    }
    # ModernBERT takes no token types, and a tokenizer that gave them would make its call fail.
    names = json.loads((folder / "tokenizer_config.json").read_text())["model_input_names"]
    assert names == ["input_ids", "attention_mask"]
    assert main(["import", str(tmp_path / "pair"), str(tmp_path / "model")]) == 0
    again = electra_jax.load(tmp_path / "model")
    assert again.description.kind == "pretraining"
    assert again.vocabulary == VOCABULARY
    assert jax.tree.all(jax.tree.map(np.array_equal, model.params, again.params))
    # The configuration that was written with it is of the same sizes.
    given = ['CORPUS="embedded"', 'MODEL_DIR="run"']
    run = gin_files.build(PretrainingRun, [str(tmp_path / "model/config.gin")], given, search_paths=[])
    assert dataclasses.replace(run.encoder, scan_unroll=1) == ENCODER
    assert dataclasses.replace(run.generator_encoder, scan_unroll=1) == ENCODER


@pytest.mark.parametrize(
    ("kind", "architecture"),
    [
        ("sequence_classification", "ModernBertForSequenceClassification"),
        ("token_classification", "ModernBertForTokenClassification"),
        ("question_answering", "ModernBertForQuestionAnswering"),
        ("multiple_choice", "ModernBertForMultipleChoice"),
    ],
)
def test_a_fine_tuned_model_comes_back(kind: str, architecture: str, tmp_path: Path) -> None:
    model = loaded(described(kind, head=modernbert_config.HEADS[kind]))
    hf.write(model, tmp_path / "out")
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["architectures"] == [architecture]
    if model.description.labels:
        assert config["id2label"] == {"0": "no", "1": "yes"}
    again = hf.read([tmp_path / "out"])
    assert dataclasses.replace(again.description, facts={}) == model.description
    assert jax.tree.all(jax.tree.map(np.array_equal, model.params, again.params))


def test_keys_of_both_versions_say_the_same() -> None:
    """Version 5 has lists and dicts, version 4 the distance of full layers and two numbers."""
    old = {"global_attn_every_n_layers": 2, "global_rope_theta": 5e4, "local_rope_theta": 2e4, "layer_norm_eps": 1.0}
    new = {
        "layer_types": [FULL, SLIDING, FULL, SLIDING, FULL],
        "rope_parameters": {
            FULL: {"rope_type": "default", "rope_theta": 5e4},
            SLIDING: {"rope_type": "default", "rope_theta": 2e4},
        },
    }
    found = encoder_of(old | {"position_embedding_type": "absolute"}, depth=5)
    assert found == encoder_of(new, depth=5)
    assert (found.layer_types, found.global_rope_theta, found.local_rope_theta) == ((FULL, SLIDING), 5e4, 2e4)
    written = modernbert_config.to_config(described("generator", found), {"pad": 0})
    assert {name: written[name] for name in (*new, *list(old)[:3])} == new | dict(list(old.items())[:3])
    # ModernBERT-base as transformers assumes it.
    assert encoder_of({}, depth=22).layer_types == (FULL, SLIDING, SLIDING)
    assert encoder_of({"global_rope_theta": 7.0, "local_rope_theta": None}).local_rope_theta == 7.0


def test_layers_in_an_order_of_their_own_are_left_to_version_5() -> None:
    mixed = modern_encoder(num_hidden_layers=3, layer_types=(SLIDING, FULL, FULL))
    assert "global_attn_every_n_layers" not in modernbert_config.to_config(described("encoder", mixed), {})
    assert "load the model with version 5" in hf_modernbert.export_notes(described("encoder", mixed))[0]
    assert encoder_of({"layer_types": [SLIDING, FULL, FULL]}).layer_types == (SLIDING, FULL, FULL)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"layer_types": [FULL, "chunked_attention", FULL]}, "layer_types = "),
        ({"layer_types": [FULL]}, "one for each of the 3 layers"),
        ({"global_attn_every_n_layers": 0}, "global_attn_every_n_layers = 0"),
        ({"rope_parameters": {"rope_theta": 1e4}}, "rope_parameters = "),
        ({"rope_parameters": {FULL: {"rope_type": "yarn"}}}, "the rope_type of full_attention is 'yarn'"),
        ({"rope_parameters": {SLIDING: {"rope_theta": "10k"}}}, "the rope_theta of sliding_attention is '10k'"),
        ({"mlp_bias": "no"}, "mlp_bias = 'no' should be true or false"),
        ({"hidden_size": "16"}, "hidden_size = '16' should be a number"),
        ({"hidden_size": 12, "num_attention_heads": 4}, "leaves each head 3"),
        ({"local_attention": 9000}, "local_attention is 9000"),
        ({"num_attention_heads": 5}, "not divisible by num_attention_heads 5"),
    ],
)
def test_values_that_are_none(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as refused:
        encoder_of(changes)
    assert said in str(refused.value)
    assert str(refused.value).startswith("config.json")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architectures": None}, "no architecture is named; of ModernBERT only ModernBertModel"),
        ({"hidden_activation": "silu"}, "hidden_activation = 'silu'"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling = "),
        ({"tie_word_embeddings": False}, "tie_word_embeddings = False"),
        ({"vocab_size": SIZE + 8}, f"but the embedding table has {SIZE} rows"),
    ],
)
def test_settings_of_another_architecture(
    changes: dict[str, Any], said: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(source / "config.json", **changes)
    assert said in refusal(capsys, "import", source, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_tensors_that_are_missing_misshapen_or_left_over(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = load_file(source / "model.safetensors")
    table = "model.embeddings.tok_embeddings.weight"
    save_file(stored | {"decoder.weight": stored[table] + 1}, source / "model.safetensors")
    assert f"decoder.weight differs from {table}" in refusal(capsys, "import", source, tmp_path / "model")
    del stored["model.final_norm.weight"]
    stored["model.layers.1.attn.Wqkv.weight"] = np.ones((47, 16), np.float32)
    stored["model.layers.1.attn.Wqkv.bias"] = np.ones(48, np.float32)
    save_file(stored, source / "model.safetensors")
    error = refusal(capsys, "import", source, tmp_path / "model")
    missing, _, left = error.partition("left over: ")
    assert "model.final_norm.weight" in missing
    assert "model.layers.1.attn.Wqkv.weight/key" in missing
    assert left.split(", ")[-1].strip() == "model.layers.1.attn.Wqkv.weight"


def test_a_tokenizer_of_another_size(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = json.loads((source / "tokenizer.json").read_text())
    values["added_tokens"].append(values["added_tokens"][-1] | {"id": SIZE, "content": "[ONE MORE]"})
    (source / "tokenizer.json").write_text(json.dumps(values))
    error = refusal(capsys, "import", source, tmp_path / "model")
    assert f"has {SIZE + 1} entries, but the embedding table has {SIZE} rows" in error


def test_rates_of_dropout_and_a_decoder_without_a_bias(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(source / "config.json", decoder_bias=False, embedding_dropout=0.1, mlp_dropout=0.2, attention_dropout=0.3)
    stored = load_file(source / "model.safetensors")
    del stored["decoder.bias"]
    save_file(stored, source / "model.safetensors")
    assert main(["import", str(source), str(tmp_path / "model")]) == 0
    said = capsys.readouterr().err
    assert "embedding_dropout 0.1 and mlp_dropout 0.2" in said
    assert "decoder_bias false" in said
    model = electra_jax.load(tmp_path / "model")
    assert model.description.encoder.hidden_dropout_prob == 0.2
    assert model.description.encoder.attention_probs_dropout_prob == 0.3
    assert not model.params["generator"]["head"]["output_bias"].any()


@pytest.mark.parametrize(
    ("encoder", "named"),
    [
        (dataclasses.replace(small_encoder(), position_embedding_type="rotary"), "position_embedding_type = 'rotary'"),
        (dataclasses.replace(small_encoder(), norm_placement="pre"), "norm_placement = 'pre'"),
        (dataclasses.replace(small_encoder(), gated_mlp=True), "gated_mlp = True"),
        (dataclasses.replace(small_encoder(), qk_norm=True), "qk_norm = True"),
        (dataclasses.replace(small_encoder(), mlp_bias=False), "mlp_bias = False"),
        (dataclasses.replace(small_encoder(), layer_types=(FULL, SLIDING), local_attention=8), "layer_types = "),
        (dataclasses.replace(small_encoder(), type_vocab_size=0), "type_vocab_size = 0"),
        (modern_encoder(qk_norm=True), "qk_norm = True (ModernBERT has False)"),
        (modern_encoder(embedding_size=8), "embedding_size = 8 (ModernBERT has hidden_size, 16)"),
        (modern_encoder(type_vocab_size=2), "type_vocab_size = 2 (ModernBERT has 0)"),
    ],
)
def test_switches_that_no_format_has(encoder: EncoderConfig, named: str, tmp_path: Path) -> None:
    model = Loaded(described("encoder", encoder), {}, None, step=0)
    for write in (hf.write, lambda model, dest: tf1.write(model, dest, dest)):
        with pytest.raises(UserError) as refused:
            write(model, tmp_path / "out")
        (line,) = str(refused.value).splitlines()
        assert "has no place for EncoderConfig." in line
        if write is hf.write:
            assert line.startswith(f"transformers has no place for EncoderConfig.{named}")


def test_all_of_modernbert_is_too_much_for_the_original(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the original TensorFlow code has no place for .*gated_mlp = True"):
        tf1.write(Loaded(described("encoder"), {}, None, step=0), tmp_path, tmp_path)


def test_a_narrow_generator_is_left_out_and_said_so(tmp_path: Path) -> None:
    narrow = dataclasses.replace(ENCODER, hidden_size=8, embedding_size=16)
    description = dataclasses.replace(described("pretraining"), generator=narrow)
    notes = hf.write(loaded(description), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["discriminator"]
    assert any(note.startswith("the generator was left out: transformers has no place for") for note in notes)


@pytest.mark.parametrize("head", ["sequence_classification_reference", "question_answering"])
def test_heads_that_modernbert_has_not(head: str, tmp_path: Path) -> None:
    kind = "question_answering" if head == "question_answering" else "sequence_classification"
    with pytest.raises(UserError, match=f"no class for the head {head} on ModernBERT: .*_HEAD = .transformers."):
        hf.write(loaded(described(kind, head=head)), tmp_path / "out")

"""Classes of transformers that are not read by name give their encoder, with a note that says so."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import electra_jax
from electra_jax.cli import main
from electra_jax.inference.api import Model
from support.finetuned_model import write_tuned
from support.hf_models import SUBSET, discriminator_in, refusal
from support.tiny_model import modern_encoder

IDS = np.arange(1, 9)[None]


def edit(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def rename(folder: Path, old: str, new: str) -> None:
    """Rename the tensors, and leave out those of the head."""
    tensors = load_file(folder / "model.safetensors")
    renamed = {new + name.removeprefix(old): value for name, value in tensors.items() if name.startswith(old)}
    save_file(renamed, folder / "model.safetensors")


def imported(source: Path, dest: Path) -> Model:
    assert main(["import", str(source), str(dest)]) == 0
    return electra_jax.load(dest)


@pytest.mark.parametrize(
    ("changes", "prefix", "said"),
    [
        (
            {"architectures": ["ElectraForCausalLM"], "is_decoder": True},
            "electra.",
            "ElectraForCausalLM is none of the classes that are read: its encoder was taken, without a head; it read "
            "from the left there, and reads from both sides here",
        ),
        ({"architectures": ["ElectraForSarcasm"], "problem_type": "sarcasm"}, "backbone.encoder.", "ElectraForSarcasm"),
        ({"architectures": ["KoreanDiscriminator"]}, "", "KoreanDiscriminator is none of the classes"),
    ],
)
def test_of_other_classes_the_encoder_is_taken(
    changes: dict[str, Any], prefix: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = discriminator_in(tmp_path)
    whole = imported(source, tmp_path / "whole")
    edit(source, **changes)
    rename(source, "electra.", prefix)
    model = imported(source, tmp_path / "model")
    assert said in capsys.readouterr().err
    assert model.description.kind == "encoder"
    np.testing.assert_array_equal(model.logits(IDS), whole.hidden_states(IDS)[-1])


def test_of_modernbert_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tuned(tmp_path / "model", "encoder", labels=(), task=None, encoder=modern_encoder())
    assert main(["export", str(tmp_path / "model"), str(tmp_path / "out"), "--format", "transformers"]) == 0
    edit(tmp_path / "out", architectures=["ModernBertForSarcasm"])
    rename(tmp_path / "out", "", "wrapped.model.")
    again = imported(tmp_path / "out", tmp_path / "again")
    assert "ModernBertForSarcasm is none of the classes" in capsys.readouterr().err
    np.testing.assert_array_equal(again.logits(IDS), electra_jax.load(tmp_path / "model").logits(IDS))


def test_two_encoders_in_one_file_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = discriminator_in(tmp_path)
    tensors = load_file(source / "model.safetensors")
    tensors["second.embeddings.word_embeddings.weight"] = np.zeros((4, 4), np.float32)
    save_file(tensors, source / "model.safetensors")
    error = refusal(capsys, "import", source, tmp_path / "model")
    assert "model.safetensors holds several encoders, electra., second.: save the one that you want" in error


def test_a_table_of_outputs_is_of_generators_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Some discriminators say that their tables are not tied; nothing of them is to be tied."""
    source = discriminator_in(tmp_path)
    whole = imported(source, tmp_path / "whole")
    edit(source, tie_word_embeddings=False)
    model = imported(source, tmp_path / "model")
    assert jax.tree.all(jax.tree.map(np.array_equal, model.params, whole.params))
    generator = tmp_path / "generator"
    generator.mkdir()
    for name in ("config.json", "model.safetensors"):
        (generator / name).write_bytes((SUBSET / "maskedlm" / name).read_bytes())
    edit(generator, tie_word_embeddings=False)
    assert "tie_word_embeddings = False" in refusal(capsys, "import", generator, tmp_path / "other")

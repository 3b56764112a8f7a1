"""Provide small models and directories of transformers, and run imports of damaged ones."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from electra_jax.checkpoints.model_dir import Loaded
from electra_jax.checkpoints.model_record import Description, abstract_params
from electra_jax.cli import main
from electra_jax.tasks.vocabulary import Vocabulary
from support.tiny_model import head_config, small_encoder

SUBSET = Path(__file__).parents[1] / "parity" / "data" / "hf" / "subset"


def discriminator_in(folder: Path) -> Path:
    """Return a copy of a small discriminator, to be damaged."""
    return Path(shutil.copytree(SUBSET / "pretraining", folder / "source"))


def refusal(capsys: pytest.CaptureFixture[str], *command: object) -> str:
    """Return the standard error of a command, which must fail without a traceback."""
    capsys.readouterr()
    assert main([str(part) for part in command]) == 2
    error = capsys.readouterr().err
    assert error.startswith("electra: ")
    assert "Traceback" not in error
    return error


def model_with(vocabulary: Vocabulary, *, head: bool = False) -> Loaded:
    """A model of chance for a vocabulary."""
    description = Description(
        kind="sequence_classification" if head else "discriminator",
        discriminator=dataclasses.replace(small_encoder(), vocab_size=vocabulary.vocab_size),
        generator=None,
        generator_embeddings=False,
        head=head_config() if head else None,
        labels=("no", "yes") if head else (),
        facts={},
    )
    draw = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: draw.normal(size=leaf.shape).astype(np.float32), abstract_params(description))
    return Loaded(description, params, vocabulary, step=0)


def write_vocabulary(folder: Path, size: int, **casing: Any) -> None:
    """Write a vocabulary of letters, and its casing."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words += [*"abcdefghijklmnopqrstuvwxyz", *(f"##{letter}" for letter in "abcdefghijklmnop")]
    (folder / "vocab.txt").write_text("\n".join(words[:size]) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True, **casing}))

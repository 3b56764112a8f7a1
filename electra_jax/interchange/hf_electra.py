"""Read and write ELECTRA models of `transformers`, and read the encoders of its BERT models."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from electra_jax.checkpoints.model_record import Description, abstract_params
from electra_jax.errors import UserError
from electra_jax.interchange import hf_classes, hf_config, hf_names, layout
from electra_jax.interchange.hf_config import Found
from electra_jax.interchange.tensors import WEIGHTS, Tensors
from electra_jax.model.types import PyTree


def read(config: Mapping[str, Any], raw: Tensors, source: Path, file: str) -> Found:
    """Return the model that the files of a directory describe.

    Args:
        config: the content of config.json.
        raw: the tensors as they are stored.
        source: the directory.
        file: the name of the file that holds the tensors.

    Raises:
        UserError: if the architecture is not supported, or the files do not describe one model.
    """
    path = source / hf_config.CONFIG
    tensors = modernised(raw)
    kind = hf_classes.kind_of(config, tensors, path)
    words = "embeddings.word_embeddings.weight"
    prefix = hf_classes.prefix_of(tensors, words, ("electra.", "bert."), source / file)
    encoder = hf_config.encoder_config(config, tensors, path, prefix=prefix)
    head = hf_config.head_config(kind, config, tensors, path)
    description = hf_config.described(kind, encoder, head, config, source)
    template = abstract_params(description)
    untie(tensors, "generator_lm_head.weight", f"{prefix}{words}", source / file)
    notes = hf_classes.class_notes(config, hf_classes.KINDS, path)
    if config.get("num_attention_heads") is None:
        notes.append(
            f"{path} does not say num_attention_heads: {encoder.num_attention_heads}, as transformers takes it"
        )
    return Found(description, template, tensors, hf_names.layout(description, template, prefix=prefix), notes)


def modernised(raw: Tensors) -> Tensors:
    """Rename the tensors of old files: LayerNorm's gamma and beta become weight and bias, position_ids are dropped."""
    renamed = {}
    for name, tensor in raw.items():
        if name.endswith("embeddings.position_ids"):
            continue
        renamed[name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")] = (
            tensor
        )
    return renamed


def untie(tensors: Tensors, output: str, words: str, file: Path) -> None:
    """Remove the generator's output table from the tensors, because it must equal the embedding table.

    Args:
        tensors: the tensors of a file, which are changed in place.
        output, words: the names of the two tables.
        file: their file, for the message.

    Raises:
        UserError: if the tables differ.
    """
    tied = tensors.pop(output, None)
    if tied is not None and (words not in tensors or not np.array_equal(tied, tensors[words])):
        raise UserError(f"{file}: {output} differs from {words}, but a generator's output table is its embedding table")


def files_of(description: Description, params: PyTree) -> dict[str, Tensors]:
    """Return the tensors of each file, by its name, for the parameters of one tower with or without a head."""
    prefix = "" if description.kind == "encoder" else "electra."
    names = hf_names.layout(description, abstract_params(description), prefix=prefix)
    return {WEIGHTS: layout.disassemble(params, names)}

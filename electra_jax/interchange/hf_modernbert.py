"""Read and write ModernBERT models of `transformers`.

`transformers` has no ModernBERT class with a head that detects replaced tokens. That head is in a separate file,
`HEAD`, next to the encoder; `transformers` does not read the file, and `electra import` does.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from electra_jax.checkpoints.model_record import Description, abstract_params
from electra_jax.interchange import hf_classes, hf_config, hf_names, layout, modernbert_config, modernbert_names
from electra_jax.interchange.hf_config import Found
from electra_jax.interchange.hf_electra import untie
from electra_jax.interchange.layout import Layout
from electra_jax.interchange.tensors import WEIGHTS, Tensors, read_file
from electra_jax.model.types import PyTree

HEAD = "replaced_token_head.safetensors"


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
    kind = modernbert_config.kind_of(config, raw, path)
    words = "embeddings.tok_embeddings.weight"
    prefix = hf_classes.prefix_of(raw, words, ("model.",), source / file)
    encoder = modernbert_config.encoder_config(config, raw, path, prefix=prefix)
    head = modernbert_config.head_config(kind, config, raw, path)
    tensors = modernbert_names.split_joint(raw)
    notes = hf_classes.class_notes(config, hf_classes.MODERNBERT_KINDS, path)
    notes += modernbert_config.import_notes(config, encoder, path)
    if kind == "encoder" and (source / HEAD).is_file():
        kind = "discriminator"
        tensors |= read_file(source / HEAD)
    if kind == "generator":
        untie(tensors, "decoder.weight", f"{prefix}{words}", source / file)
        if config.get("decoder_bias") is False:
            tensors["decoder.bias"] = np.zeros(encoder.vocab_size, np.float32)
            notes.append(f"{path} says decoder_bias false: a generator has one here, which is 0")
    description = hf_config.described(kind, encoder, head, config, source)
    template = abstract_params(description)
    encoder_names, head_names = names_of(description, template, prefix=prefix)
    return Found(description, template, tensors, encoder_names | head_names, notes)


def names_of(description: Description, template: PyTree, *, prefix: str) -> tuple[Layout, Layout]:
    """Return the locations of the tensors of `model.safetensors`, and of those of the replaced-token head.

    Args:
        description: the description of one tower, with or without a head.
        template: the shapes of its parameters.
        prefix: the prefix of the encoder's tensors.
    """
    if description.kind != "discriminator":
        tower = "generator" if description.kind == "generator" else "discriminator"
        return modernbert_names.layout(template, tower=tower, prefix=prefix), {}
    tower = template["discriminator"]
    encoder = template | {"discriminator": {"encoder": tower["encoder"]}}
    head = {"discriminator": {"head": tower["head"]}}
    return (
        modernbert_names.layout(encoder, tower="discriminator", prefix=prefix),
        hf_names.layout(description, head, prefix=""),
    )


def files_of(description: Description, params: PyTree) -> dict[str, Tensors]:
    """Return the tensors of each file, by its name, for the parameters of one tower with or without a head."""
    prefix = "" if description.kind in ("encoder", "discriminator") else "model."
    encoder, head = names_of(description, abstract_params(description), prefix=prefix)
    files = {WEIGHTS: modernbert_names.join_joint(layout.disassemble(params, encoder))}
    return files | ({HEAD: layout.disassemble(params, head)} if head else {})


def export_notes(description: Description) -> list[str]:
    """Return notes on the parts of a model that `transformers` cannot hold."""
    notes = modernbert_config.export_notes(description.encoder)
    if description.kind == "discriminator":
        notes.append(
            f"transformers has no class for the head that finds replaced tokens on ModernBERT: it is in {HEAD}, which "
            "transformers does not read and `electra import` does"
        )
    return notes

"""Write a model for ONNX Runtime: `model.onnx`, and the tokenizer files of `transformers`."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import onnx

from electra_jax.checkpoints.model_dir import Loaded
from electra_jax.errors import UserError
from electra_jax.interchange import blocks, finetuned_task, hf_config, hf_tokenizer, modernbert_config
from electra_jax.interchange.hf import BLOCKS
from electra_jax.interchange.onnx_graph import Graph, embedded, encoded
from electra_jax.interchange.onnx_heads import HEADS, replaced_token

FILE = "model.onnx"

# A protocol buffers file holds at most 2 GB.
MOST_BYTES = 2**31 - 2**24

KINDS = (
    *("pretraining", "discriminator", "sequence_classification", "multi_label_classification", "regression"),
    *("token_classification", "question_answering"),
)


def write(model: Loaded, dest: Path) -> list[str]:
    """Write a model into an empty folder.

    Args:
        model: a discriminator, or the pair that it belongs to, or a model fine-tuned for classification, regression,
            tagging or question answering.
        dest: the folder.

    Returns:
        Notes for the user.

    Raises:
        UserError: if the model is of another kind.
    """
    description, notes = model.description, []
    if description.kind not in KINDS or (description.head is not None and description.head.kind not in HEADS):
        raise UserError(
            f"a model of kind {description.kind!r} cannot be exported to ONNX: only a pre-trained discriminator, and "
            "fine-tuned classification, regression, tagging and question answering can"
        )
    if description.kind == "pretraining":
        notes.append("the generator was left out: the graph is the discriminator's")
        description = dataclasses.replace(description, kind="discriminator", generator=None, generator_embeddings=False)
        model = model._replace(description=description)
    elif description.kind != "question_answering":
        # The graph has a place for every part of a question answering model, so nothing is folded.
        model = finetuned_task.folded(model)
    large = sum(leaf.nbytes for leaf in jax.tree.leaves(model.params)) > MOST_BYTES
    onnx.save_model(graph_of(model), dest / FILE, save_as_external_data=large, location=f"{FILE}.data")
    return notes + write_reader_files(model, dest)


def graph_of(model: Loaded) -> onnx.ModelProto:
    """Return the graph of a discriminator, with its own head or a fine-tuning head.

    The graph reads int64 `input_ids`, `attention_mask` and, if the model has token types, `token_type_ids`, all
    [batch, sequence]. Its outputs have the names that `Network.logits` returns: float32 `logits`, or for question
    answering those of its head. Its properties are the model's `kind` and its `labels`, as JSON.
    """
    description = model.description
    config, params = description.encoder, jax.tree.map(np.asarray, model.params)
    graph = Graph()
    inputs = {name: graph.input(name) for name in ("input_ids", "attention_mask")}
    if config.type_vocab_size:
        inputs["token_type_ids"] = graph.input("token_type_ids")
    ids, types = inputs["input_ids"], inputs.get("token_type_ids")
    values = embedded(graph, params["embeddings"], ids, types, config.layer_norm_eps)
    tower = params["discriminator"]
    hidden = encoded(graph, config, tower["encoder"], values, inputs["attention_mask"])
    if description.head is None:
        replaced_token(graph, tower["head"], hidden)
    else:
        HEADS[description.head.kind](graph, description.head, config, params["head"], hidden, inputs)
    return graph.model(
        description.kind, {"kind": description.kind, "labels": json.dumps(description.labels, ensure_ascii=False)}
    )


def write_reader_files(model: Loaded, dest: Path) -> list[str]:
    """Write the tokenizer, and the config.json that tells Optimum and transformers.js the outputs; return notes."""
    description, special_ids, notes = model.description, {"pad": 0}, []
    if model.vocabulary is None:
        notes.append("the model has no vocabulary: no tokenizer files were written")
    else:
        special_ids = model.vocabulary.special_ids
        notes += hf_tokenizer.write_tokenizer(
            dest,
            model.vocabulary,
            max_length=finetuned_task.row_length(description),
            types=description.head is not None and description.encoder.type_vocab_size > 1,
            has_types=description.encoder.type_vocab_size > 0,
        )
    problem = None
    try:
        modern = blocks.blocks_of(description, known=BLOCKS, reader="transformers") == blocks.MODERNBERT
        problem = None if description.head is None else finetuned_task.head_problem(description.head, modern=modern)
    except UserError as error:
        problem = str(error)
    if problem is None:
        config = (modernbert_config if modern else hf_config).to_config(description, special_ids)
        hf_tokenizer.write_json(dest / hf_config.CONFIG, config)
    else:
        notes.append(f"no config.json was written: {problem}")
    return notes

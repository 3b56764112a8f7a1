"""Read and write checkpoints of the original TensorFlow 1 code of ELECTRA and BERT."""

import glob
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from electra_jax.checkpoints import orbax_store
from electra_jax.checkpoints.model_dir import Loaded
from electra_jax.checkpoints.model_record import Description, abstract_params
from electra_jax.errors import UserError
from electra_jax.files import regular
from electra_jax.interchange import hf_tokenizer, layout
from electra_jax.interchange.blocks import BERT, blocks_of
from electra_jax.interchange.card import write_card
from electra_jax.interchange.imported import Imported, Moments, check_vocabulary
from electra_jax.interchange.layout import Layout, LeafLocation
from electra_jax.interchange.tf1_config import Variables, describe, main_scope, task_of
from electra_jax.json_files import read_text
from electra_jax.model.heads import HeadConfig
from electra_jax.model.types import PyTree
from electra_jax.runtime import load_tensorflow_quietly
from electra_jax.tasks.tokenizer_file import write_tokenizer

SLOTS = ("adam_m", "adam_v")

# The names of parameters below `encoder/layers` here, and below each `encoder/layer_N` there.
LAYER_NAMES = {
    **{
        f"attention/{part}_{kind}": f"attention/self/{part}/{kind}"
        for part in ("query", "key", "value")
        for kind in ("kernel", "bias")
    },
    "attention/output_kernel": "attention/output/dense/kernel",
    "attention/output_bias": "attention/output/dense/bias",
    "attention_layer_norm": "attention/output/LayerNorm",
    "intermediate": "intermediate/dense",
    "output": "output/dense",
    "output_layer_norm": "output/LayerNorm",
}

# Layers of a head here, and their names below `task_specific/<task>` there, by the kind of head; see `head_layout`.
HEAD_LAYERS = {
    "sequence_classification_reference": {"head/prediction": "dense"},
    "token_classification": {"head/prediction": "dense"},
    "question_answering": {},
    "joint_question_answering": {"head/start": "dense", "head/joint": "qa_hidden", "head/end": "dense_1"},
}
ANSWERABLE_LAYERS = {
    "none": {},
    "cls": {"head/answerable/prediction": "dense_2"},
    "start": {"head/answerable/hidden": "dense_2", "head/answerable/prediction": "dense_3"},
}


def checkpoint_prefix(source: Path) -> Path | None:
    """Return the prefix of the checkpoint that a path names: `model.ckpt-N` itself, one of its files, or its folder.

    Returns:
        The prefix; None if there is no checkpoint.

    Raises:
        UserError: if a folder holds several checkpoints and no file `checkpoint` that chooses one, or that file is not
            text.
    """
    if source.is_dir():
        chosen = source / "checkpoint"
        if chosen.is_file():
            text = read_text(chosen, remedy="remove it, or name a checkpoint of the folder")
            match = re.search(r'^model_checkpoint_path: "(.*)"', text, re.MULTILINE)
            if match and (source / f"{Path(match[1]).name}.index").is_file():
                return source / Path(match[1]).name
        found = sorted(source.glob("*.ckpt*.index"))
        if len(found) > 1:
            names = ", ".join(path.name.removesuffix(".index") for path in found)
            raise UserError(
                f"{source} holds several checkpoints ({names}): give one of them, as {source}/{names.split(', ')[0]}"
            )
        return found[0].with_suffix("") if found else None
    base = re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", source.name)
    return source.with_name(base) if source.with_name(f"{base}.index").is_file() else None


def read(source: Path) -> Imported:
    """Read a checkpoint, and the vocabulary and the configuration next to it.

    Raises:
        UserError: if a file cannot be read, or the variables do not describe one model.
    """
    prefix = checkpoint_prefix(source)
    if prefix is None:
        raise UserError(f"{source} is not a TensorFlow checkpoint: looked for model.ckpt-*.index")
    variables = read_variables(prefix)
    weights = {name: value for name, value in variables.items() if not is_slot(name)}
    weights.pop("global_step", None)
    description = describe(weights, prefix)
    template = abstract_params(description)
    names = variable_layout(description, template, scope=main_scope(weights), task=task_of(weights))
    left = layout.check(weights, names, str(prefix))
    params = layout.assemble(weights, names, template)
    moments = read_moments(variables, names, template)
    if description.kind != "pretraining":
        moments = None
    vocabulary = hf_tokenizer.read_vocabulary(prefix.parent)
    check_vocabulary(vocabulary, description.encoder.vocab_size, prefix.parent)
    notes = [f"left over in {prefix}: {layout.listed(left)}"] if left else []
    if vocabulary is None:
        notes.append(f"there is no vocab.txt next to {prefix}: only token ids can be read")
    step = int(variables["global_step"]) if moments is not None and "global_step" in variables else 0
    return Imported(description, params, moments, step, vocabulary, notes)


def read_variables(prefix: Path) -> Variables:
    """Read every variable of a checkpoint.

    Raises:
        UserError: if the checkpoint is cut off or damaged.
    """
    tensorflow = host_tensorflow()
    try:
        for path in prefix.parent.glob(f"{glob.escape(prefix.name)}.*"):
            regular(path)
        reader = tensorflow.train.load_checkpoint(str(prefix))
        return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    except (tensorflow.errors.OpError, ValueError, RuntimeError, OSError, IndexError) as error:
        raise UserError(f"the checkpoint {prefix} is cut off or damaged ({str(error).splitlines()[0]})") from error


def host_tensorflow() -> Any:
    """Import TensorFlow without its messages and keep it off accelerators."""
    load_tensorflow_quietly()
    from electra_jax.tasks.host_tensorflow import tf

    return tf


def is_slot(name: str) -> bool:
    """Return whether a variable is a moment of the optimizer."""
    return name.rpartition("/")[2] in (*SLOTS, "Adam", "Adam_1")


def variable_layout(description: Description, template: PyTree, *, scope: str, task: str | None) -> Layout:
    """Return the location of every variable of a model.

    Args:
        description: the kind and sizes of the model.
        template: the shapes of its parameters.
        scope: the scope of the main encoder, "electra" or "bert".
        task: the name of the fine-tuned task; None for a pre-trained model.

    Raises:
        UserError: if the original has no such head.
    """
    towers = {name: tree for name, tree in template.items() if name != "head"}
    names = locations_of(towers, parameter_names(scope))
    if description.head is not None:
        names |= head_layout(description.head, template, task=task)
    return names


def parameter_names(scope: str) -> dict[str, str]:
    """Return the original's prefix for each prefix of our paths, for all parameters outside the layers.

    Args:
        scope: the scope of the main encoder, "electra" or "bert".
    """
    return {
        "embeddings": f"{scope}/embeddings",
        "embeddings/layer_norm": f"{scope}/embeddings/LayerNorm",
        "discriminator/encoder": scope,
        "discriminator/head/dense": "discriminator_predictions/dense",
        "discriminator/head/prediction": "discriminator_predictions/dense_1",
        "generator/embeddings": "generator/embeddings",
        "generator/embeddings/layer_norm": "generator/embeddings/LayerNorm",
        "generator/encoder": "generator",
        "generator/head/dense": "generator_predictions/dense",
        "generator/head/layer_norm": "generator_predictions/LayerNorm",
        "generator/head/output_bias": "generator_predictions/output_bias",
    }


def head_layout(head: HeadConfig, template: PyTree, *, task: str | None) -> Layout:
    """Return the location of every variable of a fine-tuning head.

    Raises:
        UserError: if the original has no such head.
    """
    if head.kind not in HEAD_LAYERS:
        raise UserError(
            f"the original has no head {head.kind}: fine-tune with sequence_classification_reference for a model that "
            "it loads"
        )
    layers = HEAD_LAYERS[head.kind] | ANSWERABLE_LAYERS[head.answerable]
    prefixes = {path: f"task_specific/{task}/{name}" for path, name in layers.items()}
    # A span's start and end are one stacked parameter here and two layers there.
    spans = {name: leaf for name, leaf in template["head"].items() if name.startswith("span_")}
    others = {name: tree for name, tree in template["head"].items() if name not in spans}
    names = locations_of({"head": others}, prefixes)
    for name, leaf in spans.items():
        for row, layer in enumerate(("dense", "dense_1")):
            variable = f"task_specific/{task}/{layer}/{name.removeprefix('span_')}"
            names[variable] = LeafLocation(f"head/{name}", row, (*leaf.shape[1:], 1), transposed=False)
    return names


def locations_of(template: PyTree, prefixes: Mapping[str, str]) -> Layout:
    """Return the locations of the variables that hold the given parameters, one for each layer of a stacked parameter.

    Args:
        template: the shapes of the parameters.
        prefixes: see `parameter_names`.
    """
    names: Layout = {}
    for path, leaf in flatten_dict(template, sep="/").items():
        tower, stacked, inside = path.partition("/encoder/layers/")
        if not stacked:
            names[renamed(path, prefixes)] = layout.location(path, leaf.shape, row=None, transposed=False)
            continue
        for row in range(leaf.shape[0]):
            name = f"{prefixes[f'{tower}/encoder']}/encoder/layer_{row}/{renamed(inside, LAYER_NAMES)}"
            names[name] = layout.location(path, leaf.shape[1:], row=row, transposed=False)
    return names


def renamed(path: str, prefixes: Mapping[str, str]) -> str:
    """Return the original's name for a parameter, from the longest prefix that fits.

    Raises:
        KeyError: if no prefix fits.
    """
    for ours in sorted(prefixes, key=len, reverse=True):
        if path == ours:
            return prefixes[ours]
        if path.startswith(f"{ours}/"):
            leaf = path[len(ours) + 1 :]
            norm = {"scale": "gamma", "bias": "beta"} if prefixes[ours].endswith("LayerNorm") else {}
            return f"{prefixes[ours]}/{norm.get(leaf, leaf)}"
    raise KeyError(path)


def read_moments(variables: Variables, names: Layout, template: PyTree) -> Moments | None:
    """Return Adam's moments; None unless the checkpoint has them for every parameter."""
    trees = []
    for slot in SLOTS:
        values = {name: variables.get(f"{name}/{slot}") for name in names}
        if any(value is None for value in values.values()):
            return None
        trees.append(layout.assemble(values, names, template))
    return Moments(*trees)


def write(model: Loaded, source: Path, dest: Path) -> list[str]:
    """Write `dest/model.ckpt-<step>` with the parameters, the step, and Adam's moments if `source` has them.

    Args:
        model: the model loaded from `source`.
        source: its model directory.
        dest: an empty folder.

    Returns:
        Notes for the user.

    Raises:
        UserError: if the original has no such head, no place for a switch of the encoder, or no model with a generator
            alone.
    """
    description = model.description
    blocks_of(description, known=(BERT,), reader="the original TensorFlow code")
    recorded = description.task
    named = description.facts.get("task", "task") if recorded is None else recorded["task"]
    task = str(named) if description.head is not None else None
    template = abstract_params(description)
    if description.kind == "generator":
        raise UserError("the original stores a generator together with its discriminator: export the pair")
    names = variable_layout(description, template, scope="electra", task=task)
    variables: Variables = dict(layout.disassemble(model.params, names))
    moments = orbax_store.read_moments(source)
    for slot, tree in zip(SLOTS, moments or (), strict=False):
        variables |= {f"{name}/{slot}": value for name, value in layout.disassemble(tree, names).items()}
    variables["global_step"] = np.asarray(model.step, np.int64)
    tensorflow = host_tensorflow()
    prefix = dest / f"model.ckpt-{model.step}"
    tensorflow.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(variables),
        shape_and_slices=[""] * len(variables),
        tensors=[tensorflow.constant(value) for value in variables.values()],
    )
    (dest / "checkpoint").write_text(
        f'model_checkpoint_path: "{prefix.name}"\nall_model_checkpoint_paths: "{prefix.name}"\n', encoding="utf-8"
    )
    encoder = description.encoder
    # The shapes do not show the number of heads; the original takes these sizes as model_hparam_overrides.
    sizes = {
        name: getattr(encoder, name)
        for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "embedding_size")
    }
    hf_tokenizer.write_json(dest / "bert_config.json", {**sizes, "vocab_size": encoder.vocab_size})
    if model.vocabulary is not None:
        write_tokenizer(dest, model.vocabulary)
    write_card(dest, model, "a checkpoint of the original TensorFlow code")
    notes = [] if moments is not None else ["no moments of the optimizer were there to export"]
    if model.vocabulary is not None and model.vocabulary.lowercase is None:
        notes.append("the original code reads a vocab.txt alone: give it token ids of this model's tokenizer.json")
    return notes

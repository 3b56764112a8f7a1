"""Checkpoints of the original TensorFlow 1 code (ELECTRA's and BERT's), both ways."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from electra_jax import loading, stored
from electra_jax.description import Description, abstract_params
from electra_jax.encoder import EncoderConfig
from electra_jax.errors import UserError
from electra_jax.heads import HeadConfig
from electra_jax.interchange import hf_tokenizer, layout, tf1_names
from electra_jax.interchange.card import write_card
from electra_jax.interchange.imported import Imported, Moments, check_vocabulary
from electra_jax.interchange.layout import Layout, Place, leaves_by_path
from electra_jax.model import Model
from electra_jax.runtime import load_tensorflow_quietly
from electra_jax.types import PyTree

Variables = dict[str, np.ndarray]

SLOTS = ("adam_m", "adam_v")

# The original's own sizes whose heads are not hidden_size // 64: of its --debug model.
KNOWN_HEADS = {(144, 576): 4}

# Tasks of the original whose one layer is applied to every token.
TAGGING_TASKS = ("chunk", "ner", "pos", "ccg", "depparse")

# Paths below `head` to the layers of `task_specific/<task>`, by the head's kind; see `head_layers`.
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
BEAM_SIZE = 20
DROPOUT = 0.1


def checkpoint_prefix(source: Path) -> Path | None:
    """The prefix of the checkpoint that a path names: `model.ckpt-N` itself, one of its files, or its folder.

    Returns:
        None where there is no checkpoint.

    Raises:
        UserError: a folder with several of them and no `checkpoint` file that chooses.
    """
    if source.is_dir():
        chosen = source / "checkpoint"
        if chosen.is_file():
            match = re.search(r'^model_checkpoint_path: "(.*)"', chosen.read_text(encoding="utf-8"), re.MULTILINE)
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
    """Reads a checkpoint, its vocabulary and its configuration where they stand beside it.

    Raises:
        UserError: what cannot be read, or does not fit together.
    """
    prefix = checkpoint_prefix(source)
    if prefix is None:
        raise UserError(f"{source} is no TensorFlow checkpoint: looked for model.ckpt-*.index")
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
        notes.append(f"no vocab.txt stands beside {prefix}: only token ids can be read")
    step = int(variables["global_step"]) if moments is not None and "global_step" in variables else 0
    return Imported(description, params, moments, step, vocabulary, notes)


def read_variables(prefix: Path) -> Variables:
    """Every variable of a checkpoint, by name.

    Raises:
        UserError: it is cut off or damaged.
    """
    tensorflow = host_tensorflow()
    try:
        reader = tensorflow.train.load_checkpoint(str(prefix))
        return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    except (tensorflow.errors.OpError, ValueError, RuntimeError, OSError, IndexError) as error:
        raise UserError(f"the checkpoint {prefix} is cut off or damaged ({str(error).splitlines()[0]})") from error


def host_tensorflow() -> Any:
    """TensorFlow, imported when first needed, without what it says of itself, and kept off accelerators."""
    load_tensorflow_quietly()
    from electra_jax.tasks.host_tensorflow import tf

    return tf


def is_slot(name: str) -> bool:
    """Whether it is a moment of the optimizer."""
    return name.rpartition("/")[2] in (*SLOTS, "Adam", "Adam_1")


def main_scope(weights: Variables) -> str:
    """The scope of the encoder that is kept."""
    return "electra" if any(name.startswith("electra/") for name in weights) else "bert"


def task_of(weights: Variables) -> str | None:
    """The fine-tuned task; None for a pre-trained model.

    Raises:
        UserError: there are several.
    """
    tasks = sorted({name.split("/")[1] for name in weights if name.startswith("task_specific/")})
    if len(tasks) > 1:
        raise UserError(f"the checkpoint has heads of several tasks ({', '.join(tasks)}), and a model here has one")
    return tasks[0] if tasks else None


def describe(weights: Variables, prefix: Path) -> Description:
    """Kind and sizes, from the names and shapes of the variables and from a configuration beside them.

    Raises:
        UserError: no encoder of ELECTRA or BERT is there, or a size cannot be told.
    """
    scope = main_scope(weights)
    if f"{scope}/embeddings/word_embeddings" not in weights:
        raise UserError(f"{prefix} is no checkpoint of ELECTRA or BERT: looked for electra/embeddings/word_embeddings")
    task = task_of(weights)
    has_generator = any(name.startswith("generator/encoder/") for name in weights)
    has_head = any(name.startswith("discriminator_predictions/") for name in weights)
    discriminator = encoder_config(weights, scope, scope, prefix)
    own = "generator/embeddings/word_embeddings" in weights
    generator = None
    if has_generator and has_head:
        generator = encoder_config(weights, "generator", "generator" if own else scope, prefix)
    head = head_config(weights, task) if task is not None else None
    kind = kind_of(head, task, has_generator=generator is not None, has_head=has_head)
    labels = ()
    if kind in ("sequence_classification", "regression", "token_classification") and head is not None:
        labels = tuple(f"LABEL_{number}" for number in range(head.num_labels))
    facts = {"imported from": prefix.name, "format": "TensorFlow 1"} | ({"task": task} if task else {})
    if "cloze_predictions/output_bias" in weights:
        # The original gives a two-tower generator to Electric, and to ELECTRA only when asked to.
        facts["objective"] = "Electric"
    return Description(kind, discriminator, generator, own and generator is not None, head, labels, facts)


def kind_of(head: HeadConfig | None, task: str | None, *, has_generator: bool, has_head: bool) -> str:
    """One of `description.KINDS`."""
    if head is not None:
        if head.kind == "sequence_classification_reference":
            return "regression" if head.num_labels == 1 else "sequence_classification"
        return "token_classification" if head.kind == "token_classification" else "question_answering"
    if not has_head:
        return "encoder"
    return "pretraining" if has_generator else "discriminator"


def encoder_config(weights: Variables, scope: str, table_scope: str, prefix: Path) -> EncoderConfig:
    """Sizes of one tower.

    Raises:
        UserError: a variable that tells a size is missing, or the number of heads cannot be told.
    """

    def shape(name: str) -> tuple[int, ...]:
        if name not in weights or weights[name].ndim != 2:
            raise UserError(f"{prefix} does not tell the model's sizes: {name} is missing or has not two axes")
        return weights[name].shape

    rows, width = shape(f"{table_scope}/embeddings/word_embeddings")
    hidden = shape(f"{scope}/encoder/layer_0/attention/self/query/kernel")[1]
    inner = shape(f"{scope}/encoder/layer_0/intermediate/dense/kernel")[1]
    layers = {match[1] for name in weights if (match := re.match(rf"{scope}/encoder/layer_(\d+)/", name))}
    beside = {} if scope == "generator" else configuration_beside(prefix, hidden)
    heads = beside.get("num_attention_heads") or KNOWN_HEADS.get((hidden, inner)) or max(1, hidden // 64)
    if hidden % heads:
        raise UserError(
            f"{prefix} does not tell the number of attention heads of {scope}, and {hidden} is not divisible by "
            f"{heads}: write it beside the checkpoint as bert_config.json, with hidden_size and num_attention_heads"
        )
    return EncoderConfig(
        vocab_size=rows,
        hidden_size=hidden,
        embedding_size=width,
        num_hidden_layers=len(layers),
        num_attention_heads=heads,
        intermediate_size=inner,
        max_position_embeddings=shape(f"{table_scope}/embeddings/position_embeddings")[0],
        type_vocab_size=shape(f"{table_scope}/embeddings/token_type_embeddings")[0],
        hidden_dropout_prob=beside.get("hidden_dropout_prob", DROPOUT),
        attention_probs_dropout_prob=beside.get("attention_probs_dropout_prob", DROPOUT),
        dropout_bits=16,
        dropout_prng="threefry2x32",
        initializer_range=beside.get("initializer_range", 0.02),
        layer_norm_eps=1e-12,
        dtype="float32",
        attention="exact",
        scan_unroll=1,
        remat_policy="none",
    )


def configuration_beside(prefix: Path, hidden_size: int) -> dict[str, Any]:
    """The values of a JSON file beside the checkpoint that states the heads of an encoder of this size, if any."""
    for path in sorted(prefix.parent.glob("*.json")):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(values, dict) and "num_attention_heads" in values and values.get("hidden_size") == hidden_size:
            return values
    return {}


def head_config(weights: Variables, task: str) -> HeadConfig:
    """The head of a fine-tuned task, told by its layers."""
    layers = {
        name.split("/")[2]: value for name, value in weights.items() if name.endswith("/kernel") and f"/{task}/" in name
    }
    if len(layers) == 1:
        kind = "token_classification" if task in TAGGING_TASKS else "sequence_classification_reference"
        return HeadConfig(
            kind,
            layers["dense"].shape[1],
            DROPOUT,
            mask_questions=False,
            final_sep_answers=False,
            answerable="none",
            beam_size=0,
        )
    kind = "joint_question_answering" if "qa_hidden" in layers else "question_answering"
    answerable = "start" if "dense_3" in layers else "cls" if "dense_2" in layers else "none"
    return HeadConfig(
        kind, 2, 0.0, mask_questions=True, final_sep_answers=True, answerable=answerable, beam_size=BEAM_SIZE
    )


def variable_layout(description: Description, template: PyTree, *, scope: str, task: str | None) -> Layout:
    """Every variable of the model, by the original's name.

    Raises:
        UserError: a parameter that the original has no name for.
    """
    prefixes = dict(reversed(pair) for pair in tf1_names.HEADS.items() if not pair[0].startswith("cls/"))
    names: Layout = {}
    for path, leaf in leaves_by_path(template).items():
        if not path.startswith("head/"):
            names |= variables_of(path, leaf.shape, scope, prefixes)
    if description.head is not None:
        names |= head_layout(description.head, template, task=task)
    return names


def head_layout(head: HeadConfig, template: PyTree, *, task: str | None) -> Layout:
    """Every variable of a fine-tuning head.

    Raises:
        UserError: the original has no such head.
    """
    if head.kind not in HEAD_LAYERS:
        raise UserError(
            f"the original has no head {head.kind}: fine-tune with sequence_classification_reference for a model that "
            "it loads"
        )
    layers = HEAD_LAYERS[head.kind] | ANSWERABLE_LAYERS[head.answerable]
    prefixes = {path: f"task_specific/{task}/{name}" for path, name in layers.items()}
    names: Layout = {}
    for path, leaf in leaves_by_path({"head": template["head"]}).items():
        if path.startswith("head/span_"):
            for row, layer in enumerate(("dense", "dense_1")):
                name = f"task_specific/{task}/{layer}/{path.removeprefix('head/span_')}"
                names[name] = Place(path, row, (*leaf.shape[1:], 1), transposed=False)
        else:
            names |= variables_of(path, leaf.shape, "", prefixes)
    return names


def variables_of(path: str, shape: tuple[int, ...], scope: str, prefixes: dict[str, str]) -> Layout:
    """The variables that a parameter is made of: one, or one for each layer."""
    tower, _, inside = path.partition("/encoder/")
    scopes = {"discriminator": scope, "generator": "generator"}
    if inside.startswith("layers/"):
        layer = name_below(
            inside.removeprefix("layers/"), {ours: theirs for theirs, ours in tf1_names.WITHIN_LAYER.items()}
        )
        return {
            f"{scopes[tower]}/encoder/layer_{row}/{layer}": layout.place(path, shape[1:], row=row, transposed=False)
            for row in range(shape[0])
        }
    if inside:
        name = f"{scopes[tower]}/{inside}"
    elif path.startswith("embeddings/"):
        name = (
            f"{scope}/{name_below(path, {'embeddings/layer_norm': 'embeddings/LayerNorm', 'embeddings': 'embeddings'})}"
        )
    elif path.startswith("generator/embeddings/"):
        tables = {"generator/embeddings/layer_norm": "generator/embeddings/LayerNorm"}
        name = name_below(path, {**tables, "generator/embeddings": "generator/embeddings"})
    else:
        name = name_below(path, prefixes)
    return {name: layout.place(path, shape, row=None, transposed=False)}


def name_below(path: str, prefixes: dict[str, str]) -> str:
    """The original's name of a parameter below the longest prefix that fits."""
    for ours in sorted(prefixes, key=len, reverse=True):
        if path == ours:
            return prefixes[ours]
        if path.startswith(f"{ours}/"):
            leaf = path[len(ours) + 1 :]
            norm = {"scale": "gamma", "bias": "beta"} if prefixes[ours].endswith("LayerNorm") else {}
            return f"{prefixes[ours]}/{norm.get(leaf, leaf)}"
    raise KeyError(path)


def read_moments(variables: Variables, names: Layout, template: PyTree) -> Moments | None:
    """Adam's moments, where the checkpoint has those of every parameter."""
    trees = []
    for slot in SLOTS:
        values = {name: variables.get(f"{name}/{slot}") for name in names}
        if any(value is None for value in values.values()):
            return None
        trees.append(layout.assemble(values, names, template))
    return Moments(*trees)


def write(model: Model, source: Path, dest: Path) -> list[str]:
    """Writes `dest/model.ckpt-<step>` with the parameters, the step, and Adam's moments where `source` has them.

    Args:
        model: loaded from `source`.
        source: its model directory.
        dest: an empty folder.

    Returns:
        Notes for the user.

    Raises:
        UserError: a head that the original has not.
    """
    description = model.description
    task = str(description.facts.get("task", "task")) if description.head is not None else None
    template = abstract_params(description)
    if description.kind == "generator":
        raise UserError("the original keeps a generator beside its discriminator: export the pair")
    names = variable_layout(description, template, scope="electra", task=task)
    variables: Variables = dict(layout.disassemble(model.params, names))
    moments = stored.read_moments(source)
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
    # What shapes do not tell; the original takes it as model_hparam_overrides.
    sizes = {
        name: getattr(encoder, name)
        for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "embedding_size")
    }
    hf_tokenizer.write_json(dest / "bert_config.json", {**sizes, "vocab_size": encoder.vocab_size})
    if model.vocabulary is not None:
        loading.write_vocabulary(dest, model.vocabulary)
    write_card(dest / "README.md", model, "a checkpoint of the original TensorFlow code")
    return [] if moments is not None else ["no moments of the optimizer were there to export"]

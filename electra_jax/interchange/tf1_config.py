"""Infer the kind and sizes of a TensorFlow 1 checkpoint's model from the names and shapes of its variables."""

import re
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np

from electra_jax.checkpoints.model_record import Description
from electra_jax.errors import UserError
from electra_jax.json_files import read_json
from electra_jax.model.config import BERT_BLOCK, EncoderConfig
from electra_jax.model.heads import WITHOUT_ANSWERS, HeadConfig

Variables = dict[str, np.ndarray]

# Numbers of heads that are not hidden_size // 64, by hidden and inner size: the original's --debug model.
KNOWN_HEADS = {(144, 576): 4}


class StatedSizes(TypedDict):
    """Declare the fields that are read of the configuration next to a checkpoint."""

    hidden_size: int
    num_attention_heads: int
    hidden_dropout_prob: NotRequired[float]
    attention_probs_dropout_prob: NotRequired[float]
    initializer_range: NotRequired[float]


# Tasks of the original that apply their one layer to every token.
TAGGING_TASKS = ("chunk", "ner", "pos", "ccg", "depparse")

BEAM_SIZE = 20
DROPOUT = 0.1


def main_scope(weights: Variables) -> str:
    """Return the scope of the main encoder."""
    return "electra" if any(name.startswith("electra/") for name in weights) else "bert"


def task_of(weights: Variables) -> str | None:
    """Return the name of the fine-tuned task; None for a pre-trained model.

    Raises:
        UserError: if there are several tasks.
    """
    tasks = sorted({name.split("/")[1] for name in weights if name.startswith("task_specific/")})
    if len(tasks) > 1:
        raise UserError(f"the checkpoint has heads of several tasks ({', '.join(tasks)}), and a model here has one")
    return tasks[0] if tasks else None


def describe(weights: Variables, prefix: Path) -> Description:
    """Return the kind and sizes of a model, from its variables' names and shapes and a configuration file next to them.

    Raises:
        UserError: if there is no encoder of ELECTRA or BERT, or a size is unknown.
    """
    scope = main_scope(weights)
    if f"{scope}/embeddings/word_embeddings" not in weights:
        raise UserError(
            f"{prefix} is not a checkpoint of ELECTRA or BERT: looked for electra/embeddings/word_embeddings"
        )
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
        # The original uses a two-tower generator for Electric, and for ELECTRA only when asked to.
        facts["objective"] = "Electric"
    return Description(kind, discriminator, generator, own and generator is not None, head, labels, facts)


def kind_of(head: HeadConfig | None, task: str | None, *, has_generator: bool, has_head: bool) -> str:
    """Return the kind of model, see `model_record.KINDS`."""
    if head is not None:
        if head.kind == "sequence_classification_reference":
            return "regression" if head.num_labels == 1 else "sequence_classification"
        return "token_classification" if head.kind == "token_classification" else "question_answering"
    if not has_head:
        return "encoder"
    return "pretraining" if has_generator else "discriminator"


def encoder_config(weights: Variables, scope: str, table_scope: str, prefix: Path) -> EncoderConfig:
    """Return the sizes of one tower.

    Raises:
        UserError: if a variable that shows a size is missing, or the number of heads is unknown.
    """

    def shape(name: str) -> tuple[int, ...]:
        if name not in weights or weights[name].ndim != 2:
            raise UserError(
                f"{prefix} does not show the sizes of the model: {name} is missing or does not have two axes"
            )
        return weights[name].shape

    rows, width = shape(f"{table_scope}/embeddings/word_embeddings")
    hidden = shape(f"{scope}/encoder/layer_0/attention/self/query/kernel")[1]
    inner = shape(f"{scope}/encoder/layer_0/intermediate/dense/kernel")[1]
    layers = {match[1] for name in weights if (match := re.match(rf"{scope}/encoder/layer_(\d+)/", name))}
    beside = {} if scope == "generator" else configuration_beside(prefix, hidden)
    heads = beside.get("num_attention_heads") or KNOWN_HEADS.get((hidden, inner)) or max(1, hidden // 64)
    if hidden % heads:
        raise UserError(
            f"{prefix} does not show the number of attention heads of {scope}, and {hidden} is not divisible by "
            f"{heads}: write it next to the checkpoint as bert_config.json, with hidden_size and num_attention_heads"
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
        **BERT_BLOCK,
        pad_vocab_size_multiple=1,
        dtype="float32",
        attention="exact",
        scan_unroll=1,
        remat_policy="none",
    )


def configuration_beside(prefix: Path, hidden_size: int) -> StatedSizes | dict[str, Any]:
    """Read the JSON file next to the checkpoint that states the heads of an encoder of this size; {} if none does."""
    for path in sorted(prefix.parent.glob("*.json")):
        try:
            values = read_json(path, StatedSizes)
        except UserError:
            continue
        if values["hidden_size"] == hidden_size:
            return values
    return {}


def head_config(weights: Variables, task: str) -> HeadConfig:
    """Return the head of a fine-tuned task, inferred from its layers."""
    layers = {
        name.split("/")[2]: value for name, value in weights.items() if name.endswith("/kernel") and f"/{task}/" in name
    }
    if len(layers) == 1:
        kind = "token_classification" if task in TAGGING_TASKS else "sequence_classification_reference"
        return HeadConfig(kind, layers["dense"].shape[1], DROPOUT, **WITHOUT_ANSWERS, classifier_pooling="cls")
    kind = "joint_question_answering" if "qa_hidden" in layers else "question_answering"
    answerable = "start" if "dense_3" in layers else "cls" if "dense_2" in layers else "none"
    return HeadConfig(
        kind,
        2,
        0.0,
        mask_questions=True,
        final_sep_answers=True,
        answerable=answerable,
        beam_size=BEAM_SIZE,
        classifier_pooling="cls",
    )

"""Translate between `config.json` of `transformers` and the description of a model."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from electra_jax.checkpoints.model_record import Description
from electra_jax.errors import UserError
from electra_jax.interchange.hf_classes import ARCHITECTURES, FIXED_SUMMARY, SILENT_HEADS, architecture_of
from electra_jax.interchange.layout import Layout
from electra_jax.interchange.tensors import Tensors
from electra_jax.json_files import read_json
from electra_jax.model.config import BERT_BLOCK, EncoderConfig
from electra_jax.model.heads import WITHOUT_ANSWERS, HeadConfig
from electra_jax.model.types import PyTree

CONFIG = "config.json"

# The values that `transformers` assumes if an old config.json does not state them.
SILENT = {
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
}

LARGEST = 2**63


class Found(NamedTuple):
    """Hold what config.json and the names of the tensors say about a model.

    Attributes:
        description: the kind and sizes of the model.
        template: the shapes of its parameters.
        tensors: the tensors of the files, apart from those that were renamed, split or removed.
        names: the location of every tensor that the model needs.
        notes: sentences for the user.
    """

    description: Description
    template: PyTree
    tensors: Tensors
    names: Layout
    notes: list[str]


def read_config(directory: Path) -> dict[str, Any]:
    """Read config.json.

    Raises:
        UserError: if it does not exist or is not a JSON object.
    """
    path = directory / CONFIG
    if not path.is_file():
        raise UserError(f"{directory} is not a transformers directory: looked for {CONFIG}")
    config = read_json(path, dict[str, Any])
    check_labels(config, path)
    return config


def check_labels(config: Mapping[str, Any], path: Path) -> None:
    """Check that labels, if config.json names them, are numbered from 0.

    Raises:
        UserError: if they are a list, or numbered otherwise.
    """
    names = config.get("id2label")
    numbers = set(map(str, range(len(names)))) if isinstance(names, Mapping) else None
    if names is not None and (numbers is None or set(names) != numbers):
        raise UserError(
            f'{path}: id2label = {json.dumps(names)[:60]} should name each output by its number, as {{"0": "no", '
            '"1": "yes"} does'
        )


def encoder_config(config: Mapping[str, Any], tensors: Tensors, path: Path, *, prefix: str) -> EncoderConfig:
    """Return the sizes of the encoder: those that config.json states, otherwise those of the tensors.

    Raises:
        UserError: if a size is neither stated nor shown by the tensors, is not a number, or contradicts the word table.
    """
    wanted = [
        *("vocab_size", "hidden_size", "embedding_size", "num_hidden_layers", "num_attention_heads"),
        *("intermediate_size", "max_position_embeddings", "type_vocab_size"),
    ]
    _, model_type = architecture_of(config)
    sizes = sizes_of(tensors, prefix) | {"num_attention_heads": SILENT_HEADS.get(model_type or "")}
    stated = {name: config[name] for name in wanted if config.get(name) is not None}
    settings = {**stated, **{name: config.get(name, value) for name, value in SILENT.items()}}
    check_numbers(settings, path)
    if model_type == "bert":
        stated["embedding_size"] = stated.get("hidden_size", sizes.get("hidden_size"))
    rows = sizes.get("vocab_size")
    if rows is not None and stated.get("vocab_size", rows) != rows:
        raise UserError(f"{path} says vocab_size {stated['vocab_size']}, but the embedding table has {rows} rows")
    values = {**sizes, **stated}
    missing = [name for name in wanted if name not in values]
    if missing:
        raise UserError(f"{path} does not state {', '.join(missing)}, and the tensors do not show it: add it")
    rates = {name: float(settings[name]) for name in SILENT}
    try:
        whole = {name: int(values[name]) for name in wanted}
        return EncoderConfig(
            **whole,
            **rates,
            **BERT_BLOCK,
            pad_vocab_size_multiple=1,
            dtype="float32",
            dropout_bits=16,
            dropout_prng="threefry2x32",
            attention="exact",
            scan_unroll=1,
            remat_policy="none",
        )
    except (UserError, ValueError) as error:
        raise UserError(f"{path}: {error}") from error


def check_numbers(settings: Mapping[str, Any], path: Path) -> None:
    """Check that settings are numbers that a model can have: not NaN, infinite or 400 digits long.

    Raises:
        UserError: if a setting is no such number.
    """
    odd = [
        f"{name} = {value!r}"
        for name, value in settings.items()
        if type(value) not in (int, float) or not abs(value) <= LARGEST
    ]
    if odd:
        raise UserError(f"{path}: {', '.join(odd)} should be a number: put it right, or leave it out")


def sizes_of(tensors: Tensors, prefix: str) -> dict[str, int]:
    """Return the sizes that the shapes of the tensors show."""
    sizes: dict[str, int] = {}

    def axis(field: str, name: str, number: int) -> None:
        tensor = tensors.get(prefix + name)
        if tensor is not None and tensor.ndim == 2:
            sizes[field] = tensor.shape[number]

    axis("vocab_size", "embeddings.word_embeddings.weight", 0)
    axis("embedding_size", "embeddings.word_embeddings.weight", 1)
    axis("max_position_embeddings", "embeddings.position_embeddings.weight", 0)
    axis("type_vocab_size", "embeddings.token_type_embeddings.weight", 0)
    axis("hidden_size", "encoder.layer.0.attention.self.query.weight", 0)
    axis("intermediate_size", "encoder.layer.0.intermediate.dense.weight", 0)
    start = f"{prefix}encoder.layer."
    layers = {name.removeprefix(start).partition(".")[0] for name in tensors if name.startswith(start)}
    if layers:
        sizes["num_hidden_layers"] = len(layers)
    return sizes


def head_config(kind: str, config: Mapping[str, Any], tensors: Tensors, path: Path) -> HeadConfig | None:
    """Return the fine-tuning head, with its number of labels from its shape; None for a kind without a head.

    Raises:
        UserError: if the number of labels or the dropout rate is one that a head cannot have.
    """
    others = ("regression", "multi_label_classification", "multiple_choice")
    modules = dict.fromkeys(others, "sequence_classification")
    biases = {
        "sequence_classification": "classifier.out_proj.bias",
        "regression": "classifier.out_proj.bias",
        "multi_label_classification": "classifier.out_proj.bias",
        "multiple_choice": "classifier.bias",
        "token_classification": "classifier.bias",
        "question_answering": "qa_outputs.bias",
    }
    if kind not in biases:
        return None
    dropout = config.get("classifier_dropout")
    if dropout is None:
        field = "summary_last_dropout" if kind == "multiple_choice" else "hidden_dropout_prob"
        dropout = config.get(field, SILENT["hidden_dropout_prob"])
    bias = tensors.get(biases[kind])
    check_numbers({"classifier_dropout": dropout}, path)
    try:
        return HeadConfig(
            kind=modules.get(kind, kind),
            num_labels=len(bias) if bias is not None else len(config.get("id2label") or (0, 1)),
            dropout_prob=float(dropout),
            **WITHOUT_ANSWERS,
            classifier_pooling="cls",
        )
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def labels_of(kind: str, config: Mapping[str, Any], head: HeadConfig | None, path: Path) -> tuple[str, ...]:
    """Return the names of the outputs of a classification, regression or tagging head.

    Raises:
        UserError: if config.json names more or fewer labels than the head has outputs.
    """
    if head is None or kind in ("multiple_choice", "question_answering"):
        return ()
    names = config.get("id2label")
    if not names:
        return tuple(f"LABEL_{number}" for number in range(head.num_labels))
    if len(names) != head.num_labels:
        raise UserError(f"{path} names {len(names)} labels (id2label), but the head has {head.num_labels} outputs")
    return tuple(str(names[number]) for number in sorted(names, key=int))


def described(
    kind: str, encoder: EncoderConfig, head: HeadConfig | None, config: Mapping[str, Any], source: Path
) -> Description:
    """Return the description of a directory's model, one tower with or without a head.

    Raises:
        UserError: if config.json names more or fewer labels than the head has outputs, or a regression has several
            outputs.
    """
    if kind == "regression" and head is not None and head.num_labels != 1:
        raise UserError(
            f"{source / CONFIG}: problem_type is 'regression' and the head has {head.num_labels} outputs: only one is "
            "read"
        )
    return Description(
        kind=kind,
        discriminator=None if kind == "generator" else encoder,
        generator=encoder if kind == "generator" else None,
        generator_embeddings=False,
        head=head,
        labels=labels_of(kind, config, head, source / CONFIG),
        facts={"imported from": source.resolve().name, "format": "transformers"},
    )


def to_config(description: Description, special_ids: Mapping[str, int]) -> dict[str, Any]:
    """Return the content of config.json for one tower, with or without a head.

    Args:
        description: the description of the tower.
        special_ids: the ids of the special tokens, by their roles.
    """
    encoder = description.encoder
    return {
        "architectures": [ARCHITECTURES[description.kind]],
        "model_type": "electra",
        "attention_probs_dropout_prob": encoder.attention_probs_dropout_prob,
        "classifier_dropout": None if description.head is None else description.head.dropout_prob,
        "dtype": "float32",
        "embedding_size": encoder.embedding_size,
        "hidden_act": "gelu",
        "hidden_dropout_prob": encoder.hidden_dropout_prob,
        "hidden_size": encoder.hidden_size,
        "initializer_range": encoder.initializer_range,
        "intermediate_size": encoder.intermediate_size,
        "layer_norm_eps": encoder.layer_norm_eps,
        "max_position_embeddings": encoder.max_position_embeddings,
        "num_attention_heads": encoder.num_attention_heads,
        "num_hidden_layers": encoder.num_hidden_layers,
        "pad_token_id": special_ids.get("pad"),
        "type_vocab_size": encoder.type_vocab_size,
        "vocab_size": encoder.vocab_size,
        **FIXED_SUMMARY,
        "summary_last_dropout": 0.1 if description.head is None else description.head.dropout_prob,
        "tie_word_embeddings": True,
        **label_fields(description),
    }


def label_fields(description: Description) -> dict[str, Any]:
    """Return the fields of config.json that describe the outputs of classification, regression and tagging."""
    fields: dict[str, Any] = {}
    # Without names `transformers` assumes two outputs.
    labels = description.labels or (("LABEL_0",) if description.kind == "regression" else ())
    if labels:
        fields["id2label"] = {str(number): label for number, label in enumerate(labels)}
        fields["label2id"] = {label: number for number, label in enumerate(labels)}
    if description.kind in ("regression", "multi_label_classification"):
        fields["problem_type"] = description.kind
    elif description.kind == "sequence_classification":
        fields["problem_type"] = "single_label_classification"
    return fields

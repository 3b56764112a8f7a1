"""Translate between a ModernBERT `config.json` of `transformers` and the description of a model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from electra_jax import ranges
from electra_jax.checkpoints.model_record import Description
from electra_jax.errors import UserError
from electra_jax.interchange.hf_classes import FIXED_GENERATOR, MODERNBERT_KINDS, architecture_of, check_fixed
from electra_jax.interchange.hf_config import LARGEST, check_numbers, label_fields
from electra_jax.interchange.tensors import Tensors
from electra_jax.model.config import FULL, SLIDING, EncoderConfig
from electra_jax.model.heads import WITHOUT_ANSWERS, HeadConfig

MODEL_TYPE = "modernbert"

ARCHITECTURES = {
    **{kind: name for name, kind in MODERNBERT_KINDS.items()},
    "discriminator": "ModernBertModel",
    "regression": "ModernBertForSequenceClassification",
    "multi_label_classification": "ModernBertForSequenceClassification",
}
HEADS = {
    "sequence_classification": "modernbert_sequence_classification",
    "regression": "modernbert_sequence_classification",
    "multi_label_classification": "modernbert_sequence_classification",
    "multiple_choice": "modernbert_sequence_classification",
    "token_classification": "modernbert_token_classification",
    "question_answering": "modernbert_question_answering",
}

# The values that our encoder implements; any other value means another architecture.
FIXED: dict[str, tuple[Any, ...]] = {
    "hidden_activation": ("gelu", None),
    "classifier_activation": ("gelu", None),
    "rope_scaling": (None,),
    "problem_type": ("single_label_classification", "multi_label_classification", "regression", None),
}

# The values that `transformers` assumes if a config.json does not state them.
SIZES = {
    "vocab_size": 50368,
    "hidden_size": 768,
    "num_hidden_layers": 22,
    "num_attention_heads": 12,
    "intermediate_size": 1152,
    "max_position_embeddings": 8192,
    "local_attention": 128,
}
RATES = {
    "embedding_dropout": 0.0,
    "mlp_dropout": 0.0,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "norm_eps": 1e-5,
}
SWITCHES = {"attention_bias": False, "mlp_bias": False, "norm_bias": False, "classifier_bias": False}
GLOBAL_EVERY = 3
GLOBAL_THETA, LOCAL_THETA = 160000.0, 10000.0


def kind_of(config: Mapping[str, Any], tensors: Tensors, path: Path) -> str:
    """Return the kind of model that `architectures` names; "encoder" for a class that is not read.

    Raises:
        UserError: if no architecture is named, or a setting has a value that our encoder does not implement.
    """
    architecture, _ = architecture_of(config)
    if architecture is None:
        raise UserError(f"{path}: no architecture is named; of ModernBERT only {', '.join(MODERNBERT_KINDS)} are read")
    kind = MODERNBERT_KINDS.get(architecture, "encoder")
    check_fixed(config, FIXED | (FIXED_GENERATOR if kind == "generator" else {}), path)
    # As in `transformers`: one output means regression if problem_type is not given.
    single = len(tensors.get("classifier.bias", ())) == 1
    problem = config.get("problem_type") or ("regression" if single else None)
    other = problem in ("regression", "multi_label_classification")
    return str(problem) if kind == "sequence_classification" and other else kind


def encoder_config(config: Mapping[str, Any], tensors: Tensors, path: Path, *, prefix: str) -> EncoderConfig:
    """Return the sizes and parts of the encoder.

    Raises:
        UserError: if a value has the wrong type, is one that our encoder does not implement, or contradicts the word
            table.
    """
    stated = {name: value for name, value in config.items() if value is not None}
    numbers = {name: stated.get(name, value) for name, value in (SIZES | RATES).items()}
    check_numbers(numbers, path)
    sizes = {name: int(numbers[name]) for name in SIZES}
    switches = {name: stated.get(name, value) for name, value in SWITCHES.items()}
    odd = [f"{name} = {value!r}" for name, value in switches.items() if not isinstance(value, bool)]
    if odd:
        raise UserError(f"{path}: {', '.join(odd)} should be true or false: put it right, or leave it out")
    table = tensors.get(f"{prefix}embeddings.tok_embeddings.weight")
    if table is not None and len(table) != sizes["vocab_size"]:
        raise UserError(f"{path} says vocab_size {sizes['vocab_size']}, but the embedding table has {len(table)} rows")
    global_theta, local_theta = thetas_of(config, path)
    try:
        # A huge number must be refused before that many layers are listed.
        ranges.declared(EncoderConfig)["num_hidden_layers"].check("num_hidden_layers", sizes["num_hidden_layers"])
        return EncoderConfig(
            **sizes,
            **switches,
            embedding_size=sizes["hidden_size"],
            pad_vocab_size_multiple=1,
            type_vocab_size=0,
            position_embedding_type="rotary",
            norm_placement="pre",
            gated_mlp=True,
            qk_norm=False,
            layer_types=layer_types_of(stated, sizes["num_hidden_layers"], path),
            global_rope_theta=global_theta,
            local_rope_theta=local_theta,
            # Here one rate applies after the embeddings and after each layer's parts.
            hidden_dropout_prob=float(numbers["mlp_dropout"]),
            attention_probs_dropout_prob=float(numbers["attention_dropout"]),
            initializer_range=float(numbers["initializer_range"]),
            layer_norm_eps=float(numbers["norm_eps"]),
            dtype="float32",
            dropout_bits=16,
            dropout_prng="threefry2x32",
            attention="exact",
            scan_unroll=1,
            remat_policy="none",
        )
    except (ValueError, UserError) as error:
        raise UserError(f"{path}: {error}") from error


def layer_types_of(stated: Mapping[str, Any], depth: int, path: Path) -> tuple[str, ...]:
    """Return the kinds of layers as the shortest tuple that the layers repeat.

    `transformers` 5 lists them in `layer_types`; version 4 states the distance between layers that attend to the whole
    row, `global_attn_every_n_layers`.

    Raises:
        UserError: if a kind is unknown, the list does not have one kind for each layer, or the distance is not a whole
            number from 1.
    """
    kinds = stated.get("layer_types")
    if kinds is None:
        every = stated.get("global_attn_every_n_layers", GLOBAL_EVERY)
        if type(every) is not int or every < 1:
            raise UserError(f"{path}: global_attn_every_n_layers = {every!r} should be a whole number from 1")
        kinds = list(kinds_every(every, depth))
    if not isinstance(kinds, list) or len(kinds) != depth or not {FULL, SLIDING}.issuperset(map(str, kinds)):
        raise UserError(
            f"{path}: layer_types = {kinds!r} should be a list of {FULL!r} and {SLIDING!r}, one for each of the "
            f"{depth} layers"
        )
    period = next(
        size for size in range(1, depth + 1) if all(kinds[layer] == kinds[layer % size] for layer in range(depth))
    )
    return tuple(kinds[:period])


def thetas_of(config: Mapping[str, Any], path: Path) -> tuple[float, float]:
    """Return the base of the rotary angles in full and in sliding layers.

    `transformers` 5 has `rope_parameters` by kind of layer; version 4 has `global_rope_theta` and `local_rope_theta`.
    If the second is null, the first applies to all layers.

    Raises:
        UserError: if a base is not a number above 0, the angles are scaled, or `rope_parameters` lacks a kind of layer.
    """
    by_kind = config.get("rope_parameters") or {}
    one_each = isinstance(by_kind, Mapping) and all(isinstance(one, Mapping | None) for one in by_kind.values())
    if not one_each or not {FULL, SLIDING}.issuperset(by_kind):
        raise UserError(f"{path}: rope_parameters = {by_kind!r} should hold those of {FULL!r} and of {SLIDING!r}")
    old_global = config.get("global_rope_theta", GLOBAL_THETA)
    old_local = config.get("local_rope_theta", LOCAL_THETA)
    thetas = []
    for kind, old in ((FULL, old_global), (SLIDING, old_global if old_local is None else old_local)):
        parameters = by_kind.get(kind) or {}
        theta, scaling = parameters.get("rope_theta", old), parameters.get("rope_type", "default")
        if scaling != "default":
            raise UserError(f"{path}: the rope_type of {kind} is {scaling!r}; only 'default' is read")
        if type(theta) not in (int, float) or not 0 < theta <= LARGEST:
            raise UserError(f"{path}: the rope_theta of {kind} is {theta!r}: it should be a number above 0")
        thetas.append(float(theta))
    return thetas[0], thetas[1]


def head_config(kind: str, config: Mapping[str, Any], tensors: Tensors, path: Path) -> HeadConfig | None:
    """Return the fine-tuning head, with its number of labels from its shape; None for a kind without a head.

    Raises:
        UserError: if a setting has a value that our heads do not implement.
    """
    if kind not in HEADS:
        return None
    check_fixed(config, {"classifier_pooling": ("cls", "mean", None)}, path)
    dropout = config.get("classifier_dropout") or 0.0
    check_numbers({"classifier_dropout": dropout}, path)
    bias = tensors.get("classifier.bias")
    try:
        return HeadConfig(
            kind=HEADS[kind],
            num_labels=len(bias) if bias is not None else len(config.get("id2label") or (0, 1)),
            dropout_prob=float(dropout),
            **WITHOUT_ANSWERS,
            classifier_pooling=config.get("classifier_pooling") or "cls",
        )
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def import_notes(config: Mapping[str, Any], encoder: EncoderConfig, path: Path) -> list[str]:
    """Return a note on a dropout rate that is not kept: it affects further training, but no output."""
    rate = config.get("embedding_dropout") or 0.0
    if rate == encoder.hidden_dropout_prob:
        return []
    return [
        f"{path} has embedding_dropout {rate} and mlp_dropout {encoder.hidden_dropout_prob}, which are one rate here: "
        f"it is {encoder.hidden_dropout_prob} (DROPOUT of a run)"
    ]


def export_notes(encoder: EncoderConfig) -> list[str]:
    """Return a note if version 4 of `transformers` cannot express the kinds of layers."""
    if "global_attn_every_n_layers" in old_fields(encoder):
        return []
    return ["version 4 of transformers cannot read these layer_types: load the model with version 5"]


def to_config(description: Description, special_ids: Mapping[str, int]) -> dict[str, Any]:
    """Return the content of config.json for one tower, with or without a head, with the keys of versions 4 and 5.

    Args:
        description: the description of the tower.
        special_ids: the ids of the special tokens, by their roles.
    """
    encoder, head = description.encoder, description.head
    thetas = {FULL: encoder.global_rope_theta, SLIDING: encoder.local_rope_theta}
    return {
        "architectures": [ARCHITECTURES[description.kind]],
        "model_type": MODEL_TYPE,
        **{name: getattr(encoder, name) for name in (*SIZES, *SWITCHES)},
        "attention_dropout": encoder.attention_probs_dropout_prob,
        "classifier_activation": "gelu",
        "classifier_dropout": 0.0 if head is None else head.dropout_prob,
        "classifier_pooling": "cls" if head is None else head.classifier_pooling,
        "decoder_bias": True,
        "dtype": "float32",
        "embedding_dropout": encoder.hidden_dropout_prob,
        "hidden_activation": "gelu",
        "initializer_range": encoder.initializer_range,
        "layer_types": list(encoder.kinds),
        "mlp_dropout": encoder.hidden_dropout_prob,
        "norm_eps": encoder.layer_norm_eps,
        "pad_token_id": special_ids.get("pad"),
        "rope_parameters": {kind: {"rope_theta": theta, "rope_type": "default"} for kind, theta in thetas.items()},
        "tie_word_embeddings": True,
        **{f"{name}_token_id": special_ids.get("cls") for name in ("bos", "cls")},
        **{f"{name}_token_id": special_ids.get("sep") for name in ("eos", "sep")},
        **old_fields(encoder),
        **label_fields(description),
    }


def old_fields(encoder: EncoderConfig) -> dict[str, Any]:
    """Return the fields that version 4 reads in place of `layer_types` and `rope_parameters`, if it has them."""
    depth = encoder.num_hidden_layers
    thetas = {"global_rope_theta": encoder.global_rope_theta, "local_rope_theta": encoder.local_rope_theta}
    for every in range(1, depth + 1):
        if encoder.kinds == kinds_every(every, depth):
            return thetas | {"global_attn_every_n_layers": every}
    return thetas


def kinds_every(every: int, depth: int) -> tuple[str, ...]:
    """Return the kinds of layers if the first and then each `every`-th one attends to the whole row."""
    return tuple(SLIDING if layer % every else FULL for layer in range(depth))

"""Map classes of `transformers` to our kinds of models, and refuse settings that our encoder does not implement."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from electra_jax.errors import UserError
from electra_jax.interchange.tensors import Tensors

# The rest of the configuration distinguishes regression and multi-label classification from classification.
KINDS = {
    "ElectraForPreTraining": "discriminator",
    "ElectraForMaskedLM": "generator",
    "ElectraForSequenceClassification": "sequence_classification",
    "ElectraForTokenClassification": "token_classification",
    "ElectraForQuestionAnswering": "question_answering",
    "ElectraForMultipleChoice": "multiple_choice",
    "ElectraModel": "encoder",
    # Only the encoder of a BERT is imported, without its head.
    "BertModel": "encoder",
    "BertForPreTraining": "encoder",
    "BertForMaskedLM": "encoder",
    "BertForNextSentencePrediction": "encoder",
    "BertForSequenceClassification": "encoder",
    "BertForTokenClassification": "encoder",
    "BertForQuestionAnswering": "encoder",
    "BertForMultipleChoice": "encoder",
}
MODERNBERT_KINDS = {
    "ModernBertModel": "encoder",
    "ModernBertForMaskedLM": "generator",
    "ModernBertForSequenceClassification": "sequence_classification",
    "ModernBertForTokenClassification": "token_classification",
    "ModernBertForQuestionAnswering": "question_answering",
    "ModernBertForMultipleChoice": "multiple_choice",
}
ARCHITECTURES = {
    **{kind: name for name, kind in KINDS.items() if name.startswith("Electra")},
    "regression": "ElectraForSequenceClassification",
    "multi_label_classification": "ElectraForSequenceClassification",
}

# The number of heads that `transformers` assumes if an old config.json does not state it, by model_type.
SILENT_HEADS = {"electra": 4, "bert": 12}

# Prefixes of tensors that tell the kind of model if config.json has no `architectures`; the first match counts.
TELLING = {
    "discriminator_predictions.": "discriminator",
    "generator_predictions.": "generator",
    "qa_outputs.": "question_answering",
    "classifier.out_proj.": "sequence_classification",
    "sequence_summary.": "multiple_choice",
    "classifier.": "token_classification",
    "": "encoder",
}

# The values that our encoder implements; any other value means another architecture.
FIXED = {
    "hidden_act": ("gelu", "gelu_python"),
    "position_embedding_type": ("absolute", None),
    "is_decoder": (False, None),
    "add_cross_attention": (False, None),
    "problem_type": ("single_label_classification", "multi_label_classification", "regression", None),
}
# A generator's output table is its embedding table; other kinds have none.
FIXED_GENERATOR: dict[str, tuple[Any, ...]] = {"tie_word_embeddings": (True, None)}
FIXED_SUMMARY = {"summary_type": "first", "summary_use_proj": True, "summary_activation": "gelu"}


def kind_of(config: Mapping[str, Any], tensors: Tensors, path: Path) -> str:
    """Return the kind of model, from `architectures` or, if that is missing, from the names of the tensors.

    Raises:
        UserError: if the architecture cannot be imported, or a setting has a value that our encoder does not implement.
    """
    architecture, model_type = architecture_of(config)
    known = ", ".join((*KINDS, *MODERNBERT_KINDS))
    if architecture is None and model_type is None:
        raise UserError(f'{path} names no architecture: add one of {known} as "architectures"')
    if model_type not in SILENT_HEADS:
        raise UserError(
            f"{path}: the architecture {architecture} (model_type {model_type!r}) is not read; only {known} are"
        )
    if architecture not in (*KINDS, None):
        # Only the encoder is imported, and `class_notes` reports the direction that it read in.
        check_fixed({name: config[name] for name in config.keys() - {"is_decoder", "problem_type"}}, FIXED, path)
        return "encoder"
    check_fixed(config, FIXED, path)
    if architecture is not None:
        kind = KINDS[architecture]
    elif model_type == "bert":
        kind = "encoder"
    else:
        kind = next(kind for start, kind in TELLING.items() if any(name.startswith(start) for name in tensors))
    if kind == "generator":
        check_fixed(config, FIXED_GENERATOR, path)
    if kind == "multiple_choice":
        for name, value in FIXED_SUMMARY.items():
            if config.get(name, value) != value:
                raise UserError(f"{path}: {name} = {config[name]!r} is another head; only {value!r} is read")
    # As in `transformers`: one output means regression if problem_type is not given.
    single = len(tensors.get("classifier.out_proj.bias", ())) == 1
    problem = config.get("problem_type") or ("regression" if single else None)
    other = problem in ("regression", "multi_label_classification")
    return str(problem) if kind == "sequence_classification" and other else kind


def class_notes(config: Mapping[str, Any], known: Mapping[str, str], path: Path) -> list[str]:
    """Return a note if only the encoder is imported, because the class of the model is not a known one.

    Args:
        config: the content of config.json.
        known: the kinds of models by the classes that are read.
        path: the path of config.json.
    """
    architecture, _ = architecture_of(config)
    if architecture in (*known, None):
        return []
    there = "; it read from the left there, and reads from both sides here" if config.get("is_decoder") else ""
    return [
        f"{path}: {architecture} is none of the classes that are read: its encoder was taken, without a head{there}"
    ]


def prefix_of(tensors: Tensors, words: str, customary: tuple[str, ...], file: Path) -> str:
    """Return the prefix of the names of an encoder's tensors, whatever the class that holds the encoder calls it.

    Args:
        tensors: the tensors by name.
        words: the name of the word table without the prefix.
        customary: prefixes to look for if there is no word table; the first match counts.
        file: the file of the tensors, for the message.

    Raises:
        UserError: if there are several encoders.
    """
    found = sorted(name.removesuffix(words) for name in tensors if name.endswith(words))
    if len(found) > 1:
        raise UserError(f"{file} holds several encoders, {', '.join(found)}: save the one that you want by itself")
    return next(
        iter(found), next((start for start in customary if any(name.startswith(start) for name in tensors)), "")
    )


def check_fixed(config: Mapping[str, Any], fixed: Mapping[str, tuple[Any, ...]], path: Path) -> None:
    """Check that settings have values that our encoder implements.

    Raises:
        UserError: if a setting has another value.
    """
    for name, values in fixed.items():
        if name in config and config[name] not in values:
            raise UserError(f"{path}: {name} = {config[name]!r} is another architecture; only {values[0]!r} is read")


def architecture_of(config: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the first name in `architectures`, and `model_type`, which the name implies if it is not stated."""
    names = config.get("architectures") or None
    architecture = str(names[0] if isinstance(names, list) else names) if names else None
    told = architecture and architecture.partition("For")[0].removesuffix("Model").lower()
    stated = config.get("model_type")
    return architecture, str(stated) if stated else told

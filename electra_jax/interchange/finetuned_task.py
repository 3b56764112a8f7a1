"""Fold what a fine-tuned model's task does to its logits into the weights and labels that `transformers` reads."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from electra_jax.checkpoints.model_dir import Loaded
from electra_jax.checkpoints.model_record import Description
from electra_jax.checkpoints.sentence_encoder import NORMALIZED, PLAIN
from electra_jax.interchange import modernbert_config
from electra_jax.model.heads import HeadConfig
from electra_jax.model.types import PyTree
from electra_jax.tasks.original import choice
from electra_jax.tasks.protocol import VECTOR_KINDS
from electra_jax.tasks.tagging.conlleval import OUTSIDE, split_tag

# The macro of gin/runs/finetune.gin that chooses each head.
HEAD_MACROS = {
    "sequence_classification": "CLASSIFICATION_HEAD",
    "sequence_classification_reference": "CLASSIFICATION_HEAD",
    "question_answering": "QA_HEAD",
    "joint_question_answering": "QA_HEAD",
}
# The heads that make vectors: they have no parameters, and sentence-transformers has them.
POOLING_HEADS = (PLAIN, NORMALIZED)
# The letters by which the pipelines of `transformers` group tags of entities, in place of those that only we have.
BIO_LETTERS = {"E": "I", "S": "B"}


def task_of(description: Description) -> Mapping[str, Any] | None:
    """Return the facts that a fine-tuned model records about its task; None for any other model."""
    return None if description.task is None else choice.current_facts(description.task)


def head_problem(head: HeadConfig, *, modern: bool) -> str | None:
    """Return a sentence that says why `transformers` cannot load a head, and what to set; None if it can.

    Args:
        head: the head of a fine-tuned model.
        modern: whether the encoder is ModernBERT's.
    """
    known = modernbert_config.HEADS.values() if modern else modernbert_config.HEADS
    if head.kind in known or head.kind in POOLING_HEADS:
        return None
    on = " on ModernBERT" if modern else ""
    return (
        f"transformers has no class for the head {head.kind}{on}: fine-tune with {HEAD_MACROS[head.kind]} = "
        "'transformers' for a model that it loads"
    )


def folded(model: Loaded) -> Loaded:
    """Return a model whose logits alone mean what `electra predict` says with the original.

    - A regression's last layer gives values in the task's own interval, rather than from 0 to 1.
    - A tagger's labels are B-TYPE, I-TYPE and O, whatever letters it has learnt. Two outputs may then share a name; the
      tag is still the name of the likeliest output.
    - If a task gives every token the type 1, type 0 is embedded as type 1, because other tokenizers give 0.
    - The answerability logit, for which `transformers` has no place, is left out.

    Args:
        model: one tower, with or without a head and a recorded task.
    """
    model = without_answerability(model)
    task = task_of(model.description)
    if task is None:
        return model
    if task["kind"] in VECTOR_KINDS:
        return model
    if task["kind"] == "regression":
        return model._replace(params=in_interval(model.params, *interval_of(task)))
    if task["kind"] != "tagging" or task.get("registered"):
        return model
    labels = model.description.labels
    if in_bio(task):
        labels = bio_labels(labels)
    params = model.params
    token_type = choice.tagging_rules(task["rules"]).token_type_id
    if token_type and model.description.encoder.type_vocab_size:
        table_TE = np.array(params["embeddings"]["token_type_embeddings"])
        table_TE[0] = table_TE[token_type]
        params = {**params, "embeddings": {**params["embeddings"], "token_type_embeddings": table_TE}}
    return model._replace(params=params, description=dataclasses.replace(model.description, labels=labels))


def without_answerability(model: Loaded) -> Loaded:
    """Return a question answering model without the logit of "has no answer"; any other model as it is."""
    head = model.description.head
    if head is None or head.answerable == "none":
        return model
    description = dataclasses.replace(model.description, head=dataclasses.replace(head, answerable="none"))
    kept = {name: values for name, values in model.params["head"].items() if name != "answerable"}
    return model._replace(description=description, params={**model.params, "head": kept})


def interval_of(task: Mapping[str, Any]) -> tuple[float, float]:
    """Return the smallest and the largest value of a regression's training split."""
    low, high = task["interval"] if task.get("registered") else task["target"]
    return low, high


def in_interval(params: PyTree, low: float, high: float) -> PyTree:
    """Return the parameters of a regression that gives `low + (high - low) * output` in place of each output."""
    head = params["head"]
    last = head["prediction"]
    # In float64, so that each number is rounded once.
    scaled = {name: np.asarray(values, np.float64) * (high - low) for name, values in last.items()}
    scaled["bias"] = scaled["bias"] + low
    rounded = {name: values.astype(np.float32) for name, values in scaled.items()}
    return {**params, "head": {**head, "prediction": rounded}}


def in_bio(task: Mapping[str, Any]) -> bool:
    """Return whether the labels of a task are tags of entities, which are exported as BIO."""
    return task["kind"] == "tagging" and task["encoding"] != "plain"


def bio_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Replace the letters S by B and E by I in tags of entities."""
    named = []
    for label in labels:
        letter, kind = split_tag(label)
        named.append(label if label == OUTSIDE else f"{BIO_LETTERS.get(letter, letter)}-{kind}")
    return tuple(named)


def row_length(description: Description) -> int:
    """Return the most tokens of a row: the limit of the fine-tuned model's task, or else that of the model."""
    most, task = description.encoder.max_position_embeddings, task_of(description)
    if task is None:
        return description.longest_row
    length = task["windows"]["max_sequence_length"] if task["kind"] == "question_answering" else task["length"]
    return min(length, most)


def task_notes(description: Description) -> list[str]:
    """Return notes on the parts of a fine-tuned model's head and task that `transformers` has no place for."""
    notes, head, task = [], description.head, task_of(description)
    if head is not None and head.mask_questions:
        notes.append("transformers does not mask questions: its logits there lack the -1000 that ours have")
    if head is not None and head.answerable != "none":
        notes.append(
            "transformers has no place for the answerability logit: it was left out; QA_HEAD = 'transformers' has none"
        )
    if task is None:
        return notes
    if task["kind"] == "prompt":
        words = ", ".join(f"{word!r} for {label}" for label, word in zip(task["target"], task["words"], strict=True))
        notes.append(
            f"a text has here the label whose word looks the most original in {task['template']!r} ({words}); "
            "transformers gives the logits of tokens alone"
        )
    if task.get("long_texts") == "windows":
        notes.append("texts longer than a row are read in windows here (LONG_TEXTS), and are cut there")
    if task["kind"] == "regression" and task["clips"]:
        low, high = interval_of(task)
        notes.append(f"predicted values are brought into {low} to {high} here (CLIP_PREDICTIONS), but not there")
    if task["kind"] == "multi_label_classification" and task["thresholds"] is not None:
        limits = ", ".join(
            f"{name} {limit:.4g}" for name, limit in zip(task["target"], task["thresholds"], strict=True)
        )
        notes.append(
            f"a text has a label here from the probability that was best on the dev split ({limits}); transformers "
            "gives the probabilities alone"
        )
    if task["kind"] == "question_answering" and task["null_threshold"] is not None:
        notes.append(
            f"a question has no answer where its null odds exceed {task['null_threshold']:.4g}, and transformers "
            "compares them with 0, if its pipeline is told handle_impossible_answer=True"
        )
    return notes

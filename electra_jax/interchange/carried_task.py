"""Store in config.json what `transformers` does not know about a model, and restore it on import.

`transformers` keeps the fields of a config.json that it does not know, and does nothing with them. With the field
`TASK`, `electra import` undoes what `finetuned_task.folded` does to weights and names, and restores the thresholds, the
windows, the scheme of tags and whether the model reads pairs.
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from electra_jax import json_files
from electra_jax.checkpoints.model_record import MODEL_KINDS, Description
from electra_jax.errors import UserError
from electra_jax.interchange import finetuned_task
from electra_jax.interchange.imported import Imported
from electra_jax.tasks.catalog import task_from_facts
from electra_jax.tasks.long_texts import LONG_TEXTS
from electra_jax.tasks.original import choice
from electra_jax.tasks.protocol import DownstreamTask
from electra_jax.tasks.vocabulary import Vocabulary

TASK, HEAD, OBJECTIVE = "electra_task", "electra_head", "electra_objective"

# The settings of a question answering head that change its logits but have no parameters.
MASKING = ("mask_questions", "final_sep_answers")


class CarriedTask(TypedDict):
    """Declare the fields that a task of any kind records in its `describe`."""

    task: str
    kind: str
    rules: str
    length: NotRequired[int]
    long_texts: NotRequired[str]
    pair: NotRequired[bool]
    clips: NotRequired[bool]
    metrics: NotRequired[list[str]]
    labels: NotRequired[list[str]]
    fills_blanks: NotRequired[bool]
    template: NotRequired[str]
    words: NotRequired[list[str]]
    scheme: NotRequired[str | None]
    encoding: NotRequired[str]
    scoring: NotRequired[str]
    metric: NotRequired[str]
    windows: NotRequired[dict[str, int]]
    decoding: NotRequired[dict[str, int | bool]]
    thresholds: NotRequired[list[float] | None]
    null_threshold: NotRequired[float | None]


def fields_of(description: Description) -> dict[str, Any]:
    """Return the fields of config.json that store a model's task, or the objective that gives its logits a meaning.

    A task of SeqIO's registry is not stored, because it needs the module that registers it.

    Args:
        description: the description of the model before `finetuned_task.folded`.
    """
    if description.gives_energies:
        return {OBJECTIVE: description.facts["objective"]}
    task, head = finetuned_task.task_of(description), description.head
    if task is None or task.get("registered"):
        return {}
    if head is None or task["kind"] != "question_answering":
        return {TASK: dict(task)}
    # `folded` removes the answerability logit, and its threshold is useless without it.
    threshold = task["null_threshold"] if head.answerable == "none" else None
    return {TASK: {**task, "null_threshold": threshold}, HEAD: {name: getattr(head, name) for name in MASKING}}


def restored(model: Imported, config: Mapping[str, Any], path: Path) -> Imported:
    """Restore the task of an imported model from what `fields_of` put into its config.json, and its weights and labels.

    Args:
        model: the model that the other files of the directory describe.
        config: the content of config.json.
        path: the path of config.json.

    Raises:
        UserError: if the task cannot be read.
    """
    description, vocabulary = model.description, model.vocabulary
    if description.kind == "discriminator" and config.get(OBJECTIVE) == "Electric":
        return with_facts(model, {"objective": "Electric"})
    if config.get(TASK) is None or description.kind not in MODEL_KINDS.values() or vocabulary is None:
        return model
    facts, task = read_task(config[TASK], vocabulary, path)
    if MODEL_KINDS[task.kind] != description.kind or exported_labels(facts, task) not in ((), description.labels):
        note = (
            f"{path} has a task ({TASK}) of other labels than the model's, which was trained further: it was left out"
        )
        return model._replace(notes=[*model.notes, note])
    params = model.params
    if task.kind == "regression":
        low, high = finetuned_task.interval_of(facts)
        # The inverse of `folded`'s low + (high - low) * output.
        params = finetuned_task.in_interval(params, -low / (high - low), (1.0 - low) / (high - low))
    masking = config.get(HEAD) or {}
    wrong = json_files.fault_of(masking, dict[str, bool], HEAD)
    if wrong is not None or not set(masking) <= set(MASKING):
        raise UserError(f"{path}: {wrong or f'{HEAD} has other names than {MASKING}'}: remove it")
    head = None if description.head is None else dataclasses.replace(description.head, **masking)
    # The replaced-token head, which prompts use, has no labels.
    labels = task.labels if description.labels else ()
    return with_facts(model._replace(params=params), {"task": facts}, labels=labels, head=head)


def with_facts(model: Imported, facts: dict[str, Any], **fields: Any) -> Imported:
    """Return a model with facts added to its description, and with other fields of the description replaced."""
    description = model.description
    return model._replace(description=dataclasses.replace(description, facts=description.facts | facts, **fields))


def read_task(carried: Any, vocabulary: Vocabulary, path: Path) -> tuple[dict[str, Any], DownstreamTask]:
    """Return the facts about a task that a config.json stores, and the task that they describe.

    Raises:
        UserError: if no version of this project wrote these facts.
    """
    wrong = json_files.fault_of(carried, CarriedTask, TASK)
    if wrong is not None:
        raise UserError(f"{path}: {wrong}: remove it")
    try:
        facts = choice.current_facts(carried)
        if facts.get("registered") or facts.get("long_texts", "cut") not in LONG_TEXTS:
            raise ValueError("it is of a registry, or LONG_TEXTS is none")
        task = task_from_facts(facts, vocabulary)
        if task.kind == "regression":
            low, high = map(float, facts["target"])
            if not 0 < high - low < math.inf:
                raise ValueError(f"its values go from {low} to {high}")
        return facts, task
    except (UserError, KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise UserError(f"{path}: {TASK} is not what `electra export` writes ({error!r}): remove it") from error


def exported_labels(facts: Mapping[str, Any], task: DownstreamTask) -> tuple[str, ...]:
    """Return the names under which a task's labels are exported; none if the head's outputs have no names."""
    if task.kind == "prompt":
        return ()
    return finetuned_task.bio_labels(task.labels) if finetuned_task.in_bio(facts) else task.labels

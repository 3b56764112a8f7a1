"""Open the task of a fine-tuned model with its data, for `electra evaluate` and for `electra predict` on a split."""

import dataclasses
import math
from typing import Any

from electra_jax.checkpoints.model_dir import Loaded
from electra_jax.checkpoints.model_record import MODEL_KINDS, TASK_KINDS, check_finds_replaced
from electra_jax.errors import UserError
from electra_jax.inference.network import Network
from electra_jax.tasks.catalog import NAMES, make_task
from electra_jax.tasks.multiple_choice.task import CHOICE_TASKS
from electra_jax.tasks.options import TaskOptions
from electra_jax.tasks.original import choice
from electra_jax.tasks.protocol import DownstreamTask
from electra_jax.tasks.qa.sources import QA_TASKS
from electra_jax.tasks.tagging.task import TAGGING_TASKS
from electra_jax.tasks.text.prompts import PROMPT, prompt_task
from electra_jax.tasks.text.tables import Interval
from electra_jax.tasks.text.task import TextTask

# The task families that are also kinds of tasks; all other tasks are on texts.
FAMILIES = {"question_answering": QA_TASKS, "tagging": TAGGING_TASKS, "multiple_choice": CHOICE_TASKS}


def open_task(model: Network, options: TaskOptions) -> DownstreamTask:
    """Return the task that `options` name, as the model reads and answers it.

    The labels, and the threshold for questions without an answer, are those that the model recorded. If `options` name
    no task, it is the one on which the model was fine-tuned.

    Raises:
        UserError: if the model has no head (for prompts: no pre-training head), no task is named, the task is of
            another kind, or it has no data.
    """
    recorded = model.description.task
    name = options.task or ("" if recorded is None else recorded["task"])
    if name == PROMPT:
        check_finds_replaced(model.description, "MODEL_DIR")
        return make_task(sized(model, options, PROMPT), model.pieces, recorded=recorded_prompt(model))
    kind = TASK_KINDS.get(model.description.kind)
    if kind is None:
        raise UserError(
            f"a model of kind {model.description.kind!r} answers no task: it has no head; fine-tune it (electra "
            "finetune) and give that MODEL_DIR"
        )
    if not name:
        raise UserError("the model does not say which task it was fine-tuned on: set TASK, and DATA_DIR")
    if name in NAMES and family_of(name) != (kind if kind in FAMILIES else "text"):
        raise UserError(f"{name} is a task of {readable(family_of(name))}, and the model was made for {readable(kind)}")
    if kind == "question_answering" and recorded is not None and recorded["task"] != name:
        # The recorded scores and threshold belong to another task.
        recorded = None
    task = make_task(sized(model, options, name), model.pieces, recorded=recorded)
    if MODEL_KINDS[task.kind] != model.description.kind:
        raise UserError(f"{name} is a task of {readable(task.kind)}, and the model was made for {readable(kind)}")
    if recorded is None and isinstance(task, TextTask) and isinstance(task.target, Interval):
        # A regression model of another library returns values without an interval.
        return dataclasses.replace(task, target=Interval(-math.inf, math.inf))
    return task


def sized(model: Network, options: TaskOptions, name: str) -> TaskOptions:
    """Return the options of a named task; unless a length is set, rows have the task's, limited to the model's."""
    most = model.description.encoder.max_position_embeddings
    named = dataclasses.replace(options, task=name)
    length = min(named.row_length, most) if options.length is None else options.length
    return dataclasses.replace(named, length=length)


def prompted(model: Network, options: TaskOptions) -> Network:
    """Return a model that answers texts by the prompt of `options`, if they name one; otherwise the model unchanged.

    Raises:
        UserError: if the model has no head to ask, or the prompt cannot be used.
    """
    if options.task != PROMPT:
        return model
    description = model.description
    check_finds_replaced(description, "MODEL_DIR")
    task = prompt_task(
        sized(model, options, PROMPT),
        model.pieces,
        rules=choice.text_rules(options.rules),
        recorded=recorded_prompt(model),
    )
    asked = dataclasses.replace(description, facts=description.facts | {"task": task.describe()})
    return Network(Loaded(asked, model.params, model.vocabulary, model.step))


def recorded_prompt(model: Network) -> dict[str, Any] | None:
    """Return the record of the prompt on which a model was fine-tuned; None for any other model."""
    recorded = model.description.task
    return recorded if recorded is not None and recorded["kind"] == PROMPT else None


def splits_of(task: DownstreamTask, name: str) -> list[str]:
    """Return the splits that a name stands for: "dev" is two splits for MNLI.

    Raises:
        UserError: if there is none.
    """
    found = [split for split in task.splits if split == name or split.startswith(f"{name}_")]
    if not found:
        task.examples(name)
        raise UserError(f"{task.name} has no {name} split, only {', '.join(task.splits)}")
    return found


def family_of(name: str) -> str:
    """Return the family of a task of the catalogue: one of `FAMILIES`, or "text"."""
    return next((family for family, names in FAMILIES.items() if name in names), "text")


def readable(kind: str) -> str:
    """Return a kind of task in words."""
    return kind.replace("_", " ")

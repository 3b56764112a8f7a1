"""Turn a task's rows into predictions: the shared path of `electra finetune`, `evaluate` and `predict`."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from electra_jax.errors import UserError
from electra_jax.tasks.protocol import DownstreamTask, Prediction, Row

RunRows = Callable[[Sequence[Row]], list[dict[str, np.ndarray]]]


def predict_rows(
    task: DownstreamTask, examples: Sequence[Any], rows: Sequence[Row], run: RunRows, *, labels: Sequence[str]
) -> list[Prediction]:
    """Return a prediction for each example.

    Outputs with the same name are one label, whose logit is the largest of theirs: some exported taggers have such.

    Args:
        task: makes predictions from a model's outputs.
        examples: the task's examples.
        rows: the result of `task.rows` for the examples.
        run: returns the model's float32 outputs for each row: see `forward.RowRunner`.
        labels: names of the model's outputs, in order; () if its outputs have no names.

    Raises:
        UserError: if the labels are not those of the task.
    """
    outputs = run(rows)
    if task.labels and tuple(labels) != task.labels:
        names = tuple(dict.fromkeys(labels))
        groups = [np.flatnonzero([label == names[place] for label in labels]) for place in label_order(task, names)]
        merged = [np.stack([output["logits"][..., group].max(-1) for group in groups], -1) for output in outputs]
        outputs = [{"logits": logits} for logits in merged]
    return task.predictions(examples, rows, outputs)


def fitted(
    task: DownstreamTask, examples: Sequence[Any], predictions: Sequence[Prediction]
) -> tuple[DownstreamTask, list[Prediction]]:
    """Return a task with the thresholds that suit predictions best, if it has none yet, and predictions that use them.

    Questions that may have no answer have one threshold; texts that may have several labels have one for each label.
    """
    if task.kind == "question_answering" and task.null_threshold is None:
        threshold = task.fit_threshold(examples, predictions)
        task = dataclasses.replace(task, null_threshold=threshold)
        return task, [dataclasses.replace(prediction, null_threshold=threshold) for prediction in predictions]
    if task.kind == "multi_label_classification" and task.thresholds is None:
        return task.fitted(examples, predictions)
    return task, list(predictions)


def label_order(task: DownstreamTask, labels: Sequence[str]) -> list[int]:
    """Return the model output of each label of the task: another library may order or spell labels differently.

    Labels without names ("LABEL_0" ...) are taken in order. Case is ignored only if that leaves every label distinct.

    Raises:
        UserError: if they are not the same labels.
    """
    unnamed = len(labels) == len(task.labels) and all(re.fullmatch(r"label_\d+", label.casefold()) for label in labels)
    if unnamed or tuple(labels) == task.labels:
        return list(range(len(labels)))
    for spelled in (str, str.casefold):
        names, wanted = [spelled(label) for label in labels], [spelled(label) for label in task.labels]
        if sorted(names) == sorted(wanted) and len(set(names)) == len(names):
            return [names.index(label) for label in wanted]
    raise UserError(
        f"the model says one of {', '.join(labels)}, but the labels of {task.name} are {', '.join(task.labels)}: "
        "it was fine-tuned on another task"
    )

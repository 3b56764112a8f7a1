"""Weigh the classes of a classification in its loss, as given or by their numbers of training examples."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from electra_jax.errors import UserError
from electra_jax.tasks.protocol import DownstreamTask

BALANCED = "balanced"

ClassWeights = str | Mapping[str, float] | None


def weights_of_classes(
    setting: ClassWeights, task: DownstreamTask, examples: Sequence[Any]
) -> tuple[float, ...] | None:
    """Return the weight of each class, by its number; None where all weigh the same.

    "balanced" gives a class of n_c among n examples of C classes n / (C n_c), as scikit-learn (King and Zeng, 2001);
    and a label, of which an example may have several, (n - n_c) / n_c: as much for those with it as for the others.

    Args:
        setting: "balanced", or weights by the names of classes, of which those that are left out weigh 1.
        task: the classification.
        examples: those of training.

    Raises:
        UserError: if the task is no classification of texts, a class is unknown, or a class has no example to weigh.
    """
    if setting is None:
        return None
    if task.kind not in ("classification", "multi_label_classification"):
        raise UserError(f"CLASS_WEIGHTS is {setting!r}, and {task.name} has no classes: leave it out")
    if isinstance(setting, Mapping):
        if unknown := [name for name in setting if name not in task.labels]:
            known = ", ".join(map(repr, task.labels))
            raise UserError(f"CLASS_WEIGHTS names {unknown[0]!r}, and the classes of {task.name} are {known}")
        return tuple(float(setting.get(name, 1.0)) for name in task.labels)
    numbers = [example.label for example in examples if example.label is not None]
    counts_C = np.bincount(
        np.concatenate([np.atleast_1d(one) for one in numbers]).astype(int), minlength=len(task.labels)
    )
    if not counts_C.all():
        label = task.labels[int(np.argmin(counts_C))]
        raise UserError(f"CLASS_WEIGHTS is 'balanced', and no training example has {label!r}: set weights by name")
    several = task.kind == "multi_label_classification"
    weights_C = (len(numbers) - counts_C) / counts_C if several else len(numbers) / (len(counts_C) * counts_C)
    return tuple(weights_C.tolist())

"""Weight the classes of a classification in its loss, as given or by their numbers of training examples."""

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
    """Return the weight of each class, by its number; None if all weigh the same.

    "balanced" gives a class with n_c of n examples, among C classes, the weight n / (C n_c), as scikit-learn does (King
    and Zeng, 2001). If an example may have several labels, a label gets (n - n_c) / n_c: the same total weight for the
    examples with it as for the others.

    Args:
        setting: "balanced", or weights by the names of classes; a class that is left out has weight 1.
        task: the classification.
        examples: the training examples.

    Raises:
        UserError: if the task is not a classification of texts, a class is unknown, or "balanced" is asked for and a
            class has no example.
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

"""Compute the scores of a user's own classification or regression, in per cent, or in the units of its values."""

from collections.abc import Callable, Sequence

import numpy as np

from electra_jax.tasks.text import label_sets
from electra_jax.tasks.text.glue_metrics import METRICS as GLUE_METRICS
from electra_jax.tasks.text.glue_metrics import ranks
from electra_jax.tasks.text.label_sets import LabelSets, f1_macro
from electra_jax.tasks.text.tables import Classes, Target

# Scores for which smaller is better.
LOWER_IS_BETTER = ("rmse", "mae")

# A score that needs the probabilities of class 1.
AUC = "auc"


def f1_macro_of_classes(labels: Sequence[int], predictions: Sequence[int]) -> float:
    """Return the mean of the classes' F1s, per cent, over the classes that occur in labels or predictions."""
    classes_C = np.unique(np.concatenate([labels, predictions]))
    return f1_macro(*(np.equal(np.asarray(values)[:, None], classes_C) for values in (labels, predictions)))


def auc(labels: Sequence[int], shares: Sequence[float]) -> float:
    """Return the area under the ROC curve of class 1, per cent; NaN if all labels are the same.

    It is the chance that an example of class 1 has a larger share than one of class 0, with ties counted as half (Mann
    and Whitney, 1947).
    """
    positive = np.equal(labels, 1)
    many, few = float(positive.sum()), float((~positive).sum())
    if not many * few:
        return float("nan")
    return 100.0 * float((ranks(shares)[positive].sum() - many * (many + 1) / 2) / (many * few))


def rmse(targets: Sequence[float], predictions: Sequence[float]) -> float:
    """Return the root of the mean squared error, in the units of the values."""
    return float(np.sqrt(np.mean(np.square(np.subtract(targets, predictions)))))


def mae(targets: Sequence[float], predictions: Sequence[float]) -> float:
    """Return the mean absolute error, in the units of the values."""
    return float(np.mean(np.abs(np.subtract(targets, predictions))))


# The metrics, as functions of gold and predicted class numbers or values.
METRICS: dict[str, Callable[[Sequence[float], Sequence[float]], float]] = {
    **GLUE_METRICS,
    "f1_macro": f1_macro_of_classes,
    "rmse": rmse,
    "mae": mae,
}


def own_metrics(target: Target) -> tuple[str, ...]:
    """Return the names of the scores of a user's own task, the main one first unless another is chosen."""
    if isinstance(target, LabelSets):
        return tuple(label_sets.METRICS)
    if isinstance(target, Classes):
        return ("accuracy", "matthews", "f1_macro", *(("f1", AUC) if len(target.labels) == 2 else ()))
    return ("spearman", "pearson", "rmse", "mae")

"""Weight the rows of a training split in its loss, so that all examples, or words, weigh the same over an epoch."""

import collections
from collections.abc import Sequence

import numpy as np

from electra_jax.tasks.protocol import Row


def share_of_example(kind: str, rows: Sequence[Row]) -> np.ndarray:
    """Return the weight of each row, float [N] of mean 1: all rows of a long text weigh as much as that of a short one.

    For tagging, a word is labelled in only one of its sentence's rows, and for question answering each window is an
    example by itself, as published: their rows weigh 1.

    Args:
        kind: the kind of the task.
        rows: the training split, with the number of each row's example.
    """
    if kind in ("tagging", "question_answering"):
        return np.ones(len(rows))
    numbers = [int(row["example"]) for row in rows]
    counts = collections.Counter(numbers)
    return np.array([len(rows) / (len(counts) * counts[number]) for number in numbers])


def weighted(kind: str, rows: Sequence[Row]) -> Sequence[Row]:
    """Return rows with their `share_of_example` as `example_weight`, or unchanged if all weigh 1."""
    weights_N = share_of_example(kind, rows)
    if np.all(weights_N == 1.0):
        return rows
    return [
        {**row, "example_weight": np.array(weight, np.float32)} for row, weight in zip(rows, weights_N, strict=True)
    ]


def mean_weight(kind: str, rows: Sequence[Row], class_weights: Sequence[float] | None) -> float:
    """Return the mean of what each row of a training split adds to the weight of its batch's loss.

    It is the number of labelled words for tagging, the weight of its class for classification, and 1 otherwise.

    Args:
        kind: the kind of the task.
        rows: the training split.
        class_weights: see `steps.LossConfig`.
    """
    weights_N = share_of_example(kind, rows)
    if kind == "tagging":
        weights_N = np.array([row["label_mask"].sum() for row in rows])
    elif kind == "classification" and class_weights is not None:
        weights_N = weights_N * np.array(class_weights)[[int(row["label"]) for row in rows]]
    # Sentences may hold nothing that the model reads as a word.
    return float(weights_N.mean()) or 1.0

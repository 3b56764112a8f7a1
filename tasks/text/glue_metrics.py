"""Compute GLUE's scores, per cent, and their average as the ELECTRA paper takes it."""

from collections.abc import Mapping, Sequence

import numpy as np

from electra_jax.errors import UserError

# The tasks whose development scores the paper averages, with the metric of each; WNLI is not among them.
AVERAGED = {
    "cola": "matthews",
    "sst2": "accuracy",
    "mrpc": "accuracy",
    "stsb": "spearman",
    "qqp": "accuracy",
    "mnli": "accuracy",  # the matched half
    "qnli": "accuracy",
    "rte": "accuracy",
}

# The published scores of each task, first the main one, by which the best checkpoint is chosen.
TASK_METRICS = {
    "cola": ("matthews",),
    "sst2": ("accuracy",),
    "mrpc": ("accuracy", "f1"),
    "stsb": ("spearman", "pearson"),
    "qqp": ("accuracy", "f1"),
    "mnli": ("accuracy",),
    "qnli": ("accuracy",),
    "rte": ("accuracy",),
    "wnli": ("accuracy",),
    "ax": ("matthews",),
}


def accuracy(labels: Sequence[int], predictions: Sequence[int]) -> float:
    """Return the percentage of the predictions that are right."""
    return 100.0 * float(np.mean(np.equal(labels, predictions)))


def precision_recall_f1(labels: Sequence[int], predictions: Sequence[int]) -> tuple[float, float, float]:
    """Return precision, recall and F1 of class 1, per cent; 0 where undefined."""
    gold = np.equal(labels, 1)
    found = np.equal(predictions, 1)
    correct = float(np.sum(gold & found))
    if correct == 0:
        return 0.0, 0.0, 0.0
    precision = 100.0 * correct / float(np.sum(found))
    recall = 100.0 * correct / float(np.sum(gold))
    return precision, recall, 2 * precision * recall / (precision + recall)


def f1(labels: Sequence[int], predictions: Sequence[int]) -> float:
    """Return the F1 of class 1, per cent."""
    return precision_recall_f1(labels, predictions)[2]


def matthews(labels: Sequence[int], predictions: Sequence[int]) -> float:
    """Return Matthews' correlation, per cent, in Gorodkin's form for any number of classes; 0 if a side is constant."""
    classes, flat = np.unique(np.concatenate([labels, predictions]), return_inverse=True)
    one_hot = np.eye(len(classes))[flat]
    gold, found = one_hot[: len(labels)], one_hot[len(labels) :]
    number = float(len(labels))
    covariance = number * np.sum(gold * found) - gold.sum(0) @ found.sum(0)
    spread = (number**2 - np.sum(gold.sum(0) ** 2)) * (number**2 - np.sum(found.sum(0) ** 2))
    return 100.0 * float(covariance / np.sqrt(spread)) if spread else 0.0


def pearson(targets: Sequence[float], predictions: Sequence[float]) -> float:
    """Return Pearson's correlation, per cent; 0, instead of undefined, if either side is constant."""
    if np.ptp(targets) == 0 or np.ptp(predictions) == 0:
        return 0.0
    return 100.0 * float(np.corrcoef(np.asarray(targets, np.float64), np.asarray(predictions, np.float64))[0, 1])


def spearman(targets: Sequence[float], predictions: Sequence[float]) -> float:
    """Return Spearman's correlation, per cent: Pearson's of the ranks; equal values share their mean rank."""
    return pearson(ranks(targets), ranks(predictions))


METRICS = {"accuracy": accuracy, "f1": f1, "matthews": matthews, "pearson": pearson, "spearman": spearman}


def task_scores(task: str, labels: Sequence[float], predictions: Sequence[float]) -> dict[str, float]:
    """Return the published scores of a GLUE task, the main one first."""
    return {name: METRICS[name](labels, predictions) for name in TASK_METRICS[task]}


def glue_average(scores: Mapping[str, Mapping[str, float]]) -> float:
    """Return the mean of the eight tasks' scores that the ELECTRA paper averages: see `AVERAGED`.

    Args:
        scores: the scores of each task by name, as `task_scores` returns them (for mnli the matched ones).

    Raises:
        UserError: if a task or its score is missing.
    """
    missing = [task for task, metric in AVERAGED.items() if metric not in scores.get(task, {})]
    if missing:
        raise UserError(f"the GLUE average needs the scores of {', '.join(missing)} too")
    return float(np.mean([scores[task][metric] for task, metric in AVERAGED.items()]))


def ranks(values: Sequence[float]) -> np.ndarray:
    """Return the rank of each value, from 1 up; equal values share their mean rank."""
    _, inverse, counts = np.unique(np.asarray(values, np.float64), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2.0)[inverse]

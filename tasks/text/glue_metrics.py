"""GLUE's scores of classification and regression, per cent, and their average as the ELECTRA paper takes it."""

from collections.abc import Mapping, Sequence

import numpy as np

from electra_jax.errors import UserError

# What the paper averages over the development sets, and of each task the score; WNLI is not among them.
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

# The published scores of each task, the main one (by which the best checkpoint is chosen) first.
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
    """Per cent of the predictions that are right."""
    return 100.0 * float(np.mean(np.equal(labels, predictions)))


def precision_recall_f1(
    labels: Sequence[int], predictions: Sequence[int], *, gold_counts_predicted: bool
) -> tuple[float, float, float]:
    """Precision, recall and F1 of class 1, per cent; 0 where undefined.

    `gold_counts_predicted`: as the original's F1Scorer, which takes the number of predicted positives for that of
    the gold ones, so that all three equal the precision (75 where F1 is 54.5, in the recorded case).
    """
    gold = np.equal(labels, 1)
    found = np.equal(predictions, 1)
    correct = float(np.sum(gold & found))
    if correct == 0:
        return 0.0, 0.0, 0.0
    precision = 100.0 * correct / float(np.sum(found))
    recall = 100.0 * correct / float(np.sum(found if gold_counts_predicted else gold))
    return precision, recall, 2 * precision * recall / (precision + recall)


def f1(labels: Sequence[int], predictions: Sequence[int]) -> float:
    """F1 of class 1, per cent."""
    return precision_recall_f1(labels, predictions, gold_counts_predicted=False)[2]


def matthews(labels: Sequence[int], predictions: Sequence[int]) -> float:
    """Matthews' correlation (Gorodkin's, of any number of classes), per cent; 0 if either side is constant."""
    classes, flat = np.unique(np.concatenate([labels, predictions]), return_inverse=True)
    one_hot = np.eye(len(classes))[flat]
    gold, found = one_hot[: len(labels)], one_hot[len(labels) :]
    number = float(len(labels))
    covariance = number * np.sum(gold * found) - gold.sum(0) @ found.sum(0)
    spread = (number**2 - np.sum(gold.sum(0) ** 2)) * (number**2 - np.sum(found.sum(0) ** 2))
    return 100.0 * float(covariance / np.sqrt(spread)) if spread else 0.0


def pearson(targets: Sequence[float], predictions: Sequence[float]) -> float:
    """Pearson's correlation, per cent; 0, rather than undefined, if either is constant."""
    if np.ptp(targets) == 0 or np.ptp(predictions) == 0:
        return 0.0
    return 100.0 * float(np.corrcoef(np.asarray(targets, np.float64), np.asarray(predictions, np.float64))[0, 1])


def spearman(targets: Sequence[float], predictions: Sequence[float]) -> float:
    """Spearman's correlation: Pearson's of the ranks, equal values sharing their mean rank. Per cent."""
    return pearson(_ranks(targets), _ranks(predictions))


METRICS = {"accuracy": accuracy, "f1": f1, "matthews": matthews, "pearson": pearson, "spearman": spearman}


def task_scores(task: str, labels: Sequence[float], predictions: Sequence[float]) -> dict[str, float]:
    """Return the published scores of a GLUE task, the main one first."""
    return {name: METRICS[name](labels, predictions) for name in TASK_METRICS[task]}


def glue_average(scores: Mapping[str, Mapping[str, float]]) -> float:
    """Return the mean of the eight tasks' scores that the ELECTRA paper averages: see `AVERAGED`.

    `scores`: of each task, its scores by name, as `task_scores` gives them (for mnli the matched ones).

    Raises:
      UserError: a task or its score is missing.
    """
    missing = [task for task, metric in AVERAGED.items() if metric not in scores.get(task, {})]
    if missing:
        raise UserError(f"The GLUE average needs the scores of {', '.join(missing)} too.")
    return float(np.mean([scores[task][metric] for task, metric in AVERAGED.items()]))


def _ranks(values: Sequence[float]) -> np.ndarray:
    _, inverse, counts = np.unique(np.asarray(values, np.float64), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2.0)[inverse]

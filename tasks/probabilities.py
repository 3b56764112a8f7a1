"""Compute probabilities from a model's scores."""

import numpy as np


def softmax(scores: np.ndarray) -> np.ndarray:
    """Return probabilities over the last axis, float64 and of the same shape.

    Exponentials are computed in the scores' own dtype, in which parity with the original is recorded.
    """
    if not scores.size:
        return np.zeros(scores.shape)
    exponentials = np.exp(scores - np.max(scores, axis=-1, keepdims=True)).astype(np.float64)
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def sigmoid(scores: np.ndarray) -> np.ndarray:
    """Return the probability of each score on its own, float64 and of the same shape."""
    return np.exp(-np.logaddexp(0.0, -scores.astype(np.float64)))

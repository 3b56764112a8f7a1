"""The classifier of probes: scikit-learn's logistic regression, fitted by another program to the same data."""

import functools

import jax
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from electra_jax.training import softmax_regression


def data(num_examples: int) -> tuple[np.ndarray, np.ndarray]:
    """Three classes that overlap, on features of different scales, one of which never varies."""
    draw = np.random.default_rng(5)
    labels_x = draw.integers(0, 3, num_examples)
    features_xD = draw.normal(size=(num_examples, 6)) + np.eye(6)[labels_x]
    features_xD = features_xD * [1, 10, 0.1, 3, 1, 0] + [0, 5, 0, -2, 1, 7]
    return features_xD.astype(np.float32), labels_x.astype(np.int32)


@pytest.mark.parametrize("penalty", [1.0, 30.0])
def test_the_fit_is_that_of_scikit_learn(penalty: float) -> None:
    features_xD, labels_x = data(200)
    fit = functools.partial(softmax_regression.fit, num_classes=3, penalty=penalty, max_iterations=200, tolerance=1e-6)
    found = jax.jit(fit)(features_xD, labels_x)
    scaled_xD = StandardScaler().fit_transform(features_xD.astype(np.float64))
    theirs = LogisticRegression(C=1 / penalty, tol=1e-9, max_iter=1000).fit(scaled_xD, labels_x)
    # Theirs is over-parametrized in the same way, and both begin at 0, where the sum over classes stays.
    np.testing.assert_allclose(found.kernel_DY, theirs.coef_.T, rtol=0, atol=1e-4)
    np.testing.assert_allclose(found.bias_Y, theirs.intercept_, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(np.argmax(found(features_xD), axis=-1), theirs.predict(scaled_xD))
    assert float(found.gradient_norm) <= 1e-6
    assert np.abs(theirs.coef_).max() > 0.3


def test_a_fit_ends_after_its_iterations_or_when_it_is_done() -> None:
    features_xD, labels_x = data(50)
    fit = functools.partial(softmax_regression.fit, features_xD, labels_x, num_classes=3, penalty=1.0)
    early, done = fit(max_iterations=3, tolerance=1e-6), fit(max_iterations=100, tolerance=1e-3)
    assert int(early.num_iterations) == 3
    assert float(early.gradient_norm) > 1e-3 >= float(done.gradient_norm)
    assert 3 < int(done.num_iterations) < 100

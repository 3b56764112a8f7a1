"""Fit a linear classifier to fixed features, on the whole training set at once: multinomial logistic regression."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax


class Classifier(NamedTuple):
    """A linear map from features to the logits of classes, float32.

    Attributes:
        mean_D, deviation_D: mean and standard deviation with which features are standardized first.
        kernel_DY: weights, with Y classes.
        bias_Y: biases.
        gradient_norm: largest absolute derivative of the loss at the end of the fit, float32 [].
        num_iterations: iterations of the fit, int32 [].
    """

    mean_D: jax.Array
    deviation_D: jax.Array
    kernel_DY: jax.Array
    bias_Y: jax.Array
    gradient_norm: jax.Array
    num_iterations: jax.Array

    def __call__(self, features_xD: jax.Array) -> jax.Array:
        """Return the logits of each row of features, float32 [x, Y]."""
        scaled_xD = (features_xD - self.mean_D[None]) / self.deviation_D[None]
        return scaled_xD @ self.kernel_DY + self.bias_Y[None]


def fit(
    features_xD: jax.Array,
    labels_x: jax.Array,
    *,
    num_classes: int,
    penalty: float,
    max_iterations: int,
    tolerance: float,
) -> Classifier:
    """Minimize the mean cross-entropy of the labels plus `penalty` / (2 x) times the kernel's squared norm.

    This is what scikit-learn's `LogisticRegression(C=1 / penalty)` minimizes on features of mean 0 and variance 1, by
    the same method, L-BFGS. The loss is convex and the fit begins at 0, so the result depends on no seed.

    Args:
        features_xD: float32, one row per example.
        labels_x: int32 class numbers.
        num_classes: Y.
        penalty: the weight of the squared norm, in examples; the biases are not penalized.
        max_iterations: largest number of iterations of L-BFGS.
        tolerance: the fit ends early when no derivative of the loss is larger than this.
    """
    mean_D, deviation_D = jnp.mean(features_xD, axis=0), jnp.std(features_xD, axis=0)
    # A feature that does not vary stays 0.
    deviation_D = jnp.where(deviation_D > 0, deviation_D, 1.0)
    scaled_xD = (features_xD - mean_D[None]) / deviation_D[None]

    def loss(weights: tuple[jax.Array, jax.Array]) -> jax.Array:
        kernel_DY, bias_Y = weights
        logits_xY = scaled_xD @ kernel_DY + bias_Y[None]
        nll_x = optax.softmax_cross_entropy_with_integer_labels(logits_xY, labels_x)
        return jnp.mean(nll_x) + penalty / (2 * len(labels_x)) * jnp.sum(kernel_DY**2)

    def gradient_norm(state: optax.OptState) -> jax.Array:
        return optax.tree.norm(optax.tree.get(state, "grad"), ord="inf")

    def is_unfinished(carry: tuple[tuple[jax.Array, jax.Array], optax.OptState]) -> jax.Array:
        _, state = carry
        count = optax.tree.get(state, "count")
        return (count == 0) | ((count < max_iterations) & (gradient_norm(state) > tolerance))

    optimizer = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    def step(
        carry: tuple[tuple[jax.Array, jax.Array], optax.OptState],
    ) -> tuple[tuple[jax.Array, jax.Array], optax.OptState]:
        weights, state = carry
        value, grad = value_and_grad(weights, state=state)
        updates, state = optimizer.update(grad, state, weights, value=value, grad=grad, value_fn=loss)
        return optax.apply_updates(weights, updates), state

    start = (jnp.zeros((features_xD.shape[1], num_classes)), jnp.zeros(num_classes))
    (kernel_DY, bias_Y), state = jax.lax.while_loop(is_unfinished, step, (start, optimizer.init(start)))
    return Classifier(
        mean_D, deviation_D, kernel_DY, bias_Y, gradient_norm(state), jnp.asarray(optax.tree.get(state, "count"))
    )

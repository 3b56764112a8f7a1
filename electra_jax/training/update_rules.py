"""Define update rules, which transform gradients before decoupled weight decay and the learning rate."""

import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import traverse_util
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from electra_jax.errors import UserError
from electra_jax.model.types import PyTree

# A stack of layers has a leading axis: each layer's slice counts as a parameter of its own.
STACKED = r"layers/"
# Matrices from hidden states to hidden states: patterns of paths, of which the first match counts, and the axes of a
# matrix's inputs and outputs, counted from the end; other axes enumerate matrices. All heads of an attention kernel are
# one matrix, and query, key and value are three, as published (Jordan et al., 2024).
HIDDEN_MATRICES = (
    (r"encoder/.*attention/(query|key|value)_kernel$", MuonDimensionNumbers(-3, (-2, -1))),
    (r"encoder/.*attention/output_kernel$", MuonDimensionNumbers((-3, -2), -1)),
    (r"encoder/.*kernel$", MuonDimensionNumbers(-2, -1)),
    (r"(head|correction)/(dense|joint|answerable/hidden)/kernel$", MuonDimensionNumbers(-2, -1)),
)
# Embeddings, heads' output tables, biases and layer normalization, which Adam updates when Muon updates the others.
NO_HIDDEN_MATRICES = r"embeddings/|(prediction|start|end|span|copy_gate)[/_]kernel$|bias$|scale$"
# Newton-Schulz iterations, with the coefficients of the published code.
NUM_ITERATIONS = 5


def by_path(label: Callable[[str], Any], params: PyTree) -> PyTree:
    """Return the label of each parameter's path; a parameter boxed with its logical axes gets one for the box."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: label(jax.tree_util.keystr(path, simple=True, separator="/")),
        params,
        is_leaf=lambda node: isinstance(node, nn.Partitioned),
    )


def scale_by_bert_adam(beta_1: float, beta_2: float, epsilon: float) -> optax.GradientTransformation:
    """Scale updates to m / (sqrt(v) + epsilon): BERT's Adam has no bias correction.

    `optax.scale_by_adam` always corrects the moments.
    """

    def init(params: PyTree) -> optax.ScaleByAdamState:
        # Two trees: a state with the same buffer in two places cannot be donated.
        mu, nu = (jax.tree.map(jnp.zeros_like, params) for _ in range(2))
        return optax.ScaleByAdamState(jnp.zeros((), jnp.int32), mu, nu)

    def update(
        updates: PyTree, state: optax.ScaleByAdamState, params: PyTree | None = None
    ) -> tuple[PyTree, optax.ScaleByAdamState]:
        del params
        mu = optax.tree.update_moment(updates, state.mu, beta_1, 1)
        nu = optax.tree.update_moment(updates, state.nu, beta_2, 2)
        scaled = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + epsilon), mu, nu)
        return scaled, optax.ScaleByAdamState(optax.safe_increment(state.count), mu, nu)

    return optax.GradientTransformation(init, update)


def promoting(rule: optax.GradientTransformation) -> optax.GradientTransformation:
    """Allow a rule of Optax to mix dtypes: its bias correction is a float to the power of an integer count."""

    def update(updates: PyTree, state: PyTree, params: PyTree | None = None) -> tuple[PyTree, PyTree]:
        with jax.numpy_dtype_promotion("standard"):
            return rule.update(updates, state, params)

    return optax.GradientTransformation(rule.init, update)


def scale_by_adam(beta_1: float, beta_2: float, epsilon: float) -> optax.GradientTransformation:
    """Scale updates as Adam with bias correction (Kingma and Ba, 2015)."""
    return promoting(optax.scale_by_adam(beta_1, beta_2, epsilon))


def scale_by_stable_adamw(
    beta_1: float, beta_2: float, epsilon: float, decay: optax.GradientTransformation
) -> optax.GradientTransformation:
    """Scale updates as AdamW with the clipping of Adafactor (StableAdamW: Wortsman et al., 2023, algorithm 2).

    If a parameter's gradients are larger than its second moment says, RMS = sqrt(mean(g^2 / max(v, epsilon^2))) is
    above 1, and Adam's update and the weight decay are divided by it. Each layer of a stack has an RMS of its own.

    Args:
        beta_1, beta_2, epsilon: Adam's, with bias correction.
        decay: a transformation without state that adds the weight decay.
    """
    adam = scale_by_adam(beta_1, beta_2, epsilon)

    def update(
        grads: PyTree, state: optax.ScaleByAdamState, params: PyTree | None = None
    ) -> tuple[PyTree, optax.ScaleByAdamState]:
        updates, state = adam.update(grads, state, params)
        updates, _ = decay.update(updates, decay.init(params), params)
        correction = 1 - beta_2 ** state.count.astype(jnp.float32)

        def limited(update: jax.Array, grad: jax.Array, nu: jax.Array, stacked: bool) -> jax.Array:
            ratio = jnp.square(grad) / jnp.maximum(nu / correction, epsilon**2)
            mean = jnp.mean(ratio, tuple(range(int(stacked), grad.ndim)), keepdims=True)
            return update / jnp.maximum(1.0, jnp.sqrt(mean))

        stacked = by_path(lambda path: re.search(STACKED, path) is not None, grads)
        return jax.tree.map(limited, updates, grads, state.nu, stacked), state

    return optax.GradientTransformation(adam.init, update)


def matrix_axes(path: str) -> MuonDimensionNumbers | None:
    """Return the axes of a parameter's matrices if it holds hidden matrices, which Muon updates; None if Adam does.

    Raises:
        UserError: if the parameter does not belong to exactly one group.
    """
    axes = next((axes for pattern, axes in HIDDEN_MATRICES if re.search(pattern, path)), None)
    if (axes is None) == (re.search(NO_HIDDEN_MATRICES, path) is None):
        raise UserError(
            f"{path} is not in exactly one group of the optimizer, Muon's or Adam's: set OptimizerConfig.rule to "
            "'adamw', or give its pattern a place in training/update_rules.py"
        )
    return axes


def scale_by_muon_and_adam(
    momentum: float, update_rms: float, adam: optax.GradientTransformation
) -> optax.GradientTransformation:
    """Orthogonalize the momentum of hidden matrices (Muon: Jordan et al., 2024), and scale all others by Adam.

    A matrix [in, out] is multiplied by update_rms x sqrt(max(in, out)), which makes `update_rms` the root mean square
    of its entries: at that of Adam's updates, one learning rate and one weight decay suit both (Liu et al., 2025, Muon
    is scalable for LLM training, equation 4).

    Args:
        momentum: share of the Nesterov momentum that is kept at each update.
        update_rms: root mean square of a matrix's update.
        adam: rule of all parameters that are not hidden matrices.
    """

    def axes_of(updates: PyTree) -> PyTree:
        return by_path(matrix_axes, updates)

    def with_rms(updates: PyTree, params: PyTree | None) -> PyTree:
        del params
        return jax.tree.map(
            lambda update, axes: update * (update_rms * math.sqrt(max(matrix_shape(update.shape, axes)))),
            updates,
            axes_of(updates),
        )

    muon = promoting(scale_by_muon(ns_steps=NUM_ITERATIONS, beta=momentum, weight_dimension_numbers=axes_of))
    return optax.partition(
        {"muon": optax.chain(muon, optax.stateless(with_rms)), "adam": adam},
        lambda params: by_path(lambda path: "adam" if matrix_axes(path) is None else "muon", params),
    )


def matrix_shape(shape: tuple[int, ...], axes: MuonDimensionNumbers) -> tuple[int, int]:
    """Return the numbers of inputs and outputs of the matrices that a parameter of this shape holds."""
    inputs, outputs = (
        math.prod(shape[axis] for axis in ((group,) if isinstance(group, int) else group)) for group in axes
    )
    return inputs, outputs


def muon_flops(params: PyTree) -> int:
    """Return the matrix FLOPs of orthogonalizing all hidden matrices in one update.

    An iteration on a matrix [m, n] with m <= n takes the products [m, n][n, m], [m, m][m, m] and [m, m][m, n].
    """
    total = 0
    for path, leaf in traverse_util.flatten_dict(params, sep="/").items():
        axes = matrix_axes(path)
        if axes is not None:
            small, large = sorted(matrix_shape(leaf.shape, axes))
            count = math.prod(leaf.shape) // (small * large)
            total += count * NUM_ITERATIONS * (4 * small * small * large + 2 * small**3)
    return total

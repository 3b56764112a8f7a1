"""The losses of several labels a text, and of weighted classes, by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.finetuning.steps import LossConfig, loss_of


def test_labels_of_which_a_text_has_several_are_each_a_yes_or_no() -> None:
    """By hand: log(1 + exp(-logit)) of a label that is there, log(1 + exp(logit)) of one that is not; their mean."""
    logits_BC = jnp.array([[2.0, -1.0, 0.0], [1.0, 1.0, 1.0]])
    batch = {"labels": jnp.array([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]), "row_weight": jnp.array([1.0, 0.0])}
    term = loss_of(LossConfig("multi_label_classification", 0.5, 1.0, None, 0.05), logits_BC, batch)
    assert float(term.sum) == pytest.approx((np.log1p(np.exp(-2)) + np.log1p(np.exp(-1)) + np.log(2)) / 3)
    assert float(term.weight) == 1.0


def test_weights_of_classes_weigh_the_mean() -> None:
    """By hand, as torch.nn.CrossEntropyLoss(weight=...) and BCEWithLogitsLoss(pos_weight=...) do it."""
    logits_BC = jnp.array([[0.0, 0.0], [0.0, np.log(3.0)]])
    batch = {"label": jnp.array([0, 1]), "row_weight": jnp.ones(2)}
    term = loss_of(LossConfig("classification", 0.5, 1.0, (0.25, 2.0), 0.05), logits_BC, batch)
    assert float(term.weight) == 2.25
    assert float(term.sum) == pytest.approx(0.25 * np.log(2) + 2.0 * np.log(4 / 3))
    several = {"labels": jnp.array([[1.0, 0.0], [0.0, 1.0]]), "row_weight": jnp.ones(2)}
    term = loss_of(LossConfig("multi_label_classification", 0.5, 1.0, (3.0, 2.0), 0.05), logits_BC, several)
    assert float(term.weight) == 2.0
    assert float(term.sum) == pytest.approx((3 * np.log(2) + np.log(2)) / 2 + (np.log(2) + 2 * np.log(4 / 3)) / 2)

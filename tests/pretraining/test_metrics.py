"""Metrics against scikit-learn and hand-worked counts."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from electra_jax.model.types import Corrupted, Loss, Masked, Tokens
from electra_jax.pretraining import metrics, original
from electra_jax.pretraining.objective import Outputs
from electra_jax.training.state import Sums


def outputs_of(logits: np.ndarray, labels: np.ndarray, attention_mask: np.ndarray) -> tuple[Masked, Outputs]:
    """A batch whose one used slot the generator guesses right, and these logits of the discriminator."""
    tokens = Tokens(jnp.zeros_like(labels, jnp.int32), jnp.zeros_like(labels, jnp.int32), jnp.asarray(attention_mask))
    ids = jnp.array([[1, 2]])
    masked = Masked(tokens, jnp.array([[1, 0]]), ids, jnp.array([[1.0, 0.0]]))
    generator_logits = jnp.array([[[0.0, 5.0, 0.0], [0.0, 0.0, 5.0]]])
    outputs = Outputs(Corrupted(tokens, jnp.asarray(labels, jnp.float32), ids), generator_logits, jnp.asarray(logits))
    return masked, outputs


def sums_of(logits: np.ndarray, labels: np.ndarray, attention_mask: np.ndarray) -> Sums:
    masked, outputs = outputs_of(logits, labels, attention_mask)
    losses = {"generator": Loss(jnp.array(6.0), jnp.array(2.0)), "discriminator": Loss(jnp.array(3.0), jnp.array(4.0))}
    return metrics.pretraining_sums(losses, masked, outputs)


def test_counts_by_hand_and_padding_counts_nowhere() -> None:
    logits = np.array([[-1.0, 2.0, 3.0, -4.0, 9.0]], np.float32)
    labels = np.array([[0, 1, 0, 1, 1]])
    real = np.array([[1, 1, 1, 1, 0]])
    values = metrics.finish(sums_of(logits, labels, real), {"generator": 1.0, "discriminator": 50.0})
    assert values["discriminator_accuracy"] == 0.5
    assert values["unreplaced_share"] == 0.5
    assert values["discriminator_recall"] == 0.5
    assert values["discriminator_precision"] == 0.5
    assert values["discriminator_auc"] == 0.25  # of the four pairs, 2 > -1 and no other
    assert values["generator_accuracy"] == 1.0  # the second slot is unused
    assert values["loss"] == pytest.approx(3.0 + 50 * 0.75)


def test_auc_of_sums_over_batches_is_that_of_all_tokens() -> None:
    draw = np.random.default_rng(0)
    parts = []
    for _ in range(3):
        labels = (draw.random((4, 50)) < 0.15).astype(np.int32)
        logits = (draw.normal(size=(4, 50)) * 1.5 - 2 + 1.2 * labels).astype(np.float32)
        real = (draw.random((4, 50)) < 0.9).astype(np.int32)
        parts.append((logits, labels, real))
    total = None
    for part in parts:
        sums = sums_of(*part)
        total = sums if total is None else {name: total[name] + sums[name] for name in sums}
    logits, labels, real = (np.concatenate([part[i] for part in parts]) for i in range(3))
    exact = roc_auc_score(labels[real == 1], logits[real == 1])
    assert metrics.finish(total, {"generator": 1.0, "discriminator": 50.0})["discriminator_auc"] == pytest.approx(
        exact, abs=2e-3
    )


def test_auc_of_one_class_or_of_equal_scores() -> None:
    one = np.zeros(metrics.AUC_BINS)
    one[3] = 5
    assert np.isnan(metrics.auc(one, np.zeros_like(one)))
    assert metrics.auc(one, one) == 0.5


def test_repetition_is_the_share_of_pairs_within_a_text_that_are_one_token() -> None:
    """Two 1s and a 2 are 6 ordered pairs, 2 of them equal; a 1 and a 5 are 2 more; the slot without weight is none."""
    sums = metrics.repetition_sums(jnp.array([[1, 1, 2], [1, 5, 5]]), jnp.array([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]]))
    assert sums == {"sample_pairs": 8.0, "equal_sample_pairs": 2.0}
    whole = sums_of(np.ones((1, 5), np.float32), np.ones((1, 5), np.int32), np.ones((1, 5), np.int32)) | sums
    assert metrics.finish(whole, {"generator": 1.0, "discriminator": 50.0})["generator_repetition"] == 0.25


def test_the_originals_metrics_by_hand() -> None:
    """A padded row beside ours, as the last batch has them, changes nothing; padding within a row does, in the AUC."""
    logits = np.log(np.array([[0.2, 0.6, 0.7, 0.1, 0.9], [0.5, 0.5, 0.5, 0.5, 0.5]], np.float32))
    logits -= np.log1p(-np.exp(logits))
    labels = np.array([[0, 1, 0, 1, 0], [0, 0, 0, 0, 0]])
    real = np.array([[1, 1, 1, 1, 0], [0, 0, 0, 0, 0]])
    values = original.finish_metrics(original.metric_sums(*outputs_of(logits, labels, real)))
    nll = -np.log([0.8, 0.6, 0.3, 0.1]).mean()
    assert values["disc_loss"] == pytest.approx(nll, rel=1e-5)
    # 0.6 beats 0.2 and the padding's 0; 0.1 beats the padding: 3 of 6 pairs. Without padding 1 of 4.
    assert values["disc_auc"] == pytest.approx(3 / 6, abs=1e-5)
    assert (values["disc_accuracy"], values["disc_precision"], values["disc_recall"]) == (0.5, 0.5, 0.5)
    assert values["masked_lm_accuracy"] == values["sampled_masked_lm_accuracy"] == 1.0


def test_of_equal_logits_one_is_right() -> None:
    """Those of a uniform generator are all equal, and it guesses one token in V, not every one."""
    masked, outputs = outputs_of(np.zeros((1, 5), np.float32), np.zeros((1, 5), int), np.ones((1, 5), int))
    for own, other, accuracy in (([0.0] * 3, 1.0, 1 / 3), ([5.0, 5.0, 0.0], 1.0, 1 / 2), ([0.0, 5.0, 0.0], 1.0, 1.0)):
        logits = jnp.array([[own, [other] * 3]])
        losses = {"generator": Loss(jnp.array(1.0), jnp.array(1.0))}
        sums = metrics.pretraining_sums(losses, masked, outputs._replace(generator_logits_BKV=logits))
        assert metrics.finish(sums, {"generator": 1.0})["generator_accuracy"] == pytest.approx(accuracy)

"""Mask and evaluate exactly as the original's `run_pretraining.py` does, faults included, for comparison with it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from electra_jax.model.types import Masked
from electra_jax.pretraining.metrics import ExtraMetrics
from electra_jax.pretraining.objective import Outputs
from electra_jax.pretraining.rules import PretrainingRules
from electra_jax.training.state import Sums

# The spacing of thresholds in TensorFlow 1's AUC.
NUM_THRESHOLDS = 200
AUC_EPSILON = 1e-6


@dataclasses.dataclass(frozen=True)
class RepeatedPositions:
    """A `corruption.PositionRule` that draws positions independently of each other.

    On average, 17.7 of 19 draws in 128 tokens are distinct: 13.8 % of the tokens are selected in place of 15 %, and
    the generator's loss counts a position once for each time it was drawn.
    """

    def draw(
        self, key: jax.Array, ids_L: jax.Array, candidate_L: jax.Array, wanted: jax.Array, num_slots: int
    ) -> tuple[jax.Array, jax.Array]:
        """Return positions drawn with replacement, and `wanted`, or 0 if there is no candidate."""
        del ids_L
        num_candidates = jnp.sum(candidate_L)
        rank_K = jax.random.uniform(key, (num_slots,)) * num_candidates.astype(jnp.float32)
        positions_K = jnp.searchsorted(jnp.cumsum(candidate_L), rank_K.astype(jnp.int32), side="right")
        return positions_K, jnp.where(num_candidates > 0, wanted, 0)

    def settle(self, masked: Masked, sampled_ids_BK: jax.Array) -> jax.Array:
        """Return the average, rounded down, of the ids sampled at a position: mostly the id of a token never drawn.

        On average, 1.25 of 128 tokens are at positions with more than one sample.
        """
        positions_BK, used_BK = masked.masked_positions, masked.masked_weights > 0
        same_BKK = (positions_BK[:, :, None] == positions_BK[:, None, :]) & used_BK[:, None, :]
        total_BK = jnp.sum(jnp.where(same_BKK, sampled_ids_BK[:, None, :], 0), axis=-1)
        return total_BK // jnp.maximum(1, jnp.sum(same_BKK, axis=-1))


def thresholds() -> np.ndarray:
    """Return thresholds evenly spaced over [0, 1], with the two ends just outside it, float32."""
    inner = [(i + 1) / (NUM_THRESHOLDS - 1) for i in range(NUM_THRESHOLDS - 2)]
    return np.array([-1e-7, *inner, 1 + 1e-7], np.float32)


def metric_sums(masked: Masked, outputs: Outputs) -> Sums:
    """Return the sums over one batch of what `finish_metrics` reports, float32."""
    weights_BK = masked.masked_weights
    logits_BKV = outputs.generator_logits_BKV
    if logits_BKV is None:
        logits_BKV = outputs.prediction_logits_BKV
    nll_BK = optax.softmax_cross_entropy_with_integer_labels(logits_BKV, masked.masked_ids)
    correct_BK = (jnp.argmax(logits_BKV, axis=-1) == masked.masked_ids).astype(jnp.float32)
    sums = {
        "masked": jnp.sum(weights_BK),
        "masked_lm_correct": jnp.sum(correct_BK * weights_BK),
        "masked_lm_loss": jnp.sum(nll_BK * weights_BK),
    }
    if outputs.corrupted is None or outputs.discriminator_logits_BL is None:
        return sums
    sampled_BK = (outputs.corrupted.sampled_ids_BK == masked.masked_ids).astype(jnp.float32)
    logits_BL, labels_BL = outputs.discriminator_logits_BL, outputs.corrupted.labels_BL
    real_BL = masked.tokens.attention_mask.astype(jnp.float32)
    nll_BL = optax.sigmoid_binary_cross_entropy(logits_BL, labels_BL) * real_BL
    flagged_BL = (logits_BL > 0).astype(jnp.float32)
    right_BL = (flagged_BL == labels_BL).astype(jnp.float32) * real_BL
    row_B1 = jnp.max(real_BL, axis=-1, keepdims=True)
    above_BLT = ((jax.nn.sigmoid(logits_BL) * real_BL)[..., None] > thresholds()[None, None]).astype(jnp.float32)
    positive_BL1 = (labels_BL * real_BL)[..., None]
    negative_BL1 = row_B1[..., None] - positive_BL1
    return sums | {
        "sampled_correct": jnp.sum(sampled_BK * weights_BK),
        "rows": jnp.sum(row_B1),
        "disc_loss": jnp.sum(jnp.sum(nll_BL, axis=-1) / (jnp.sum(real_BL, axis=-1) + 1e-6)),
        "real": jnp.sum(real_BL),
        "right": jnp.sum(right_BL),
        "flagged": jnp.sum(flagged_BL * real_BL),
        "right_flagged": jnp.sum(right_BL * flagged_BL),
        "replaced": jnp.sum(labels_BL * real_BL),
        "right_replaced": jnp.sum(right_BL * labels_BL),
        "true_positives": jnp.sum(above_BLT * positive_BL1, axis=(0, 1)),
        "false_positives": jnp.sum(above_BLT * negative_BL1, axis=(0, 1)),
        "tokens": jnp.sum(row_B1) * logits_BL.shape[1],
    }


def finish_metrics(sums: dict[str, np.ndarray]) -> dict[str, float]:
    """Return the original's metrics under the original's names from summed `metric_sums`, to compare with its logs.

    Unlike those of `metrics.finish`: the discriminator's loss is a mean over rows of means over tokens; padding counts
    as original tokens with probability 0 in the AUC, which raises it; the AUC is a trapezoid over 200 thresholds; and
    what was never counted, such as precision where nothing was flagged, is 0. Rows without a token, which fill up our
    last batch, are not counted: the original has none.
    """

    def share(part: str, whole: str) -> float:
        return float(sums[part]) / float(sums[whole]) if float(sums[whole]) else 0.0

    values = {
        "masked_lm_accuracy": share("masked_lm_correct", "masked"),
        "masked_lm_loss": share("masked_lm_loss", "masked"),
    }
    if "rows" not in sums:
        return values
    positives = float(sums["replaced"])
    negatives = float(sums["tokens"]) - positives
    recall = (np.asarray(sums["true_positives"], np.float64) + AUC_EPSILON) / (positives + AUC_EPSILON)
    fallout = np.asarray(sums["false_positives"], np.float64) / (negatives + AUC_EPSILON)
    return {
        **values,
        "sampled_masked_lm_accuracy": share("sampled_correct", "masked"),
        "disc_loss": share("disc_loss", "rows"),
        "disc_auc": float(np.sum((fallout[:-1] - fallout[1:]) * (recall[:-1] + recall[1:]) / 2)),
        "disc_accuracy": share("right", "real"),
        "disc_precision": share("right_flagged", "flagged"),
        "disc_recall": share("right_replaced", "replaced"),
    }


RULES = PretrainingRules(
    name="original",
    positions=RepeatedPositions(),
    extra_metrics=ExtraMetrics(prefix="reference/", sums=metric_sums, finish=finish_metrics),
)

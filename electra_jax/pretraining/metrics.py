"""Compute the metrics of training and evaluation: sums on the device, quotients on the host.

The sums of several batches, devices or processes are added; only `finish` divides.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from electra_jax.model.types import Loss, Masked
from electra_jax.pretraining.objective import Outputs
from electra_jax.training.state import Sums

AUC_BINS = 1024
# A bin's number is cut into two digits of this base.
AUC_BASE = 32
AUC_LOGIT_RANGE = 12.0


@dataclasses.dataclass(frozen=True)
class ExtraMetrics:
    """Metrics that evaluation reports in addition to those of `finish`.

    Attributes:
        prefix: prefix of the names of their sums and values, which keeps them apart from the others.
        sums: returns the sums of a masked batch and its outputs, which are added over batches.
        finish: returns the metrics of added sums by name.
    """

    prefix: str
    sums: Callable[[Masked, Outputs], Sums]
    finish: Callable[[dict[str, np.ndarray]], dict[str, float]]


def pretraining_sums(losses: dict[str, Loss], masked: Masked, outputs: Outputs) -> Sums:
    """Return sums over one batch of everything that `finish` reports; padding is never counted.

    Sums of outputs that the objective did not compute are left out.

    Returns:
        Float32 scalars, and two float32 histograms [AUC_BINS] of the discriminator's logits at replaced and at
        original tokens.
    """
    weights_BK = masked.masked_weights
    real_BL = masked.tokens.attention_mask.astype(jnp.float32)
    sums = {
        "examples": jnp.sum(jnp.max(real_BL, axis=-1)),
        "masked": jnp.sum(weights_BK),
        "real": jnp.sum(real_BL),
    }
    for name, logits_BKV, right_BK in (
        ("generator", outputs.generator_logits_BKV, masked.masked_ids),
        ("prediction", outputs.prediction_logits_BKV, masked.masked_ids),
        # The original token is the first of the candidates.
        ("correction", outputs.correction_logits_BKP, jnp.zeros_like(masked.masked_ids)),
    ):
        if logits_BKV is not None:
            # The largest logit rather than its index: on CPU a maximum is reduced many times faster than an argmax.
            own_BK1 = jnp.take_along_axis(logits_BKV, right_BK[..., None], axis=-1)
            largest_BK1 = jnp.max(logits_BKV, axis=-1, keepdims=True)
            # A tie of n tokens counts 1/n, so that a uniform generator has an accuracy of 1/V.
            tied_BK = jnp.sum((logits_BKV == largest_BK1).astype(jnp.float32), axis=-1)
            correct_BK = (own_BK1 == largest_BK1)[..., 0].astype(jnp.float32) / jnp.maximum(tied_BK, 1.0)
            sums[f"{name}_correct"] = jnp.sum(correct_BK * weights_BK)
            sums[f"{name}_predicted"] = jnp.sum(weights_BK)
    if outputs.corrupted is not None and outputs.generator_logits_BKV is not None:
        sums |= repetition_sums(outputs.corrupted.sampled_ids_BK, weights_BK)
    if outputs.corrupted is not None and outputs.discriminator_logits_BL is not None:
        sums |= discriminator_sums(outputs.discriminator_logits_BL, outputs.corrupted.labels_BL * real_BL, real_BL)
    for name, loss in losses.items():
        sums[f"{name}_loss"], sums[f"{name}_loss_weight"] = loss.sum, loss.weight
    return sums


def discriminator_sums(logits_BL: jax.Array, labels_BL: jax.Array, real_BL: jax.Array) -> Sums:
    """Return counts of replaced and flagged tokens and of those that are both, and the histograms of logits."""
    flagged_BL = (logits_BL > 0).astype(jnp.float32) * real_BL
    bins_BL = logit_bins(logits_BL)
    return {
        "judged": jnp.sum(real_BL),
        "replaced": jnp.sum(labels_BL),
        "flagged": jnp.sum(flagged_BL),
        "caught": jnp.sum(flagged_BL * labels_BL),
        "replaced_histogram": histogram(bins_BL, labels_BL),
        "original_histogram": histogram(bins_BL, real_BL - labels_BL),
    }


def repetition_sums(sampled_ids_BK: jax.Array, weights_BK: jax.Array) -> Sums:
    """Return the number of pairs of samples in the same row, and of pairs of equal samples."""
    others_KK = 1.0 - jnp.eye(sampled_ids_BK.shape[-1], dtype=jnp.float32)
    pairs_BKK = weights_BK[:, :, None] * weights_BK[:, None, :] * others_KK[None]
    equal_BKK = (sampled_ids_BK[:, :, None] == sampled_ids_BK[:, None, :]).astype(jnp.float32)
    return {"sample_pairs": jnp.sum(pairs_BKK), "equal_sample_pairs": jnp.sum(pairs_BKK * equal_BKK)}


def logit_bins(logits: jax.Array) -> jax.Array:
    """Return the histogram bin of each logit, int32; logits past the range fall in the outermost bins."""
    scaled = (logits + AUC_LOGIT_RANGE) * (AUC_BINS / (2 * AUC_LOGIT_RANGE))
    return jnp.clip(scaled, 0, AUC_BINS - 1).astype(jnp.int32)


def histogram(bins: jax.Array, weights: jax.Array) -> jax.Array:
    """Return the weighted count of each bin, float32 [AUC_BINS].

    It is a matrix product over all tokens, with one digit of the bin as the row and the other as the column: exact for
    weights of 0 and 1 in any precision, whereas a scatter would add up the tokens of a bin one after the other.
    """
    digits = jnp.arange(AUC_BASE)
    high_x, low_x = jnp.divmod(bins.ravel(), AUC_BASE)
    rows = jnp.where(digits[:, None] == high_x[None], weights.ravel()[None], 0.0)
    columns = (low_x[:, None] == digits[None]).astype(jnp.float32)
    return (rows @ columns).ravel()


def auc(positive_histogram: np.ndarray, negative_histogram: np.ndarray) -> float:
    """Return the area under the ROC curve from two histograms over the same bins; NaN where either class is empty.

    A tie within a bin counts as half.
    """
    negatives_below = np.cumsum(negative_histogram) - negative_histogram
    wins = np.sum(positive_histogram * (negatives_below + 0.5 * negative_histogram))
    return quotient(wins, positive_histogram.sum() * negative_histogram.sum())


def finish(sums: dict[str, np.ndarray], loss_weights: dict[str, float]) -> dict[str, float]:
    """Return the metrics of a run from summed `pretraining_sums`.

    `unreplaced_share` is the accuracy of calling every token original, the baseline for `discriminator_accuracy`.
    `generator_repetition` is the chance that two of the generator's samples in one text are the same token; it is 1 for
    a generator that has collapsed to one token. There are no metrics of a generator or a discriminator that the
    objective does not have.
    """
    # Steps that train the generator alone have no sums of the discriminator.
    counted = {name: float(sums[f"{name}_loss_weight"]) for name in loss_weights}
    run = [name for name in loss_weights if name == "generator" or counted[name] or not counted.get("generator")]
    parts = {f"{name}_loss": quotient(sums[f"{name}_loss"], sums[f"{name}_loss_weight"]) for name in run}
    values = {"loss": sum(loss_weights[name] * parts[f"{name}_loss"] for name in run), **parts}
    for name in ("generator", "prediction", "correction"):
        if name in run and f"{name}_correct" in sums:
            values[f"{name}_accuracy"] = quotient(sums[f"{name}_correct"], sums[f"{name}_predicted"])
    if "sample_pairs" in sums:
        values["generator_repetition"] = quotient(sums["equal_sample_pairs"], sums["sample_pairs"])
    if "replaced" not in sums or "discriminator" not in run:
        return values
    real, replaced = float(sums["judged"]), float(sums["replaced"])
    wrong = float(sums["flagged"]) + replaced - 2 * float(sums["caught"])
    return {
        **values,
        "discriminator_accuracy": quotient(real - wrong, real),
        "unreplaced_share": quotient(real - replaced, real),
        "discriminator_recall": quotient(sums["caught"], replaced),
        "discriminator_precision": quotient(sums["caught"], sums["flagged"]),
        "discriminator_auc": auc(
            np.asarray(sums["replaced_histogram"], np.float64),
            np.asarray(sums["original_histogram"], np.float64),
        ),
    }


def quotient(numerator: float | np.ndarray, denominator: float | np.ndarray) -> float:
    """Return a ratio of sums; NaN where nothing was counted."""
    return float(numerator) / float(denominator) if float(denominator) else float("nan")

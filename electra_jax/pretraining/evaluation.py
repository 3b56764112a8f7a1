"""Held-out metrics of a pre-training checkpoint, and passages that show a person what it does."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import NamedSharding

from electra_jax.model.types import Loss, Masked, PyTree
from electra_jax.pretraining import corruption, metrics, original
from electra_jax.pretraining.corruption import MaskingConfig
from electra_jax.pretraining.objective import Keys, Objective, Outputs
from electra_jax.pretraining.steps import as_masked
from electra_jax.training.sharding import to_device
from electra_jax.training.state import Batch, Sums

# The same masks and samples at every evaluation, so that a curve moves only with the model.
EVALUATION_SEED = 20200323


def forward(
    params: PyTree,
    batch: Batch,
    key: jax.Array,
    *,
    model: nn.Module,
    objective: Objective,
    masking: MaskingConfig,
) -> tuple[dict[str, Loss], Masked, Outputs]:
    """Run the objective without dropout, with masks and samples drawn from `key`."""
    mask_key, sample_key = jax.random.split(key)
    masked = as_masked(mask_key, batch, masking)
    sample_keys_B = corruption.row_keys(sample_key, masked.masked_positions.shape[0])
    # The dropout keys are never drawn from: the pass is deterministic.
    keys = Keys(sample_keys_B, sample_key, sample_key)
    terms, outputs = objective.losses(model, params, masked, keys, masking=masking, deterministic=True)
    return terms, masked, outputs


def evaluate_step(
    params: PyTree,
    batch: Batch,
    key: jax.Array,
    *,
    model: nn.Module,
    objective: Objective,
    masking: MaskingConfig,
    reference: bool,
) -> Sums:
    """Return the metric sums of one held-out batch, with `reference` also those of the original (see `original`)."""
    terms, masked, outputs = forward(params, batch, key, model=model, objective=objective, masking=masking)
    sums = metrics.pretraining_sums(terms, masked, outputs)
    if not reference:
        return sums
    theirs = original.reference_sums(masked, outputs)
    return sums | {f"{original.PREFIX}{name}": value for name, value in theirs.items()}


def held_out_sums(
    params: PyTree,
    batches: Iterable[Batch],
    *,
    step: Callable[[PyTree, PyTree, jax.Array], PyTree],
    sharding: NamedSharding,
    num_batches: int | None,
) -> dict[str, np.ndarray]:
    """Metric sums over held-out batches.

    Args:
        params: of the model.
        batches: in a fixed order.
        step: (params, batch, key) -> sums, jitted.
        sharding: where a batch goes.
        num_batches: how many at most; None for all.

    Returns:
        Float64 sums, as `finish` takes them.
    """
    base = jax.random.key(EVALUATION_SEED)
    totals: dict[str, np.ndarray] = {}
    for index, batch in enumerate(itertools.islice(batches, num_batches)):
        sums = jax.device_get(step(params, to_device(batch, sharding), jax.random.fold_in(base, index)))
        for name, value in sums.items():
            totals[name] = totals.get(name, 0.0) + np.asarray(value, np.float64)
    return totals


def finish(sums: dict[str, np.ndarray], loss_weights: dict[str, float]) -> dict[str, float]:
    """The metrics of `held_out_sums`: those of `metrics.finish`, and the original's where their sums are among them."""
    theirs = {
        name.removeprefix(original.PREFIX): value for name, value in sums.items() if name.startswith(original.PREFIX)
    }
    values = metrics.finish(sums, loss_weights)
    if theirs:
        finished = original.reference_finish(theirs)
        values |= {f"{original.PREFIX}{name}": value for name, value in finished.items()}
    return values


def passages(
    originals_BL: np.ndarray,
    corrupted_BL: np.ndarray,
    masked_positions_BK: np.ndarray,
    masked_weights_BK: np.ndarray,
    logits_BL: np.ndarray,
    *,
    tokens: Sequence[str],
    attention_mask_BL: np.ndarray,
) -> list[dict[str, Any]]:
    """Examples as people read them: what the discriminator read, what stood there, and what it thinks.

    Args:
        originals_BL: ids before masking.
        corrupted_BL: ids that the discriminator read.
        masked_positions_BK: where the generator sampled.
        masked_weights_BK: 1 for used slots.
        logits_BL: the discriminator's.
        tokens: the vocabulary's entries.
        attention_mask_BL: 1 for real tokens.

    Returns:
        One dict a row with lists of equal length: tokens, originals, masked, replaced, probability.
    """
    shown = []
    for row, length in enumerate(attention_mask_BL.sum(axis=-1)):
        masked = np.zeros(corrupted_BL.shape[1], bool)
        masked[masked_positions_BK[row][masked_weights_BK[row] > 0]] = True
        probability = 1.0 / (1.0 + np.exp(-logits_BL[row].astype(np.float64)))
        shown.append(
            {
                "tokens": [tokens[i] for i in corrupted_BL[row, :length]],
                "originals": [tokens[i] for i in originals_BL[row, :length]],
                "masked": masked[:length].tolist(),
                "replaced": (corrupted_BL[row, :length] != originals_BL[row, :length]).tolist(),
                "probability": [round(p, 4) for p in probability[:length].tolist()],
            }
        )
    return shown


def most_frequent(ids: np.ndarray, tokens: Sequence[str]) -> dict[str, Any]:
    """The token that stands most often behind a mask, and how often: what a constant guess would score."""
    counts = np.bincount(ids, minlength=len(tokens))
    best = int(counts.argmax())
    return {"token": tokens[best], "rate": float(counts[best] / max(1, counts.sum()))}

"""Compute held-out metrics of a pre-trained model, and passages that show its predictions."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import NamedSharding

from electra_jax.model.types import Loss, Masked, PyTree
from electra_jax.pretraining import corruption, metrics
from electra_jax.pretraining.corruption import MaskingConfig
from electra_jax.pretraining.micro_batches import accumulate
from electra_jax.pretraining.objective import Keys, Objective, Outputs
from electra_jax.pretraining.steps import as_masked
from electra_jax.training.sharding import to_device
from electra_jax.training.state import Batch, Sums

# The same masks and samples at every evaluation, so that a curve moves only with the model.
EVALUATION_SEED = 20200323


class Drawn(NamedTuple):
    """A held-out batch after masking, the sampling keys of its rows, and the key that these are derived from."""

    masked: Masked
    sample_keys_B: jax.Array
    sample_key: jax.Array


def draw(batch: Batch, key: jax.Array, masking: MaskingConfig) -> Drawn:
    """Mask a whole batch, and derive a sampling key for each row."""
    mask_key, sample_key = jax.random.split(key)
    masked = as_masked(mask_key, batch, masking)
    return Drawn(masked, corruption.row_keys(sample_key, masked.masked_positions.shape[0]), sample_key)


def forward(
    params: PyTree, drawn: Drawn, *, model: nn.Module, objective: Objective, masking: MaskingConfig
) -> tuple[dict[str, Loss], Outputs]:
    """Run the objective without dropout on a batch, or on a micro-batch.

    Its schedules are at their last value, so that a curve moves only with the model.
    """
    # The dropout keys are never drawn from: the pass is deterministic.
    keys = Keys(drawn.sample_keys_B, drawn.sample_key, drawn.sample_key)
    return objective.at(1.0).losses(model, params, drawn.masked, keys, masking=masking, deterministic=True)


def evaluate_step(
    params: PyTree,
    batch: Batch,
    key: jax.Array,
    *,
    model: nn.Module,
    objective: Objective,
    masking: MaskingConfig,
    accumulation_steps: int,
    extra_metrics: metrics.ExtraMetrics | None,
) -> Sums:
    """Return the metric sums of one held-out batch, those of `extra_metrics` with their prefix.

    The batch is cut into as many micro-batches as in training, so that it fits in memory if training does.
    """
    drawn = draw(batch, key, masking)

    def compute(index: jax.Array, masked: Masked, sample_keys_B: jax.Array) -> Sums:
        del index
        part = Drawn(masked, sample_keys_B, drawn.sample_key)
        terms, outputs = forward(params, part, model=model, objective=objective, masking=masking)
        sums = metrics.pretraining_sums(terms, masked, outputs)
        if extra_metrics is None:
            return sums
        extra = extra_metrics.sums(masked, outputs)
        return sums | {f"{extra_metrics.prefix}{name}": value for name, value in extra.items()}

    return accumulate(compute, (drawn.masked, drawn.sample_keys_B), accumulation_steps)


def held_out_sums(
    params: PyTree,
    batches: Iterable[Batch],
    *,
    step: Callable[[PyTree, PyTree, jax.Array], PyTree],
    sharding: NamedSharding,
    num_batches: int | None,
) -> dict[str, np.ndarray]:
    """Return metric sums over held-out batches; those of a batch are fetched after the next one is launched.

    Args:
        params: the model's parameters.
        batches: this process's rows of each batch, in a fixed order.
        step: jitted (params, batch, key) -> sums.
        sharding: sharding of a batch.
        num_batches: maximal number of batches; None for all.

    Returns:
        Float64 sums, as `finish` takes them.
    """
    base = jax.random.key(EVALUATION_SEED)
    totals: dict[str, np.ndarray] = {}

    def add(sums: Sums) -> None:
        for name, value in jax.device_get(sums).items():
            totals[name] = totals.get(name, 0.0) + np.asarray(value, np.float64)

    waiting: Sums | None = None
    for index, batch in enumerate(itertools.islice(batches, num_batches)):
        launched = step(params, to_device(batch, sharding), jax.random.fold_in(base, index))
        if waiting is not None:
            add(waiting)
        waiting = launched
    if waiting is not None:
        add(waiting)
    return totals


def finish(
    sums: dict[str, np.ndarray], loss_weights: dict[str, float], extra_metrics: metrics.ExtraMetrics | None
) -> dict[str, float]:
    """Return the metrics of `held_out_sums`: those of `metrics.finish`, and `extra_metrics` with their prefix."""
    values = metrics.finish(sums, loss_weights)
    if extra_metrics is None:
        return values
    prefix = extra_metrics.prefix
    extra = {name.removeprefix(prefix): value for name, value in sums.items() if name.startswith(prefix)}
    return values | {f"{prefix}{name}": value for name, value in extra_metrics.finish(extra).items()}


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
    """Return readable examples: the tokens that the discriminator read, the originals, and its predictions.

    Args:
        originals_BL: ids before masking.
        corrupted_BL: ids that the discriminator read.
        masked_positions_BK: positions where the generator sampled.
        masked_weights_BK: 1 for used slots.
        logits_BL: logits of the discriminator.
        tokens: entries of the vocabulary.
        attention_mask_BL: 1 for real tokens.

    Returns:
        One dict per row with lists of equal length: tokens, originals, masked, replaced, probability.
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
    """Return the most frequent of the masked tokens, and its rate: the accuracy of a constant guess."""
    counts = np.bincount(ids, minlength=len(tokens))
    best = int(counts.argmax())
    return {"token": tokens[best], "rate": float(counts[best] / max(1, counts.sum()))}

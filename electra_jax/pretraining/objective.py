"""The interface between a training step and an objective, and the pieces that objectives share."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
from flax import linen as nn

from electra_jax.model.types import Corrupted, Loss, Masked, PyTree
from electra_jax.pretraining import corruption
from electra_jax.pretraining.corruption import MaskingConfig


class Keys(NamedTuple):
    """The random keys of one forward pass; `sample` holds one key per row (or see `corruption.sample`)."""

    sample: jax.Array
    generator_dropout: jax.Array
    discriminator_dropout: jax.Array


class Outputs(NamedTuple):
    """What a forward pass computed, for metrics and for people; None for what an objective does not compute.

    `prediction_logits_BKV` are those of a main tower that predicts words, at the masked positions.
    """

    corrupted: Corrupted | None = None
    generator_logits_BKV: jax.Array | None = None
    discriminator_logits_BL: jax.Array | None = None
    prediction_logits_BKV: jax.Array | None = None


class Objective(Protocol):
    """What a training step needs of an objective."""

    @property
    def loss_weights(self) -> dict[str, float]:
        """The factor of each loss, by name."""

    def denominators(self, masked: Masked, masking: MaskingConfig) -> dict[str, jax.Array]:
        """Return the weight that each loss of `losses` will have over this batch, float32 [].

        It is known before any forward pass, so that a batch can be cut into micro-batches and still be divided once.
        """

    def losses(
        self,
        model: nn.Module,
        params: PyTree,
        masked: Masked,
        keys: Keys,
        *,
        masking: MaskingConfig,
        deterministic: bool,
    ) -> tuple[dict[str, Loss], Outputs]:
        """Return the losses of one forward pass over a masked batch, by name, and what it computed."""


class Towers(NamedTuple):
    """The towers of a model as functions of their inputs and of the `method` to call."""

    generator: Callable[..., Any]
    main: Callable[..., Any]


def bind_towers(model: nn.Module, params: PyTree, keys: Keys, *, deterministic: bool) -> Towers:
    """Bind a model to its parameters, once for each tower, each with a dropout key of its own."""

    def bound(dropout: jax.Array) -> Callable[..., Any]:
        return functools.partial(
            model.apply, {"params": params}, deterministic=deterministic, rngs={"dropout": dropout}
        )

    return Towers(bound(keys.generator_dropout), bound(keys.discriminator_dropout))


def corrupt(
    masked: Masked,
    logits_BKV: jax.Array,
    keys_B: jax.Array,
    *,
    temperature: float,
    disallow_correct: bool,
    sampler: str,
    masking: MaskingConfig,
) -> Corrupted:
    """Sample from the generator and write the samples at the masked positions.

    Args:
        masked: the generator's input.
        logits_BKV: the generator's output.
        keys_B: see `corruption.sample`.
        temperature: divides the logits.
        disallow_correct: never draw the original token.
        sampler: see `corruption.sample`.
        masking: whether positions may repeat, and which sample such a position gets.
    """
    if disallow_correct:
        logits_BKV = corruption.forbid(logits_BKV, masked.masked_ids)
    sampled_BK = corruption.sample(keys_B, logits_BKV, temperature, sampler)
    if not masking.with_replacement:
        return corruption.replace(masked, sampled_BK)
    settled_BK = corruption.settle_duplicates(masked, sampled_BK, average=masking.average_duplicates)
    return corruption.replace(masked, settled_BK)._replace(sampled_ids_BK=sampled_BK)

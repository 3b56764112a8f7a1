"""Define the interface between a training step and an objective, and the parts that objectives share."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import linen as nn

from electra_jax.model.types import Corrupted, Loss, Masked, PyTree
from electra_jax.pretraining import corruption
from electra_jax.pretraining.corruption import MaskingConfig
from electra_jax.ranges import AT_LEAST_0, AT_LEAST_1, Checked


class Keys(NamedTuple):
    """The random keys of one forward pass; `sample` holds one key per row (or see `corruption.sample`).

    If a generator's dropout key is None, it runs without dropout.
    """

    sample: jax.Array
    generator_dropout: jax.Array | None
    discriminator_dropout: jax.Array


class Outputs(NamedTuple):
    """The outputs of a forward pass, for metrics and reports; a field that an objective does not compute is None.

    `prediction_logits_BKV` are those of a main tower that predicts words, at the masked positions;
    `correction_logits_BKP` those of one that chooses among candidates there, the original token first, with -inf for a
    candidate that does not count.
    """

    corrupted: Corrupted | None = None
    generator_logits_BKV: jax.Array | None = None
    discriminator_logits_BL: jax.Array | None = None
    prediction_logits_BKV: jax.Array | None = None
    correction_logits_BKP: jax.Array | None = None


class Objective(Protocol):
    """The interface between an objective and the training step."""

    @property
    def loss_weights(self) -> dict[str, float]:
        """The factor of each loss, by name."""

    def at(self, share: jax.Array | float) -> "Objective":
        """Return the objective with the values that its schedules have after a share of the steps."""

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


@dataclasses.dataclass(frozen=True)
class WeightSchedule(Checked):
    """Change the discriminator's weight linearly over the steps, from disc_weight to `disc_weight_end` x disc_weight.

    The generator learns first, and cannot learn from the discriminator; a falling weight of the discriminator leaves
    more of the gradient of shared tables to the generator, above all if the gradient is clipped. We know of no paper
    that publishes such a schedule; ELECTRA's authors suggest a factor that depends on the step for weighting the loss
    over time (google-research/electra, issue 37). Reported losses keep the weights of the first step, so that their
    curves fall only through learning.

    Attributes:
        disc_weight_end: share of disc_weight that is left at the last step; 1 for a constant weight, as published.
        num_train_steps: the last step.
    """

    disc_weight_end: Annotated[float, AT_LEAST_0]
    num_train_steps: Annotated[int, AT_LEAST_1]

    def factors(self, step: jax.Array | int) -> dict[str, jax.Array]:
        """Return the factors of loss weights at an update, counted from 0; a loss that is not listed has factor 1."""
        done = jnp.minimum(jnp.asarray(step, jnp.float32), self.num_train_steps) / self.num_train_steps
        return {"discriminator": 1.0 + (self.disc_weight_end - 1.0) * done}


CONSTANT_WEIGHTS = WeightSchedule(disc_weight_end=1.0, num_train_steps=1)


class Towers(NamedTuple):
    """The towers of a model as functions of their inputs and of the `method` to call."""

    generator: Callable[..., Any]
    main: Callable[..., Any]


def bind_towers(model: nn.Module, params: PyTree, keys: Keys, *, deterministic: bool) -> Towers:
    """Bind a model to its parameters, once for each tower, each with a dropout key of its own."""

    def bound(dropout: jax.Array | None) -> Callable[..., Any]:
        if dropout is None:
            return functools.partial(model.apply, {"params": params}, deterministic=True)
        return functools.partial(
            model.apply, {"params": params}, deterministic=deterministic, rngs={"dropout": dropout}
        )

    return Towers(bound(keys.generator_dropout), bound(keys.discriminator_dropout))


class Sampling(Protocol):
    """The settings of an objective that samples from its generator.

    Attributes:
        temperature: divides the logits.
        disallow_correct: whether to never draw the original token.
        sampler: see `corruption.sample`.
    """

    temperature: Any
    disallow_correct: bool
    sampler: str


def corrupt(
    settings: Sampling, masked: Masked, logits_BKV: jax.Array, keys_B: jax.Array, masking: MaskingConfig
) -> Corrupted:
    """Sample from the generator and write the samples at the masked positions.

    Args:
        settings: how to sample; `temperature` is that of the step.
        masked: the generator's input.
        logits_BKV: the generator's output.
        keys_B: see `corruption.sample`.
        masking: decides which id is written at a position that was drawn more than once.
    """
    if settings.disallow_correct:
        logits_BKV = corruption.forbid(logits_BKV, masked.masked_ids)
    sampled_BK = corruption.sample(keys_B, logits_BKV, settings.temperature, settings.sampler)
    written_BK = masking.positions.settle(masked, sampled_BK)
    return corruption.replace(masked, written_BK)._replace(sampled_ids_BK=sampled_BK)

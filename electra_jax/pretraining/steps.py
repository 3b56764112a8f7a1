"""Define the pure training steps of pre-training; the caller jits them and donates the state."""

import dataclasses
import functools
from collections.abc import Collection, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from electra_jax.model.types import Masked, PyTree, Tokens
from electra_jax.pretraining import corruption, metrics, phases
from electra_jax.pretraining.corruption import MaskingConfig
from electra_jax.pretraining.micro_batches import accumulate
from electra_jax.pretraining.objective import CONSTANT_WEIGHTS, Keys, Objective, WeightSchedule
from electra_jax.pretraining.phases import Phases
from electra_jax.training.schedules import progress
from electra_jax.training.state import Batch, Sums, TrainState


@dataclasses.dataclass(frozen=True)
class PretrainingSetup:
    """A model, its objective and its update rule: all that the steps of a run share.

    Attributes:
        model: network that the objective trains.
        objective: what is minimised.
        masking: how positions are masked.
        optimizer: update rule.
        sequence_length: L.
        accumulation_steps: number of micro-batches of a global batch.
        weight_schedule: how the weights of the losses change over the steps.
        schedule_steps: steps over which the schedules of the objective and of the masking run.
        phases: decides which parameters an update trains.
    """

    model: nn.Module
    objective: Objective
    masking: MaskingConfig
    optimizer: optax.GradientTransformation
    sequence_length: int
    accumulation_steps: int
    weight_schedule: WeightSchedule
    schedule_steps: int
    phases: Phases

    def init(self, key: jax.Array) -> TrainState:
        """Return a new state, see `init_state`."""
        return init_state(key, self.model, self.optimizer, self.sequence_length)

    def update(self, state: TrainState, batch: Batch) -> tuple[TrainState, Sums]:
        """Return the state after an update by one global batch, see `pretrain_step`."""
        step = functools.partial(
            pretrain_step,
            model=self.model,
            masking=self.masking,
            optimizer=self.optimizer,
            accumulation_steps=self.accumulation_steps,
            weight_schedule=self.weight_schedule,
            schedule_steps=self.schedule_steps,
        )
        return phases.update(state, batch, phases=self.phases, objective=self.objective, step=step)


def init_state(
    key: jax.Array, model: nn.Module, optimizer: optax.GradientTransformation, sequence_length: int
) -> TrainState:
    """Return a new state at step 0, its parameters boxed with their logical axes."""
    params_key, base_key = jax.random.split(key)
    params = init_params(params_key, model, sequence_length)
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), jax.random.key_data(base_key))


def init_params(key: jax.Array, model: nn.Module, sequence_length: int) -> PyTree:
    """Return new parameters of a model, boxed with their logical axes."""
    ids_BL = jnp.zeros((1, sequence_length), jnp.int32)
    one_B1 = jnp.zeros((1, 1), jnp.int32)
    masked = Masked(Tokens(ids_BL, ids_BL, ids_BL + 1), one_B1, one_B1, one_B1.astype(jnp.float32))
    return model.init(key, masked)["params"]


def as_masked(key: jax.Array, batch: Batch, masking: MaskingConfig) -> Masked:
    """Return the batch masked with a key, or as it is if its task has masked it."""
    tokens = Tokens(batch["input_ids"], batch["token_type_ids"], batch["attention_mask"], batch.get("example_ids"))
    if "masked_positions" in batch:
        return Masked(tokens, batch["masked_positions"], batch["masked_ids"], batch["masked_weights"])
    return corruption.mask(key, tokens, masking)


class Drawn(NamedTuple):
    """A global batch after masking, the keys of its forward pass, and the denominator of each of its losses."""

    masked: Masked
    keys: Keys
    denominators: dict[str, jax.Array]


def draw(step_key: jax.Array, batch: Batch, *, objective: Objective, masking: MaskingConfig) -> Drawn:
    """Mask a global batch, and split the step's key by name: mask, sample, dropout of each tower."""
    mask_key, sample_key, generator_key, discriminator_key = jax.random.split(step_key, 4)
    masked = as_masked(mask_key, batch, masking)
    sample_keys_B = corruption.row_keys(sample_key, masked.masked_positions.shape[0])
    denominators = {name: jnp.maximum(w, 1.0) for name, w in objective.denominators(masked, masking).items()}
    return Drawn(masked, Keys(sample_keys_B, generator_key, discriminator_key), denominators)


def training_loss(
    params: PyTree,
    drawn: Drawn,
    index: jax.Array | int,
    *,
    model: nn.Module,
    objective: Objective,
    masking: MaskingConfig,
    factors: dict[str, jax.Array] | None = None,
) -> tuple[jax.Array, Sums]:
    """Return the weighted loss of a batch, or of its micro-batch `index`, and its metric sums.

    `factors` multiply the objective's weights, see `WeightSchedule`; a loss that is not listed keeps its weight.
    """
    generator_key, discriminator_key = (
        None if key is None else jax.random.fold_in(key, index)
        for key in (drawn.keys.generator_dropout, drawn.keys.discriminator_dropout)
    )
    keys = Keys(drawn.keys.sample, generator_key, discriminator_key)
    terms, outputs = objective.losses(model, params, drawn.masked, keys, masking=masking, deterministic=False)
    weights = {
        name: weight * factors[name] if factors and name in factors else weight
        for name, weight in objective.loss_weights.items()
    }
    total = sum(weight * terms[name].sum / drawn.denominators[name] for name, weight in weights.items())
    return total, metrics.pretraining_sums(terms, drawn.masked, outputs)


def pretrain_step(
    state: TrainState,
    batch: Batch,
    *,
    model: nn.Module,
    objective: Objective,
    masking: MaskingConfig,
    optimizer: optax.GradientTransformation,
    accumulation_steps: int,
    weight_schedule: WeightSchedule = CONSTANT_WEIGHTS,
    schedule_steps: int = 1,
    trained: Collection[str] | None = None,
    rates: Mapping[str, jax.Array] | None = None,
) -> tuple[TrainState, Sums]:
    """Return the state after one update by one global batch.

    The losses are divided by the weights of the whole batch, so that micro-batches of unequal weight add up to exactly
    the full batch's gradient.

    Args:
        state: the state before.
        batch: int32 [B, L] arrays with BERT's names, and `example_ids` if rows are packed (see `Tokens`); masked
            already, or to be masked here.
        model: network that the objective trains.
        objective: what is minimised.
        masking: how the batch is masked, here or by its task.
        optimizer: update rule of the state's `opt_state`.
        accumulation_steps: micro-batches that B is cut into.
        weight_schedule: how the weights of the losses change over the steps.
        schedule_steps: steps over which the schedules of the objective and of the masking run.
        trained: names of the trees of parameters that are trained; None for all. A generator that is not trained runs
            only forward, without dropout.
        rates: learning-rate factors of trees of parameters, by name; a tree that is not listed has factor 1.

    Returns:
        The state after, and the batch's metric sums with the gradient's norm before clipping as `grad_norm`.
    """
    step_key = jax.random.fold_in(jax.random.wrap_key_data(state.key_data), state.step)
    share = progress(state.step, schedule_steps)
    objective, masking = objective.at(share), masking.at(share)
    drawn = draw(step_key, batch, objective=objective, masking=masking)
    trained = tuple(state.params) if trained is None else trained
    if "generator" in state.params and "generator" not in trained:
        drawn = drawn._replace(keys=drawn.keys._replace(generator_dropout=None))
    chosen = {name: state.params[name] for name in trained}
    factors = None if weight_schedule.disc_weight_end == 1 else weight_schedule.factors(state.step)

    def gradient(index: jax.Array, masked: Masked, sample_keys_B: jax.Array) -> tuple[PyTree, Sums]:
        part = drawn._replace(masked=masked, keys=drawn.keys._replace(sample=sample_keys_B))
        loss = functools.partial(training_loss, model=model, objective=objective, masking=masking, factors=factors)
        return jax.grad(lambda chosen: loss(state.params | chosen, part, index), has_aux=True)(chosen)

    grads, sums = accumulate(gradient, (drawn.masked, drawn.keys.sample), accumulation_steps)
    params, opt_state = apply_gradients(state, grads, optimizer, rates or {})
    sums["grad_norm"] = optax.tree.norm(grads)
    return TrainState(state.step + 1, params, opt_state, state.key_data), sums


def apply_gradients(
    state: TrainState, grads: PyTree, optimizer: optax.GradientTransformation, rates: Mapping[str, jax.Array]
) -> tuple[PyTree, optax.OptState]:
    """Return the parameters and the optimizer's state after an update by the gradients of the trained trees."""
    # Parameters that are not trained keep their values, which weight decay would shrink.
    no_grads = {name: optax.tree.zeros_like(tree) for name, tree in state.params.items() if name not in grads}
    updates, opt_state = optimizer.update(no_grads | grads, state.opt_state, state.params)
    updates = {name: updates[name] for name in grads}
    updates |= {name: optax.tree.scale(rate, updates[name]) for name, rate in rates.items()}
    return state.params | optax.apply_updates({name: state.params[name] for name in grads}, updates), opt_state

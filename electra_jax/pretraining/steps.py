"""The training state, and the pure steps that move it; jitted by the caller, the state donated."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from electra_jax.model.types import Loss, Masked, PyTree, Tokens
from electra_jax.pretraining import corruption, metrics, original
from electra_jax.pretraining.corruption import MaskingConfig
from electra_jax.pretraining.replaced_token import CONSTANT_WEIGHTS, Keys, Objective, Outputs, WeightSchedule

Batch = dict[str, jax.Array]


class TrainState(NamedTuple):
    """Everything that a step reads and writes.

    `key_data` is the run's base key, uint32: a step's randomness is a function of it and of `step` alone, the same
    on one device and on eight, today and after a resume.
    """

    step: jax.Array
    params: PyTree
    opt_state: optax.OptState
    key_data: jax.Array


def init_state(
    key: jax.Array, model: nn.Module, optimizer: optax.GradientTransformation, sequence_length: int
) -> TrainState:
    """A new state at step 0, its parameters boxed with their logical axes."""
    params_key, base_key = jax.random.split(key)
    params = init_params(params_key, model, sequence_length)
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), jax.random.key_data(base_key))


def init_params(key: jax.Array, model: nn.Module, sequence_length: int) -> PyTree:
    """Boxed parameters of a model."""
    ids_BL = jnp.zeros((1, sequence_length), jnp.int32)
    one_B1 = jnp.zeros((1, 1), jnp.int32)
    masked = Masked(Tokens(ids_BL, ids_BL, ids_BL + 1), one_B1, one_B1, one_B1.astype(jnp.float32))
    return model.init(key, masked)["params"]


def as_masked(key: jax.Array, batch: Batch, masking: MaskingConfig) -> Masked:
    """The batch as it came if its task masked it, else masked here with this key."""
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
    """Masks a global batch, unless its task did, and splits the step's key by name; `batch` is `pretrain_step`'s."""
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
) -> tuple[jax.Array, metrics.Sums]:
    """What an update descends: the weighted losses of a batch, or its micro-batch `index`, and its metric sums.

    `factors` multiply the objective's weights, see `WeightSchedule`; a loss without one keeps its weight.
    """
    keys = Keys(
        drawn.keys.sample,
        jax.random.fold_in(drawn.keys.generator_dropout, index),
        jax.random.fold_in(drawn.keys.discriminator_dropout, index),
    )
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
) -> tuple[TrainState, metrics.Sums]:
    """One update from one global batch.

    The losses' denominators are those of the whole batch, so that micro-batches of unequal weight add up to
    exactly the full batch's gradient.

    Args:
        state: the state before.
        batch: int32 [B, L] arrays with BERT's names, and `example_ids` if rows are packed (see `Tokens`); masked
            already, or to be masked here.
        model: what the objective trains.
        objective: what is minimised.
        masking: how the batch is masked, here or by its task.
        optimizer: of the state's `opt_state`.
        accumulation_steps: micro-batches that B is cut into.
        weight_schedule: how the losses' weights change over the steps; by default they do not.

    Returns:
        The state after, and the batch's metric sums with the gradient's norm before clipping as `grad_norm`.
    """
    drawn = draw(
        jax.random.fold_in(jax.random.wrap_key_data(state.key_data), state.step),
        batch,
        objective=objective,
        masking=masking,
    )

    factors = None if weight_schedule.disc_weight_end == 1 else weight_schedule.factors(state.step)

    def micro_step(index: jax.Array, masked: Masked, sample_keys_B: jax.Array) -> tuple[PyTree, metrics.Sums]:
        part = drawn._replace(masked=masked, keys=drawn.keys._replace(sample=sample_keys_B))
        loss = functools.partial(training_loss, model=model, objective=objective, masking=masking, factors=factors)
        return jax.grad(loss, has_aux=True)(state.params, part, index)

    masked, sample_keys_B = drawn.masked, drawn.keys.sample
    if accumulation_steps == 1:
        grads, sums = micro_step(jnp.zeros((), jnp.int32), masked, sample_keys_B)
    else:
        micro = jax.tree.map(lambda rows: _micro_batches(rows, accumulation_steps), (masked, sample_keys_B))
        indices = jnp.arange(accumulation_steps)
        shapes = jax.eval_shape(micro_step, indices[0], *jax.tree.map(lambda rows: rows[0], micro))
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        (grads, sums), _ = jax.lax.scan(
            lambda total, xs: (jax.tree.map(jnp.add, total, micro_step(xs[0], *xs[1])), None),
            zeros,
            (indices, micro),
        )
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    sums["grad_norm"] = optax.tree.norm(grads)
    return TrainState(state.step + 1, params, opt_state, state.key_data), sums


def _micro_batches(rows: jax.Array, count: int) -> jax.Array:
    """[B, ...] -> [count, B / count, ...], taking every count-th row so that each device's rows stay on it."""
    return rows.reshape(rows.shape[0] // count, count, *rows.shape[1:]).swapaxes(0, 1)


def forward(
    params: PyTree,
    batch: Batch,
    key: jax.Array,
    *,
    model: nn.Module,
    objective: Objective,
    masking: MaskingConfig,
) -> tuple[dict[str, Loss], Masked, Outputs]:
    """The objective without dropout, masks and samples drawn from `key`: for evaluation and for people."""
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
) -> metrics.Sums:
    """Metric sums of one held-out batch; with `reference` also those of the original, see `reference_metrics`."""
    terms, masked, outputs = forward(params, batch, key, model=model, objective=objective, masking=masking)
    sums = metrics.pretraining_sums(terms, masked, outputs)
    if not reference:
        return sums
    theirs = original.reference_sums(masked, outputs)
    return sums | {f"{original.PREFIX}{name}": value for name, value in theirs.items()}

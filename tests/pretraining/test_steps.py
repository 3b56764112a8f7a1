"""The training step: what gradients flow where, and identities between different ways to compute one update."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from electra_jax.errors import UserError
from electra_jax.model.electra import Electra, generator_config
from electra_jax.model.types import Masked, PyTree
from electra_jax.pretraining import corruption, evaluation, metrics, original, steps
from electra_jax.pretraining.micro_batches import join, split
from electra_jax.pretraining.objective import Keys, WeightSchedule
from electra_jax.training.optimizer import make_optimizer
from electra_jax.training.schedules import Schedule
from electra_jax.training.state import Sums, TrainState
from support.tiny_model import MASKING, OBJECTIVE, optimizer_config, random_batch, small_encoder, small_model


def new_state(model: Electra, optimizer: optax.GradientTransformation) -> TrainState:
    # Compiled whole: one operation at a time, it is the compiling of each that takes the time.
    return jax.jit(lambda key: nn.unbox(steps.init_state(key, model, optimizer, 32)))(jax.random.key(0))


def jitted(
    model: Electra, optimizer: optax.GradientTransformation, accumulation_steps: int = 1, **settings: Any
) -> Any:
    return jax.jit(
        functools.partial(
            steps.pretrain_step,
            model=model,
            optimizer=optimizer,
            accumulation_steps=accumulation_steps,
            **{"objective": OBJECTIVE, "masking": MASKING} | settings,
        )
    )


@functools.partial(jax.jit, static_argnums=(1, 2))
@jax.grad
def gradient_of(params: PyTree, name: str, model: Electra, masked: Masked) -> jax.Array:
    key = jax.random.key(7)
    rows = masked.masked_positions.shape[0]
    keys = Keys(corruption.row_keys(key, rows), key, key)
    terms, _ = OBJECTIVE.losses(model, params, masked, keys, masking=MASKING, deterministic=True)
    return terms[name].sum / terms[name].weight


def masked_batch(rows: int = 8) -> Masked:
    return steps.as_masked(jax.random.key(3), jax.tree.map(jnp.asarray, random_batch(rows, 32)), MASKING)


def largest(tree: PyTree) -> float:
    return max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(tree))


def test_discriminator_loss_reaches_the_shared_tables_and_nothing_of_the_generator() -> None:
    model = small_model()
    params = new_state(model, make_optimizer(optimizer_config())).params
    grads = gradient_of(params, "discriminator", model, masked_batch())
    assert largest(grads["generator"]) == 0.0
    for name, leaf in grads["embeddings"].items():
        assert largest(leaf) > 0, name
    assert largest(grads["discriminator"]["head"]) > 0


def test_generator_loss_reaches_the_shared_tables_and_nothing_of_the_discriminator() -> None:
    model = small_model()
    params = new_state(model, make_optimizer(optimizer_config())).params
    grads = gradient_of(params, "generator", model, masked_batch())
    assert largest(grads["discriminator"]) == 0.0
    assert largest(grads["embeddings"]["word_embeddings"]) > 0
    assert largest(grads["generator"]["encoder"]) > 0


def wider_model() -> Electra:
    """Wide enough to learn a batch by heart."""
    encoder = dataclasses.replace(small_encoder(), hidden_size=64, embedding_size=32, intermediate_size=256)
    generator = generator_config(encoder, width_fraction=0.5, depth_fraction=1.0, embedding_size=32)
    return Electra(generator, encoder, "es")


def test_a_tiny_model_overfits_one_batch() -> None:
    model = wider_model()
    optimizer = make_optimizer(optimizer_config(learning_rate=3e-3, num_train_steps=200, weight_decay_rate=0.0))
    state, step = new_state(model, optimizer), jitted(model, optimizer)
    masked = masked_batch(4)
    batch = {
        **masked.tokens._asdict(),
        "masked_positions": masked.masked_positions,
        "masked_ids": masked.masked_ids,
        "masked_weights": masked.masked_weights,
    }
    reports = []
    for _ in range(100):
        state, sums = step(state, batch)
        reports.append(metrics.finish(jax.device_get(sums), OBJECTIVE.loss_weights))
    assert reports[0]["generator_accuracy"] < 0.3
    assert reports[-1]["generator_accuracy"] == 1.0
    assert reports[-1]["generator_loss"] < 0.01
    assert reports[-1]["discriminator_loss"] < 0.01


def test_the_discriminator_overfits_a_fixed_corruption() -> None:
    model = small_model()
    masked = masked_batch(4)
    wrong = jnp.where(masked.masked_weights > 0, (masked.masked_ids + 11) % 50 + 5, 0)
    corrupted = corruption.replace(masked, wrong)
    optimizer = make_optimizer(
        optimizer_config(learning_rate=3e-3, num_warmup_steps=40, num_train_steps=400, weight_decay_rate=0.0)
    )
    params = new_state(model, optimizer).params
    real_BL = masked.tokens.attention_mask.astype(jnp.float32)

    def loss(params: PyTree) -> jax.Array:
        logits_BL = model.apply({"params": params}, corrupted.tokens, deterministic=True, method=Electra.discriminate)
        return jnp.sum(optax.sigmoid_binary_cross_entropy(logits_BL, corrupted.labels_BL) * real_BL) / real_BL.sum()

    @jax.jit
    def update(params: PyTree, state: PyTree) -> tuple[PyTree, PyTree, jax.Array]:
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    state = optimizer.init(params)
    for _ in range(200):
        params, state, value = update(params, state)
    assert float(value) < 0.01


@pytest.mark.parametrize("count", [2, 4])
def test_accumulation_equals_the_full_batch(count: int) -> None:
    model = small_model()
    optimizer = make_optimizer(optimizer_config(clip_norm=1e9))
    state, batch = new_state(model, optimizer), random_batch(8, 32)
    full, full_sums = jitted(model, optimizer)(state, batch)
    parts, part_sums = jitted(model, optimizer, count)(state, batch)
    for name in full_sums:
        np.testing.assert_allclose(part_sums[name], full_sums[name], rtol=2e-5, atol=1e-5, err_msg=name)
    # The moments are linear in the gradient, where an update divides by its own size.
    for a, b in zip(jax.tree.leaves(full.opt_state), jax.tree.leaves(parts.opt_state), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6 * max(1.0, largest(a)))


def test_the_discriminators_weight_falls_to_its_share_by_the_last_step() -> None:
    schedule = WeightSchedule(disc_weight_end=0.2, num_train_steps=10)
    factors = [float(schedule.factors(step)["discriminator"]) for step in (0, 5, 10, 15)]
    assert factors == pytest.approx([1.0, 0.6, 0.2, 0.2])
    with pytest.raises(UserError, match="disc_weight_end is -1"):
        WeightSchedule(disc_weight_end=-1.0, num_train_steps=10)


def test_a_step_weighs_the_discriminator_by_the_schedule_and_the_generator_as_ever() -> None:
    model = small_model()
    optimizer = make_optimizer(optimizer_config(clip_norm=1e9))
    batch = random_batch(8, 32)
    state = new_state(model, optimizer)._replace(step=jnp.int32(5))
    schedule = WeightSchedule(disc_weight_end=0.2, num_train_steps=10)
    plain, sums = jitted(model, optimizer)(state, batch)
    weighed, same_sums = jitted(model, optimizer, weight_schedule=schedule)(state, batch)
    # What is reported are the losses, without weights.
    assert float(same_sums["discriminator_loss"]) == pytest.approx(float(sums["discriminator_loss"]), rel=1e-6)
    for tower, factor in (("discriminator", 0.6), ("generator", 1.0)):
        # From nothing, the first moments are a tenth of the gradient.
        before, after = (result.opt_state[1].mu[tower] for result in (plain, weighed))
        for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
            np.testing.assert_allclose(b, factor * a, rtol=1e-4, atol=1e-7 * max(1.0, largest(a)))


def test_a_scheduled_temperature_is_that_of_the_step_in_training_and_the_last_one_in_evaluation() -> None:
    model = small_model()
    optimizer = make_optimizer(optimizer_config())
    state, batch = new_state(model, optimizer)._replace(step=jnp.int32(5)), random_batch(8, 32)
    # A table that is large enough that a temperature shows in the samples.
    state.params["embeddings"]["word_embeddings"] *= 30

    def at(temperature: Schedule) -> Sums:
        objective = dataclasses.replace(OBJECTIVE, temperature=temperature)
        return jitted(model, optimizer, objective=objective, schedule_steps=10)(state, batch)[1]

    def evaluated(temperature: Schedule) -> Sums:
        objective = dataclasses.replace(OBJECTIVE, temperature=temperature)
        step = functools.partial(
            evaluation.evaluate_step,
            model=model,
            objective=objective,
            masking=MASKING,
            accumulation_steps=1,
            extra_metrics=None,
        )
        return jax.jit(step)(state.params, batch, jax.random.key(0))

    falling = ((0.0, 3.0), (1.0, 0.5))
    for sums, same, other in ((at(falling), at(1.75), at(0.5)), (evaluated(falling), evaluated(0.5), evaluated(3.0))):
        np.testing.assert_array_equal(sums["replaced_histogram"], same["replaced_histogram"])
        assert not np.array_equal(sums["replaced_histogram"], other["replaced_histogram"])


def test_a_scheduled_mask_rate_is_that_of_the_step() -> None:
    """Of 32 real tokens 30 % are 9.6 masks, and after nine of ten steps 16.5 % are 5.28."""
    model, optimizer = small_model(), make_optimizer(optimizer_config())
    state, batch = new_state(model, optimizer), random_batch(8, 32)
    batch["attention_mask"][:] = 1
    masking = dataclasses.replace(MASKING, mask_prob=((0.0, 0.3), (1.0, 0.15)))
    step = jitted(model, optimizer, masking=masking, schedule_steps=10)
    for number, count in ((0, 9), (9, 5)):
        assert float(step(state._replace(step=jnp.int32(number)), batch)[1]["masked"]) == 8 * count


def test_a_step_depends_on_its_number_and_on_nothing_else() -> None:
    model = small_model(dropout=0.1)
    optimizer = make_optimizer(optimizer_config())
    state, step, batch = new_state(model, optimizer), jitted(model, optimizer), random_batch(8, 32)
    once, sums = step(state, batch)
    again, same_sums = step(state, batch)
    for a, b in zip(jax.tree.leaves((once, sums)), jax.tree.leaves((again, same_sums)), strict=True):
        np.testing.assert_array_equal(a, b)
    _, other_sums = step(state._replace(step=state.step + 1), batch)
    assert float(other_sums["generator_loss"]) != float(sums["generator_loss"])


def test_padding_changes_no_logit() -> None:
    model = small_model()
    params = new_state(model, make_optimizer(optimizer_config())).params
    long, short = random_batch(8, 32), {}
    size = int(long["attention_mask"][0].sum())
    for name, rows in long.items():
        short[name] = rows[:1, :size]
    discriminate = jax.jit(
        functools.partial(model.apply, {"params": params}, deterministic=True, method=Electra.discriminate)
    )
    logits = {}
    for name, batch in (("long", long), ("short", short)):
        logits[name] = discriminate(steps.Tokens(*(jnp.asarray(batch[key]) for key in long)))
    np.testing.assert_allclose(logits["long"][0, :size], logits["short"][0], atol=1e-6)


def test_one_real_step_in_bfloat16_stays_close_to_float32() -> None:
    values = {}
    for dtype in ("float32", "bfloat16"):
        model = small_model(dtype=dtype)
        # In float32 the program of other tests here, which is compiled once.
        optimizer = make_optimizer(optimizer_config(clip_norm=1e9))
        state, sums = jitted(model, optimizer)(new_state(model, optimizer), random_batch(8, 32))
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state.params))
        values[dtype] = metrics.finish(jax.device_get(sums), OBJECTIVE.loss_weights)
    assert values["bfloat16"]["generator_loss"] == pytest.approx(values["float32"]["generator_loss"], rel=0.02)
    assert values["bfloat16"]["discriminator_loss"] == pytest.approx(values["float32"]["discriminator_loss"], rel=0.02)


def test_a_held_out_batch_takes_micro_batches_as_training_does() -> None:
    """Same masks and samples, a part of the memory; rows that fill up the last batch count nowhere."""
    model = small_model()
    params, batch = new_state(model, make_optimizer(optimizer_config())).params, random_batch(32, 32)
    for values in batch.values():
        values[-3:] = 0
    found, memory = {}, {}
    for number in (1, 8):
        step = functools.partial(
            evaluation.evaluate_step,
            model=model,
            objective=OBJECTIVE,
            masking=MASKING,
            accumulation_steps=number,
            extra_metrics=original.RULES.extra_metrics,
        )
        compiled = jax.jit(step).lower(params, batch, jax.random.key(2)).compile()
        found[number] = jax.device_get(compiled(params, batch, jax.random.key(2)))
        memory[number] = compiled.memory_analysis().temp_size_in_bytes
    assert found[1]["examples"] == 29
    counted = ("examples", "masked", "real", "replaced", "equal_sample_pairs", "reference/rows", "reference/replaced")
    assert {name: found[8][name] for name in counted} == {name: found[1][name] for name in counted}
    for name, value in found[1].items():
        np.testing.assert_allclose(found[8][name], value, rtol=1e-5, atol=1e-4, err_msg=name)
    assert memory[8] < memory[1] / 3


def test_micro_batches_are_joined_as_they_were_cut() -> None:
    rows = {"x": jnp.arange(24).reshape(12, 2)}
    micro = split(rows, 4)
    # Every fourth row, so that of rows 0 to 5 on one device and 6 to 11 on another each has its part of all.
    np.testing.assert_array_equal(micro["x"][1], rows["x"][1::4])
    np.testing.assert_array_equal(join(micro)["x"], rows["x"])


def test_held_out_batches_are_launched_one_ahead_of_what_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    def step(params: PyTree, batch: dict[str, jax.Array], key: jax.Array) -> Sums:
        events.append(f"launch {int(batch['x'][0])}")
        return {"x": jnp.sum(batch["x"])}

    fetch = jax.device_get
    monkeypatch.setattr(evaluation.jax, "device_get", lambda sums: events.append("fetch") or fetch(sums))
    sums = evaluation.held_out_sums(
        {},
        ({"x": np.full(2, number, np.int32)} for number in range(9)),
        step=step,
        sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0]),
        num_batches=3,
    )
    assert events == ["launch 0", "launch 1", "fetch", "launch 2", "fetch", "fetch"]
    assert sums == {"x": 6.0}

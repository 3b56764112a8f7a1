"""GDES as DeBERTaV3 trains it: each tower has a trainer with a clipping and a learning rate of its own."""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict

from electra_jax.config import gin_files
from electra_jax.config.pretraining import PretrainingRun
from electra_jax.model.types import PyTree
from electra_jax.pretraining import corruption, steps
from electra_jax.pretraining.objective import Keys
from electra_jax.training.optimizer import OptimizerConfig, make_optimizer
from support.objectives import COMPILE_FAST, VARIANTS
from support.tiny_model import MASKING, random_batch

GDES = VARIANTS["gdes"]
# The trees of parameters that each loss trains.
GENERATORS, DISCRIMINATORS = ("embeddings", "generator"), ("discriminator",)
BOTH = {"generator": 1.0, "discriminator": 50.0}


@functools.partial(jax.jit, compiler_options=COMPILE_FAST)
def gradient(params: PyTree, weights: Mapping[str, float]) -> PyTree:
    """Of the weighted sum of the two losses."""
    masked = steps.as_masked(jax.random.key(3), jax.tree.map(jnp.asarray, random_batch(8, 32)), MASKING)
    key = jax.random.key(7)
    keys = Keys(corruption.row_keys(key, 8), key, key)

    def loss(params: PyTree) -> jax.Array:
        terms, _ = GDES.objective.losses(GDES.model, params, masked, keys, masking=MASKING, deterministic=True)
        return sum(weight * terms[name].sum / terms[name].weight for name, weight in weights.items())

    return jax.grad(loss)(params)


def run_of(*bindings: str) -> PretrainingRun:
    files = ["gin/models/tiny.gin", "gin/runs/pretrain.gin", "gin/objectives/gdes.gin"]
    unread = ["MODEL_DIR='m'", "VOCAB_FILE='v'", "CORPUS='c'", "WARMUP_STEPS=0", "TRAIN_STEPS=10"]
    with gin_files.isolated():
        return gin_files.build(PretrainingRun, files, [*unread, *bindings], search_paths=[])


def together(run: PretrainingRun, weights: Mapping[str, float]) -> dict[str, np.ndarray]:
    """The parameters after three updates by the run's own rule."""
    params, rule = GDES.params(), run.update_rule()
    state, update = rule.init(params), jax.jit(rule.update, compiler_options=COMPILE_FAST)
    for _ in range(3):
        updates, state = update(gradient(params, weights), state, params)
        params = optax.apply_updates(params, updates)
    return flatten_dict(jax.device_get(params), sep="/")


def apart(config: OptimizerConfig, generator_config: OptimizerConfig) -> dict[str, np.ndarray]:
    """The same by two trainers: each has its loss, its parameters, its optimizer and its state."""
    params = GDES.params()
    trainers = [
        (GENERATORS, {"generator": BOTH["generator"], "discriminator": 0.0}, make_optimizer(generator_config)),
        (DISCRIMINATORS, {"generator": 0.0, "discriminator": BOTH["discriminator"]}, make_optimizer(config)),
    ]
    states = [rule.init({name: params[name] for name in trees}) for trees, _, rule in trainers]
    rules = [jax.jit(rule.update, compiler_options=COMPILE_FAST) for _, _, rule in trainers]
    for _ in range(3):
        new = {}
        for number, (trees, weights, _) in enumerate(trainers):
            own, grads = ({name: tree[name] for name in trees} for tree in (params, gradient(params, weights)))
            updates, states[number] = rules[number](grads, states[number], own)
            new |= optax.apply_updates(own, updates)
        params = new
    return flatten_dict(jax.device_get(params), sep="/")


def assert_near(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], *, atol: float) -> None:
    assert found.keys() == expected.keys()
    for name, leaf in expected.items():
        np.testing.assert_allclose(found[name], leaf, rtol=0, atol=atol, err_msg=name)


def test_two_trainers_with_clips_and_rates_of_their_own_are_one_step() -> None:
    run = run_of("GENERATOR_CLIP_NORM=0.2", "GENERATOR_LEARNING_RATE=2e-3")
    grads = gradient(GDES.params(), BOTH)
    norms = [float(optax.tree.norm({name: grads[name] for name in trees})) for trees in (GENERATORS, DISCRIMINATORS)]
    # Both clips act.
    assert norms[0] > 0.2
    assert norms[1] > run.optimizer.clip_norm == 1.0
    plain = dataclasses.replace(run.optimizer, generator_clip_norm=None, generator_learning_rate=None)
    generators = dataclasses.replace(plain, clip_norm=0.2, learning_rate=2e-3)
    expected = apart(plain, generators)
    assert_near(together(run, BOTH), expected, atol=2e-7)
    # Adam hides a factor of the gradient but for its epsilon and what changes from step to step.
    joint = together(run_of("GENERATOR_LEARNING_RATE=2e-3"), BOTH)
    assert max(np.abs(joint[name] - leaf).max() for name, leaf in expected.items()) > 1e-6


def test_the_norm_of_the_generators_gradient_does_not_reach_the_discriminators_clip() -> None:
    large = BOTH | {"generator": 1e6}

    def discriminator(weights: Mapping[str, float], *bindings: str) -> np.ndarray:
        # With this epsilon an update shows the size of its gradient.
        shown = ("optimizer.OptimizerConfig.epsilon=1.0", "optimizer.OptimizerConfig.weight_decay_rate=0.0")
        found = together(run_of(*shown, *bindings), weights)
        return found["discriminator/encoder/layers/intermediate/kernel"] - start

    start = np.asarray(flatten_dict(GDES.params(), sep="/")["discriminator/encoder/layers/intermediate/kernel"])
    own = "GENERATOR_CLIP_NORM=1.0"
    np.testing.assert_array_equal(discriminator(large, own), discriminator(BOTH, own))
    # Clipped together, they share one norm.
    assert np.abs(discriminator(BOTH)).max() > 10 * np.abs(discriminator(large)).max()


def test_where_no_clip_acts_the_joint_step_is_the_same() -> None:
    free = "optimizer.OptimizerConfig.clip_norm=1e9"
    alone, joint = together(run_of(free, "GENERATOR_CLIP_NORM=1e9"), BOTH), together(run_of(free), BOTH)
    assert_near(alone, joint, atol=0)

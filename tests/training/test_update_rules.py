"""Today's optimizers: each parameter in one group, updates worked by hand, and a state that a checkpoint holds."""

import functools
import itertools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict

from electra_jax.checkpoints.orbax_store import Checkpoints, read_moments
from electra_jax.config import gin_files
from electra_jax.config.pretraining import PretrainingRun
from electra_jax.errors import UserError
from electra_jax.finetuning import steps as finetuning
from electra_jax.model.finetuned import FinetunedModel
from electra_jax.model.heads import HEADS
from electra_jax.model.types import PyTree
from electra_jax.pretraining import steps
from electra_jax.training import sharding
from electra_jax.training.optimizer import make_optimizer
from electra_jax.training.update_rules import matrix_axes, muon_flops
from support.objectives import VARIANTS
from support.tiny_model import ONE_AXIS, head_config, optimizer_config, small_encoder, small_model

OBJECTIVES = sorted(path.name for path in (Path(__file__).parents[2] / "gin" / "objectives").glob("*.gin"))
# In a layer query, key, value, output of attention and the two of the feed-forward part, or three with a gate.
MATRICES_OF_A_LAYER = {"tiny": 6, "small": 6, "modern_tiny": 7}


def built(model: str, objective: str, *bindings: str) -> PretrainingRun:
    files = [f"gin/models/{model}.gin", "gin/runs/pretrain.gin", f"gin/objectives/{objective}"]
    with gin_files.isolated():
        return gin_files.build(PretrainingRun, files, ["MODEL_DIR='run'", "VOCAB_FILE=''", *bindings], search_paths=[])


def hidden_matrices(shapes: PyTree) -> set[str]:
    """The paths of Muon's parameters; every other parameter is Adam's, or `matrix_axes` raises."""
    return {path for path in flatten_dict(shapes, sep="/") if matrix_axes(path) is not None}


@pytest.mark.parametrize("model", MATRICES_OF_A_LAYER)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_parameter_is_in_one_group(model: str, objective: str) -> None:
    """Muon's are all kernels but those that logits are computed with."""
    run = built(model, objective)
    shapes = flatten_dict(run.parameter_shapes(), sep="/")
    found = hidden_matrices(run.parameter_shapes())
    kernels = {path for path in shapes if path.endswith("kernel")}
    assert found == kernels - {path for path in kernels if "prediction" in path or "copy_gate" in path}
    towers = {path.partition("layers/")[0] for path in shapes if "layers/" in path}
    assert sum("layers/" in path for path in found) == MATRICES_OF_A_LAYER[model] * len(towers)


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("answerable", ["none", "start"])
def test_every_parameter_of_a_fine_tuned_model_is_in_one_group(kind: str, answerable: str) -> None:
    model = FinetunedModel(small_encoder(), head_config(kind, num_labels=3, answerable=answerable, beam_size=2))
    shapes = nn.unbox(jax.eval_shape(lambda key: finetuning.init_params(key, model), jax.random.key(0)))
    of_head = {path for path in hidden_matrices(shapes) if path.startswith("head/")}
    expected = {
        "sequence_classification": {"head/dense/kernel"},
        "joint_question_answering": {"head/joint/kernel"},
    }.get(kind, {"head/dense/kernel"} if kind.startswith("modernbert") else set())
    if answerable == "start" and kind in ("question_answering", "joint_question_answering"):
        expected = expected | {"head/answerable/hidden/kernel"}
    assert of_head == expected


def test_a_parameter_without_a_group_is_refused() -> None:
    params = {"encoder": {"gate": jnp.ones((2, 2))}}
    with pytest.raises(UserError, match="encoder/gate is not in exactly one group of the optimizer"):
        make_optimizer(optimizer_config(rule="muon")).init(params)


def orthogonalized(matrix: np.ndarray) -> np.ndarray:
    """Newton and Schulz as Jordan et al. (2024) write it, on one matrix in double precision."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.astype(np.float64) / np.linalg.norm(matrix)
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def test_muon_turns_each_layers_matrix_on_its_own() -> None:
    """Heads count as outputs of query and as inputs of the output; the first update is that of the gradient alone."""
    draw = np.random.default_rng(0)
    shapes = {"query_kernel": (2, 6, 2, 4), "output_kernel": (2, 2, 4, 6)}
    grads = {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    params = {"encoder": {"layers": {"attention": jax.tree.map(jnp.zeros_like, grads)}}}
    tree = {"encoder": {"layers": {"attention": grads}}}
    rule = make_optimizer(optimizer_config(rule="muon", learning_rate=1.0, muon_update_rms=0.2, clip_norm=None))
    updates, _ = rule.update(tree, rule.init(params), params)
    found = updates["encoder"]["layers"]["attention"]
    for name, matrix in (("query_kernel", (6, 8)), ("output_kernel", (8, 6))):
        for layer in range(2):
            expected = -0.2 * np.sqrt(8) * orthogonalized(grads[name][layer].reshape(matrix))
            np.testing.assert_allclose(np.reshape(found[name][layer], matrix), expected, rtol=0, atol=2e-5)


def test_muon_has_adamw_beside_it() -> None:
    """A bias moves by the learning rate, and a matrix by `muon_update_rms` of it; both decay, or not, as ever."""
    kernel = np.random.default_rng(0).normal(size=(32, 48)).astype(np.float32)
    params = {"head": {"dense": {"kernel": jnp.full((32, 48), 5.0), "bias": jnp.full(48, 5.0)}}}
    grads = {"head": {"dense": {"kernel": kernel, "bias": jnp.full(48, 1e-3)}}}
    updates = {}
    for decay in (0.0, 0.1):
        rule = make_optimizer(optimizer_config(rule="muon", learning_rate=0.5, weight_decay_rate=decay, clip_norm=None))
        updates[decay] = rule.update(grads, rule.init(params), params)[0]["head"]["dense"]
    np.testing.assert_allclose(updates[0.0]["bias"], np.full(48, -0.5), rtol=2e-3)
    assert np.sqrt(np.mean(np.square(updates[0.0]["kernel"]))) == pytest.approx(0.5 * 0.2, rel=0.2)
    np.testing.assert_array_equal(updates[0.1]["bias"], updates[0.0]["bias"])
    np.testing.assert_allclose(updates[0.1]["kernel"], updates[0.0]["kernel"] - 0.5 * 0.1 * 5.0, rtol=1e-5)


def test_the_flops_of_muon_by_hand() -> None:
    """Of three layers of one matrix [2, 5], and a bias that costs nothing."""
    shapes = {"encoder": {"layers": {"output": {"kernel": jnp.zeros((3, 2, 5)), "bias": jnp.zeros((3, 5))}}}}
    multiplies_and_adds = 2 * 2 * 5 + 2 * 2 * 2 + 2 * 2 * 5
    assert muon_flops(shapes) == 3 * 5 * 2 * multiplies_and_adds
    adamw, muon = (built("tiny", "mlm.gin", f"optimizer.OptimizerConfig.rule='{name}'") for name in ("adamw", "muon"))
    full = adamw.batch_shapes.full
    assert muon.step_flops(full) - adamw.step_flops(full) == muon_flops(adamw.parameter_shapes())


def test_adamw_corrects_its_bias() -> None:
    """Under a constant gradient every update is one learning rate, from the first on."""
    rule = make_optimizer(optimizer_config(rule="adamw", learning_rate=1.0, num_train_steps=10**9, clip_norm=None))
    params = {"bias": jnp.zeros(2)}
    state = rule.init(params)
    for _ in range(3):
        updates, state = rule.update({"bias": jnp.array([0.5, -3.0])}, state, params)
        np.testing.assert_allclose(updates["bias"], [-1.0, 1.0], rtol=2e-5)


def test_stable_adamw_by_hand() -> None:
    """A gradient that grows threefold in the first of two layers: only that layer's update and decay are limited."""
    beta_1, beta_2, decay = 0.9, 0.98, 0.1
    config = optimizer_config(
        rule="stable_adamw", learning_rate=0.5, beta_2=beta_2, weight_decay_rate=decay, clip_norm=None
    )
    rule = make_optimizer(config)
    params = {"layers": {"kernel": jnp.full((2, 2), 4.0)}}
    state = rule.init(params)
    grads = np.array([[[1.0, 1.0], [1.0, 1.0]], [[3.0, 3.0], [1.0, 1.0]]], np.float32)
    for grad in grads:
        updates, state = rule.update({"layers": {"kernel": grad}}, state, params)
    rate = 0.5 * (1 - 1 / 10)
    m = (beta_1 * (1 - beta_1) * 1 + (1 - beta_1) * 3) / (1 - beta_1**2)
    v = (beta_2 * (1 - beta_2) * 1 + (1 - beta_2) * 9) / (1 - beta_2**2)
    limited = -rate * (m / np.sqrt(v) + decay * 4) / np.sqrt(9 / v)
    free = -rate * (1 + decay * 4)
    assert np.sqrt(9 / v) > 1.3
    np.testing.assert_allclose(updates["layers"]["kernel"], [[limited] * 2, [free] * 2], rtol=1e-5)


def test_the_generator_has_a_learning_rate_and_a_clipping_of_its_own() -> None:
    """The generator's norm 5 is clipped to 1, the others' norm 50 to 2; with epsilon 1 the update shows it."""
    params = {
        "generator": {"encoder": {"bias": jnp.zeros(2)}},
        "embeddings": {"word_embeddings": jnp.zeros(1)},
        "discriminator": {"head": {"bias": jnp.zeros(1)}},
    }
    grads = {
        "generator": {"encoder": {"bias": jnp.array([3.0, 4.0])}},
        "embeddings": {"word_embeddings": jnp.array([30.0])},
        "discriminator": {"head": {"bias": jnp.array([40.0])}},
    }
    config = optimizer_config(
        learning_rate=0.5, generator_learning_rate=0.1, clip_norm=2.0, generator_clip_norm=1.0, epsilon=1.0
    )
    rule = make_optimizer(config)
    updates, _ = rule.update(grads, rule.init(params), params)

    def adam(rate: float, clipped: float) -> float:
        return -rate * 0.1 * clipped / (np.sqrt(0.001) * clipped + 1.0)

    np.testing.assert_allclose(updates["generator"]["encoder"]["bias"], [adam(0.1, 3 / 5), adam(0.1, 4 / 5)], rtol=1e-5)
    np.testing.assert_allclose(updates["embeddings"]["word_embeddings"], [adam(0.5, 30 * 2 / 50)], rtol=1e-5)
    np.testing.assert_allclose(updates["discriminator"]["head"]["bias"], [adam(0.5, 40 * 2 / 50)], rtol=1e-5)


@pytest.mark.parametrize(
    ("objective", "of_generator"),
    [
        ("electra.gin", {"generator"}),
        ("nes.gin", {"generator"}),
        ("gdes.gin", {"generator", "embeddings"}),
        ("electric.gin", {"generator"}),
    ],
)
def test_the_parameters_of_the_generators_rate(objective: str, of_generator: set[str]) -> None:
    """Those that only the generator's loss trains; at rate 0 they stay where they are."""
    run = built("tiny", objective, "GENERATOR_LEARNING_RATE=0.0")
    rule = run.update_rule()
    params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape[:1]), run.parameter_shapes())
    state = rule.init(params)
    # The first update of a warm-up has the rate 0.
    for _ in range(2):
        updates, state = rule.update(params, state, params)
    still = {path[0] for path, update in flatten_dict(updates).items() if not np.any(update)}
    moved = {path[0] for path, update in flatten_dict(updates).items() if np.any(update)}
    assert still == of_generator
    assert still | moved == set(params)
    assert not still & moved


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rule": "adam"}, "rule is 'adam': it must be one of bert_adam, adamw, stable_adamw, muon"),
        ({"learning_rate": 0.0, "generator_learning_rate": 1e-3}, "set a positive LEARNING_RATE"),
    ],
)
def test_settings_that_make_no_sense(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        optimizer_config(**changes)


def test_a_rate_of_a_generator_that_is_not_trained_is_refused() -> None:
    with pytest.raises(UserError, match="this run's generator_kind is 'none': set both to None"):
        built("tiny", "mlm.gin", "GENERATOR_CLIP_NORM=1.0")


@pytest.mark.parametrize("rule", ["adamw", "stable_adamw", "muon"])
def test_a_restored_state_continues_bit_for_bit(rule: str, tmp_path: Path) -> None:
    """Two updates, a checkpoint, and two more from memory or from the disk; also with groups for the clipping."""
    config = optimizer_config(rule=rule, generator_learning_rate=3e-4, generator_clip_norm=0.5)
    optimizer, key = make_optimizer(config), jax.random.key(0)
    init = functools.partial(steps.init_state, model=small_model(), optimizer=optimizer, sequence_length=8)
    mesh = sharding.make_mesh(ONE_AXIS, 1)
    state = sharding.initialise(init, key, mesh, ONE_AXIS)

    @jax.jit
    def update(state: Any) -> Any:
        grads = jax.tree.map(lambda leaf: jnp.sin(leaf * 97 + state.step.astype(jnp.float32)), state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        return state._replace(
            step=state.step + 1, params=optax.apply_updates(state.params, updates), opt_state=opt_state
        )

    for _ in range(2):
        state = update(state)
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(2, state, {})
    checkpoints.close()
    # Those that the original's code takes along: of every parameter, or none.
    assert (read_moments(tmp_path) is None) == (rule == "muon")
    restored = Checkpoints(tmp_path, keep=1).restore(sharding.abstract(init, key, mesh, ONE_AXIS))
    found, expected = (functools.reduce(lambda s, _: update(s), range(2), s) for s in (restored.state, state))
    assert int(found.step) == 4
    for (path, ours), (_, theirs) in zip(*map(jax.tree_util.tree_leaves_with_path, (found, expected)), strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=jax.tree_util.keystr(path))


def test_muon_keeps_one_moment_of_a_matrix_and_two_of_the_rest() -> None:
    model = VARIANTS["mlm"].model
    init = functools.partial(
        steps.init_state, model=model, optimizer=make_optimizer(optimizer_config(rule="muon")), sequence_length=8
    )
    state = nn.unbox(jax.eval_shape(init, jax.random.key(0)))
    sizes = {path: leaf.size for path, leaf in flatten_dict(state.params, sep="/").items()}
    matrices = hidden_matrices(state.params)
    held = sum(
        leaf.size for leaf in itertools.chain(jax.tree.leaves(state.opt_state)) if leaf.ndim and leaf.shape != (3,)
    )
    assert held == sum(size * (1 if path in matrices else 2) for path, size in sizes.items())

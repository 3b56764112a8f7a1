"""Compare the optimizer with the original: runs from raw gradients, schedules, the factor of every variable."""

import dataclasses
import json
import re
from collections.abc import Iterable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from electra_jax.checkpoints.model_record import Description, abstract_params
from electra_jax.interchange import tf1
from electra_jax.model.types import PyTree
from electra_jax.training import optimizer
from support.parity_case import NO_DECAY, discover, optimizer_of
from support.tiny_model import small_encoder


def locations_of(names: Iterable[str]) -> dict[str, tuple[str, int | None]]:
    """Return the path and the row of every variable in our tree, by the importer's mapping; a head is below `head`."""
    model = dataclasses.replace(small_encoder(), num_hidden_layers=24)
    description = Description("pretraining", model, model, False, None, (), {})
    towers = tf1.variable_layout(description, abstract_params(description), scope="electra", task=None)
    return {
        name: (name.replace("task_specific", "head"), None)
        if name.startswith("task_specific/")
        else (towers[name].path, towers[name].row)
        for name in names
    }


def tree_of(variables: dict[str, np.ndarray], num_layers: int) -> PyTree:
    """Return our tree of some variables of a model; layers that were not recorded are zero."""
    leaves: dict[str, np.ndarray] = {}
    for name, (path, row) in locations_of(variables).items():
        value = variables[name]
        if row is None:
            leaves[path] = value
        else:
            leaves.setdefault(path, np.zeros((num_layers, *value.shape), value.dtype))[row] = value
    return unflatten_dict(leaves, sep="/")


def variables_of(tree: PyTree, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Return the variables of a tree: the inverse of `tree_of`."""
    leaves = flatten_dict(tree, sep="/")
    return {
        name: np.asarray(leaves[path] if row is None else leaves[path][row])
        for name, (path, row) in locations_of(names).items()
    }


def group(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


@pytest.mark.parametrize("path", discover("tf_optim/*.npz", holding="meta"))
def test_parameters_and_moments_follow_the_recorded_run(path: Path) -> None:
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    meta = json.loads(str(arrays["meta"]))
    config = optimizer_of(meta["options"])
    before, grads = group(arrays, "var0/"), group(arrays, "grads/")
    recorded_layers = [int(found[1]) for name in before if (found := re.search(r"layer_(\d+)/", name))]
    num_layers = meta["options"].get("n_transformer_layers") or max(recorded_layers) + 1
    params = jax.tree.map(jnp.asarray, tree_of(before, num_layers))
    rule = optimizer.make_optimizer(config)
    state = rule.init(params)
    update = jax.jit(rule.update)
    if config.weight_decay_rate:
        decayed = flatten_dict(optimizer.decayed(params, NO_DECAY), sep="/")
        assert {name: decayed[path] for name, (path, _) in locations_of(before).items()} == meta["decayed"]
    saved = {int(found[1]) for name in arrays if (found := re.match(r"after(\d+)/", name))}
    for step in range(max(saved)):
        grad = tree_of({name: value[step] for name, value in grads.items()}, num_layers)
        np.testing.assert_allclose(optax.tree.norm(grad), arrays["preclip_norm"][step], rtol=1e-6)
        updates, state = update(grad, state, params)
        params = optax.apply_updates(params, updates)
        if step + 1 not in saved:
            continue
        after = group(arrays, f"after{step + 1}/")
        adam = state[1]
        for kind, tree in (("", params), ("/adam_m", adam.mu), ("/adam_v", adam.nu)):
            for name, ours in variables_of(tree, before).items():
                np.testing.assert_allclose(
                    ours, after[name + kind], rtol=2e-6, atol=2e-7, err_msg=f"{step}: {name}{kind}"
                )


@pytest.mark.parametrize("path", discover("tf_optim/*.npz", holding="meta"))
def test_learning_rates_of_the_recorded_run(path: Path) -> None:
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files if name.startswith(("lr", "meta"))}
    config = optimizer_of(json.loads(str(arrays["meta"]))["options"])
    base = np.array([optimizer.learning_rate(config, step) for step in range(50)])
    if "lr" in arrays:
        np.testing.assert_allclose(base, arrays["lr"], rtol=1e-6)
        return
    num_layers = sum(name.startswith("lr/encoder/layer_") for name in arrays)
    params = {
        "embeddings": {"word_embeddings": jnp.zeros((2, 2))},
        "encoder": {
            "embeddings_project": {"bias": jnp.zeros(2)},
            "layers": {"output": {"bias": jnp.zeros((num_layers, 2))}},
        },
        "head": {"bias": jnp.zeros(2)},
    }
    factors = optimizer.layerwise_multipliers(params, decay=config.layerwise_lr_decay, top_exponent=2)
    by_key = {
        "/embeddings/": factors["embeddings"]["word_embeddings"],
        "/embeddings_project/": factors["encoder"]["embeddings_project"]["bias"],
        "task_specific/": factors["head"]["bias"],
        **{f"encoder/layer_{i}/": factors["encoder"]["layers"]["output"]["bias"][i, 0] for i in range(num_layers)},
    }
    for key, factor in by_key.items():
        np.testing.assert_allclose(base * np.float32(factor), arrays[f"lr/{key}"], rtol=1e-6, err_msg=key)


@pytest.mark.parametrize("path", discover("tf_optim/lr_schedules*.json"))
def test_schedules(path: Path) -> None:
    for name, schedule in json.loads(path.read_text()).items():
        config = optimizer_of(schedule["args"])
        ours = [float(optimizer.learning_rate(config, step)) for step in schedule["steps"]]
        # One unit of float32 in k / N, which TensorFlow may compute as k * (1 / N), is 6e-8 of the base.
        np.testing.assert_allclose(ours, schedule["lr"], rtol=2e-6, atol=1e-7 * config.learning_rate, err_msg=name)


@pytest.mark.parametrize("path", discover("tf_optim/layerwise_multipliers*.json"))
def test_factor_and_decay_of_every_variable(path: Path) -> None:
    for size, recorded in json.loads(path.read_text()).items():
        variables = recorded["variables"]
        shapes = {name: tuple(entry["shape"]) for name, entry in variables.items()}
        # Shapes alone, without their memory: a broadcast zero has the shape and four bytes.
        values = {name: np.broadcast_to(np.float32(0), (1,) * len(shape)).copy() for name, shape in shapes.items()}
        params = tree_of(values, recorded["n_layers"])
        factors = flatten_dict(
            optimizer.layerwise_multipliers(params, decay=recorded["decay"], top_exponent=2), sep="/"
        )
        decayed = flatten_dict(optimizer.decayed(params, NO_DECAY), sep="/")
        for name, (path, row) in locations_of(variables).items():
            entry = variables[name]
            factor = np.asarray(factors[path] if row is None else factors[path][row])
            np.testing.assert_allclose(factor.item(), entry["multiplier"], rtol=1e-6, err_msg=f"{size}: {name}")
            assert decayed[path] == entry["weight_decay"], name


@pytest.mark.parametrize("path", discover("tf_optim/*.npz", holding="norm_used"))
def test_the_originals_norm_of_repeated_rows_is_not_ours(path: Path) -> None:
    """We do not reproduce an artefact: rows of a gather's gradient enter the norm before they are added."""
    with np.load(path) as file:
        ids, upstream, recorded = file["ids"], file["upstream"], dict(file)
    table_gradient = jax.grad(lambda table: jnp.sum(jnp.take(table, ids, axis=0) * upstream))(
        jnp.asarray(recorded["E0"])
    )
    np.testing.assert_allclose(table_gradient, recorded["dense_grad"], rtol=1e-6)
    np.testing.assert_allclose(optax.tree.norm(table_gradient), recorded["norm_dense"], rtol=1e-6)
    assert recorded["norm_used"] < recorded["norm_dense"]
    clipped, _ = optax.clip_by_global_norm(1.0).update(table_gradient, optax.EmptyState())
    np.testing.assert_allclose(clipped * recorded["norm_dense"], recorded["dense_grad"], rtol=1e-5)

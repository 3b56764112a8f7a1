"""Compare consecutive optimizer steps with the original's, given its draws."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from electra_jax.interchange import layout
from electra_jax.model.types import Masked, PyTree
from electra_jax.pretraining.objective import Keys
from electra_jax.training import optimizer
from support.parity_case import Case, discover, masked_of, noise_of, optimizer_of


@pytest.mark.parametrize("path", discover("tf_pretrain/trace_*.npz"))
def test_every_step_and_the_parameters_after_the_last(path: Path) -> None:
    variant = path.with_name(path.name.removeprefix("trace_")).with_suffix(".json")
    if not variant.exists():
        pytest.skip(f"the settings of {path.name} are in {variant.name}, which is not there")
    case = Case.read(variant)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    hyper = json.loads(str(arrays["hyper"]))
    config = optimizer_of(
        {
            "learning_rate": hyper["lr"],
            "num_train_steps": hyper["num_train_steps"],
            "warmup_steps": hyper["warmup_steps"],
            "weight_decay_rate": hyper["weight_decay"],
        }
    )
    model, objective, masking = case.model, case.objective, case.masking
    rule = optimizer.make_optimizer(config)
    params = case.params(model)
    state = rule.init(params)

    @jax.jit
    def step(
        params: PyTree, state: optax.OptState, masked: Masked, noise: jax.Array
    ) -> tuple[PyTree, optax.OptState, dict[str, jax.Array]]:
        keys = Keys(noise, jax.random.key(0), jax.random.key(0))

        def total(params: PyTree) -> tuple[jax.Array, dict[str, jax.Array]]:
            terms, outputs = objective.losses(model, params, masked, keys, masking=masking, deterministic=True)
            means = {name: term.sum / jnp.maximum(term.weight, 1.0) for name, term in terms.items()}
            loss = sum(weight * means[name] for name, weight in objective.loss_weights.items())
            seen = {"loss": loss, **means}
            if outputs.corrupted is not None:
                seen["sampled"] = outputs.corrupted.sampled_ids_BK
            return loss, seen

        gradient, seen = jax.grad(total, has_aux=True)(params)
        updates, state = rule.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, {**seen, "norm": optax.tree.norm(gradient)}

    number = 0
    while f"step{number}/in/input_ids" in arrays:
        at = {name.partition("/")[2]: value for name, value in arrays.items() if name.startswith(f"step{number}/")}
        np.testing.assert_allclose(optimizer.learning_rate(config, number), at["out/learning_rate"], rtol=1e-6)
        params, state, seen = step(params, state, masked_of(at, masking), noise_of(at))
        np.testing.assert_allclose(seen["loss"], at["out/total_loss"], rtol=1e-6, atol=5e-4)
        if "sampled" in seen:
            np.testing.assert_array_equal(seen["sampled"], at["out/sampled_tokids"])
        if "discriminator" in seen:
            np.testing.assert_allclose(seen["discriminator"], at["out/disc_loss"], rtol=0, atol=1e-5)
        first = "out/cloze_loss" if "out/cloze_loss" in at else "out/mlm_loss"
        np.testing.assert_allclose(seen.get("generator", seen.get("prediction")), at[first], rtol=0, atol=1e-5)
        # The original's norm is off where its word table has only lookups (QUIRKS 24), by 0.02 % at most here.
        np.testing.assert_allclose(seen["norm"], at["out/preclip_global_norm"], rtol=3e-4)
        number += 1
    assert number >= 1
    after = {name.removeprefix(f"var_after{number}/"): v for name, v in arrays.items() if name.startswith("var_after")}
    assert after
    worst = {}
    for name, ours in layout.disassemble(params, case.layout(model)).items():
        if "/key/bias" not in name:
            worst[name] = float(np.abs(ours - after[name]).max())
    assert {name: value for name, value in worst.items() if not value <= 2e-5} == {}

"""Compare a pre-training step on an accelerator with the CPU: python -m bench.device_parity --model=small

The losses and gradients of both towers are computed on the CPU in float32, and on the device in every setting that a
user can choose there. Replaced tokens are drawn once, on the CPU, so that rounding cannot change them; dropout is off.
Then the program checks that `rbg` draws at the right rate and differently for each key, and compares several steps in
one dispatch with the same steps one by one. It prints one fact per line and writes all of them as JSON to --output.
"""

import argparse
import concurrent.futures
import dataclasses
import functools
import json
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from bench import models
from bench.pretrain_step import synthetic_blocks
from bench.timing import machine
from electra_jax.model.layers import keep_mask
from electra_jax.model.types import Corrupted, Masked, PyTree, Tokens
from electra_jax.pretraining import corruption, losses, objective
from electra_jax.training.state import TrainState


class Setting(NamedTuple):
    """Name a setting of the computation on the device: the dtype and the attention of the encoder."""

    name: str
    dtype: str
    attention: str


SETTINGS = [
    Setting("float32", "float32", "exact"),
    Setting("float32, fused attention", "float32", "fused"),
    Setting("bfloat16", "bfloat16", "exact"),
    Setting("bfloat16, fused attention", "bfloat16", "fused"),
]


# A loop over layers compiles several times faster than unrolled layers.
LOOP = "encoder.EncoderConfig.scan_unroll = 1"


class Case(NamedTuple):
    """Hold parameters and a batch that is already masked and corrupted."""

    params: PyTree
    masked: Masked
    corrupted: Corrupted


def main() -> None:
    """Compare the device with the CPU, and print and write the figures."""
    options = parse_arguments()
    print(machine(["jax", "jaxlib", "flax", "numpy"]))
    cpu, device = jax.devices("cpu")[0], jax.devices()[0]
    print(f"{options.model}, batch {options.batch_size} x {options.sequence_length}, {device.device_kind} against CPU")
    recipe = models.recipe(options.model, dtype="float32", bindings=["DROPOUT = 0.0", LOOP])
    with jax.default_device(cpu):
        case = make_case(recipe, options.batch_size, options.sequence_length)
    # Compiling takes far longer than computing, so several programs compile at once.
    settings = [(SETTINGS[0], cpu), (SETTINGS[2], cpu), *((setting, device) for setting in SETTINGS)]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        exact, *others = pool.map(lambda to: computed(recipe, jax.device_put(case, to[1]), to[0]), settings)
    names = ["CPU, bfloat16", *(setting.name for setting in SETTINGS)]
    found = {name: differences(exact, other) for name, other in zip(names, others, strict=True)}
    for name, values in found.items():
        print(f"{name}: " + ", ".join(f"{what} {value:.2e}" for what, value in values.items()), flush=True)
    facts = {"losses and gradients": found, "rbg": rbg_facts(), "dispatch": dispatch_facts(options)}
    print("rbg: " + ", ".join(f"{what} {value:.5f}" for what, value in facts["rbg"].items()))
    print("one dispatch against steps one by one: " + json.dumps(facts["dispatch"]))
    if options.output:
        written = {
            "device": device.device_kind,
            "model": options.model,
            "versions": machine(["jax", "jaxlib"]),
            **facts,
        }
        options.output.write_text(json.dumps(written, indent=2) + "\n")


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Compares a step on an accelerator with the CPU.")
    parser.add_argument("--model", choices=models.SIZES, default="small")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--sequence_length", type=int, default=128)
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


def make_case(recipe: models.Recipe, batch_size: int, length: int) -> Case:
    """Return new parameters and a batch whose replaced tokens are drawn from the new generator."""
    params = nn.unbox(jax.jit(recipe.init(length))(jax.random.key(0))).params
    # New weights give nearly uniform attention, which would hide errors in attention.
    params = jax.tree.map(lambda leaf: leaf * 4 if leaf.ndim > 2 else leaf, params)
    rows = synthetic_blocks(batch_size, length, recipe.vocab_size, seed=1).gather(np.arange(batch_size), length)
    # The last row is half padding.
    real_BL = (np.arange(length) < length // 2) | (np.arange(batch_size) < batch_size - 1)[:, None]
    rows = {name: np.where(real_BL, values_BL, 0) for name, values_BL in rows.items()}
    tokens = Tokens(**{name: jnp.asarray(values) for name, values in rows.items()})

    def draw(params: PyTree) -> tuple[Masked, Corrupted]:
        masked = corruption.mask(jax.random.key(1), tokens, recipe.masking)
        keys = objective.Keys(corruption.row_keys(jax.random.key(2), batch_size), jax.random.key(3), jax.random.key(4))
        _, outputs = recipe.objective.losses(
            recipe.model, params, masked, keys, masking=recipe.masking, deterministic=True
        )
        return masked, outputs.corrupted

    return Case(params, *jax.jit(draw)(params))


def computed(recipe: models.Recipe, case: Case, setting: Setting) -> tuple[dict[str, float], PyTree]:
    """Compute both losses and the gradient of their weighted sum in a setting, on the device that holds the case."""
    change = functools.partial(dataclasses.replace, dtype=setting.dtype, attention=setting.attention)
    model = recipe.model.clone(
        generator_config=change(recipe.model.generator_config),
        discriminator_config=change(recipe.model.discriminator_config),
    )

    def loss(params: PyTree, case: Case) -> tuple[jax.Array, dict[str, jax.Array]]:
        apply = functools.partial(model.apply, {"params": params}, deterministic=True)
        masked, corrupted = case.masked, case.corrupted
        generated = losses.masked_lm_loss(apply(masked, method="generate"), masked.masked_ids, masked.masked_weights)
        detected = losses.replaced_token_loss(
            apply(corrupted.tokens, method="discriminate"),
            corrupted.labels_BL,
            recipe.objective.discriminated_positions(masked),
        )
        means = {"generator": generated.sum / generated.weight, "discriminator": detected.sum / detected.weight}
        return sum(recipe.objective.loss_weights[name] * mean for name, mean in means.items()), means

    (_, means), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(case.params, case)
    return jax.device_get(means), jax.device_get(gradient)


def differences(exact: tuple[dict[str, float], PyTree], other: tuple[dict[str, float], PyTree]) -> dict[str, float]:
    """Return relative errors: of each loss, of the gradient by norm, and of its worst element over its largest."""
    errors = {f"{name} loss": abs(float(other[0][name]) / float(value) - 1) for name, value in exact[0].items()}
    errors["gradient"] = float(
        optax.tree.norm(jax.tree.map(np.subtract, other[1], exact[1])) / optax.tree.norm(exact[1])
    )
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(exact[1]))
    apart = jax.tree.map(lambda one, two: np.abs(one - two).max(), other[1], exact[1])
    errors["worst element of the gradient"] = float(max(jax.tree.leaves(apart)) / largest)
    return errors


def rbg_facts() -> dict[str, float]:
    """Return the share that dropout with `rbg` drops at a rate of 0.1, and the share that two keys both drop (0.01)."""
    draw = jax.jit(lambda key: keep_mask(key, (1024, 128, 256), 0.1, 16, "rbg")[0])
    first, second = (~np.asarray(draw(jax.random.key(seed))) for seed in (0, 1))
    repeated = ~np.asarray(draw(jax.random.key(0)))
    return {
        "dropped": float(first.mean()),
        "dropped by both of two keys": float((first & second).mean()),
        "dropped at both of two neighbours": float((first[..., 1:] & first[..., :-1]).mean()),
        "the same key draws the same": float((first == repeated).all()),
    }


def dispatch_facts(options: argparse.Namespace) -> dict[str, float | bool]:
    """Train 4 steps one by one, and as one dispatch, in bfloat16 with `rbg`, and compare the parameters."""
    recipe = models.recipe(options.model, dtype="bfloat16", fused=True, prng="rbg", bindings=[LOOP])
    length, batch_size = options.sequence_length, options.batch_size
    blocks = synthetic_blocks(4 * batch_size, length, recipe.vocab_size, seed=2)
    batches = [
        blocks.gather(np.arange(start, start + batch_size), length) for start in range(0, 4 * batch_size, batch_size)
    ]
    initial = nn.unbox(jax.jit(recipe.init(length))(jax.random.key(0)))
    step = jax.jit(recipe.update())
    apart: TrainState = initial
    for batch in batches:
        apart, _ = step(apart, batch)
    stacked = {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}
    together, _ = jax.jit(functools.partial(jax.lax.scan, recipe.update()))(initial, stacked)
    one, two, start = jax.device_get((apart.params, together.params, initial.params))
    moved = optax.tree.norm(jax.tree.map(np.subtract, one, start))
    return {
        "equal bit for bit": all(jax.tree.leaves(jax.tree.map(np.array_equal, one, two))),
        "difference over the distance moved": float(optax.tree.norm(jax.tree.map(np.subtract, one, two)) / moved),
    }


if __name__ == "__main__":
    main()

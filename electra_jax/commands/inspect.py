"""`electra inspect`: prints the model, the mesh and the cost of a run without running it, or after a trial."""

import argparse
import math

import jax
from flax import linen as nn
from flax.traverse_util import flatten_dict
from jax.sharding import AbstractMesh
from rich import box
from rich.table import Table

from electra_jax.commands.run_text import corpus_line
from electra_jax.commands.trial import try_run
from electra_jax.config.budget import flops_of
from electra_jax.config.pretraining import PretrainingRun
from electra_jax.model.config import SLIDING, EncoderConfig
from electra_jax.model.types import PyTree
from electra_jax.monitoring.console import PlainConsole
from electra_jax.pretraining.steps import init_state
from electra_jax.training import sharding
from electra_jax.training.state import TrainState


def run(configuration: PretrainingRun, options: argparse.Namespace) -> None:
    """Print every parameter's shape and sharding, the bytes on each device, and the FLOPs of a step.

    Without --trial, nothing is allocated, and the mesh may have more devices than this machine.
    """
    mesh = sharding.planned_mesh(configuration.mesh, len(jax.devices()))
    for stage in configuration.batch_shapes.stages:
        sharding.check_batch(stage.shape.batch_size, configuration.accumulation_steps, mesh)
    optimizer, length = configuration.update_rule(), configuration.cache.sequence_length
    boxed = jax.eval_shape(
        lambda key: init_state(key, configuration.model, optimizer, length), jax.random.key(configuration.seed)
    )
    placements: TrainState = sharding.shardings(boxed, mesh, configuration.mesh)
    state: TrainState = nn.unbox(boxed)
    table = Table(box=box.SIMPLE)
    for title in ("parameter", "shape", "numbers", "sharding", "on a device"):
        table.add_column(title, no_wrap=True, justify="right" if title == "numbers" else "left")
    leaves = flatten_dict(state.params, sep="/")
    for name, placement in flatten_dict(placements.params, sep="/").items():
        leaf = leaves[name]
        part = placement.shard_shape(leaf.shape)
        table.add_row(name, str(leaf.shape), f"{leaf.size:,}", str(tuple(placement.spec)), str(part))
    console = PlainConsole()
    # Names must not be cut off: a narrow terminal then wraps them, and a log file has no width.
    console.width = max(console.width, table.__rich_measure__(console, console.options.update(width=10_000)).maximum)
    console.print(table)
    said = [*towers(configuration), *sizes(state, placements, mesh), *costs(configuration), corpus_line(configuration)]
    for line in said:
        console.print(line, highlight=False)
    for line in try_run(configuration) if options.trial else ():
        console.print(line, highlight=False, soft_wrap=True)


def towers(configuration: PretrainingRun) -> list[str]:
    """Return a line about the layers of each tower's encoder."""
    variant = configuration.variant
    encoders = {name: variant[name] for name in ("generator", "discriminator") if variant[name] is not None}
    return [f"{name}: {layers(encoder)}" for name, encoder in encoders.items()]


def layers(encoder: EncoderConfig) -> str:
    """Describe an encoder's layers in words."""
    windows = encoder.kinds.count(SLIDING)
    kinds = f", {len(encoder.kinds) - windows} full and {windows} with windows of {encoder.local_attention}"
    biases = (encoder.attention_bias, encoder.mlp_bias, encoder.norm_bias)
    parts = [
        f"{encoder.position_embedding_type} positions",
        f"{encoder.norm_placement}-LayerNorm",
        f"{'gated ' if encoder.gated_mlp else ''}feed-forward of {encoder.intermediate_size}",
        *["LayerNorm of queries and keys"] * encoder.qk_norm,
        *["no biases"] * (not any(biases)),
    ]
    depth = f"{encoder.num_hidden_layers} layers of {encoder.hidden_size}"
    return f"{depth}{kinds if windows else ''}; {', '.join(parts)}"


def bytes_on_a_device(state: PyTree, placements: PyTree) -> int:
    """Return the number of bytes of a state on each device."""
    parts = jax.tree.map(
        lambda leaf, placement: math.prod(placement.shard_shape(leaf.shape)) * leaf.dtype.itemsize, state, placements
    )
    return sum(jax.tree.leaves(parts))


def sizes(state: TrainState, placements: TrainState, mesh: AbstractMesh) -> list[str]:
    """Return lines about the number of parameters, the mesh, and the bytes on each device."""
    here = len(jax.devices())
    parameters = bytes_on_a_device(state.params, placements.params)
    optimizer = bytes_on_a_device(state.opt_state, placements.opt_state)
    axes = ", ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    return [
        f"parameters: {sum(leaf.size for leaf in jax.tree.leaves(state.params)):,}",
        f"mesh: {axes} = {mesh.size} devices" + ("" if mesh.size == here else f" (this machine has {here})"),
        # A gradient has the sharding and dtype of its parameter.
        f"bytes per device: parameters {parameters:,}, optimizer state {optimizer:,}, gradients {parameters:,}; "
        f"together {(2 * parameters + optimizer) / 1e6:,.1f} MB in addition to activations",
    ]


def costs(configuration: PretrainingRun) -> list[str]:
    """Return lines about the batches and the FLOPs of their steps."""
    lines = []
    for start, _, (rows, length) in configuration.batch_shapes.stages:
        slots = configuration.max_predictions(length)
        after = f"batch after {start:,} steps" if start else "batch"
        lines.append(f"{after}: {rows} x {length} tokens, {slots} masked positions at most per example")
    if alone := configuration.generator_steps:
        lines.append(f"the generator alone: the first {alone:,} steps")
    steps = configuration.loop.num_train_steps
    total = flops_of(configuration, steps)
    return [*lines, f"matrix FLOPs: {total / steps:.4g} a step, {total:.4g} for {steps:,} steps"]

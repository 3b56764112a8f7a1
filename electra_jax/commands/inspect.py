"""`electra inspect`: prints the model, the mesh and the cost of a run without running it."""

import math

import jax
from flax import linen as nn
from flax.traverse_util import flatten_dict
from jax.sharding import AbstractMesh
from rich import box
from rich.console import Console
from rich.table import Table

from electra_jax.config.pretraining import PretrainingRun
from electra_jax.model.types import PyTree
from electra_jax.pretraining.steps import init_state
from electra_jax.training import sharding
from electra_jax.training.state import TrainState


def run(configuration: PretrainingRun) -> None:
    """Print every parameter's shape and sharding, the bytes on each device, and the FLOPs of a step.

    Nothing is allocated, and the mesh may have more devices than this machine.
    """
    mesh = sharding.planned_mesh(configuration.mesh, len(jax.devices()))
    sharding.check_batch(configuration.batch_size, configuration.accumulation_steps, mesh)
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
    console = Console()
    # Names must not be cut off: a narrow terminal wraps them, and a log has no width.
    console.width = max(console.width, table.__rich_measure__(console, console.options.update(width=10_000)).maximum)
    console.print(table)
    for line in [*sizes(state, placements, mesh), *costs(configuration)]:
        console.print(line, highlight=False)


def bytes_on_a_device(state: PyTree, placements: PyTree) -> int:
    """Return the number of bytes of a state that each device holds."""
    parts = jax.tree.map(
        lambda leaf, placement: math.prod(placement.shard_shape(leaf.shape)) * leaf.dtype.itemsize, state, placements
    )
    return sum(jax.tree.leaves(parts))


def sizes(state: TrainState, placements: TrainState, mesh: AbstractMesh) -> list[str]:
    """Return lines on the number of parameters, the mesh, and the bytes on each device."""
    here = len(jax.devices())
    parameters = bytes_on_a_device(state.params, placements.params)
    optimizer = bytes_on_a_device(state.opt_state, placements.opt_state)
    axes = ", ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    return [
        f"parameters: {sum(leaf.size for leaf in jax.tree.leaves(state.params)):,}",
        f"mesh: {axes} = {mesh.size} devices" + ("" if mesh.size == here else f" (this machine has {here})"),
        # A gradient has the sharding and dtype of its parameter.
        f"bytes per device: parameters {parameters:,}, optimizer state {optimizer:,}, gradients {parameters:,}; "
        f"together {(2 * parameters + optimizer) / 1e6:,.1f} MB beside activations",
    ]


def costs(configuration: PretrainingRun) -> list[str]:
    """Return lines on the batch and the FLOPs of a step."""
    length, rows = configuration.cache.sequence_length, configuration.batch_size
    slots = configuration.masking_config(cls_id=-1, sep_id=-1, mask_id=-1).max_predictions(length)
    budget, steps = configuration.budget, configuration.loop.num_train_steps
    alone = budget.generator_steps(configuration.schedule_steps)
    first = f"{budget.alone:.4g} each of the first {alone:,} steps (the generator alone), then " if alone else ""
    cost = budget.flops(steps, configuration.schedule_steps)
    return [
        f"batch: {rows} x {length} tokens, {slots} masked positions at most per example",
        f"matrix FLOPs: {first}{budget.after:.4g} a step, {cost:.4g} for {steps:,} steps",
    ]

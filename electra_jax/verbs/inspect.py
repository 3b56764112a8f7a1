"""`electra inspect`: the model, the mesh and the cost of a run, without running it."""

import math

import jax
from rich import box
from rich.console import Console
from rich.table import Table

from electra_jax import sharding
from electra_jax.run_config import PretrainingRun
from electra_jax.steps import init_params


def run(configuration: PretrainingRun) -> None:
    """Prints every parameter's shape and sharding, the totals, and the FLOPs of a step; nothing is allocated."""
    mesh = sharding.make_mesh(configuration.mesh, len(jax.devices()))
    length = configuration.cache.sequence_length
    abstract = jax.eval_shape(lambda key: init_params(key, configuration.model, length), jax.random.key(0))
    placements = sharding.shardings(abstract, mesh, configuration.mesh)
    leaves = jax.tree_util.tree_leaves_with_path(placements)
    shapes = [leaf.shape for leaf in jax.tree.leaves(abstract)]
    table = Table(box=box.SIMPLE)
    for title in ("parameter", "shape", "numbers", "sharding"):
        table.add_column(title, no_wrap=True, justify="right" if title == "numbers" else "left")
    for (path, placement), shape in zip(leaves, shapes, strict=True):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        table.add_row(name, str(shape), f"{math.prod(shape):,}", str(tuple(placement.spec)))
    per_device = sum(
        math.prod(placement.shard_shape(shape)) for (_, placement), shape in zip(leaves, shapes, strict=True)
    )
    console = Console()
    # A name that is cut off is of no use: a narrow terminal wraps, and a log has no width.
    console.width = max(console.width, table.__rich_measure__(console, console.options.update(width=10_000)).maximum)
    console.print(table)
    for line in totals(configuration, shapes, per_device, dict(mesh.shape)):
        console.print(line, highlight=False)


def totals(
    configuration: PretrainingRun, shapes: list[tuple[int, ...]], per_device: int, mesh_shape: dict[str, int]
) -> list[str]:
    """The lines under the table."""
    length, rows = configuration.cache.sequence_length, configuration.batch_size
    slots = configuration.masking_config(cls_id=-1, sep_id=-1, mask_id=-1).max_predictions(length)
    cost = configuration.step_flops(slots)
    steps = configuration.loop.num_train_steps
    # Parameters and both moments of Adam, float32.
    state_bytes = 3 * 4 * per_device
    return [
        f"parameters: {sum(map(math.prod, shapes)):,}",
        f"mesh: {', '.join(f'{axis} {size}' for axis, size in mesh_shape.items())}",
        f"parameters and optimizer state per device: {state_bytes / 1e6:,.1f} MB",
        f"batch: {rows} x {length} tokens, {slots} masked positions at most per example",
        f"matrix FLOPs: {cost:.4g} a step, {cost * steps:.4g} for {steps:,} steps",
    ]

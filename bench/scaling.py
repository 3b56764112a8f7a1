"""Measure how cost grows with work: python -m bench.scaling

The program measures the pre-training step against batch, length, layers and width, one of them changed at a time; the
rate of the input against processes; and time and memory of a checkpoint against parameters. It prints a table in
Markdown, and plots the times next to the time that the counted work would take at the rate of the largest point
(`bench/scaling.svg`). Checkpoints need Orbax.
"""

import argparse
import dataclasses
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from bench import models
from bench.input_pipeline import batches_of
from bench.pretrain_step import (
    compile_step,
    counted_flops,
    data_mesh,
    new_state,
    prepare,
    synthetic_batches,
    synthetic_blocks,
    time_steps,
)
from bench.scaling_plot import draw
from bench.timing import machine, peak_memory_bytes, spread
from electra_jax.model.electra import Electra, generator_config
from electra_jax.pretraining import steps
from electra_jax.training.optimizer import make_optimizer
from electra_jax.training.state import TrainState


class Point(NamedTuple):
    """Hold a measurement.

    Attributes:
        series: the name of the quantity that is changed.
        value: the value of that quantity.
        seconds: the median time.
        quartiles: the lower and upper quartile; if there are only three measurements, the fastest and the slowest.
        work: FLOPs, examples or bytes, to which the time should be proportional.
        note: text for the table.
    """

    series: str
    value: float
    seconds: float
    quartiles: tuple[float, float]
    work: float
    note: str


def main() -> None:
    """Measure all points, print the table and draw the figure."""
    options = parse_arguments()
    prepare(1)
    title = machine(["jax", "jaxlib", "flax", "numpy"])
    print(title, flush=True)
    points = step_points(options) + input_points(options) + checkpoint_points(options)
    print("\n| against | value | median, s | quartiles, s | work | work a second | |\n|---|---|---|---|---|---|---|")
    for one in points:
        low, high = one.quartiles
        print(
            f"| {one.series} | {one.value:,g} | {one.seconds:.4g} | {low:.4g} to {high:.4g} | {one.work:.4g} | "
            f"{one.work / one.seconds:.4g} | {one.note} |"
        )
    draw(points, title, options.picture)
    print(f"\nwrote {options.picture}")


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Measures cost against work, and draws it.")
    parser.add_argument("--model", choices=models.SIZES, default="small", help="the middle of every series")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--sequence_length", type=int, default=128)
    parser.add_argument("--batches", type=int, nargs="+", default=[2, 4, 8, 16])
    parser.add_argument("--lengths", type=int, nargs="+", default=[32, 64, 128, 256])
    parser.add_argument("--layers", type=int, nargs="+", default=[3, 6, 12])
    parser.add_argument("--widths", type=int, nargs="+", default=[128, 256, 512])
    parser.add_argument("--steps", type=int, default=5, help="that are timed for each point")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--input_batches", type=int, default=2000, help="that each process reads")
    parser.add_argument("--checkpoints", nargs="+", choices=models.SIZES, default=["tiny", "small", "base"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path, default=Path(__file__).with_name("scaling.svg"))
    return parser.parse_args()


def resized(recipe: models.Recipe, *, layers: int, width: int, fraction: float) -> models.Recipe:
    """Return the recipe at another depth and width, with heads of the same size and a feed-forward of 4 x the width."""
    config = recipe.model.discriminator_config
    channels = config.hidden_size // config.num_attention_heads
    config = dataclasses.replace(
        config,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // channels,
        intermediate_size=4 * width,
        scan_unroll=layers,
    )
    generator = generator_config(
        config, width_fraction=fraction, depth_fraction=1.0, embedding_size=config.embedding_size
    )
    return recipe._replace(model=Electra(generator, config, recipe.model.embedding_sharing))


def step_points(options: argparse.Namespace) -> list[Point]:
    """Measure the step in every series; a point that several series share is measured once."""
    base = models.recipe(options.model, dtype="float32")
    config, fraction = base.model.discriminator_config, base.generator_width_fraction
    middle = {
        "batch": options.batch_size,
        "length": options.sequence_length,
        "layers": config.num_hidden_layers,
        "width": config.hidden_size,
    }
    series = {"batch": options.batches, "length": options.lengths, "layers": options.layers, "width": options.widths}
    found: dict[tuple[int, ...], Point] = {}
    points = []
    for name, values in series.items():
        for value in values:
            shape = middle | {name: value}
            key = tuple(shape.values())
            if key not in found:
                recipe = resized(base, layers=shape["layers"], width=shape["width"], fraction=fraction)
                found[key] = step_point(recipe, shape["batch"], shape["length"], options)
            points.append(found[key]._replace(series=f"step, {name}", value=value))
    return points


def step_point(recipe: models.Recipe, batch_size: int, length: int, options: argparse.Namespace) -> Point:
    """Measure the step of one shape."""
    mesh = data_mesh(1)
    state = new_state(recipe, length, options.seed, mesh)
    batches = synthetic_batches(recipe, batch_size, length, options.steps + 3, options.seed, mesh)
    compiled = compile_step(recipe, state, batches[0])
    elapsed, _ = time_steps(compiled.step, state, batches, recipe)
    wall = spread([times.wall for times in elapsed])
    note = f"trace {compiled.trace_seconds:.1f} s, compile {compiled.compile_seconds:.1f} s"
    note += f", {compiled.temporary_bytes / 1e6:,.0f} MB"
    print(f"batch {batch_size}, length {length}: {1e3 * wall.median:.0f} ms", flush=True)
    return Point(
        "", 0, wall.median, (wall.lower_quartile, wall.upper_quartile), counted_flops(recipe, batch_size, length), note
    )


def input_points(options: argparse.Namespace) -> list[Point]:
    """Measure the time until each of several processes has read the same number of batches."""
    points = []
    context = get_context("spawn")
    for count in options.processes:
        together = context.Barrier(count)
        with ProcessPoolExecutor(count, mp_context=context, initializer=open_reader, initargs=(together,)) as pool:
            # A first round, which is not timed, waits until all processes have started.
            list(pool.map(read_blocks, [1] * count))
            seconds = []
            for _ in range(3):
                started = time.perf_counter()
                examples = sum(pool.map(read_blocks, [options.input_batches] * count))
                seconds.append(time.perf_counter() - started)
        times = spread(seconds)
        note = f"examples; {len(os.sched_getaffinity(0))} cores"
        points.append(Point("input, processes", count, times.median, (times.minimum, times.maximum), examples, note))
    return points


def open_reader(together: Barrier) -> None:
    """Prepare this process for `read_blocks`."""
    global reader, barrier
    blocks = synthetic_blocks(20_000, 128, models.recipe("small", dtype="float32").vocab_size, seed=0)
    reader, barrier = batches_of(blocks, batch_size=128, sequence_length=128), together


def read_blocks(num_batches: int) -> int:
    """Read batches of 128 x 128 at the same time as all other processes, and return the number of examples."""
    barrier.wait()
    return sum(len(next(reader)["input_ids"]) for _ in range(num_batches))


def checkpoint_points(options: argparse.Namespace) -> list[Point]:
    """Measure saving and restoring states; give the smallest of `--checkpoints` first, as peak memory only grows."""
    # Only this part needs Orbax.
    from electra_jax.checkpoints.orbax_store import Checkpoints

    points = []
    for name in options.checkpoints:
        recipe = models.recipe(name, dtype="float32")
        optimizer = make_optimizer(recipe.optimizer)
        shapes = jax.eval_shape(
            lambda key, r=recipe, o=optimizer: steps.init_state(key, r.model, o, 128), jax.random.key(0)
        )
        state = jax.tree.map(noise, nn.unbox(shapes))
        parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        before = peak_memory_bytes()
        saves, restores = [], []
        with tempfile.TemporaryDirectory() as folder:
            checkpoints = Checkpoints(folder, keep=1)
            for step in (1, 2, 3):
                started = time.perf_counter()
                checkpoints.save(step, state, {"batches": {}})
                checkpoints.wait()
                saves.append(time.perf_counter() - started)
                started = time.perf_counter()
                jax.block_until_ready(checkpoints.restore(abstract(state)).state)
                restores.append(time.perf_counter() - started)
            checkpoints.close()
        grown = (peak_memory_bytes() - before) / 1e6
        for kind, seconds in (("save", saves), ("restore", restores)):
            times = spread(seconds)
            note = f"bytes of {name}; the peak of memory grew by {grown:,.0f} MB in all"
            points.append(
                Point(f"checkpoint, {kind}", parameters, times.median, (times.minimum, times.maximum), size, note)
            )
        print(f"checkpoint of {name}: done", flush=True)
    return points


def noise(leaf: jax.ShapeDtypeStruct) -> jax.Array:
    """Return values for a leaf: zeros for integers, random floats otherwise, which can hardly be compressed."""
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return jnp.zeros(leaf.shape, leaf.dtype)
    return jnp.asarray(np.random.default_rng(0).standard_normal(leaf.shape, np.float32), leaf.dtype)


def abstract(state: TrainState) -> TrainState:
    """Return a state's shapes and shardings."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)


if __name__ == "__main__":
    main()

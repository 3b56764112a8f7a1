"""Time one pre-training step: python -m bench.pretrain_step --model=small --batch_size=8 --sequence_length=128

Synthetic batches are on the devices before the clock starts, so only the step is timed: masks, both towers, gradients,
optimizer. Needs JAX, Flax, Optax, NumPy and Gin.
"""

import argparse
import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bench import models
from bench.timing import Elapsed, in_words, machine, peak_memory_bytes, spread, stopwatch
from electra_jax.data.blocks import TokenBlocks
from electra_jax.model.layers import DROPOUT_GENERATORS
from electra_jax.pretraining import flops, metrics
from electra_jax.training.state import Batch, Sums, TrainState

WARM_UP_STEPS = 3


class Compiled(NamedTuple):
    """Hold a compiled step, the seconds of tracing and compiling, and the bytes that it needs besides its arguments."""

    step: jax.stages.Compiled
    trace_seconds: float
    compile_seconds: float
    temporary_bytes: int


def main() -> None:
    """Time the step, and print one fact per line."""
    options = parse_arguments()
    prepare(options.devices)
    print(machine(["jax", "jaxlib", "flax", "numpy"]))
    mesh = data_mesh(options.devices)
    device = f"{options.devices} x {jax.devices()[0].device_kind}"
    print(f"{options.model}, batch {options.batch_size} x {options.sequence_length}, {options.dtype}, {device}")
    if options.gin:
        print(f"with {', '.join(options.gin)}")
    recipe = models.recipe(
        options.model, dtype=options.dtype, fused=options.fused, prng=options.prng, bindings=options.gin
    )
    state = new_state(recipe, options.sequence_length, options.seed, mesh)
    batches = synthetic_batches(
        recipe, options.batch_size, options.sequence_length, options.steps + WARM_UP_STEPS, options.seed, mesh
    )
    together = options.steps_per_dispatch
    if together > 1:
        batches = stacks(batches, together, mesh)
    compiled = compile_step(recipe, state, batches[0], together)
    print(f"trace {compiled.trace_seconds:.1f} s, compile {compiled.compile_seconds:.1f} s", flush=True)
    elapsed, losses = time_steps(compiled.step, state, batches, recipe, together)
    report(recipe, options, compiled, elapsed, losses)


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Times one pre-training step.")
    parser.add_argument("--model", choices=models.SIZES, default="small")
    parser.add_argument("--gin", action="append", default=[], help="another line of Gin, after the model's")
    parser.add_argument("--batch_size", type=int, default=8, help="of all devices together")
    parser.add_argument("--sequence_length", type=int, default=128)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the products")
    parser.add_argument("--fused", action="store_true", help="attention by the backend's kernel, without its dropout")
    parser.add_argument("--prng", choices=DROPOUT_GENERATORS, default="threefry2x32", help="of dropout")
    parser.add_argument("--steps_per_dispatch", type=int, default=1, help="launched as one program and timed together")
    parser.add_argument("--devices", type=int, default=1, help="that share the batch; on CPU made of the one there is")
    parser.add_argument("--peak_tflops", type=float, help="matrix peak of one device: prints the share that is used")
    parser.add_argument("--steps", type=int, default=16, help="that are timed")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def prepare(devices: int) -> None:
    """Set the options of JAX that must be set before its first use."""
    if devices > 1:
        # JAX can divide only a CPU into several devices.
        jax.config.update("jax_num_cpu_devices", devices)
    # A program from the cache on disk would show no compile time.
    jax.config.update("jax_enable_compilation_cache", False)


def data_mesh(devices: int) -> Mesh:
    """Return a mesh of the first `devices` devices along the axis `data`."""
    return jax.make_mesh(
        (devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:devices]
    )


def synthetic_blocks(num_examples: int, length: int, vocab_size: int, seed: int) -> TokenBlocks:
    """Draw examples [CLS] A [SEP] B [SEP] without padding, whose ids have frequencies proportional to 1 / rank."""
    draw = np.random.default_rng(seed)
    first, last = models.MASK_ID + 1, vocab_size
    ids_NL = np.exp(draw.uniform(np.log(first), np.log(last), (num_examples, length))).astype(np.uint16)
    second_starts_N = draw.integers(2, length - 1, num_examples)
    ids_NL[:, 0], ids_NL[:, -1] = models.CLS_ID, models.SEP_ID
    ids_NL[np.arange(num_examples), second_starts_N - 1] = models.SEP_ID
    offsets = np.arange(num_examples + 1, dtype=np.int64) * length
    return TokenBlocks(ids_NL.ravel(), offsets, second_starts_N, vocab_size)


def synthetic_batches(
    recipe: models.Recipe, batch_size: int, sequence_length: int, num_batches: int, seed: int, mesh: Mesh
) -> list[Batch]:
    """Return different batches of synthetic blocks, with rows sharded over the mesh."""
    vocab_size = recipe.vocab_size
    blocks = synthetic_blocks(num_batches * batch_size, sequence_length, vocab_size, seed)
    rows_NB = np.arange(len(blocks)).reshape(num_batches, batch_size)
    by_row = NamedSharding(mesh, PartitionSpec("data"))
    return [jax.device_put(blocks.gather(rows_B, sequence_length), by_row) for rows_B in rows_NB]


def stacks(batches: list[Batch], together: int, mesh: Mesh) -> list[Batch]:
    """Stack the batches of each complete dispatch; the rows of each step are sharded over the mesh."""
    by_row = NamedSharding(mesh, PartitionSpec(None, "data"))
    groups = [batches[first : first + together] for first in range(0, len(batches) - together + 1, together)]
    return [
        {name: jax.device_put(np.stack([batch[name] for batch in group]), by_row) for name in group[0]}
        for group in groups
    ]


def new_state(recipe: models.Recipe, sequence_length: int, seed: int, mesh: Mesh) -> TrainState:
    """Return a state at step 0, replicated on every device."""
    init = recipe.init(sequence_length)
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.jit(lambda key: nn.unbox(init(key)), out_shardings=everywhere)(jax.random.key(seed))


def compile_step(recipe: models.Recipe, state: TrainState, batch: Batch, together: int = 1) -> Compiled:
    """Compile the step with its state donated, as the training loop does; `together` steps take a stack of batches."""
    step: Callable[..., Any] = recipe.update()
    if together > 1:
        step = functools.partial(jax.lax.scan, step)
    started = time.perf_counter()
    lowered = jax.jit(step, donate_argnums=0).lower(state, batch)
    traced = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - traced
    memory = compiled.memory_analysis()
    return Compiled(compiled, traced - started, seconds, memory.temp_size_in_bytes if memory else 0)


def time_steps(
    step: jax.stages.Compiled, state: TrainState, batches: list[Batch], recipe: models.Recipe, together: int = 1
) -> tuple[list[Elapsed], list[float]]:
    """Run a dispatch on each batch or stack of batches, and wait for its results; the first few are not timed.

    Returns:
        The time per step of each timed dispatch, and the loss of the last step of every dispatch.
    """
    elapsed, losses = [], []
    for batch in batches:

        def work(batch: Batch = batch) -> None:
            nonlocal state, sums
            state, sums = jax.block_until_ready(step(state, batch))

        sums: Sums = {}
        wall, cpu = stopwatch(work)
        elapsed.append(Elapsed(wall / together, cpu / together))
        last = jax.device_get(sums) if together == 1 else {name: values[-1] for name, values in sums.items()}
        losses.append(metrics.finish(jax.device_get(last), recipe.objective.loss_weights)["loss"])
    return elapsed[-(-WARM_UP_STEPS // together) :], losses


def counted_flops(recipe: models.Recipe, batch_size: int, sequence_length: int) -> int:
    """Count the matrix FLOPs of a step, see `electra_jax.pretraining.flops`."""
    return flops.step_flops(
        recipe.objective,
        generator_kind="small",
        generator=recipe.model.generator_config,
        discriminator=recipe.model.discriminator_config,
        batch_size=batch_size,
        sequence_length=sequence_length,
        max_predictions=recipe.masking.max_predictions(sequence_length),
    )


def report(
    recipe: models.Recipe,
    options: argparse.Namespace,
    compiled: Compiled,
    elapsed: list[Elapsed],
    losses: list[float],
) -> None:
    """Print the statistics; rates are those of the median step."""
    batch_size, sequence_length = options.batch_size, options.sequence_length
    cost = counted_flops(recipe, batch_size, sequence_length)
    wall = spread([time.wall for time in elapsed])
    print(f"step {in_words([time.wall for time in elapsed])}")
    print(f"CPU time of a step {in_words([time.cpu for time in elapsed])}")
    print(f"{batch_size / wall.median:.2f} examples/s, {batch_size * sequence_length / wall.median:,.0f} tokens/s")
    print(f"best step: {batch_size / wall.minimum:.2f} examples/s")
    print(f"counted {cost:.4g} matrix FLOPs a step, {cost / wall.median:.3g} FLOP/s achieved")
    if options.peak_tflops:
        peak = 1e12 * options.peak_tflops * options.devices
        print(f"{cost / wall.median / peak:.1%} of the stated peak, {peak:.3g} FLOP/s")
    print(f"peak memory {peak_memory_bytes() / 1e6:,.0f} MB of the process, compilation included")
    print(f"the program needs {compiled.temporary_bytes / 1e6:,.0f} MB besides state and batch")
    if of_device := (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use"):
        print(f"peak memory {of_device / 1e6:,.0f} MB of the device")
    unit = "step" if options.steps_per_dispatch == 1 else "dispatch"
    print(f"loss {losses[0]:.3f} at the first {unit}, {losses[-1]:.3f} at the last of {len(losses)}")


if __name__ == "__main__":
    main()

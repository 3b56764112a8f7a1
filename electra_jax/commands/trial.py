"""Try the steps of a run on this machine, for `electra inspect --trial`: their memory, their time, and what fits."""

import os
import time
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from electra_jax.config.budget import flops_of
from electra_jax.config.pretraining import PretrainingRun
from electra_jax.runtime import keep_compilations
from electra_jax.training import sharding
from electra_jax.training.state import Batch, TrainState

# These follow a first step that is not timed.
TIMED_STEPS = 2
# The share of a device's memory that a plan may fill: allocators leave gaps.
FILLED = 0.9


class StandIn(NamedTuple):
    """Stand in for a vocabulary that need not exist: a step costs the same, whatever the text is."""

    cls_id: int
    sep_id: int
    mask_id: int
    begins_word: list[bool]


class Memory(NamedTuple):
    """The bytes of a step on each device, as XLA planned them.

    Attributes:
        held: the state and the batch.
        working: gradients, activations and everything else that the step computes on the way.
        there: the memory of the device; None if the device does not report it.
    """

    held: int
    working: int
    there: int | None

    @property
    def fits(self) -> bool:
        """Whether the step fits into a device."""
        return self.there is None or self.held + self.working <= self.there

    def times_working(self) -> float:
        """Return the factor by which `working` could grow and still fit, leaving gaps (see `FILLED`)."""
        assert self.there is not None
        return max(FILLED * self.there - self.held, 0.0) / max(self.working, 1)


def try_run(configuration: PretrainingRun) -> list[str]:
    """Compile an update of a run, run it if it fits, and return lines to print.

    Raises:
        UserError: if the mesh does not fit this machine's devices.
    """
    keep_compilations()
    mesh = sharding.make_mesh(configuration.mesh, len(jax.devices()))
    setup = configuration.setup(StandIn(1, 2, 3, [True] * configuration.encoder.vocab_size))
    state = sharding.abstract(setup.init, jax.random.key(configuration.seed), mesh, configuration.mesh)
    batch = batch_of(configuration)
    rows = NamedSharding(mesh, PartitionSpec(None, sharding.BATCH_AXES))
    shapes = {
        name: jax.ShapeDtypeStruct((1, *values.shape), values.dtype, sharding=rows) for name, values in batch.items()
    }
    update = sharding.jit_updates(setup.update, state, mesh, configuration.mesh)
    started = time.perf_counter()
    compiled = update.lower(state, shapes).compile()
    seconds = time.perf_counter() - started
    memory = memory_of(compiled, mesh)
    lines = [
        f"trial: {TIMED_STEPS} steps on {mesh.size} of this machine's devices ({mesh.devices.flat[0].device_kind}), "
        f"compiled in {seconds:.0f} s",
        memory_line(configuration, memory, mesh),
    ]
    if memory.fits:
        new = sharding.initialise(setup.init, jax.random.key(configuration.seed), mesh, configuration.mesh)
        lines += time_lines(configuration, seconds_of_step(compiled, new, batch, mesh))
    return lines


def batch_of(configuration: PretrainingRun) -> Batch:
    """Return a global batch of the full shape: random ids in rows without padding."""
    rows, length = configuration.batch_shapes.full
    draw = np.random.default_rng(configuration.seed)
    ids_BL = draw.integers(4, max(configuration.encoder.vocab_size, 5), (rows, length), dtype=np.int32)
    batch = {"input_ids": ids_BL, "token_type_ids": np.zeros_like(ids_BL), "attention_mask": np.ones_like(ids_BL)}
    if configuration.packing:
        batch["example_ids"] = np.ones_like(ids_BL)
    if configuration.masking == "task":
        slots = configuration.max_predictions(length)
        positions_BK = np.tile(np.arange(1, 1 + slots, dtype=np.int32), (rows, 1))
        batch |= {"masked_positions": positions_BK, "masked_ids": ids_BL[:, 1 : 1 + slots]}
        batch["masked_weights"] = np.ones(positions_BK.shape, np.float32)
    return batch


def memory_of(compiled: jax.stages.Compiled, mesh: Mesh) -> Memory:
    """Return the memory that XLA planned for a compiled update, and the memory of a device of the mesh."""
    plan = compiled.memory_analysis()
    # Outputs that reuse the memory of donated arguments need none of their own.
    working = plan.temp_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes
    return Memory(plan.argument_size_in_bytes, working, device_bytes(mesh.devices.flat[0]))


def device_bytes(device: jax.Device) -> int | None:
    """Return a device's memory that this process may use; CPU devices share this machine's."""
    if device.platform == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // jax.local_device_count()
    return (device.memory_stats() or {}).get("bytes_limit")


def memory_line(configuration: PretrainingRun, memory: Memory, mesh: Mesh) -> str:
    """Return a line on whether a step fits into a device, and how many rows would."""
    total = f"{(memory.held + memory.working) / 1e9:,.2f}"
    parts = (
        f"parameters, optimizer and batch {memory.held / 1e9:,.2f}, gradients and activations "
        f"{memory.working / 1e9:,.2f}"
    )
    if memory.there is None:
        return f"memory of a device: {total} GB ({parts}); the device does not say how much it has"
    verdict = "fits" if memory.fits else "DOES NOT FIT"
    advice = room(configuration, memory, mesh) if memory.fits else smaller(configuration, memory, mesh)
    return f"memory of a device: {total} of {memory.there / 1e9:,.2f} GB: {verdict} ({parts}); {advice}"


def micro_rows(configuration: PretrainingRun, mesh: Mesh) -> int:
    """Return the number of rows that a device computes at once."""
    devices = mesh.shape["data"] * mesh.shape["fsdp"]
    return configuration.batch_shapes.full.batch_size // (devices * configuration.accumulation_steps)


def room(configuration: PretrainingRun, memory: Memory, mesh: Mesh) -> str:
    """Return a clause about how many rows a device would have room for."""
    rows = micro_rows(configuration, mesh)
    return f"{rows} rows at once, and there is room for about {max(rows, int(rows * memory.times_working())):,}"


def smaller(configuration: PretrainingRun, memory: Memory, mesh: Mesh) -> str:
    """Return a clause about the settings that may make a step fit: more micro-batches if fewer rows are enough."""
    rows, steps = micro_rows(configuration, mesh), configuration.accumulation_steps
    fewer = [number for number in sharding.divisors(rows) if number <= rows * memory.times_working()]
    if fewer:
        return (
            f"set ACCUMULATION_STEPS to {steps * rows // fewer[-1]}, for {fewer[-1]} rows at once instead of {rows}, "
            "or REMAT_POLICY to 'full' with EncoderConfig.scan_unroll 1"
        )
    return (
        "not a row does: set REMAT_POLICY to 'full' with EncoderConfig.scan_unroll 1, or divide the model by MESH_FSDP"
    )


def seconds_of_step(compiled: jax.stages.Compiled, state: TrainState, batch: Batch, mesh: Mesh) -> float:
    """Return the mean time of an update; the first one is not counted."""
    started = 0.0
    for number in range(1 + TIMED_STEPS):
        placed = sharding.stack_to_device([sharding.local_rows(batch, mesh)], mesh)
        if number == 1:
            started = time.perf_counter()
        state, sums = compiled(state, placed)
        jax.block_until_ready(sums)
    return (time.perf_counter() - started) / TIMED_STEPS


def time_lines(configuration: PretrainingRun, seconds: float) -> list[str]:
    """Return lines about the time of a step and of the run; the time of smaller batches is scaled by their FLOPs."""
    shape, steps = configuration.batch_shapes.full, configuration.loop.num_train_steps
    cost = configuration.step_flops(shape)
    total = seconds * flops_of(configuration, steps) / cost
    return [
        f"time of a step: {seconds:.3g} s, {shape.batch_size / seconds:,.0f} examples/s, "
        f"{shape.batch_size * shape.sequence_length / seconds:,.0f} tokens/s, {cost / seconds / 1e12:.3g} TFLOP/s",
        f"the run: {steps:,} steps in about {duration(total)}, without evaluations and checkpoints",
    ]


def duration(seconds: float) -> str:
    """Return a time in its two largest units."""
    units = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
    size, name = next(((size, name) for size, name in units if seconds >= size), units[-1])
    smaller_units = [unit for unit in units if unit[0] < size][:1]
    rest = "".join(f" {int(seconds % size // unit)} {short}" for unit, short in smaller_units)
    return f"{int(seconds // size)} {name}{rest}" if size > 1 else f"{seconds:.1f} s"

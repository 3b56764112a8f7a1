"""Time our step and PyTorch's in turn: python -m bench.versus

The other side is PyTorch with the two ELECTRA pre-training models of transformers (see `peer`), eager and compiled, in
float32 and in bfloat16 autocast, with the generator's head at all positions, as in transformers, or only at the masked
ones, gathered by hand. All take turns in one process, step by step on the same batches, so that other load on the
machine affects them alike. The clock stops when a step is complete. Needs the extra `bench`.
"""

import argparse
import functools
import os
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import torch

from bench import models, peer
from bench.pretrain_step import compile_step, data_mesh, new_state, prepare, synthetic_blocks
from bench.timing import Elapsed, in_words, machine, spread, stopwatch
from electra_jax.pretraining import metrics

WARM_UP_STEPS = 3
HostBatch = dict[str, np.ndarray]
Step = Callable[[HostBatch], float]


class Contender(NamedTuple):
    """Name a step that is compared.

    Attributes:
        name: the name on the command line and in the output.
        make: a function that builds the step, which waits for its result and returns the loss.
    """

    name: str
    make: Callable[[argparse.Namespace], Step]


def jax_step(options: argparse.Namespace, *, dtype: str) -> Step:
    """Return our step, compiled as in `electra pretrain`."""
    recipe, mesh = models.recipe(options.model, dtype=dtype), data_mesh(1)
    state = new_state(recipe, options.sequence_length, options.seed, mesh)
    batch = jax.device_put(host_batches(options, 1)[0], jax.devices()[0])
    compiled = compile_step(recipe, state, batch).step

    def step(batch: HostBatch) -> float:
        nonlocal state
        state, sums = jax.block_until_ready(compiled(state, jax.device_put(batch, jax.devices()[0])))
        return metrics.finish(jax.device_get(sums), recipe.objective.loss_weights)["loss"]

    return step


def torch_step(options: argparse.Namespace, *, gathered: bool, compiled: bool, bfloat16: bool) -> Step:
    """Return PyTorch's step from `peer`."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    recipe = models.recipe(options.model, dtype="float32")
    run = peer.make_step(recipe, device, gathered=gathered, compiled=compiled, bfloat16=bfloat16)

    def step(batch: HostBatch) -> float:
        ids_BL, types_BL = (torch.from_numpy(batch[name]).long().to(device) for name in ("input_ids", "token_type_ids"))
        return run(ids_BL, types_BL)

    return step


CONTENDERS = [
    *(Contender(f"jax {dtype}", functools.partial(jax_step, dtype=dtype)) for dtype in ("float32", "bfloat16")),
    *(
        Contender(
            f"torch {'compiled' if compiled else 'eager'} {'bfloat16' if bfloat16 else 'float32'} "
            f"{'gathered' if gathered else 'as it comes'}",
            functools.partial(torch_step, gathered=gathered, compiled=compiled, bfloat16=bfloat16),
        )
        for compiled in (False, True)
        for bfloat16 in (False, True)
        for gathered in (False, True)
    ),
]


def main() -> None:
    """Print the time of every contender's step, and its ratio to the baseline's step of the same round."""
    options = parse_arguments()
    # JAX would otherwise take all memory of a GPU.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    prepare(1)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    print(machine(["jax", "jaxlib", "flax", "torch", "transformers", "numpy"]))
    print(
        f"{options.model}, batch {options.batch_size} x {options.sequence_length}, {jax.devices()[0].device_kind}, "
        f"{torch.get_num_threads()} threads"
    )
    chosen = [one for one in CONTENDERS if options.only is None or one.name in (*options.only, options.baseline)]
    batches = host_batches(options, options.steps + WARM_UP_STEPS)
    stepping: dict[str, Step] = {}
    losses: dict[str, list[float]] = {}
    for contender in chosen:
        started = time.perf_counter()
        stepping[contender.name] = contender.make(options)
        # The first step of a compiled PyTorch contender compiles it.
        losses[contender.name] = [stepping[contender.name](batch) for batch in batches[:WARM_UP_STEPS]]
        print(f"{contender.name}: ready after {time.perf_counter() - started:.1f} s", flush=True)
    rounds = [one_round(stepping, batch, losses) for batch in batches[WARM_UP_STEPS:]]
    for name in stepping:
        print(describe(name, rounds, options.baseline, losses[name]))


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Times one pre-training step of ours and of the peer in turn.")
    names = [contender.name for contender in CONTENDERS]
    parser.add_argument("--model", choices=models.SIZES, default="small")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--sequence_length", type=int, default=128)
    parser.add_argument("--steps", type=int, default=16, help="that are timed for each contender")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"some of: {', '.join(names)}")
    parser.add_argument("--baseline", choices=names, default="torch eager float32 gathered")
    return parser.parse_args()


def host_batches(options: argparse.Namespace, count: int) -> list[HostBatch]:
    """Return synthetic batches, the same for all contenders."""
    vocab_size = models.recipe(options.model, dtype="float32").vocab_size
    blocks = synthetic_blocks(count * options.batch_size, options.sequence_length, vocab_size, options.seed)
    rows_NB = np.arange(len(blocks)).reshape(count, options.batch_size)
    return [blocks.gather(rows_B, options.sequence_length) for rows_B in rows_NB]


def one_round(stepping: dict[str, Step], batch: HostBatch, losses: dict[str, list[float]]) -> dict[str, Elapsed]:
    """Run one step of each contender; append its loss to `losses`."""

    def work(name: str) -> None:
        losses[name].append(stepping[name](batch))

    return {name: stopwatch(functools.partial(work, name)) for name in stepping}


def describe(name: str, rounds: list[dict[str, Elapsed]], baseline: str, losses: list[float]) -> str:
    """Return the output line of a contender."""
    wall = spread([times[name].wall / times[baseline].wall for times in rounds])
    cpu = spread([times[name].cpu / times[baseline].cpu for times in rounds])
    return (
        f"{name}: {in_words([times[name].wall for times in rounds])}; "
        f"ratio median {wall.median:.3f}, quartiles {wall.lower_quartile:.3f} to {wall.upper_quartile:.3f}; "
        f"CPU time {in_words([times[name].cpu for times in rounds])}; ratio median {cpu.median:.3f}, "
        f"quartiles {cpu.lower_quartile:.3f} to {cpu.upper_quartile:.3f}; loss {losses[0]:.3f} to {losses[-1]:.3f}"
    )


if __name__ == "__main__":
    main()

"""Time the pre-training step of 1, 2 and 4 processes on one machine: python -m bench.processes

The processes are started as a user starts several hosts, and connect over loopback. They share the rows of a global
batch of constant size. Because they also share the cores, the best possible result is an unchanged rate; any slowdown
is the cost of collectives between processes and of sharing the cores.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from typing import Any

from bench.timing import machine, spread

WARM_UP_STEPS = 3


def main() -> None:
    """Start a group of processes for each count, and print a line of results for each group."""
    options = parse_arguments()
    if options.member:
        member(options)
        return
    print(machine(["jax", "jaxlib", "flax"]), flush=True)
    print(f"{options.model}, global batch {options.batch_size} x {options.sequence_length}, {options.steps} steps")
    base = None
    for count in options.processes:
        found = run_group(count)
        rates = spread([options.batch_size / seconds for seconds in found["wall"]])
        cpu = spread(found["cpu"])
        base = base or rates.median
        print(
            f"{count} process(es): {rates.median:.1f} examples/s (quartiles {rates.lower_quartile:.1f} to "
            f"{rates.upper_quartile:.1f}, best {rates.maximum:.1f}, n {rates.n}), {rates.median / base:.2f} of the "
            f"first; {1000 * cpu.median:.0f} ms of CPU time a step, all processes (least {1000 * cpu.minimum:.0f}); "
            f"last loss {found['loss']:.4f}",
            flush=True,
        )


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Times the pre-training step of several processes on one machine.")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--batch_size", type=int, default=32, help="of all processes together")
    parser.add_argument("--sequence_length", type=int, default=128)
    parser.add_argument("--steps", type=int, default=16, help="that are timed")
    parser.add_argument("--member", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def run_group(count: int) -> dict[str, Any]:
    """Run a group, and return the wall time and all processes' CPU time of each step, in seconds, and the last loss."""
    from electra_jax.distributed.group import free_port

    group = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}", "JAX_NUM_PROCESSES": str(count)}
    command = [sys.executable, "-m", "bench.processes", "--member", *sys.argv[1:]]
    members = [
        subprocess.Popen(command, env=os.environ | group | {"JAX_PROCESS_ID": str(index)}, stdout=subprocess.PIPE)
        for index in range(count)
    ]
    outputs = [process.communicate()[0] for process in members]
    if any(process.returncode for process in members):
        raise SystemExit(f"a process failed: {[process.returncode for process in members]}")
    return json.loads(outputs[0].splitlines()[-1])


def member(options: argparse.Namespace) -> None:
    """Train on synthetic text as one process of a group; process 0 prints the measurements as JSON."""
    import jax

    from electra_jax.distributed import processes as distributed

    jax.config.update("jax_num_cpu_devices", 1)
    with distributed.process_group(""):
        found = time_steps(options)
        if distributed.leader():
            print(json.dumps(found))


def time_steps(options: argparse.Namespace) -> dict[str, Any]:
    """Time each step of this process, and return the measurements that `run_group` returns."""
    import jax
    import numpy as np

    from bench import models
    from bench.pretrain_step import data_mesh, new_state, synthetic_blocks
    from electra_jax.distributed import processes as distributed
    from electra_jax.pretraining import metrics
    from electra_jax.training import sharding

    recipe = models.recipe(options.model, dtype="float32")
    mesh = data_mesh(len(jax.devices()))
    state = new_state(recipe, options.sequence_length, 0, mesh)
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    total = WARM_UP_STEPS + options.steps
    blocks = synthetic_blocks(total * options.batch_size, options.sequence_length, recipe.vocab_size, 0)
    step = jax.jit(recipe.update(), donate_argnums=0, out_shardings=sharding.replicated(mesh))
    share = options.batch_size // jax.process_count()
    wall, cpu = [], []
    for number in range(total):
        first = number * options.batch_size + jax.process_index() * share
        batch = sharding.to_device(blocks.gather(np.arange(first, first + share), options.sequence_length), rows)
        before, used = time.perf_counter(), time.process_time()
        state, sums = jax.block_until_ready(step(state, batch))
        wall.append(time.perf_counter() - before)
        cpu.append(sum(distributed.gather(time.process_time() - used)))
    loss = metrics.finish(jax.device_get(sums), recipe.objective.loss_weights)["loss"]
    return {"wall": wall[WARM_UP_STEPS:], "cpu": cpu[WARM_UP_STEPS:], "loss": loss}


if __name__ == "__main__":
    main()

"""One process of a small run: the parts of `electra pretrain`, but for a model that compiles at once, and TensorFlow.

    python worker.py MODEL_DIR '{"steps": 12, ...}'

It writes down the rows that it was given for each step (`rows.INDEX.jsonl`), and process 0 a digest of the state after
each, and of the one that it began with (`states.jsonl`).
"""

import functools
import hashlib
import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

sys.path.insert(0, str(Path(__file__).parent.parent))

from electra_jax.checkpoints.orbax_store import Checkpoints
from electra_jax.cli import exit_code
from electra_jax.data.batches import BlockBatches, Prefetch, whole_state
from electra_jax.data.blocks import TokenBlocks
from electra_jax.distributed import processes
from electra_jax.distributed.stop_signals import end_early, stop_signals
from electra_jax.model.types import PyTree
from electra_jax.training import sharding
from electra_jax.training.loop import LoopConfig, train
from electra_jax.training.sharding import MeshConfig
from electra_jax.training.state import Batch, TrainState
from support.job import Job
from support.tiny_model import RULES, VOCAB_SIZE, random_batch

LENGTH, EXAMPLES = 16, 60
OPTIMIZER = optax.adam(1e-2)


class Lines:
    """A reporter that process 0 writes with."""

    def __init__(self, model_dir: Path) -> None:
        self._path = model_dir / "metrics.jsonl"

    def report(self, step: int, split: str, values: dict[str, float]) -> None:
        if processes.leader():
            with self._path.open("a") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")


def blocks() -> TokenBlocks:
    """Examples that differ from one another in their second token and beyond."""
    batch = random_batch(EXAMPLES, LENGTH)
    lengths = batch["attention_mask"].sum(axis=1)
    ids = [row[:length] for row, length in zip(batch["input_ids"], lengths, strict=True)]
    seconds = (batch["token_type_ids"] == 0).sum(axis=1) - (LENGTH - lengths)
    return TokenBlocks(np.concatenate(ids).astype(np.uint16), np.r_[0, np.cumsum(lengths)], seconds, VOCAB_SIZE)


def init(key: jax.Array) -> TrainState:
    """A table of vectors, sharded by its rows, and Adam's moments of it."""
    table = nn.LogicallyPartitioned(jax.random.normal(key, (VOCAB_SIZE, 16)), ("embed", None))
    params = {"table": table}
    return TrainState(jnp.zeros((), jnp.int32), params, OPTIMIZER.init(params), jax.random.key_data(key))


def update(state: TrainState, batch: Batch) -> tuple[TrainState, PyTree]:
    """Pulls the vectors of a row's tokens towards their noisy mean."""
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key_data), state.step)

    def loss(params: PyTree) -> jax.Array:
        vectors_BLD = params["table"][batch["input_ids"]]
        vectors_BLD += 0.1 * jax.random.normal(key, vectors_BLD.shape)
        return jnp.mean(jnp.square(vectors_BLD - jnp.mean(vectors_BLD, axis=1, keepdims=True)))

    value, grads = jax.value_and_grad(loss)(state.params)
    updates, opt_state = OPTIMIZER.update(grads, state.opt_state)
    params = optax.apply_updates(state.params, updates)
    real = jnp.sum(batch["attention_mask"], dtype=jnp.float32)
    sums = {"loss": value, "grad_norm": optax.tree.norm(grads), "real": real}
    return TrainState(state.step + 1, params, opt_state, state.key_data), sums


@functools.cache
def gathering(mesh: jax.sharding.Mesh) -> Callable[[PyTree], PyTree]:
    """The same values, all of them everywhere."""
    return jax.jit(lambda tree: tree, out_shardings=sharding.replicated(mesh))


def digest(state: PyTree, mesh: jax.sharding.Mesh) -> str:
    """Of every bit of a state, however it is sharded."""
    whole = gathering(mesh)(state)
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(whole))).hexdigest()


def run(model_dir: Path, options: dict[str, Any]) -> None:
    jax.config.update("jax_compilation_cache_dir", os.environ["ELECTRA_CACHE_DIR"])
    config = MeshConfig(*options["mesh"], rules=RULES, deterministic=False)
    mesh = sharding.make_mesh(config, len(jax.devices()))
    index, count = sharding.process_share(mesh)
    data = BlockBatches(
        blocks(), batch_size=8, sequence_length=LENGTH, seed=0, process_index=index, process_count=count
    )
    processes.on_leader(functools.partial(model_dir.mkdir, parents=True, exist_ok=True))
    processes.check_shared(model_dir)
    checkpoints = Checkpoints(model_dir, keep=3)
    key = jax.random.key(0)
    restored = checkpoints.restore(sharding.abstract(init, key, mesh, config))
    start = 0
    if restored is None:
        state = sharding.initialise(init, key, mesh, config)
    else:
        state, start = restored.state, restored.step
        data.restore(restored.data_state["batches"])
    own = model_dir / f"rows.{jax.process_index()}.jsonl"
    log = model_dir / "states.jsonl"
    first = digest(state, mesh)
    if processes.leader():
        note(log, start, first)
    step = jax.jit(
        functools.partial(jax.lax.scan, update),
        donate_argnums=0,
        out_shardings=(jax.tree.map(lambda leaf: leaf.sharding, state), sharding.replicated(mesh)),
    )

    numbers = itertools.count(start + 1)

    def watched(state: PyTree, batch: PyTree) -> tuple[PyTree, PyTree]:
        rows = np.concatenate([np.asarray(part.data[0]) for part in batch["input_ids"].addressable_shards])
        state, sums = step(state, batch)
        number = next(numbers)
        note(own, number, rows.tolist())
        found = digest(state, mesh)
        if processes.leader():
            note(log, number, found)
        time.sleep(options["pace"])
        return state, sums

    loop = LoopConfig(options["steps"], 1, options["steps"], options["save_every"], keep=3, steps_per_dispatch=1)
    with stop_signals() as stop, Prefetch(data, depth=2) as batches:
        state, reached = train(
            Job(
                mesh,
                update=watched,
                finish=lambda sums: {"loss": float(sums["loss"])},
                data_state=lambda: {"batches": whole_state(processes.gather(batches.state()))},
            ),
            batches,
            state,
            loop=loop,
            reporter=Lines(model_dir),
            stop=stop,
            checkpoints=checkpoints,
        )
        checkpoints.close()
    if reached < loop.num_train_steps:
        end_early(stop, f" at step {reached}")


def note(path: Path, step: int, what: Any) -> None:
    """One line."""
    with path.open("a") as file:
        file.write(json.dumps([step, what]) + "\n")


def body() -> None:
    options = json.loads(sys.argv[2])
    with processes.process_group(options.get("configuration", "")):
        run(Path(sys.argv[1]), options)


if __name__ == "__main__":
    sys.exit(exit_code(body, verbose=False))

"""One process of a group whose two stores of checkpoints write the same steps at once: two_stores.py FOLDER."""

import os
import sys
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np

from electra_jax.checkpoints.orbax_store import Checkpoints
from electra_jax.cli import exit_code
from electra_jax.distributed import processes

STEPS = 12


def write() -> None:
    """Saves each step in both, and waits for neither."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    state = {"params": jax.make_array_from_callback((2, 1000), rows, lambda index: np.ones((2, 1000))[index])}
    stores = [Checkpoints(Path(sys.argv[1]) / name, keep=1) for name in ("run", "best")]
    for step in range(1, STEPS + 1):
        for store in stores:
            store.save(step, state, {})
    for store in stores:
        store.close()


def body() -> None:
    with processes.process_group(""):
        write()


if __name__ == "__main__":
    sys.exit(exit_code(body, verbose=False))

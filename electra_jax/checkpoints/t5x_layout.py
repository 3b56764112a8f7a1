"""Read and write T5X's checkpoints without T5X.

A checkpoint is a tree that Orbax stores in `MODEL_DIR/checkpoint_<step>/state`:

    target                the parameters, with our names
    state/step            int32
    state/param_states    the optimizer's state, in which a tuple is a dict by index, and empty nodes are left out
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from electra_jax.checkpoints.rotation import STEP
from electra_jax.model.types import PyTree

# Our names of a state's entries, and the names that T5X has for them.
ENTRIES = {"params": "target", "opt_state": "state"}


def state_of(directory: Path, step: int) -> Path:
    """Return the folder of a step's tree."""
    return directory / f"checkpoint_{step}" / "state"


def complete_steps(directory: Path) -> list[int]:
    """Return the steps whose checkpoints are complete; until then Orbax gives their folders other names."""
    if not directory.is_dir():
        return []
    names = (path.name.partition("checkpoint_") for path in directory.iterdir())
    steps = (int(number) for before, prefix, number in names if prefix and not before and STEP.fullmatch(number))
    return [step for step in steps if state_of(directory, step).is_dir()]


def write(dest: Path, *, step: int, params: PyTree, opt_state: PyTree | None) -> None:
    """Write a checkpoint that T5X restores.

    Args:
        dest: the model directory.
        step: the number of updates.
        params: host arrays.
        opt_state: as Orbax restores it without knowing its types; None if there is none.
    """
    state: dict[str, Any] = {"step": np.asarray(step, np.int32)}
    if opt_state is not None:
        state["param_states"] = _by_place(opt_state)
    checkpointer = ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
    tree = jax.tree.map(np.asarray, {"target": params, "state": state})
    checkpointer.save(state_of(dest.absolute(), step), args=ocp.args.PyTreeSave(tree))
    checkpointer.close()


def _by_place(tree: PyTree) -> PyTree:
    """Turn lists into dicts by index, and drop nodes that hold no array."""
    if isinstance(tree, (list, tuple)):
        tree = {str(place): value for place, value in enumerate(tree)}
    if not isinstance(tree, dict):
        return tree
    children = {name: _by_place(value) for name, value in tree.items()}
    empty = {name for name, value in children.items() if value is None or (isinstance(value, dict) and not value)}
    return {name: value for name, value in children.items() if name not in empty}

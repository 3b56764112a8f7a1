"""What a model directory's newest sound checkpoint holds, read onto the host without knowing the model."""

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from electra_jax.checkpoints import orbax_store, t5x_layout
from electra_jax.errors import UserError
from electra_jax.files import absolute
from electra_jax.model.types import PyTree

logger = logging.getLogger(__name__)


class Stored(NamedTuple):
    """The parameters of a checkpoint, as numpy arrays, and its step."""

    step: int
    params: PyTree


class Newest(NamedTuple):
    """The newest sound checkpoint: its step, its state's folder, and that state's entries.

    `tree` has array metadata by the names of `steps.TrainState`, and `entries` what the folder calls them.
    """

    step: int
    folder: epath.Path
    tree: PyTree
    entries: Mapping[str, str]


def is_of_t5x(directory: epath.Path) -> bool:
    """Whether T5X, or `electra export --format t5x`, wrote the checkpoints."""
    return not (directory / "checkpoints").is_dir() and bool(t5x_layout.complete_steps(directory))


def newest(directory: epath.Path) -> Newest:
    """Finds the newest sound checkpoint.

    Raises:
        UserError: there is none.
    """
    if is_of_t5x(directory):
        step = max(t5x_layout.complete_steps(directory))
        folder = t5x_layout.state_of(absolute(directory), step)
        stored = ocp.PyTreeCheckpointHandler().metadata(folder).tree
        entries = t5x_layout.ENTRIES
        return Newest(step, folder, {name: stored[entry] for name, entry in entries.items()}, entries)
    folder = absolute(directory) / "checkpoints"
    for step in sorted(orbax_store.complete_steps(folder), reverse=True):
        try:
            orbax_store.check_seal(folder / str(step))
            tree = ocp.PyTreeCheckpointHandler().metadata(folder / str(step) / "state").tree
            return Newest(step, folder / str(step) / "state", tree, {name: name for name in tree})
        except orbax_store.CorruptCheckpointError as error:
            logger.warning("checkpoint %d is corrupt (%s): trying the one before", step, error)
    raise UserError(f"no checkpoint in {folder}: nothing was saved there, or all of it is corrupt")


def read_params(directory: epath.Path, item: str) -> Stored:
    """Reads one entry of the newest checkpoint's state onto the host, and nothing else of it.

    Args:
        directory: the model directory.
        item: "params".

    Raises:
        UserError: no checkpoint, or one without that entry.
    """
    step, folder, tree, entries = newest(directory)
    if item not in tree:
        raise UserError(f"{folder.parent} holds {', '.join(sorted(tree))} but no {item}")
    wanted = {entries[item]: jax.tree.map(_host_array, tree[item], is_leaf=_is_array)}
    arguments = ocp.args.PyTreeRestore(
        item=wanted, restore_args=jax.tree.map(lambda _: ocp.RestoreArgs(np.ndarray), wanted), partial_restore=True
    )
    try:
        restored = ocp.PyTreeCheckpointHandler().restore(folder, args=arguments)
    except (ValueError, OSError, KeyError) as error:
        raise UserError(f"{folder.parent} cannot be read ({str(error).splitlines()[0]})") from error
    return Stored(step, restored[entries[item]])


def _is_array(leaf: Any) -> bool:
    return hasattr(leaf, "shape")


def _host_array(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def read_moments(directory: epath.Path) -> tuple[PyTree, PyTree] | None:
    """Adam's moments of the newest checkpoint, trees like its parameters; None where it has none."""
    if "opt_state" not in newest(directory).tree:
        return None
    found = _moments_in(read_params(directory, "opt_state").params)
    return None if found is None else (found["mu"], found["nu"])


def _moments_in(tree: PyTree) -> dict[str, PyTree] | None:
    """The first node of an optimizer's state that holds both moments."""
    if isinstance(tree, dict) and {"mu", "nu"} <= tree.keys():
        return tree
    children = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, (list, tuple)) else ()
    return next((found for child in children if (found := _moments_in(child)) is not None), None)

"""Check the arrays of a checkpoint's state before they are read: their names, and that their shapes fit the files.

A seal says that nothing changed since it was written, not who wrote it: the metadata of another person's checkpoint may
be anything, and may describe an array that is larger than any memory.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from electra_jax.checkpoints.seal import CorruptCheckpointError
from electra_jax.errors import UserError
from electra_jax.files import size_and_time
from electra_jax.model.types import PyTree

# How much larger arrays may be than the files that hold them: a factor, and a number of bytes. Compressed float32
# weights take nine tenths of their size; an optimizer's moments may be zero for most of a vocabulary.
EXPANSION, ALLOWANCE = 100, 2**28


def metadata_of(folder: epath.Path) -> PyTree:
    """Return the tree of metadata, such as shapes, of the arrays that Orbax stored in a folder.

    Raises:
        CorruptCheckpointError: if there is none, or it describes no arrays that the files could hold.
    """
    try:
        stored = ocp.PyTreeCheckpointHandler().metadata(folder).tree
    # Orbax and TensorStore raise errors of many types for invalid metadata.
    except Exception as error:
        raise CorruptCheckpointError(first_line(error)) from error
    check_metadata(stored, folder)
    return stored


def check_metadata(stored: PyTree, folder: epath.Path) -> None:
    """Check the metadata of the arrays in a folder.

    Raises:
        CorruptCheckpointError: if it does not describe named arrays of numbers, the arrays are far larger than the
            files, or a file is removed meanwhile.
    """
    if not isinstance(stored, dict):
        raise CorruptCheckpointError(f"the arrays in {folder} have no names")
    total = 0
    for path, leaf in jax.tree_util.tree_flatten_with_path(stored, is_leaf=is_array)[0]:
        if not is_array(leaf) or not jnp.issubdtype(leaf.dtype, jnp.number):
            raise CorruptCheckpointError(f"{_name(path)} in {folder} is no array of numbers")
        total += math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize
    try:
        on_disk = sum(size_and_time(place / name)[0] for place, _, names in folder.walk() for name in names)
    except OSError as error:
        raise CorruptCheckpointError(f"{error.filename} cannot be read ({error.strerror})") from error
    if total > EXPANSION * on_disk + ALLOWANCE:
        raise CorruptCheckpointError(f"its arrays would take {total:,} bytes, and its files have {on_disk:,}")


def check_shapes(stored: PyTree, abstract: PyTree, path: epath.Path) -> None:
    """Refuse a checkpoint whose arrays differ from the run's in name or shape.

    Raises:
        UserError: if any array differs.
    """
    found, wanted = named_shapes(stored), named_shapes(abstract)
    differences = [
        f"{name} {found.get(name, 'missing')} there, {wanted.get(name, 'missing')} here"
        for name in sorted(found.keys() | wanted.keys())
        if found.get(name) != wanted.get(name) and not name.startswith("opt_state")
    ]
    if not differences and found != wanted:
        differences = ["the optimizer's state"]
    if differences:
        shown = "; ".join(differences[:8]) + (f"; and {len(differences) - 8} more" if len(differences) > 8 else "")
        raise UserError(
            f"{path} holds another run's checkpoint ({shown}): use another MODEL_DIR, or the configuration that made it"
        )


def named_shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    """Return shapes by path; a named tuple, a list and a dict with the same names give the same paths."""
    leaves = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_array)[0]
    return {_name(path): tuple(leaf.shape) for path, leaf in leaves}


def is_array(leaf: Any) -> bool:
    """Return whether a leaf is an array, or its metadata."""
    return hasattr(leaf, "shape")


def first_line(error: Exception) -> str:
    """Return the first line of another library's error about a checkpoint, without TensorStore's options."""
    return (str(error).strip().splitlines() or [repr(error)])[0].partition(" [tensorstore_spec=")[0]


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")

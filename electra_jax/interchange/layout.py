"""Moves tensors between a flat dict with another implementation's names and our parameter tree.

The order of the numbers of a parameter is that of the original's: an attention kernel [D, H, C] here is [D, H x C]
there, so that converting is reshaping. PyTorch keeps matrices [out, in], the transpose. Either way the numbers
themselves are untouched: there and back again gives the same bits.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, path_aware_map

from electra_jax.errors import UserError
from electra_jax.model.types import PyTree


class Place(NamedTuple):
    """Where a tensor of another implementation stands in our tree, and its shape there.

    Attributes:
        path: such as "discriminator/encoder/layers/attention/query_kernel".
        row: of a stacked parameter; None for a whole one.
        shape: of the tensor there, before `transposed`.
        transposed: whether it is kept [out, in].
    """

    path: str
    row: int | None
    shape: tuple[int, ...]
    transposed: bool

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape that the tensor has there."""
        return self.shape[::-1] if self.transposed else self.shape


Layout = dict[str, Place]


def place(name_path: str, shape: tuple[int, ...], *, row: int | None, transposed: bool) -> Place:
    """The place of a parameter of `shape`, ours without the stacked axis.

    Kernels of attention have three axes here and two there; all else has the same shape on both sides.
    """
    if name_path.endswith("attention/output_kernel"):
        shape = (shape[0] * shape[1], shape[2])
    elif "/attention/" in name_path and not name_path.endswith("attention/output_bias"):
        shape = (*shape[:-2], shape[-2] * shape[-1])
    return Place(name_path, row, shape, transposed and len(shape) == 2)


def check(tensors: Mapping[str, np.ndarray], layout: Layout, source: str) -> list[str]:
    """Refuses tensors that do not fill a layout.

    Args:
        tensors: by their names there.
        layout: what the model needs.
        source: for errors.

    Returns:
        The names that the layout has no place for, sorted.

    Raises:
        UserError: tensors are missing, of another shape, or hold NaN or infinity; each is named.
    """
    missing = [name for name in layout if name not in tensors]
    shapes = [
        f"{name} is {tensors[name].shape} and should be {where.stored_shape}"
        for name, where in layout.items()
        if name in tensors and tensors[name].shape != where.stored_shape
    ]
    left = sorted(name for name in tensors if name not in layout)
    problems = [f"missing: {listed(missing)}"] * bool(missing) + [f"of another shape: {listed(shapes)}"] * bool(shapes)
    if problems:
        rest = [f"left over: {listed(left)}"] * bool(left)
        raise UserError(f"{source} does not fit the model that its sizes describe; {'; '.join(problems + rest)}")
    bad = [name for name in layout if not np.isfinite(as_float32(tensors[name])).all()]
    if bad:
        raise UserError(f"{source} holds NaN or infinite numbers in {listed(bad)}: the model is of no use")
    return left


def listed(names: list[str]) -> str:
    """Names for a sentence; the first dozen of many."""
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def as_float32(tensor: np.ndarray) -> np.ndarray:
    """Parameters are float32 here, whatever they were stored in."""
    return np.ascontiguousarray(tensor, np.float32)


def assemble(tensors: Mapping[str, np.ndarray], layout: Layout, template: PyTree) -> PyTree:
    """Our tree, float32, from tensors that `check` passed.

    Args:
        tensors: by their names there.
        layout: covers every leaf of the template.
        template: a tree of shapes.
    """
    by_path: dict[str, dict[int | None, str]] = {}
    for name, where in layout.items():
        by_path.setdefault(where.path, {})[where.row] = name

    def fill(path: str, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        rows = by_path[path]
        ours = np.empty(leaf.shape, np.float32)
        for row, name in rows.items():
            value = as_float32(tensors[name].T if layout[name].transposed else tensors[name])
            if row is None:
                ours[...] = value.reshape(leaf.shape)
            else:
                ours[row] = value.reshape(leaf.shape[1:])
        return ours

    return path_aware_map(lambda path, leaf: fill("/".join(path), leaf), template)


def disassemble(params: PyTree, layout: Layout) -> dict[str, np.ndarray]:
    """Tensors by their names there, float32 and contiguous; the inverse of `assemble`."""
    leaves = flatten_dict(params, sep="/")
    tensors = {}
    for name, where in layout.items():
        leaf = np.asarray(leaves[where.path], np.float32)
        value = (leaf if where.row is None else leaf[where.row]).reshape(where.shape)
        tensors[name] = np.ascontiguousarray(value.T if where.transposed else value)
    return tensors

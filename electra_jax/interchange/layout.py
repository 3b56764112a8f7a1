"""Move tensors between our parameter tree and a flat dict with another implementation's names.

The numbers of a parameter are in the same order on both sides: an attention kernel is [D, H, C] here and [D, H x C]
there, so converting it means reshaping. PyTorch stores the transpose of a matrix, [out, in]. The numbers themselves do
not change, so a conversion there and back gives the same bits.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, path_aware_map

from electra_jax.errors import UserError
from electra_jax.model.types import PyTree


class LeafLocation(NamedTuple):
    """Name the parameter of ours that a tensor of another implementation holds, and the tensor's shape there.

    Attributes:
        path: the parameter, such as "discriminator/encoder/layers/attention/query_kernel".
        row: the layer of a stacked parameter; None for a parameter that is not stacked.
        shape: the shape of the tensor there, before it is transposed.
        transposed: whether it is stored as [out, in].
    """

    path: str
    row: int | None
    shape: tuple[int, ...]
    transposed: bool

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Return the shape of the stored tensor."""
        return self.shape[::-1] if self.transposed else self.shape


Layout = dict[str, LeafLocation]


def location(path: str, shape: tuple[int, ...], *, row: int | None, transposed: bool) -> LeafLocation:
    """Return the location of a tensor that holds a parameter, or one layer of a stacked parameter.

    Kernels of attention have three axes here and two there; everything else has the same shape on both sides.

    Args:
        path: the path of our parameter.
        shape: the shape of our parameter, without the axis of the layers.
        row: the layer; None for a parameter that is not stacked.
        transposed: whether matrices are stored as [out, in].
    """
    if path.endswith("attention/output_kernel"):
        shape = (shape[0] * shape[1], shape[2])
    elif "/attention/" in path and not path.endswith("attention/output_bias"):
        shape = (*shape[:-2], shape[-2] * shape[-1])
    return LeafLocation(path, row, shape, transposed and len(shape) == 2)


def check(tensors: Mapping[str, np.ndarray], layout: Layout, source: str) -> list[str]:
    """Check that tensors fill a layout.

    Args:
        tensors: the tensors by their names there.
        layout: the tensors that the model needs.
        source: the file, for error messages.

    Returns:
        The sorted names of the tensors that the layout does not use.

    Raises:
        UserError: if tensors are missing, have another shape, or hold NaN or infinity.
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
        raise UserError(f"{source} holds NaN or infinite numbers in {listed(bad)}: take another checkpoint")
    return left


def listed(names: list[str]) -> str:
    """Join names for a sentence, at most a dozen of them."""
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def as_float32(tensor: np.ndarray) -> np.ndarray:
    """Return a tensor as float32, the type of every parameter here."""
    return np.ascontiguousarray(tensor, np.float32)


def assemble(tensors: Mapping[str, np.ndarray], layout: Layout, template: PyTree) -> PyTree:
    """Return our parameters in float32, from tensors that passed `check`.

    Args:
        tensors: the tensors by their names there.
        layout: a location for every parameter of the template.
        template: the shapes of our parameters.
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
    """Return the tensors by their names there, float32 and contiguous: the inverse of `assemble`."""
    leaves = flatten_dict(params, sep="/")
    tensors = {}
    for name, where in layout.items():
        leaf = np.asarray(leaves[where.path], np.float32)
        value = (leaf if where.row is None else leaf[where.row]).reshape(where.shape)
        tensors[name] = np.ascontiguousarray(value.T if where.transposed else value)
    return tensors

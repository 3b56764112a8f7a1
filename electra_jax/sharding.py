"""The device mesh, the rules that map logical axes onto it, and sharded initialisation."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from electra_jax.errors import UserError
from electra_jax.types import PyTree

AXES = ("data", "fsdp", "tensor")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Sizes of the mesh's axes and where logical axes go.

    Attributes:
        data, fsdp, tensor: devices along each axis; one of them may be -1, what is left.
        rules: (logical axis, mesh axis or None) pairs; the first whose mesh axis is free wins.
    """

    data: int
    fsdp: int
    tensor: int
    rules: tuple[tuple[str, str | None], ...]


def make_mesh(config: MeshConfig, num_devices: int) -> Mesh:
    """The mesh of the first `num_devices` devices.

    Raises:
        UserError: the sizes do not multiply to the number of devices.
    """
    sizes = [config.data, config.fsdp, config.tensor]
    if sizes.count(-1) > 1:
        raise UserError(f"mesh axes {dict(zip(AXES, sizes, strict=True))}: only one of them can be -1")
    known = int(np.prod([size for size in sizes if size != -1]))
    if -1 in sizes and num_devices % known == 0:
        sizes[sizes.index(-1)] = num_devices // known
    if int(np.prod(sizes)) != num_devices:
        raise UserError(
            f"mesh axes {dict(zip(AXES, sizes, strict=True))} do not multiply to the {num_devices} devices: "
            "change MeshConfig.data, .fsdp or .tensor, or set one of them to -1"
        )
    return jax.make_mesh(
        tuple(sizes), AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=jax.devices()[:num_devices]
    )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over `data` and `fsdp`, everything else whole."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def everywhere(mesh: Mesh) -> NamedSharding:
    """The same on every device, so that every process can fetch it."""
    return NamedSharding(mesh, PartitionSpec())


def check_batch(batch_size: int, accumulation_steps: int, mesh: Mesh) -> None:
    """Refuses a batch that the mesh and the micro-batches do not divide.

    Raises:
        UserError: with the sizes, and the nearest batch that fits.
    """
    devices = mesh.shape["data"] * mesh.shape["fsdp"]
    unit = devices * accumulation_steps
    if batch_size % unit:
        fits = max(unit, round(batch_size / unit) * unit)
        raise UserError(
            f"batch size {batch_size} is not divisible by {devices} devices x {accumulation_steps} accumulation "
            f"steps = {unit}: the nearest that fits is {fits}"
        )


@functools.cache
def process_share(mesh: Mesh) -> tuple[int, int]:
    """Which part of every batch this process feeds: its number, and of how many equal parts.

    Processes whose devices hold the same rows, as where `tensor` goes across processes, feed the same part.

    Raises:
        UserError: the rows of two processes overlap without being the same.
    """
    rows: dict[int, set[int]] = {}
    for device, (part,) in batch_sharding(mesh).devices_indices_map((mesh.size,)).items():
        rows.setdefault(device.process_index, set()).update(range(mesh.size)[part])
    parts = sorted({tuple(sorted(own)) for own in rows.values()})
    if sum(map(len, parts)) != mesh.size or len(set(map(len, parts))) > 1:
        raise UserError(
            f"mesh axes {dict(mesh.shape)} give processes rows of a batch that overlap in part: let MeshConfig.tensor "
            "divide the devices of a process, or be a multiple of them"
        )
    return parts.index(tuple(sorted(rows[jax.process_index()]))), len(parts)


def shardings(abstract: PyTree, mesh: Mesh, config: MeshConfig) -> PyTree:
    """The sharding of each leaf of a boxed abstract tree; leaves without logical axes are replicated."""
    return nn.logical_to_mesh_sharding(nn.get_partition_spec(abstract), mesh, config.rules)


def initialise(init: Callable[[jax.Array], PyTree], key: jax.Array, mesh: Mesh, config: MeshConfig) -> PyTree:
    """Makes a state directly in its shards: no parameter is ever whole on one device unless it is replicated.

    Args:
        init: makes the boxed state from a key.
        key: PRNG key.
        mesh: where it goes.
        config: the axis rules.

    Returns:
        The unboxed state.
    """
    state_shardings = shardings(jax.eval_shape(init, key), mesh, config)
    return jax.jit(lambda key: nn.unbox(init(key)), out_shardings=state_shardings)(key)


def abstract(init: Callable[[jax.Array], PyTree], key: jax.Array, mesh: Mesh, config: MeshConfig) -> PyTree:
    """Shapes, dtypes and shardings of the unboxed state that `initialise` would make; nothing is allocated."""
    boxed = jax.eval_shape(init, key)
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        nn.unbox(boxed),
        shardings(boxed, mesh, config),
    )

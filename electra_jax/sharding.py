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
# The axes that the rows of a batch are divided over.
BATCH_AXES = ("data", "fsdp")


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
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """Whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def partitioned(function: Callable[..., PyTree], mesh: Mesh, config: MeshConfig) -> Callable[..., PyTree]:
    """The function, to be jitted, with its activations laid out over the mesh where `encoder.constrain` says so.

    Left alone, XLA moves activations to where the parameters are: with `fsdp` every device would hold a whole batch.
    """
    rules = (("batch", BATCH_AXES), *config.rules)

    @functools.wraps(function)
    def traced(*args: PyTree, **kwargs: PyTree) -> PyTree:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), nn.logical_axis_rules(rules):
            return function(*args, **kwargs)

    return traced


def jit_update(
    step: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]], state: PyTree, mesh: Mesh, config: MeshConfig
) -> Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]:
    """A jitted `(state, batch) -> (state, sums)`: the state is donated and stays in its shards, the sums are whole."""
    places = jax.tree.map(lambda leaf: leaf.sharding, state)
    return jax.jit(partitioned(step, mesh, config), donate_argnums=0, out_shardings=(places, replicated(mesh)))


def jit_forward(function: Callable[..., PyTree], mesh: Mesh, config: MeshConfig) -> Callable[..., PyTree]:
    """A jitted function of parameters and a batch whose results are for the host: whole on every device."""
    return jax.jit(partitioned(function, mesh, config), out_shardings=replicated(mesh))


def place(values: PyTree, like: PyTree) -> PyTree:
    """Host arrays, of which every process has all, as `like` is placed and typed; a device gets its part alone."""

    def placed(array: np.ndarray, leaf: jax.Array | jax.ShapeDtypeStruct) -> jax.Array:
        return jax.make_array_from_callback(
            leaf.shape, leaf.sharding, lambda index: np.asarray(array[index], leaf.dtype)
        )

    return jax.tree.map(placed, values, like)


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

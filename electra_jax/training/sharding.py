"""Build the device mesh, map logical axes onto it by rules, and place states and batches on it."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from electra_jax import ranges
from electra_jax.errors import UserError
from electra_jax.model.types import PyTree

AXES = ("data", "fsdp", "tensor")
# Axes that the rows of a batch are divided over.
BATCH_AXES = ("data", "fsdp")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Sizes of the mesh's axes, and the mesh axis of each logical axis.

    Attributes:
        data, fsdp, tensor: devices along each axis; one of them may be -1 for all remaining devices.
        rules: (logical axis, mesh axis or None) pairs; the first whose mesh axis is free wins. A logical axis without
            a mesh axis is replicated.
        deterministic: whether the same program gives the same bits in every run on a GPU too, see
            `runtime.set_determinism`.
    """

    data: int
    fsdp: int
    tensor: int
    rules: tuple[tuple[str, str | None], ...]
    deterministic: bool

    def __post_init__(self) -> None:
        """Check sizes and rules.

        Raises:
            UserError: if a size is neither positive nor -1, more than one is -1, or a rule is not a pair or has an
                unknown mesh axis.
        """
        ranges.check(self)
        sizes = dict(zip(AXES, self.sizes, strict=True))
        if self.sizes.count(-1) > 1:
            raise UserError(f"mesh axes {sizes}: only one of them can be -1")
        if any(size < 1 and size != -1 for size in self.sizes):
            raise UserError(f"mesh axes {sizes}: each must be at least 1, or -1 for what is left")
        for rule in self.rules:
            if not isinstance(rule, list | tuple) or len(rule) != 2:
                raise UserError(f"MeshConfig.rules holds {rule!r}: a rule is (logical axis, mesh axis or None)")
            name, axis = rule
            if axis is not None and axis not in AXES:
                raise UserError(f"MeshConfig.rules has ({name!r}, {axis!r}): a mesh axis is one of {', '.join(AXES)}")

    @property
    def sizes(self) -> tuple[int, int, int]:
        """The axis sizes in `AXES` order."""
        return self.data, self.fsdp, self.tensor


def axis_sizes(config: MeshConfig, num_devices: int) -> tuple[int, ...]:
    """Return the number of devices along each axis, with -1 filled in.

    Raises:
        UserError: if the sizes do not multiply to the number of devices; the message lists sizes that would fit.
    """
    sizes = config.sizes
    filled = tuple(-num_devices // math.prod(sizes) if size == -1 else size for size in sizes)
    if math.prod(filled) == num_devices:
        return filled
    fits = []
    for axis, size in zip(AXES, sizes, strict=True):
        rest, left_over = divmod(num_devices, abs(math.prod(sizes)) // abs(size))
        if size != -1 and not left_over:
            fits.append(f"{axis} {either(divisors(rest)) if -1 in sizes else rest}")
    raise UserError(
        f"mesh axes {dict(zip(AXES, sizes, strict=True))} do not multiply to the {num_devices} devices: "
        f"{'; or '.join(fits) or 'no axis alone'} would fit (MESH_DATA, MESH_FSDP, MESH_TENSOR; one may be -1)"
    )


def divisors(number: int) -> list[int]:
    """Return the divisors of a number in increasing order."""
    return [size for size in range(1, number + 1) if number % size == 0]


def either(numbers: list[int]) -> str:
    """Join numbers with commas and "or", such as "2, 4 or 8"."""
    *others, last = map(str, numbers)
    return f"{', '.join(others)} or {last}" if others else last


def make_mesh(config: MeshConfig, num_devices: int) -> Mesh:
    """Return the mesh of the first `num_devices` devices.

    Raises:
        UserError: if the axis sizes do not fit, see `axis_sizes`.
    """
    sizes, kinds = axis_sizes(config, num_devices), (AxisType.Auto,) * len(AXES)
    return jax.make_mesh(sizes, AXES, axis_types=kinds, devices=jax.devices()[:num_devices])


def planned_mesh(config: MeshConfig, num_devices: int) -> AbstractMesh:
    """Return the mesh without its devices; if no axis is -1, it may have more devices than this machine.

    Raises:
        UserError: if the axis sizes do not fit, see `axis_sizes`.
    """
    wanted = num_devices if -1 in config.sizes else math.prod(config.sizes)
    return AbstractMesh(axis_sizes(config, wanted), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of a batch: rows over `data` and `fsdp`, all other axes replicated."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of values that are replicated on every device, so that every process can fetch them."""
    return NamedSharding(mesh, PartitionSpec())


def partitioned(function: Callable[..., PyTree], mesh: Mesh, config: MeshConfig) -> Callable[..., PyTree]:
    """Return a function to jit whose activations `layers.constrain` lays out over the mesh.

    Otherwise XLA moves activations to where the parameters are: with `fsdp` every device would hold a whole batch.
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
    """Jit a `(state, batch) -> (state, sums)`: the state is donated and keeps its sharding, the sums are replicated."""
    places = jax.tree.map(lambda leaf: leaf.sharding, state)
    return jax.jit(partitioned(step, mesh, config), donate_argnums=0, out_shardings=(places, replicated(mesh)))


def jit_updates(
    step: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]], state: PyTree, mesh: Mesh, config: MeshConfig
) -> Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]:
    """Jit an update by a stack of batches: arrays [n, B, ...] in, and the stacked sums [n, ...] of each update out."""

    def updates(state: PyTree, batches: PyTree) -> tuple[PyTree, PyTree]:
        # A scan of one step compiles to a loop, which XLA does not fuse as well as the step alone.
        if next(iter(jax.tree.leaves(batches))).shape[0] > 1:
            return jax.lax.scan(step, state, batches)
        state, sums = step(state, jax.tree.map(lambda rows: rows[0], batches))
        return state, jax.tree.map(lambda value: value[None], sums)

    return jit_update(updates, state, mesh, config)


def jit_forward(function: Callable[..., PyTree], mesh: Mesh, config: MeshConfig) -> Callable[..., PyTree]:
    """Jit a function of parameters and a batch whose results are for the host, and so are replicated."""
    return jax.jit(partitioned(function, mesh, config), out_shardings=replicated(mesh))


def local_rows(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, np.ndarray]:
    """Return this process's rows of a global batch that every process holds."""
    index, count = process_share(mesh)
    return {name: np.split(rows, count)[index] for name, rows in batch.items()}


def to_device(batch: dict[str, np.ndarray], where: NamedSharding) -> dict[str, jax.Array]:
    """Place this process's rows on its devices, as part of the global batch."""
    return {name: jax.make_array_from_process_local_data(where, rows) for name, rows in batch.items()}


def stack_to_device(batches: Sequence[dict[str, np.ndarray]], mesh: Mesh) -> dict[str, jax.Array]:
    """Place this process's rows of n global batches on its devices, stacked: arrays [n, B, ...]."""
    stack = {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}
    return to_device(stack, NamedSharding(mesh, PartitionSpec(None, BATCH_AXES)))


def shard_like(values: PyTree, like: PyTree) -> PyTree:
    """Place host arrays with the shardings and dtypes of `like`; every process holds whole arrays, a device a part."""

    def placed(array: np.ndarray, leaf: jax.Array | jax.ShapeDtypeStruct) -> jax.Array:
        return jax.make_array_from_callback(
            leaf.shape, leaf.sharding, lambda index: np.asarray(array[index], leaf.dtype)
        )

    return jax.tree.map(placed, values, like)


def check_batch(batch_size: int, accumulation_steps: int, mesh: Mesh | AbstractMesh) -> None:
    """Check that the mesh and the micro-batches divide a batch.

    Raises:
        UserError: if they do not; the message gives the nearest batch size that fits.
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
    """Return which part of every batch this process feeds, counted from 0, and the number of equal parts.

    Processes whose devices hold the same rows, as when `tensor` spans processes, feed the same part.

    Raises:
        UserError: if the rows of two processes overlap without being the same.
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


def shardings(abstract: PyTree, mesh: Mesh | AbstractMesh, config: MeshConfig) -> PyTree:
    """Return the sharding of each leaf of a boxed abstract tree; leaves without logical axes are replicated.

    Raises:
        UserError: if the mesh does not divide the parameters, see `check_model`.
    """
    check_model(abstract, mesh, config)
    return nn.logical_to_mesh_sharding(nn.get_partition_spec(abstract), mesh, config.rules)


def check_model(abstract: PyTree, mesh: Mesh | AbstractMesh, config: MeshConfig) -> None:
    """Check that the mesh divides the parameters.

    Raises:
        UserError: if a mesh axis does not divide a dimension; the message lists sizes that would fit.
    """
    names = nn.get_partition_spec(abstract)
    # For each mesh axis, the dimensions that it divides, each with the path of the first parameter that has it.
    divided: dict[str, dict[tuple[str, int], str]] = {axis: {} for axis in AXES}
    for (path, logical), leaf in zip(
        jax.tree_util.tree_leaves_with_path(names, is_leaf=lambda leaf: isinstance(leaf, PartitionSpec)),
        jax.tree.leaves(nn.unbox(abstract)),
        strict=True,
    ):
        axes = nn.logical_to_mesh_axes(logical, config.rules)
        for name, axis, size in zip(logical, axes, leaf.shape, strict=False):
            if axis is not None:
                where = jax.tree_util.keystr(path, simple=True, separator="/").removeprefix("params/")
                divided[axis].setdefault((name, size), where)
    for axis, dimensions in divided.items():
        undivided = [f"{name} {size} ({path})" for (name, size), path in dimensions.items() if size % mesh.shape[axis]]
        if undivided:
            common = math.gcd(*(size for _, size in dimensions), mesh.size)
            raise UserError(
                f"mesh axis {axis} {mesh.shape[axis]} does not divide {', '.join(undivided)}: on {mesh.size} devices "
                f"{axis} can be {either(divisors(common))}; or leave such a dimension whole, mapped to None in "
                "MeshConfig.rules"
            )


def initialise(init: Callable[[jax.Array], PyTree], key: jax.Array, mesh: Mesh, config: MeshConfig) -> PyTree:
    """Initialize a state directly in its shards: no device ever holds a whole parameter that is not replicated.

    Args:
        init: returns the boxed state for a key.
        key: PRNG key.
        mesh: devices.
        config: rules of the axes.

    Returns:
        The unboxed state.
    """
    state_shardings = shardings(jax.eval_shape(init, key), mesh, config)
    return jax.jit(lambda key: nn.unbox(init(key)), out_shardings=state_shardings)(key)


def abstract(init: Callable[[jax.Array], PyTree], key: jax.Array, mesh: Mesh, config: MeshConfig) -> PyTree:
    """Return the shapes, dtypes and shardings of the state that `initialise` would return, without allocating it."""
    boxed = jax.eval_shape(init, key)
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        nn.unbox(boxed),
        shardings(boxed, mesh, config),
    )

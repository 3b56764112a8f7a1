"""Read the tensors of safetensors files, and of PyTorch's pickles without running any code that they hold."""

import collections
import io
import math
import pickle
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypedDict

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from electra_jax.errors import UserError
from electra_jax.json_files import parse_json, read_json, without_repeats

Tensors = dict[str, np.ndarray]

# Safetensors come first, because they cannot hold anything but tensors.
WEIGHTS = "model.safetensors"
WEIGHT_FILES = (
    WEIGHTS,
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)

# Weight files of other libraries, and the argument that makes `transformers` read each.
OTHER_WEIGHTS = {"flax_model.msgpack": "from_flax", "tf_model.h5": "from_tf"}

# PyTorch's DataParallel saves the model that it wraps as its part "module".
WRAPPER = "module."

# The dtypes that a file can be written in.
DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}

STORAGES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


class WeightIndex(TypedDict):
    """Declare the field that is read of an index of weight files: the file of each tensor."""

    weight_map: dict[str, str]


# Tied tables share one storage under a few names.
MOST_COPIES = 8
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


def read_tensors(directory: Path) -> tuple[Tensors, str]:
    """Read the tensors of a `transformers` directory as they are stored.

    Returns:
        The tensors by name, and the name of the file that holds them or their index.

    Raises:
        UserError: if there are no weights, or a file is cut off, damaged or holds anything but tensors.
    """
    name = next((name for name in WEIGHT_FILES if (directory / name).is_file()), None)
    if name is None:
        other = next((other for other in OTHER_WEIGHTS if (directory / other).is_file()), None)
        if other is not None:
            raise UserError(
                f"{directory} holds {other} alone, which is not read: save it as model.safetensors by "
                f"AutoModel.from_pretrained(..., {OTHER_WEIGHTS[other]}=True).save_pretrained(...) of transformers 4"
            )
        raise UserError(f"{directory} holds no weights: looked for {', '.join(WEIGHT_FILES)}")
    if not name.endswith(".index.json"):
        return without_wrapper(read_file(directory / name)), name
    index = read_json(directory / name, WeightIndex, remedy="it is no index of weight files; copy or download it again")
    tensors: Tensors = {}
    for shard in sorted(set(index["weight_map"].values())):
        check_shard(directory, name, shard)
        found = read_file(directory / shard)
        twice = sorted(tensors.keys() & found.keys())
        if twice:
            raise UserError(
                f"{directory / shard} holds {twice[0]}, and so does another file of {name}: download the model again"
            )
        elsewhere = sorted(one for one, of in index["weight_map"].items() if of == shard and one not in found)
        if elsewhere:
            raise UserError(
                f"{directory / name} says that {shard} holds {elsewhere[0]}, and it does not: download the model again"
            )
        tensors |= found
    return without_wrapper(tensors), name


def without_wrapper(tensors: Tensors) -> Tensors:
    """Remove the prefix that PyTorch's DataParallel puts before every name, if all names have it."""
    if not all(name.startswith(WRAPPER) for name in tensors):
        return tensors
    return {name.removeprefix(WRAPPER): tensor for name, tensor in tensors.items()}


def check_shard(directory: Path, index: str, shard: str) -> None:
    """Check that a file that an index names is in the index's own directory: no other directory is read.

    Raises:
        UserError: if the name is a path to another directory, or there is no such file.
    """
    if "\0" in shard or Path(shard).is_absolute() or ".." in Path(shard).parts:
        raise UserError(
            f"{directory / index} names {shard!r}, which is not a file next to it: download the model again"
        )
    if not (directory / shard).is_file():
        raise UserError(f"{directory / index} names {shard}, which is not there: copy it next to the index")


def read_file(path: Path) -> Tensors:
    """Read the tensors of one file.

    Raises:
        UserError: if the file is cut off, damaged, or holds anything but tensors.
    """
    return read_safetensors(path) if path.suffix == ".safetensors" else read_pickle(path)


def read_safetensors(path: Path) -> Tensors:
    """Read the tensors of a safetensors file.

    Raises:
        UserError: if the file is cut off or damaged, or names a tensor twice.
    """
    try:
        with safe_open(path, framework="np") as file:
            check_names(path)
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is cut off or damaged ({error}): copy or download it again") from error


def check_names(path: Path) -> None:
    """Check that the header of a safetensors file names no tensor twice: `safetensors` would read the last one.

    Raises:
        UserError: if it names one twice.
    """
    with path.open("rb") as file:
        header = file.read(int.from_bytes(file.read(8), "little"))
    parse_json(header.decode(), Any, f"{path}, header", remedy="download it again", hook=without_repeats)


def rounded(tensors: Tensors, dtype: str) -> Tensors:
    """Convert float32 tensors to a dtype, a name of `DTYPES`.

    Raises:
        UserError: if a number is too large for the dtype.
    """
    if dtype == "float32":
        return tensors
    with np.errstate(over="ignore"):
        found = {name: tensor.astype(DTYPES[dtype]) for name, tensor in tensors.items()}
    large = [name for name, tensor in found.items() if not np.isfinite(tensor.astype(np.float32)).all()]
    if large:
        raise UserError(f"{', '.join(large[:4])} holds numbers that {dtype} has no place for: take bfloat16 or float32")
    return found


class Storage(NamedTuple):
    """Refer to an array of numbers that tensors are views of."""

    key: str
    dtype: np.dtype


class View(NamedTuple):
    """Describe a tensor before its numbers are read."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def rebuild_tensor(storage: Storage, offset: int, shape: tuple, strides: tuple, *rest: Any) -> View:
    """Replace torch._utils._rebuild_tensor and its second version; gradients and hooks are ignored."""
    del rest
    return View(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


def rebuild_parameter(view: View, *rest: Any) -> View:
    """Replace torch._utils._rebuild_parameter."""
    del rest
    return view


class TensorUnpickler(pickle.Unpickler):
    """Unpickle views of tensors and dicts of them; refuse every other name, so that no code of the file is run."""

    ALLOWED = {  # noqa: RUF012  (never changed)
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("torch._utils", "_rebuild_tensor"): rebuild_tensor,
        ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
        ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
        **{("torch", name): np.dtype(dtype) for name, dtype in STORAGES.items()},
    }

    def __init__(self, file: BinaryIO, path: Path) -> None:
        """Prepare to read one pickle of a file; `path` is for error messages."""
        super().__init__(file, encoding="utf-8")
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        """Return the replacement for a name that a state dict needs.

        Raises:
            UserError: if a state dict does not need the name.
        """
        if (module, name) not in self.ALLOWED:
            raise UserError(
                f"{self._path} is refused: it asks for {module}.{name}, and only tensors are read from a pickle, "
                "because anything else may run code; save it as model.safetensors, or as a plain state dict"
            )
        return self.ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> Storage:
        """Return the storage that a reference names: ("storage", type, key, device, size[, view]).

        Raises:
            UserError: if the reference has another form.
        """
        if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage" and isinstance(pid[1], np.dtype)):
            raise UserError(f"{self._path} is refused: it refers to {pid!r}, and only storages of tensors are read")
        if len(pid) > 5 and pid[5] is not None:
            raise UserError(f"{self._path} is refused: it holds views of storages, as PyTorch before 0.4 wrote them")
        return Storage(str(pid[2]), pid[1])


def read_pickle(path: Path) -> Tensors:
    """Read a plain state dict that torch.save wrote, in its zip format or in its format before PyTorch 1.6.

    Raises:
        UserError: if the file is cut off, damaged, or holds anything but tensors.
    """
    try:
        if zipfile.is_zipfile(path):
            views, storages = read_zip(path)
        else:
            views, storages = read_legacy(path)
        named = named_views(views, path)
        check_size(named, storages)
        return {name: materialise(name, view, storages) for name, view in named}
    except (pickle.UnpicklingError, zipfile.BadZipFile, EOFError, KeyError, ValueError, TypeError, OSError) as error:
        raise UserError(f"{path} is cut off, damaged or not a PyTorch state dict ({error!r})") from error
    except (AttributeError, IndexError, ImportError, MemoryError, OverflowError) as error:
        raise UserError(f"{path} is not a PyTorch state dict ({error!r})") from error


def read_zip(path: Path) -> tuple[Any, dict[str, bytes]]:
    """Return the unpickled object of a zip file and the bytes of its storages."""
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > path.stat().st_size:
            raise UserError(
                f"{path} of {path.stat().st_size:,} bytes unpacks to {unpacked:,}, and torch.save compresses nothing: "
                "save it again with torch, or as safetensors"
            )
        names = archive.namelist()
        record = next((name for name in names if name.endswith("data.pkl")), None)
        if record is None:
            raise UserError(f"{path} is a zip file without data.pkl, not what torch.save writes")
        root = record.removesuffix("data.pkl")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise UserError(f"{path} was written on a big-endian machine, which is not read")
        views = TensorUnpickler(io.BytesIO(archive.read(record)), path).load()
        folder = f"{root}data/"
        return views, {name.removeprefix(folder): archive.read(name) for name in names if name.startswith(folder)}


def read_legacy(path: Path) -> tuple[Any, dict[str, bytes]]:
    """Return the same for a file from before PyTorch 1.6: pickles, then the size and the numbers of each storage."""
    with path.open("rb") as file:
        magic, _protocol, _system = (TensorUnpickler(file, path).load() for _ in range(3))
        if magic != LEGACY_MAGIC:
            raise UserError(f"{path} is not a file of torch.save: it does not start with its magic number")
        views = TensorUnpickler(file, path).load()
        keys = TensorUnpickler(file, path).load()
        item_sizes = {view.storage.key: view.storage.dtype.itemsize for _, view in named_views(views, path)}
        storages = {}
        for key in map(str, keys):
            size = int.from_bytes(file.read(8), "little", signed=True)
            storages[key] = file.read(size * item_sizes.get(key, 4))
        return views, storages


def named_views(views: Any, path: Path) -> list[tuple[str, View]]:
    """Return the items of a state dict.

    Raises:
        UserError: if the object is not a dict, or holds anything but tensors.
    """
    if not isinstance(views, dict):
        raise UserError(f"{path} holds a {type(views).__name__}, not a state dict of tensors by name")
    other = [str(name) for name, view in views.items() if not isinstance(view, View)]
    if other:
        raise UserError(f"{path} is not a plain state dict: {', '.join(other[:8])} are not tensors")
    return [(str(name), view) for name, view in views.items()]


def check_size(named: list[tuple[str, View]], storages: dict[str, bytes]) -> None:
    """Check that views are no larger than a model's can be, so that a small file cannot fill the memory.

    Each view may have the size of its storage, and all views together `MOST_COPIES` times that of all storages.

    Raises:
        ValueError: if the views are larger.
    """
    sizes = {name: math.prod(view.shape) * view.storage.dtype.itemsize for name, view in named}
    for name, view in named:
        if sizes[name] > len(storages.get(view.storage.key, b"")):
            raise ValueError(f"the numbers of {name} are cut off, or repeated")
    if sum(sizes.values()) > MOST_COPIES * sum(map(len, storages.values())):
        raise ValueError(f"its tensors hold the same numbers more than {MOST_COPIES} times")


def materialise(name: str, view: View, storages: dict[str, bytes]) -> np.ndarray:
    """Return a view's numbers as an array.

    Raises:
        ValueError: if its storage is missing or shorter than the view, or a size or a stride is negative.
    """
    if view.storage.key not in storages:
        raise ValueError(f"no storage for {name}")
    data = storages[view.storage.key]
    flat = np.frombuffer(
        data[: len(data) // view.storage.dtype.itemsize * view.storage.dtype.itemsize], view.storage.dtype
    )
    last = view.offset + sum((size - 1) * stride for size, stride in zip(view.shape, view.strides, strict=True))
    if 0 in view.shape:
        return np.zeros(view.shape, view.storage.dtype)
    if min((view.offset, *view.strides, *view.shape)) < 0 or last >= flat.size:
        raise ValueError(f"the numbers of {name} are cut off")
    strides = [stride * flat.itemsize for stride in view.strides]
    return np.lib.stride_tricks.as_strided(flat[view.offset :], view.shape, strides, writeable=False).copy()

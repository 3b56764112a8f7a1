"""Open datasets that TensorFlow Datasets has prepared, and read their records."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from electra_jax.errors import UserError
from electra_jax.files import is_remote
from electra_jax.json_files import read_json
from electra_jax.tasks.host_tensorflow import reason_of, tf

# The file in which TFDS records the classes of a dataset's fields, in DATA_DIR/NAME/[CONFIG/]VERSION, and the keys
# under which it has recorded them.
FEATURES, CLASS_NAMES = "features.json", ("pythonClassName", "type")


def prepared_builder(name: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    """Open a prepared dataset.

    Args:
        name: TFDS's name of it, with its configuration.
        data_dir: the folder in which it was prepared; None for the environment's TFDS_DATA_DIR, or else TFDS's own.

    Raises:
        UserError: if there is no such dataset, or it is not prepared, or not in TFDS's format.
    """
    folder = data_dir or os.environ.get("TFDS_DATA_DIR")
    check_features(name, folder)
    try:
        builder = tfds.builder(name, data_dir=folder)
        prepared = builder.is_prepared()
    # A name may hold arguments of the dataset's own class, and files may hold anything: each raises errors of its own.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"TFDS knows no dataset {name!r} here ({reason}); check the name, and set TFDS_DATA_DIR to the folder "
            f"that holds it (now {folder or 'unset'})."
        ) from error
    if not prepared:
        raise UserError(
            f"the TFDS dataset {name!r} is not prepared under {folder or 'the default folder'}; "
            f"run `tfds build {name}`, or set TFDS_DATA_DIR to the folder that holds it."
        )
    return builder


def check_features(name: str, folder: str | None) -> None:
    """Check that opening a dataset imports no module: TFDS imports those of the classes that features.json names.

    Args:
        name: TFDS's name of the dataset.
        folder: the folder in which datasets were prepared; None for TFDS's own.

    Raises:
        UserError: if a class is neither TFDS's nor in a module that is already imported.
    """
    root = os.path.expanduser(folder or tfds.core.constants.DATA_DIR)
    first = name.partition(":")[0].partition("/")[0]
    if is_remote(root) or not first.isidentifier():
        return
    for path in sorted((Path(root) / first).rglob(FEATURES)):
        for stated in class_names(read_json(path, Any)):
            module, _, _ = stated.rpartition(".")
            if module and module not in sys.modules and not module.startswith("tensorflow_datasets."):
                raise UserError(
                    f"{path} names the class {stated}, and data runs no code: import {module} yourself, in a module "
                    "that a Gin file of yours imports, if you trust it"
                )


def class_names(value: Any) -> Iterator[str]:
    """Yield the names of classes anywhere in the JSON of features.json."""
    if isinstance(value, dict):
        yield from (value[key] for key in CLASS_NAMES if isinstance(value.get(key), str))
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from class_names(inner)


def records(builder: tfds.core.DatasetBuilder, split: str) -> Iterator[dict[str, Any]]:
    """Yield the records of a split as NumPy values, in the order of its files; lists of lists as RaggedTensors.

    Raises:
        UserError: if a file is truncated, corrupt or not in TFDS's format.
    """
    read = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
    with sentences_of(f"{builder.info.full_name}, {split}"):
        yield from tfds.as_numpy(builder.as_dataset(split=split, shuffle_files=False, read_config=read))


@contextlib.contextmanager
def sentences_of(place: str) -> Iterator[None]:
    """Turn errors in the body, of TFDS, TensorFlow or readers of their records, into one sentence.

    Args:
        place: the dataset and the split.

    Raises:
        UserError: if an error is raised.
    """
    try:
        yield
    except UserError:
        raise
    # The files of a dataset may hold anything, and their faults raise errors of many types.
    except Exception as error:
        if isinstance(error, tf.errors.DataLossError):
            what = f"a truncated or corrupt file ({reason_of(error)})"
        else:
            said = reason_of(error) if isinstance(error, tf.errors.OpError) else str(error).strip()
            what = f"a file that is not as TFDS prepares it ({type(error).__name__}: {' '.join(said.split())[:200]})"
        raise UserError(f"{place}: {what}; prepare it again.") from error

"""Open datasets that TensorFlow Datasets has prepared, and read their records."""

import os
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from electra_jax.errors import UserError
from electra_jax.tasks.host_tensorflow import reason_of, tf


def prepared_builder(name: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    """Open a dataset that is prepared.

    Args:
        name: TFDS's name of it, with its configuration.
        data_dir: the folder that it was prepared in; None for the environment's TFDS_DATA_DIR, or else TFDS's own.

    Raises:
        UserError: if there is no such dataset, or if it is not prepared.
    """
    folder = data_dir or os.environ.get("TFDS_DATA_DIR")
    try:
        builder = tfds.builder(name, data_dir=folder)
        prepared = builder.is_prepared()
    except (tfds.core.DatasetNotFoundError, ValueError, AssertionError, ImportError) as error:
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


def records(builder: tfds.core.DatasetBuilder, split: str) -> Iterator[dict[str, Any]]:
    """Yield the records of a split as NumPy values, in the order of its files; lists of lists as RaggedTensors.

    Raises:
        UserError: if a file is truncated or corrupt.
    """
    read = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
    try:
        yield from tfds.as_numpy(builder.as_dataset(split=split, shuffle_files=False, read_config=read))
    except tf.errors.DataLossError as error:
        raise UserError(
            f"{builder.info.full_name}, {split}: a truncated or corrupt file ({reason_of(error)}); prepare it again."
        ) from error

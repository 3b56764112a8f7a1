"""`electra embed MODEL_DIR [INPUT]`: a vector for each text, as JSON lines or as one array."""

import argparse
import contextlib
import dataclasses
import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import electra_jax
from electra_jax.errors import UserError
from electra_jax.files import replacing
from electra_jax.inference.input_files import SORTED_BATCHES, read_items
from electra_jax.inference.item_records import write_records
from electra_jax.inference.items import InputColumns, Item
from electra_jax.inference.network import Network
from electra_jax.inference.output_files import Output, check_free, record_writer
from electra_jax.inference.prediction import Record, in_bucket
from electra_jax.inference.unfinished_output import job_of
from electra_jax.inference.vectors import encode_texts, encoder_of
from electra_jax.runtime import keep_compilations
from electra_jax.tasks.long_texts import CutCount

logger = logging.getLogger(__name__)

# The options that determine a vector; the batch size changes only its last digits.
SETTINGS = ("layer", "pooling", "text_column", "id_column", "batch_size")


def run(options: argparse.Namespace) -> None:
    """Write the vector of each text, in order.

    Args:
        options: see `table`.

    Raises:
        UserError: if the model has no such layer, the input cannot be read, or the output exists.
    """
    if options.batch_size < 1:
        raise UserError(f"--batch_size {options.batch_size}: it must be at least 1")
    keep_compilations()
    encoder = encoder_of(electra_jax.load(options.model), layer=options.layer, pooling=options.pooling)
    columns, cut = (
        InputColumns(options.text_column, None, None, options.id_column),
        CutCount(encoder.description.longest_row),
    )
    answer = functools.partial(vectors_of, encoder, batch_size=options.batch_size, cut=cut)
    settings = {name: value for name, value in vars(options).items() if name in SETTINGS}
    job = job_of(options.input, encoder, settings) if options.output else None
    with writer(options.output, encoder.description.encoder.hidden_size, job) as output:
        lists = read_items(options.input, encoder, columns, most=SORTED_BATCHES * options.batch_size)
        write_records(lists, answer, output)
        if cut.texts:
            logger.warning("%s", cut)


def vectors_of(encoder: Network, items: Sequence[Item], *, batch_size: int, cut: CutCount) -> list[Record]:
    """Return a record with the `vector` of each input, float32 [D]; see `encode_texts`.

    Raises:
        UserError: if the model refuses one of them.
    """
    # Token ids go first: they may be refused, and each text must be counted only once.
    of_ids = iter(
        [encoder.logits(**in_bucket(encoder, [item.ids], batch_size=1))[0] for item in items if item.ids is not None]
    )
    values = [item.value for item in items if item.ids is None]
    of_text = iter(encode_texts(encoder, values, batch_size=batch_size, count=cut) if values else ())
    return [{"vector": next(of_text if item.ids is None else of_ids)} for item in items]


@contextlib.contextmanager
def writer(path: str | None, width: int, job: Mapping[str, Any] | None) -> Iterator[Output]:
    """Yield the output to which records with a `vector` are written.

    Args:
        path: a .npy for one float32 array [N, D], in which an input without a vector is a row of NaN, and which cannot
            be continued by a later job; or any other path that `record_writer` takes.
        width: D.
        job: the settings that determine the records, see `job_of`.

    Raises:
        UserError: if the file exists, or another process writes it.
    """
    if path is None or not path.lower().endswith(".npy"):
        with record_writer(path, job) as output:
            yield dataclasses.replace(output, write=lambda record: output.write(readable(record)))
        return
    check_free(path)
    found: list[np.ndarray] = []
    with replacing(Path(path)) as part:
        yield Output(lambda record: found.append(record.get("vector", np.full(width, np.nan, np.float32))))
        with open(part, "wb") as file:
            np.save(file, np.stack(found) if found else np.zeros((0, width), np.float32))


def readable(record: Record) -> Record:
    """Return a record whose vector is a list of the shortest decimals that parse back to the same float32 values."""
    if "vector" not in record:
        return record
    return record | {"vector": [float(str(value)) for value in record["vector"]]}

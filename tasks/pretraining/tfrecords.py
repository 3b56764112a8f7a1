"""Write the TFRecords of a cache, for SeqIO and T5X, without TensorFlow.

Formats: tensorflow/core/lib/io/record_writer.h (framing), tensorflow/core/example/example.proto, and the files that
`seqio_cache_tasks` writes: `SPLIT.tfrecord-XXXXX-of-NNNNN`, `info.SPLIT.json` and `stats.SPLIT.json`.
"""

import contextlib
import importlib.metadata
import json
import pathlib
from collections.abc import Sequence

import numpy as np
from etils import epath

from electra_jax.data.blocks import open_blocks
from electra_jax.errors import UserError
from electra_jax.files import disk_errors_for_users, is_remote, path_of, replace_file
from electra_jax.locks import sole_builder
from electra_jax.tasks.pretraining.cached_blocks import blocks_folder

# Shape and dtype of each feature of an example; None is the number of its tokens.
FEATURES = {
    "example_id": ((), "int64"),
    "input_ids": ((None,), "int32"),
    "token_type_ids": ((None,), "int32"),
}

# Tokens of a file: 64 files for a small cache, more for a large one.
SMALLEST_FILE, LARGEST_FILE, FILES = 2**14, 2**24, 64
RECORDS_AT_ONCE = 4096


def has_tfrecords(cache: epath.Path) -> bool:
    """Return whether SeqIO can read the training split of a cache."""
    # This file is written last.
    return (cache / "info.train.json").exists()


def add_tfrecords(cache_path: str, *, vocab_size: int) -> None:
    """Write the examples of a cache as TFRecords next to its blocks, unless they exist.

    Args:
        cache_path: a directory that `cache.build_cache` returned.
        vocab_size: number of entries of its vocabulary.

    Raises:
        UserError: if the directory is not a finished cache, or the disk is full.
    """
    cache = path_of(cache_path)
    if has_tfrecords(cache):
        return
    # An object in a store appears only when it is complete, and every process would write the same.
    lock = contextlib.nullcontext() if is_remote(cache) else sole_builder(pathlib.Path(cache) / ".tfrecords.lock")
    with disk_errors_for_users(cache), lock:
        if not has_tfrecords(cache):
            for split in ("validation", "train"):
                _write_split(cache, split, vocab_size)


def _write_split(cache: epath.Path, split: str, vocab_size: int) -> None:
    folder = blocks_folder(cache, split, vocab_size=vocab_size)
    blocks, numbers = open_blocks(folder), folder / "example_ids.npy"
    if not len(blocks):
        return
    if not numbers.exists():
        raise UserError(f"{cache} was not made by `electra cache`, and its examples have no numbers: make it again")
    example_ids_N = np.load(numbers)
    num_tokens = len(blocks.tokens)
    num_files = max(1, min(FILES, num_tokens // SMALLEST_FILE), num_tokens // LARGEST_FILE)
    bounds = np.linspace(0, len(blocks), num_files + 1).astype(np.int64)
    for number in range(num_files):
        records = [
            encode_example(
                int(example_ids_N[row]),
                blocks.tokens[blocks.offsets[row] : blocks.offsets[row + 1]].tolist(),
                _token_types(int(blocks.second_starts[row]), int(blocks.offsets[row + 1] - blocks.offsets[row])),
            )
            for row in range(bounds[number], bounds[number + 1])
        ]
        parts = [frame(records[start : start + RECORDS_AT_ONCE]) for start in range(0, len(records), RECORDS_AT_ONCE)]
        (cache / f"{split}.tfrecord-{number:05d}-of-{num_files:05d}").write_bytes(b"".join(parts))
    info = {
        "num_shards": num_files,
        "features": {key: {"shape": list(shape), "dtype": dtype} for key, (shape, dtype) in FEATURES.items()},
        "seqio_version": importlib.metadata.version("seqio"),
    }
    stats = {
        "examples": len(blocks),
        "input_ids_tokens": num_tokens,
        "input_ids_max_tokens": blocks.longest(),
    }
    replace_file(cache / f"stats.{split}.json", json.dumps(stats, indent=2) + "\n")
    replace_file(cache / f"info.{split}.json", json.dumps(info, indent=2) + "\n")


def _token_types(second_start: int, length: int) -> bytes:
    return bytes(second_start) + b"\x01" * (length - second_start)


def _crc_table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(0x82F63B78), table >> 1)
    return table


_TABLE = _crc_table()


def masked_crcs(messages: Sequence[bytes]) -> np.ndarray:
    """Return TFRecord's masked CRC-32C of each message, uint32 [N]; each must have 4 bytes or more."""
    longest = max(map(len, messages))
    bytes_NL = np.frombuffer(b"".join(message.rjust(longest, b"\0") for message in messages), np.uint8)
    bytes_NL = bytes_NL.reshape(len(messages), longest).copy()
    starts_N = longest - np.array([len(message) for message in messages])
    # Starting the register from all ones is the same as inverting the first four bytes and starting from zero, and a
    # zero register is unchanged by leading zeros: so all messages are processed in step, padded at the front.
    np.put_along_axis(
        bytes_NL,
        starts_N[:, None] + np.arange(4),
        np.take_along_axis(bytes_NL, starts_N[:, None] + np.arange(4), axis=1) ^ np.uint8(0xFF),
        axis=1,
    )
    crc_N = np.zeros(len(messages), np.uint32)
    for column_N in np.ascontiguousarray(bytes_NL.T):
        crc_N = _TABLE[(crc_N ^ column_N) & 0xFF] ^ (crc_N >> 8)
    crc_N = ~crc_N
    return ((crc_N >> 15) | (crc_N << 17)) + np.uint32(0xA282EAD8)


def frame(records: Sequence[bytes]) -> bytes:
    """Return the records as the bytes of a TFRecord file (files may be joined end to end)."""
    if not records:
        return b""
    lengths = [len(record).to_bytes(8, "little") for record in records]
    parts = []
    for length, length_crc, record, record_crc in zip(
        lengths, masked_crcs(lengths), records, masked_crcs(records), strict=True
    ):
        parts += [length, int(length_crc).to_bytes(4, "little"), record, int(record_crc).to_bytes(4, "little")]
    return b"".join(parts)


def encode_example(example_id: int, input_ids: Sequence[int], token_type_ids: Sequence[int]) -> bytes:
    """Return a serialised tf.train.Example of the three features, each an Int64List; every number is >= 0."""
    return _field(
        1,
        _feature(b"example_id", _varint(example_id))
        + _feature(b"input_ids", b"".join(map(_varint, input_ids)))
        + _feature(b"token_type_ids", bytes(token_type_ids)),
    )


def _feature(name: bytes, packed: bytes) -> bytes:
    return _field(1, _field(1, name) + _field(2, _field(3, _field(1, packed))))


def _field(number: int, payload: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(payload)) + payload


def _varint(number: int) -> bytes:
    if number < 2**14:
        return _SHORT_VARINTS[number]
    return bytes([number & 0x7F | 0x80]) + _varint(number >> 7)


_SHORT_VARINTS = [bytes([n]) if n < 128 else bytes([n & 0x7F | 0x80, n >> 7]) for n in range(2**14)]

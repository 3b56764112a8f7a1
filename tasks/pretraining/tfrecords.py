"""Writing TFRecords of tf.train.Example without TensorFlow, whose import would cost each worker seconds.

Formats: tensorflow/core/lib/io/record_writer.h (framing) and tensorflow/core/example/example.proto.
"""

from collections.abc import Sequence

import numpy as np


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
    # Starting the register from all ones is inverting the first four bytes and starting it from zero, and a
    # zero register passes over the zeros in front unchanged: so all messages are worked on in step.
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

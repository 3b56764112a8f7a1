"""Open the memory-mapped blocks of a cache; make them first where the cache is of SeqIO, or in an object store."""

import hashlib
import pathlib

import numpy as np
from etils import epath

from electra_jax.data.blocks import BlocksWriter, TokenBlocks, open_blocks
from electra_jax.errors import UserError
from electra_jax.files import (
    disk_errors_for_users,
    is_remote,
    path_of,
    replacing_directory,
    size_and_time,
    sole_builder,
)
from electra_jax.runtime import user_cache

EXAMPLES_AT_ONCE = 4096


def blocks_of_cache(cache_path: str, split: str, *, vocab_size: int) -> TokenBlocks:
    """Return one split of a cache as blocks.

    `electra cache` writes them. Of a SeqIO cache of `input_ids` and `token_type_ids` they are made here, once, in
    `cache_path/SPLIT.blocks`. Those of a cache in an object store are copied to this machine's cache folder, since only
    a local file can be mapped. A split that the cache does not have gives blocks of no example.

    Raises:
        UserError: if the cache is not finished, holds an id outside the vocabulary or is damaged, or if the disk is
            full.
    """
    blocks = open_blocks(blocks_folder(path_of(cache_path), split, vocab_size=vocab_size))
    if blocks.vocab_size > vocab_size:
        raise UserError(
            f"The cache {cache_path} holds the token id {blocks.vocab_size - 1}, but the vocabulary has {vocab_size} "
            "entries: name the vocabulary that it was made with, or build it anew."
        )
    return blocks


def blocks_folder(cache: epath.Path, split: str, *, vocab_size: int) -> pathlib.Path:
    """Return the local folder of a split's blocks, which are copied or made there if they are missing.

    Raises:
        UserError: as `blocks_of_cache`.
    """
    if not (cache / "COMPLETED").exists():
        raise UserError(f"{cache} is not a finished cache (it has no file COMPLETED): build it anew.")
    folder = _local_folder(cache)
    final = folder / f"{split}.blocks"
    with disk_errors_for_users(folder):
        if not final.exists():
            with sole_builder(folder / f".{split}.blocks.lock"):
                if final.exists():
                    return final
                with replacing_directory(final) as part:
                    if (cache / final.name).exists():
                        for path in (cache / final.name).iterdir():
                            path.copy(part / path.name)
                    else:
                        _convert(cache, split, part, vocab_size)
    return final


def _local_folder(cache: epath.Path) -> pathlib.Path:
    """Return where the blocks of a cache are; another folder once a remote cache of the same name is built anew."""
    if not is_remote(cache):
        return pathlib.Path(cache)
    built = f"{cache} {size_and_time(cache / 'COMPLETED')[1]}"
    return user_cache() / "blocks" / f"{cache.name}-{hashlib.sha256(built.encode()).hexdigest()[:12]}"


def _convert(cache: epath.Path, split: str, directory: pathlib.Path, vocab_size: int) -> None:
    """Make blocks of a SeqIO cache's TFRecords."""
    # The blocks of `electra cache` need no TensorFlow.
    from electra_jax.tasks.host_tensorflow import reason_of, tf

    files = sorted(str(path) for path in cache.glob(f"{split}.tfrecord-*-of-*"))
    ragged = {key: tf.io.RaggedFeature(tf.int64, row_splits_dtype=tf.int64) for key in ("input_ids", "token_type_ids")}
    dataset = tf.data.TFRecordDataset(files).batch(EXAMPLES_AT_ONCE)
    dataset = dataset.map(lambda records: tf.io.parse_example(records, ragged), num_parallel_calls=tf.data.AUTOTUNE)
    with BlocksWriter(directory, vocab_size=vocab_size) as writer:
        try:
            for batch in dataset:
                ids, types = batch["input_ids"], batch["token_type_ids"]
                _add(writer, ids.values.numpy(), types.values.numpy(), ids.row_splits.numpy(), cache)
        except tf.errors.DataLossError as error:
            raise UserError(f"A file of the cache {cache} is damaged ({reason_of(error)}): build it anew.") from error


def _add(writer: BlocksWriter, ids: np.ndarray, types: np.ndarray, splits: np.ndarray, cache: epath.Path) -> None:
    """Append examples whose tokens and types lie end to end, the n-th from `splits[n]` to `splits[n + 1]`."""
    second_tokens = np.concatenate([np.zeros(1, np.int64), np.cumsum(types)])
    lengths = np.diff(splits)
    second_starts = lengths - np.diff(second_tokens[splits])
    place = np.arange(len(types)) - np.repeat(splits[:-1], lengths)
    if not np.array_equal(types, place >= np.repeat(second_starts, lengths)):
        raise UserError(f"The cache {cache} holds token_type_ids that are not 0s and then 1s: pretrain from its task.")
    writer.add(ids, lengths, second_starts)

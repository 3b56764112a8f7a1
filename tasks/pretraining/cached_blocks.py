"""Open the memory-mapped blocks of a cache; make them first if the cache is SeqIO's, or in an object store."""

import hashlib
import pathlib
import re
from typing import Any, TypedDict

import numpy as np
from etils import epath

from electra_jax.data.blocks import BlocksWriter, TokenBlocks, open_blocks, seal_blocks
from electra_jax.errors import UserError
from electra_jax.files import disk_errors_for_users, is_remote, is_writable, path_of, replacing_directory, size_and_time
from electra_jax.json_files import read_json
from electra_jax.locks import sole_builder
from electra_jax.runtime import user_cache

EXAMPLES_AT_ONCE = 4096
COPY_AGAIN = "it was copied in part; copy it again, or remove it and rebuild it"


class SplitRecord(TypedDict):
    """Declare the fields that are read from the record of a split."""

    examples: int


class MadeBy(TypedDict, total=False):
    """Declare the fields that are read from the record of a cache."""

    vocabulary_fingerprint: str
    word_marks: bool
    train: SplitRecord
    validation: SplitRecord


class ShardInfo(TypedDict):
    """Declare the fields that are read from `info.SPLIT.json`."""

    num_shards: int


def record_of_cache(directory: str) -> MadeBy | dict[str, Any]:
    """Return the record of how a cache was made, and its counts; {} for a cache without a record."""
    record = path_of(directory) / "made_by.json"
    return read_json(record, MadeBy, remedy="run `electra cache` again") if record.exists() else {}


def blocks_of_cache(cache_path: str, split: str, *, vocab_size: int, cache_dir: str | None = None) -> TokenBlocks:
    """Return one split of a cache as blocks.

    `electra cache` writes them. For a SeqIO cache of `input_ids` and `token_type_ids` they are made here, once, in
    `cache_path/SPLIT.blocks`, or in `cache_dir` if the cache cannot be written. Those of a cache in an object store are
    copied there too, since only a local file can be mapped. A split that the cache does not have yields blocks without
    examples.

    Args:
        cache_path: the cache.
        split: "train" or "validation".
        vocab_size: number of entries of its vocabulary.
        cache_dir: this machine's folder of caches; None, or one in an object store, for the user's cache folder.

    Raises:
        UserError: if the cache is not finished, copied only in part, holds an id outside the vocabulary or is damaged,
            or the disk is full.
    """
    cache = path_of(cache_path)
    blocks = open_blocks(blocks_folder(cache, split, vocab_size=vocab_size, cache_dir=cache_dir))
    _check_count(cache, split, len(blocks))
    if blocks.vocab_size > vocab_size:
        raise UserError(
            f"The cache {cache_path} holds the token id {blocks.vocab_size - 1}, but the vocabulary has {vocab_size} "
            "entries: name the vocabulary that it was made with, or rebuild the cache."
        )
    return blocks


def blocks_folder(cache: epath.Path, split: str, *, vocab_size: int, cache_dir: str | None = None) -> pathlib.Path:
    """Return the local folder of a split's blocks, which are copied or made there if they are missing.

    Raises:
        UserError: as `blocks_of_cache`.
    """
    if not (cache / "COMPLETED").exists():
        raise UserError(f"{cache} is not a finished cache (it has no file COMPLETED): rebuild it.")
    folder = _local_folder(cache, split, cache_dir)
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
                        check_shards(cache, split)
                        _convert(cache, split, part, vocab_size)
                        seal_blocks(part)
                        _check_count(cache, split, len(open_blocks(part)))
    return final


def _local_folder(cache: epath.Path, split: str, cache_dir: str | None) -> pathlib.Path:
    """Return the existing or future folder of a cache's blocks.

    If it is outside the cache, it changes when a cache of the same name is built again.
    """
    if not is_remote(cache) and ((cache / f"{split}.blocks").exists() or is_writable(pathlib.Path(cache))):
        return pathlib.Path(cache)
    place = cache if is_remote(cache) else cache.absolute()
    built = f"{place} {size_and_time(cache / 'COMPLETED')[1]}"
    caches = user_cache() if cache_dir is None or is_remote(cache_dir) else pathlib.Path(cache_dir)
    return caches / "blocks" / f"{cache.name}-{hashlib.sha256(built.encode()).hexdigest()[:12]}"


def check_shards(cache: epath.Path, split: str) -> None:
    """Check that a split of a SeqIO cache has all of its files, or none and no record of any.

    Raises:
        UserError: if some are missing.
    """
    numbers = [re.fullmatch(r".*-(\d+)-of-(\d+)", path.name) for path in _tfrecords(cache, split)]
    stated = {int(number[2]) for number in numbers if number}
    info = cache / f"info.{split}.json"
    if info.exists():
        stated.add(read_json(info, ShardInfo, remedy=COPY_AGAIN)["num_shards"])
    found = {int(number[1]) for number in numbers if number}
    if len(stated) > 1 or any(len(found) != number or max(found, default=-1) != number - 1 for number in stated):
        count = " or ".join(map(str, sorted(stated)))
        raise UserError(f"{cache} holds {len(found)} of the {count} files of its {split} split: {COPY_AGAIN}")


def _tfrecords(cache: epath.Path, split: str) -> list[epath.Path]:
    """Return the TFRecords of a split, without `glob`, which would take the cache's name as a pattern too."""
    return [path for path in cache.iterdir() if re.fullmatch(rf"{re.escape(split)}\.tfrecord-.*-of-.*", path.name)]


def _check_count(cache: epath.Path, split: str, found: int) -> None:
    """Compare the number of a split's examples with the cache's own record of it, if any.

    Raises:
        UserError: if they differ.
    """
    stats = cache / f"stats.{split}.json"
    record = record_of_cache(str(cache)).get(split)
    if record is None and stats.exists():
        record = read_json(stats, SplitRecord, remedy=COPY_AGAIN)
    if record is not None and record["examples"] != found:
        raise UserError(
            f"{cache} holds {found} of the {record['examples']} examples of its {split} split: {COPY_AGAIN}"
        )


def _convert(cache: epath.Path, split: str, directory: pathlib.Path, vocab_size: int) -> None:
    """Make blocks from a SeqIO cache's TFRecords."""
    # The blocks of `electra cache` need no TensorFlow.
    from electra_jax.tasks.host_tensorflow import reason_of, tf

    files = sorted(str(path) for path in _tfrecords(cache, split))
    ragged = {key: tf.io.RaggedFeature(tf.int64, row_splits_dtype=tf.int64) for key in ("input_ids", "token_type_ids")}
    dataset = tf.data.TFRecordDataset(files).batch(EXAMPLES_AT_ONCE)
    dataset = dataset.map(lambda records: tf.io.parse_example(records, ragged), num_parallel_calls=tf.data.AUTOTUNE)
    with BlocksWriter(directory, vocab_size=vocab_size) as writer:
        try:
            for batch in dataset:
                ids, types = batch["input_ids"], batch["token_type_ids"]
                _add(writer, ids.values.numpy(), types.values.numpy(), ids.row_splits.numpy(), cache)
        # TensorFlow's own message about bytes that are not UTF-8 cannot be decoded.
        except (tf.errors.OpError, UnicodeDecodeError) as error:
            reason = reason_of(error) if isinstance(error, tf.errors.OpError) else "a record is no example"
            raise UserError(f"A file of the cache {cache} is damaged ({reason}): rebuild it.") from error


def _add(writer: BlocksWriter, ids: np.ndarray, types: np.ndarray, splits: np.ndarray, cache: epath.Path) -> None:
    """Append examples whose tokens and types are end to end, the n-th from `splits[n]` to `splits[n + 1]`."""
    second_tokens = np.concatenate([np.zeros(1, np.int64), np.cumsum(types)])
    lengths = np.diff(splits)
    second_starts = lengths - np.diff(second_tokens[splits])
    place = np.arange(len(types)) - np.repeat(splits[:-1], lengths)
    if not np.array_equal(types, place >= np.repeat(second_starts, lengths)):
        raise UserError(f"The cache {cache} holds token_type_ids that are not 0s and then 1s: pretrain from its task.")
    writer.add(ids, lengths, second_starts)

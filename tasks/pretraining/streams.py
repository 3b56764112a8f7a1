"""Iterate over batches of any SeqIO task or mixture: this process's share, endless, resumable (see `data.batches`)."""

import contextlib
import functools
import logging
import re
from collections.abc import Iterator, Mapping
from typing import Self

import numpy as np
import seqio

from electra_jax.data.batches import Batch, State, local_batch_size
from electra_jax.errors import UserError
from electra_jax.files import path_of
from electra_jax.tasks.host_tensorflow import reason_of, tf
from electra_jax.tasks.pretraining.cached_blocks import check_shards
from electra_jax.tasks.pretraining.tfrecords import has_tfrecords

# Seeds stay below this, so that they fit into int32 with the numbers that SeqIO adds to them.
_SEEDS = 2**30
logger = logging.getLogger(__name__)


class StreamBatches:
    """Iterate over a SeqIO task or mixture, with as many readers as there were processes when the run began.

    Each reader has its share of the examples, and yields its share of the rows of every batch. If a run resumes with
    another number of processes, a process reads the shares of several readers, or several processes read that of one,
    so that the batches stay the same.
    """

    def __init__(
        self,
        mixture_or_task_name: str,
        *,
        split: str,
        use_cached: bool,
        feature_lengths: Mapping[str, int],
        batch_size: int,
        seed: int,
        process_index: int,
        process_count: int,
    ) -> None:
        """Open the readers at the beginning of the first epoch.

        Args:
            mixture_or_task_name: a name in SeqIO's registries.
            split: SeqIO's name of the split.
            use_cached: whether to read the tasks' caches.
            feature_lengths: the output features to read, and the length to which each is cut or padded.
            batch_size: rows of a global batch.
            seed: seed for the order of the examples and for the masks.
            process_index: number of this process.
            process_count: number of all processes.

        Raises:
            UserError: if there is no such task or mixture, or the processes cannot divide a batch evenly. The first
                batch raises one if the split has fewer examples than a batch.
        """
        provider = _provider(mixture_or_task_name)
        local_batch_size(batch_size, process_count)
        _warn_of_few_files(provider, split, use_cached, process_count)
        self._batch_size = batch_size
        self._index, self._count = process_index, process_count
        self._open = functools.partial(
            _Reader, provider, split=split, use_cached=use_cached, feature_lengths=dict(feature_lengths), seed=seed
        )
        self.restore({"readers": process_count, "places": {}})

    def __iter__(self) -> Self:
        """Return itself."""
        return self

    def __next__(self) -> Batch:
        """Return [B / process_count, length] arrays of the features, with the task's dtypes."""
        parts = [reader.take() for reader in self._readers.values()]
        return {key: np.concatenate([part[key] for part in parts])[self._rows] for key in parts[0]}

    def state(self) -> State:
        """Return {"readers": number of them, "places": {reader: [epoch, examples that it yielded in this epoch]}}.

        Only the readers of this process have an entry in "places".
        """
        places = {str(number): [reader.epoch, reader.examples] for number, reader in self._readers.items()}
        return {"readers": self._num_readers, "places": places}

    def restore(self, state: State) -> None:
        """Move each reader of this process to its place, by reading and dropping everything before it.

        Raises:
            UserError: if the processes cannot divide the readers evenly.
        """
        self._num_readers = total = state["readers"]
        if max(total, self._count) % min(total, self._count):
            raise UserError(
                f"The run began with {total} processes, and {self._count} cannot share their places in the data "
                f"evenly: resume with a divisor or a multiple of {total}."
            )
        rows = local_batch_size(self._batch_size, total)
        if total >= self._count:
            readers = range(total)[self._index * total // self._count :][: total // self._count]
            self._rows = slice(None)
        else:
            sharers = self._count // total
            readers = [self._index // sharers]
            share = rows // sharers
            self._rows = slice(self._index % sharers * share, (self._index % sharers + 1) * share)
        self._readers = {
            number: self._open(seqio.ShardInfo(number, total), rows, *state["places"].get(str(number), (0, 0)))
            for number in readers
        }


class _Reader:
    """Read one share of a task or mixture: one `get_dataset` per epoch, each with a seed of its own."""

    def __init__(
        self,
        provider: seqio.Task | seqio.Mixture,
        shard: seqio.ShardInfo,
        rows: int,
        epoch: int,
        examples: int,
        *,
        split: str,
        use_cached: bool,
        feature_lengths: dict[str, int],
        seed: int,
    ) -> None:
        """Start after the first `examples` of this epoch, already yielded; `take` returns `rows` at a time."""
        self._provider = provider
        self._shard = shard
        self._size = rows
        self._split = split
        self._use_cached = use_cached
        self._feature_lengths = feature_lengths
        self._seed = seed
        self._begin(epoch, examples)

    def take(self) -> Batch:
        """Return the next rows, which may reach into the next epoch."""
        parts, missing = [], self._size
        while missing:
            part = self._pending if self._pending is not None else self._next_chunk()
            self._pending = None
            if part is None:
                self._next_epoch()
                continue
            size = len(next(iter(part.values())))
            if size > missing:
                self._pending = {key: values[missing:] for key, values in part.items()}
                part = {key: values[:missing] for key, values in part.items()}
            parts.append(part)
            self.examples += min(size, missing)
            missing -= min(size, missing)
        return {key: np.concatenate([part[key] for part in parts]) for key in self._feature_lengths}

    def _begin(self, epoch: int, examples: int) -> None:
        self.epoch, self.examples = epoch, examples
        self._pending: Batch | None = None
        self._chunks = self._dataset()

    def _next_chunk(self) -> Batch | None:
        with reading(self._provider.name):
            return next(self._chunks, None)

    def _next_epoch(self) -> None:
        if self.examples < self._size:
            raise UserError(
                f"The split {self._split} of {self._provider.name} has {self.examples or 'no'} example(s) for process "
                f"{self._shard.index} of {self._shard.num_shards}, fewer than its {self._size} rows of a batch: give "
                "more text, lower BATCH_SIZE or use fewer processes."
            )
        self._begin(self.epoch + 1, 0)

    def _dataset(self) -> Iterator[Batch]:
        # Each epoch has its own shuffling and masks, which are the same in each run.
        seed = int(np.random.SeedSequence([self._seed, self.epoch]).generate_state(1)[0]) % _SEEDS
        dataset = self._provider.get_dataset(
            sequence_length=self._feature_lengths,
            split=self._split,
            use_cached=self._use_cached,
            shuffle=True,
            seed=seed,
            shard_info=self._shard,
            num_epochs=1,
        )
        dataset = dataset.skip(self.examples).map(lambda x: {key: x[key] for key in self._feature_lengths})
        dataset = seqio.trim_and_pad_dataset(dataset, self._feature_lengths)
        return dataset.batch(self._size).prefetch(tf.data.AUTOTUNE).as_numpy_iterator()


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn TensorFlow's errors about a file of a task or mixture into a sentence.

    Raises:
        UserError: if a file cannot be read, is damaged, or holds other records than the task's.
    """
    try:
        yield
    except tf.errors.OpError as error:
        # Errors of a source written in Python arrive as text with a traceback, in which a UserError can be recognised.
        if raised := re.search(r"UserError: ([^\n]+)", error.message):
            raise UserError(raised[1]) from error
        if "Traceback (most recent call last)" in error.message:
            raise
        raise UserError(
            f"A file that {name} reads is damaged, gone or not of its kind ({reason_of(error)}): make it again."
        ) from error


def is_cached(mixture_or_task_name: str) -> bool:
    """Return whether every task of a task or mixture has a cache in SeqIO's cache directories.

    Raises:
        UserError: if there is no such task or mixture, or a cache has no TFRecords or lacks some of them.
    """
    caches = [task.cache_dir for task in seqio.get_subtasks(_provider(mixture_or_task_name))]
    for cache in filter(None, caches):
        if not has_tfrecords(path_of(cache)):
            raise UserError(
                f"the cache {cache} has no TFRecords, which SeqIO reads: add them with `electra cache`, "
                f"--gin.CORPUS='\"{cache}\"' and --gin.TFRECORDS=True"
            )
        for split in ("train", "validation"):
            check_shards(path_of(cache), split)
    return all(caches)


def _provider(name: str) -> seqio.Task | seqio.Mixture:
    try:
        return seqio.get_mixture_or_task(name)
    except ValueError as error:
        known = ", ".join(sorted([*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()]))
        raise UserError(f"There is no task or mixture {name}; there are: {known}.") from error


def _warn_of_few_files(provider: seqio.Task | seqio.Mixture, split: str, use_cached: bool, process_count: int) -> None:
    """Warn if there are too few files for each process to have its own: each then reads all files and drops most."""
    for task in seqio.get_subtasks(provider):
        if use_cached and task.cache_dir:
            files = tf.io.gfile.glob(f"{task.cache_dir}/{split}.tfrecord-*")
        elif task.source.supports_arbitrary_sharding or process_count == 1:
            continue
        else:
            files = task.source.list_shards(split)
        if len(files) < process_count:
            logger.warning(
                "%s has %d file(s) in its %s split, fewer than the %d processes: each reads all of them; write the "
                "cache in more files to read less",
                task.name,
                len(files),
                split,
                process_count,
            )


def stream_evaluation_batches(
    mixture_or_task_name: str,
    *,
    split: str,
    use_cached: bool,
    feature_lengths: Mapping[str, int],
    batch_size: int,
    process_index: int,
    process_count: int,
) -> Iterator[Batch]:
    """Yield a split of a SeqIO task or mixture once, in order; the last batch is filled up with rows of zeros.

    Masks are the same each time. Every process reads all examples and yields a contiguous slice of each batch, so that
    all yield equally many. The arguments are those of `StreamBatches`.

    Raises:
        UserError: if the processes cannot divide a batch evenly.
    """
    local_size = local_batch_size(batch_size, process_count)
    dataset = seqio.get_mixture_or_task(mixture_or_task_name).get_dataset(
        sequence_length=dict(feature_lengths), split=split, use_cached=use_cached, shuffle=False, seed=0, num_epochs=1
    )
    dataset = seqio.trim_and_pad_dataset(
        dataset.map(lambda x: {key: x[key] for key in feature_lengths}), dict(feature_lengths)
    )
    batches = dataset.batch(batch_size).as_numpy_iterator()
    while True:
        with reading(mixture_or_task_name):
            batch = next(batches, None)
        if batch is None:
            return
        missing = batch_size - len(batch["input_ids"])
        mine = slice(process_index * local_size, (process_index + 1) * local_size)
        yield {key: np.pad(values, [(0, missing), (0, 0)])[mine] for key, values in batch.items()}

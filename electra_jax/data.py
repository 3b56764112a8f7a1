"""Iterators of host batches: this process's share, endless, resumable at any batch.

Each has `__next__() -> dict of numpy arrays`, `state() -> dict` that JSON can hold and with which `restore`
makes the next batch the one that would have come next.
"""

import queue
import re
import threading
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, Self

import numpy as np
import seqio

from electra_jax.blocks import TokenBlocks
from electra_jax.errors import UserError
from electra_jax.tasks.host_tensorflow import reason_of, tf

Batch = dict[str, np.ndarray]
# Seeds stay below this, so that they fit int32 with what SeqIO adds to them.
_SEEDS = 2**30


class BatchIterator(Protocol):
    """What the training loop reads from."""

    def __iter__(self) -> Iterator[Batch]:
        """Return itself."""

    def __next__(self) -> Batch:
        """Return the next batch of this process."""

    def state(self) -> dict[str, int]:
        """Return where the next batch starts."""

    def restore(self, state: Mapping[str, int]) -> None:
        """Go to where `state` says."""


class BlockBatches:
    """Batches of a tokenised split in random order, each example once in an epoch.

    The epochs' permutations, drawn from (seed, epoch), stand one after another without end; global batch i
    is places i * B to (i + 1) * B of that, and each process takes its contiguous slice. A state therefore
    restores at once, also with another number of processes or another batch size.
    """

    def __init__(
        self,
        blocks: TokenBlocks,
        *,
        batch_size: int,
        sequence_length: int,
        seed: int,
        process_index: int,
        process_count: int,
    ) -> None:
        """`batch_size` is the global one; raises UserError if it cannot be divided, or if there is no example."""
        self._blocks = blocks
        self._batch_size = batch_size
        self._local_size = local_batch_size(batch_size, process_count)
        self._first = process_index * self._local_size
        self._length = sequence_length
        self._seed = seed
        self._examples = 0
        self._epoch = -1
        _check_blocks(blocks, sequence_length)

    def __iter__(self) -> Self:
        """Return itself."""
        return self

    def __next__(self) -> Batch:
        """Return int32 [B / process_count, L] arrays `input_ids`, `token_type_ids`, `attention_mask`."""
        places_B = self._examples + self._first + np.arange(self._local_size)
        self._examples += self._batch_size
        epochs_B, places_B = np.divmod(places_B, len(self._blocks))
        rows_B = np.empty_like(places_B)
        for epoch in np.unique(epochs_B).tolist():
            here_B = epochs_B == epoch
            rows_B[here_B] = self._permutation_of(epoch)[places_B[here_B]]
        return self._blocks.gather(rows_B, self._length)

    def state(self) -> dict[str, int]:
        """Return {"examples": number of examples that all processes have been given so far}."""
        return {"examples": self._examples}

    def restore(self, state: Mapping[str, int]) -> None:
        """Go on after `state["examples"]` examples."""
        self._examples = state["examples"]

    def _permutation_of(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            self._epoch = epoch
            self._permutation = np.arange(len(self._blocks), dtype=np.min_scalar_type(len(self._blocks)))
            np.random.default_rng([self._seed, epoch]).shuffle(self._permutation)
        return self._permutation


def evaluation_batches(
    blocks: TokenBlocks, *, batch_size: int, sequence_length: int, process_index: int, process_count: int
) -> Iterator[Batch]:
    """Yield every example once, in order; the last batch is filled up with rows of zeros (no attention).

    Args:
        blocks: the split.
        batch_size: the global one; each process yields its contiguous slice of each batch.
        sequence_length: L.
        process_index: of this process.
        process_count: of all; they yield equally many batches.
    """
    _check_blocks(blocks, sequence_length)
    local_size = local_batch_size(batch_size, process_count)
    for start in range(process_index * local_size, process_index * local_size + len(blocks), batch_size):
        rows_B = np.arange(start, start + local_size)
        batch = blocks.gather(np.minimum(rows_B, len(blocks) - 1), sequence_length)
        yield {key: values * (rows_B < len(blocks))[:, None] for key, values in batch.items()}


class StreamBatches:
    """Batches of any SeqIO task or mixture, one `get_dataset` per epoch with a seed of its own.

    A batch may reach into the next epoch. `restore` reads and drops what came before in the epoch; it is
    exact for the same number of processes.
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
        """`feature_lengths`: which output features to read, and the length to which each is cut or padded.

        `batch_size` is the global one. Raises UserError for an unknown name (or, on the first batch, for a
        split without an example).
        """
        try:
            self._provider = seqio.get_mixture_or_task(mixture_or_task_name)
        except ValueError as error:
            known = ", ".join(sorted([*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()]))
            raise UserError(
                f"There is no task or mixture {mixture_or_task_name} (registered: {known or 'none'}): name one of "
                "them, or import the module that registers it in a Gin file."
            ) from error
        self._name = mixture_or_task_name
        self._split = split
        self._use_cached = use_cached
        self._feature_lengths = dict(feature_lengths)
        self._local_size = local_batch_size(batch_size, process_count)
        self._seed = seed
        self._shard = seqio.ShardInfo(process_index, process_count)
        self.restore({"epoch": 0, "examples": 0})

    def __iter__(self) -> Self:
        """Return itself."""
        return self

    def __next__(self) -> Batch:
        """Return [B / process_count, length] arrays of the features, as the task types them."""
        parts, missing = [], self._local_size
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
            self._examples += min(size, missing)
            missing -= min(size, missing)
        return {key: np.concatenate([part[key] for part in parts]) for key in self._feature_lengths}

    def state(self) -> dict[str, int]:
        """Return {"epoch", "examples": number that each process has been given in this epoch}."""
        return {"epoch": self._epoch, "examples": self._examples}

    def restore(self, state: Mapping[str, int]) -> None:
        """Open the epoch and skip `state["examples"]` examples."""
        self._epoch, self._examples = state["epoch"], state["examples"]
        self._pending: Batch | None = None
        self._chunks = self._open()

    def _next_chunk(self) -> Batch | None:
        try:
            return next(self._chunks, None)
        except tf.errors.OpError as error:
            # What a source written in Python raises reaches us as text.
            if raised := re.search(r"UserError: ([^\n]+)", error.message):
                raise UserError(raised[1]) from error
            if isinstance(error, tf.errors.DataLossError):
                raise UserError(
                    f"A file that {self._name} reads is damaged ({reason_of(error)}): make it anew."
                ) from error
            raise

    def _next_epoch(self) -> None:
        if not self._examples:
            raise UserError(
                f"The split {self._split} of {self._name} has no example for process {self._shard.index} of "
                f"{self._shard.num_shards}: give more text or use fewer processes."
            )
        self.restore({"epoch": self._epoch + 1, "examples": 0})

    def _open(self) -> Iterator[Batch]:
        # Each epoch shuffles and masks anew, the same way in each run.
        seed = int(np.random.SeedSequence([self._seed, self._epoch]).generate_state(1)[0]) % _SEEDS
        dataset = self._provider.get_dataset(
            sequence_length=self._feature_lengths,
            split=self._split,
            use_cached=self._use_cached,
            shuffle=True,
            seed=seed,
            shard_info=self._shard,
            num_epochs=1,
        )
        dataset = dataset.skip(self._examples).map(lambda x: {key: x[key] for key in self._feature_lengths})
        dataset = seqio.trim_and_pad_dataset(dataset, self._feature_lengths)
        return dataset.batch(self._local_size).prefetch(tf.data.AUTOTUNE).as_numpy_iterator()


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

    The arguments are those of `StreamBatches`. Masks are the same each time. Every process reads all and
    yields its contiguous slice of each batch, so that all yield equally many.
    """
    local_size = local_batch_size(batch_size, process_count)
    dataset = seqio.get_mixture_or_task(mixture_or_task_name).get_dataset(
        sequence_length=dict(feature_lengths), split=split, use_cached=use_cached, shuffle=False, seed=0, num_epochs=1
    )
    dataset = seqio.trim_and_pad_dataset(
        dataset.map(lambda x: {key: x[key] for key in feature_lengths}), dict(feature_lengths)
    )
    for batch in dataset.batch(batch_size).as_numpy_iterator():
        missing = batch_size - len(batch["input_ids"])
        mine = slice(process_index * local_size, (process_index + 1) * local_size)
        yield {key: np.pad(values, [(0, missing), (0, 0)])[mine] for key, values in batch.items()}


class Prefetch:
    """Another iterator's batches, made ahead in a thread; `state` belongs to the batch last handed out."""

    def __init__(self, batches: BatchIterator, *, depth: int) -> None:
        """`depth`: how many batches may wait. The iterator belongs to this object from now on."""
        self._batches = batches
        self._depth = depth
        self._start()

    def __iter__(self) -> Self:
        """Return itself."""
        return self

    def __next__(self) -> Batch:
        """Return the next batch; an exception of the other iterator is raised here, in its place."""
        if self._stop.is_set():
            raise RuntimeError("This iterator was closed.")
        if self._error is None:
            item, state = self._queue.get()
            if isinstance(item, BaseException):
                self._error = item
        if self._error is not None:
            raise self._error
        self._state = state
        return item

    def state(self) -> dict[str, int]:
        """Return the state after the batch that was last handed out, whatever was made ahead."""
        return self._state

    def restore(self, state: Mapping[str, int]) -> None:
        """Throw away what was made ahead, and go to where `state` says."""
        self.close()
        self._batches.restore(state)
        self._start()

    def close(self) -> None:
        """End the thread; may be called again."""
        self._stop.set()
        self._thread.join()

    def __enter__(self) -> Self:
        """For `with`, which closes."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the thread."""
        self.close()

    def _start(self) -> None:
        self._state = self._batches.state()
        self._queue: queue.Queue[Any] = queue.Queue(self._depth)
        self._error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._fill, name="prefetch", daemon=True)
        self._thread.start()

    def _fill(self) -> None:
        while not self._stop.is_set():
            try:
                item = (next(self._batches), self._batches.state())
            except BaseException as error:
                item = (error, None)
            while not self._stop.is_set():
                try:
                    self._queue.put(item, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if isinstance(item[0], BaseException):
                return


def local_batch_size(batch_size: int, process_count: int) -> int:
    """Return the examples of a global batch that each process reads; raises UserError if they do not divide."""
    if batch_size < 1 or batch_size % process_count:
        raise UserError(f"A batch of {batch_size} cannot be divided among {process_count} process(es).")
    return batch_size // process_count


def _check_blocks(blocks: TokenBlocks, sequence_length: int) -> None:
    if not len(blocks):
        raise UserError("The split has no example: give more text, or hold out another share of it.")
    if blocks.longest() > sequence_length:
        raise UserError(
            f"The cache has examples of {blocks.longest()} tokens, more than the sequence length of "
            f"{sequence_length}: build one for that length."
        )

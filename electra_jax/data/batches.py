"""Iterate over host batches: this process's share, endless, resumable at any batch.

An iterator has `__next__() -> dict of numpy arrays`, and `state() -> dict` that JSON can hold. After `restore(state)`
the next batch is the one that would have come next. A checkpoint holds the `whole_state` of all processes.
"""

import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, Self

import numpy as np

from electra_jax.data.batch_shapes import BatchShape, BatchShapes, cut
from electra_jax.data.blocks import TokenBlocks
from electra_jax.data.mixture import MixedRows, ShuffledRows, WeightedBlocks, rows_of_period
from electra_jax.data.packed_rows import pack_rows
from electra_jax.errors import UserError

# The seed of the order of held-out examples, which is the same for every run on a corpus.
_EVALUATION_SEED = 0

Batch = dict[str, np.ndarray]
State = Mapping[str, Any]


class BatchIterator(Protocol):
    """Interface of the training loop to its batches."""

    def __iter__(self) -> Iterator[Batch]:
        """Return itself."""

    def __next__(self) -> Batch:
        """Return the next batch of this process."""

    def state(self) -> State:
        """Return where the next batch starts, as far as this process knows."""

    def restore(self, state: State) -> None:
        """Resume from the `whole_state` of all processes."""


def whole_state(states: Sequence[State]) -> State:
    """Join the states of all processes into one, from which any number of processes can resume."""
    places = {reader: place for state in states for reader, place in state.get("places", {}).items()}
    return {**states[0], "places": places} if places else dict(states[0])


class BlockBatches:
    """Iterate over a tokenised split in random order, each example once in an epoch, or over a mixture of splits.

    A row of a batch is one example or, if rows are packed, as many as fit. The permutations of the rows, drawn from
    (seed, epoch), follow one another without end. Global batch i holds positions i * B to (i + 1) * B of that sequence,
    and each process takes a contiguous slice of it. A state is therefore restored at once, even with another number of
    processes or another batch size.
    """

    def __init__(
        self,
        blocks: TokenBlocks | Sequence[WeightedBlocks],
        *,
        batch_size: int,
        sequence_length: int,
        seed: int,
        process_index: int,
        process_count: int,
        packed: bool = False,
        shapes: BatchShapes | None = None,
    ) -> None:
        """Open the iterator at the beginning of the first epoch.

        Args:
            blocks: the split, or the splits of a mixture, which have epochs of their own.
            batch_size: rows of a global batch.
            sequence_length: tokens of a row.
            seed: seed of the order of the rows.
            process_index: number of this process.
            process_count: number of all processes.
            packed: whether several examples share a row where they fit; batches then have `example_ids`, see
                `packed_rows`.
            shapes: smaller numbers of rows and of tokens in the batches of the first steps; None for none.

        Raises:
            UserError: if the processes cannot divide every batch evenly, if there are fewer rows than a batch has, or
                if an example is longer than a row.
        """
        self._shapes = shapes or BatchShapes(BatchShape(batch_size, sequence_length), (), (), num_steps=1)
        for stage in self._shapes.stages:
            local_batch_size(stage.shape.batch_size, process_count)
        self._process_index, self._process_count = process_index, process_count
        self._length = sequence_length
        self._examples = self._step = 0
        self._restored: State = self.state()
        self._rows = _endless_rows(blocks, sequence_length, seed=seed, packed=packed)
        if len(self._rows) < batch_size:
            raise UserError(
                f"The training split has {len(self._rows)} {'packed rows' if packed else 'examples'}, fewer than a "
                f"batch of {batch_size}: give more text, or lower BATCH_SIZE."
            )

    def __iter__(self) -> Self:
        """Return itself."""
        return self

    def __next__(self) -> Batch:
        """Return int32 [B / process_count, L] arrays under BERT's names, and `example_ids` if rows are packed."""
        shape = self._shapes.at(self._step)
        local_size = local_batch_size(shape.batch_size, self._process_count)
        places_B = self._examples + self._process_index * local_size + np.arange(local_size)
        self._examples += shape.batch_size
        self._step += 1
        batch = self._rows.gather(places_B, self._length)
        return batch if shape.sequence_length == self._length else cut(batch, shape.sequence_length)

    def epochs(self, num_rows: int) -> list[float]:
        """Return how many epochs of the split, or of each split of a mixture, the first `num_rows` rows are."""
        return self._rows.epochs(num_rows)

    def epochs_after(self, step: int) -> list[float]:
        """Return how many epochs of the split, or of each split of a mixture, a run has trained on.

        Args:
            step: number of batches that were trained on, however many are read ahead; not before the restored step.
        """
        restored = self._restored
        return self.epochs(restored["examples"] + self._shapes.num_rows(restored["step"], step))

    def state(self) -> State:
        """Return {"examples": number of rows handed out to all processes so far, "step": number of global batches}."""
        return {"examples": self._examples, "step": self._step}

    def restore(self, state: State) -> None:
        """Resume after `state["examples"]` rows in `state["step"]` batches."""
        self._examples, self._step = state["examples"], state["step"]
        self._restored = self.state()


def evaluation_batches(
    blocks: TokenBlocks,
    *,
    batch_size: int,
    sequence_length: int,
    process_index: int,
    process_count: int,
) -> Iterator[Batch]:
    """Yield every example once; the last batch is filled up with rows of zeros (no attention).

    The order is a fixed permutation: the first examples, which a run evaluates on while it trains, come from the whole
    split and not from its first documents.

    Args:
        blocks: the split.
        batch_size: rows of a global batch, of which each process yields a contiguous slice.
        sequence_length: tokens of a row.
        process_index: number of this process.
        process_count: number of all processes; each yields as many batches as the others.

    Raises:
        UserError: if the processes cannot divide a batch evenly, if the split is empty, or if an example is longer than
            a row.
    """
    _check_blocks(blocks, sequence_length)
    local_size = local_batch_size(batch_size, process_count)
    order_N = np.random.default_rng(_EVALUATION_SEED).permutation(len(blocks))
    for start in range(process_index * local_size, process_index * local_size + len(blocks), batch_size):
        places_B = np.arange(start, start + local_size)
        batch = blocks.gather(order_N[np.minimum(places_B, len(blocks) - 1)], sequence_length)
        yield {key: values * (places_B < len(blocks))[:, None] for key, values in batch.items()}


class Prefetch:
    """Read another iterator's batches ahead of time, in a thread; `state` belongs to the batch last handed out."""

    def __init__(self, batches: BatchIterator, *, depth: int) -> None:
        """Start the thread.

        Args:
            batches: the iterator, which nobody else may use from now on.
            depth: number of batches that may wait.
        """
        self._batches = batches
        self._depth = depth
        self._start()

    def __iter__(self) -> Self:
        """Return itself."""
        return self

    def __next__(self) -> Batch:
        """Return the next batch, or raise what the other iterator raised in its place."""
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

    def state(self) -> State:
        """Return the state after the batch that was last handed out, however far the thread has read."""
        return self._state

    def restore(self, state: State) -> None:
        """Drop the waiting batches, and resume from `state`."""
        self.close()
        self._batches.restore(state)
        self._start()

    def close(self) -> None:
        """End the thread; may be called again."""
        self._stop.set()
        self._thread.join()

    def __enter__(self) -> Self:
        """Return itself."""
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
    """Return the number of rows of a global batch that each process reads.

    Raises:
        UserError: if the processes cannot divide the batch evenly.
    """
    if batch_size < 1 or batch_size % process_count:
        raise UserError(f"A batch of {batch_size} cannot be divided among {process_count} process(es).")
    return batch_size // process_count


def _endless_rows(
    blocks: TokenBlocks | Sequence[WeightedBlocks], sequence_length: int, *, seed: int, packed: bool
) -> ShuffledRows | MixedRows:
    """Return the rows of a split or of a mixture; see `BlockBatches`."""

    def shuffled(split: TokenBlocks, *key: int) -> ShuffledRows:
        _check_blocks(split, sequence_length)
        return ShuffledRows(pack_rows(split, sequence_length, seed=seed) if packed else split, seed=(seed, *key))

    if isinstance(blocks, TokenBlocks):
        return shuffled(blocks)
    splits = [shuffled(part.blocks, number) for number, part in enumerate(blocks)]
    return MixedRows(splits, rows_of_period([part.weight for part in blocks]), seed=seed)


def _check_blocks(blocks: TokenBlocks, sequence_length: int) -> None:
    if not len(blocks):
        raise UserError("The split has no example: give more text, or hold out another share of it.")
    if blocks.longest() > sequence_length:
        raise UserError(
            f"The cache has examples of {blocks.longest()} tokens, more than the sequence length of "
            f"{sequence_length}: build one for that length."
        )

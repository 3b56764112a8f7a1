"""Batch rows of different lengths: each batch is padded to the shortest of a few lengths that holds it.

There are few lengths, so that each is compiled once. Rows that are padded to one length are batched together, so that
little is computed for padding, and which of them share a batch is drawn again in each epoch.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

Row = Mapping[str, np.ndarray]

# Arrays of a row that have no axis of tokens: their shapes are the same in all rows.
OF_WHOLE_ROW = ("labels", "choice_mask")


def bucket_of(length: int, buckets: Sequence[int]) -> int:
    """Return the shortest of the increasing `buckets` that holds a row; `length` itself if none does."""
    return next((bucket for bucket in buckets if bucket >= length), length)


def stack(rows: Sequence[Row], *, length: int, size: int) -> dict[str, np.ndarray]:
    """Stack rows into a batch.

    Args:
        rows: at least one, with `input_ids` [L] and whatever else all of them have: arrays [L], those of `OF_WHOLE_ROW`
            and scalars. Rows of C choices have arrays [C, L] in place of [L], and their own `attention_mask`.
        length: length to which the arrays are padded with 0, at least that of the longest row.
        size: number of rows of the batch; copies of the last row fill it up.

    Returns:
        Arrays [size, length] or [size, C, length], [size, ...] for `OF_WHOLE_ROW`, and [size] for scalars, with
        `attention_mask`, int32, and `row_weight`, float32 [size]: 0 for a row that only fills up the batch.
    """
    filled = [*rows, *[rows[-1]] * (size - len(rows))]
    batch = {}
    for name, first in rows[0].items():
        if first.ndim == 0 or name in OF_WHOLE_ROW:
            batch[name] = np.stack([row[name] for row in filled])
            continue
        batch[name] = np.zeros((size, *first.shape[:-1], length), first.dtype)
        for place, row in zip(batch[name], filled, strict=True):
            place[..., : row[name].shape[-1]] = row[name]
    if "attention_mask" not in batch:
        counts = np.array([len(row["input_ids"]) for row in filled])
        batch["attention_mask"] = (np.arange(length)[None] < counts[:, None]).astype(np.int32)
    batch["row_weight"] = (np.arange(size) < len(rows)).astype(np.float32)
    return batch


def padded_lengths(rows: Sequence[Row], buckets: Sequence[int]) -> np.ndarray:
    """Return the bucket of each row, int [N]; see `bucket_of`."""
    return np.array([bucket_of(row["input_ids"].shape[-1], buckets) for row in rows], np.int64)


def epoch_order(padded_N: np.ndarray, *, batch_size: int, pool_batches: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Return the row numbers of each batch of an epoch: every row once, one batch perhaps smaller than the others.

    Rows are shuffled and cut into pools. Those of a pool are sorted by the length that they are padded to, in random
    order within each length, so that rows of one length share a batch by chance. Pools are cut into batches, which are
    shuffled in turn. The small batch is a random one of the last pool, whatever its length. The result depends only on
    the arguments.

    Args:
        padded_N: the length that each row is padded to, int [N].
        batch_size: rows of a batch.
        pool_batches: batches of a pool. With 1, batches are drawn from all rows, and each is padded to its longest.
        seed: the run's seed.
        epoch: number of the epoch.
    """
    draw = np.random.default_rng([seed, epoch])
    order = draw.permutation(len(padded_N))
    pool = pool_batches * batch_size
    order = np.concatenate(
        [part[np.argsort(padded_N[part], kind="stable")] for part in np.split(order, range(pool, len(order), pool))]
    )
    sizes = np.full(-(-len(order) // batch_size), batch_size)
    of_last_pool = (len(sizes) - 1) % pool_batches + 1
    sizes[-1 - draw.integers(of_last_pool)] -= sizes.sum() - len(order)
    batches = np.split(order, np.cumsum(sizes)[:-1])
    return [batches[number] for number in draw.permutation(len(batches))]


@dataclasses.dataclass
class TrainingBatches:
    """Iterate over batches without end, epoch after epoch, from any step on.

    Attributes:
        rows: the training split.
        batch_size: rows of a batch.
        buckets: increasing lengths to which batches are padded.
        pool_batches: batches whose rows are sorted by length among themselves; see `epoch_order`.
        seed: seed of the order of the rows.
        step: number of batches handed out so far, which a checkpoint holds.
    """

    rows: Sequence[Row]
    batch_size: int
    buckets: Sequence[int]
    pool_batches: int
    seed: int
    step: int

    def __post_init__(self) -> None:
        """Measure the rows."""
        self._padded = padded_lengths(self.rows, self.buckets)
        self._epoch = -1
        self._order: list[np.ndarray] = []

    @property
    def batches_per_epoch(self) -> int:
        """Return the number of batches in an epoch; the last one may be filled up with copies of a row."""
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """Return itself."""
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        """Return the next batch; see `stack`."""
        epoch, place = divmod(self.step, self.batches_per_epoch)
        if epoch != self._epoch:
            self._order = epoch_order(
                self._padded,
                batch_size=self.batch_size,
                pool_batches=self.pool_batches,
                seed=self.seed,
                epoch=epoch,
            )
            self._epoch = epoch
        self.step += 1
        numbers = self._order[place]
        length = int(self._padded[numbers].max())
        return stack([self.rows[number] for number in numbers], length=length, size=self.batch_size)


def in_order_of_length(
    rows: Sequence[Row], *, batch_size: int, buckets: Sequence[int]
) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
    """Yield every row once, the longest first: the numbers of a batch's rows, and the batch (see `stack`)."""
    lengths = np.array([len(row["input_ids"]) for row in rows])
    order = np.argsort(-lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        numbers = order[start : start + batch_size]
        length = bucket_of(int(lengths[numbers[0]]), buckets)
        yield numbers, stack([rows[number] for number in numbers], length=length, size=batch_size)

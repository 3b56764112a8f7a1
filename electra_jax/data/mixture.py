"""Draw rows of one or several splits in an endless random order, any position of it in constant time."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from electra_jax.data.blocks import TokenBlocks
from electra_jax.data.packed_rows import PackedRows
from electra_jax.errors import UserError

# Positions after which the pattern of a mixture repeats; weights are rounded to multiples of 1 / PERIOD.
PERIOD = 1024


class WeightedBlocks(NamedTuple):
    """One split of a mixture.

    Attributes:
        name: a name for people to read.
        blocks: its examples.
        weight: its share of the rows, in proportion to the other weights.
    """

    name: str
    blocks: TokenBlocks
    weight: float


class ShuffledRows:
    """Hold the rows of a split in an endless order of permutations, one per epoch."""

    def __init__(self, rows: TokenBlocks | PackedRows, *, seed: Sequence[int]) -> None:
        """Take the rows, at least one, and the seed of the permutations."""
        self._rows = rows
        self._seed = list(seed)
        self._epoch = -1

    def __len__(self) -> int:
        """Return the number of rows of an epoch."""
        return len(self._rows)

    def gather(self, positions_B: np.ndarray, sequence_length: int) -> dict[str, np.ndarray]:
        """Return the rows at these positions of the endless order, as `TokenBlocks.gather` does."""
        epochs_B, places_B = np.divmod(positions_B, len(self._rows))
        rows_B = np.empty_like(places_B)
        for epoch in np.unique(epochs_B).tolist():
            here_B = epochs_B == epoch
            rows_B[here_B] = self._permutation_of(epoch)[places_B[here_B]]
        return self._rows.gather(rows_B, sequence_length)

    def epochs(self, num_rows: int) -> list[float]:
        """Return how many epochs of the split the first `num_rows` rows are."""
        return [num_rows / len(self)]

    def _permutation_of(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            self._epoch = epoch
            self._permutation = np.arange(len(self._rows), dtype=np.min_scalar_type(len(self._rows)))
            np.random.default_rng([*self._seed, epoch]).shuffle(self._permutation)
        return self._permutation


class MixedRows:
    """Hold the rows of several splits in one endless order, in which each split has its share.

    The splits of `PERIOD` consecutive positions are drawn once and repeat; each split gives its rows in the order of
    its own permutations, and begins its next epoch whenever its rows are used up.
    """

    def __init__(self, splits: Sequence[ShuffledRows], counts: Sequence[int], *, seed: int) -> None:
        """Take the splits, and how many rows of each period come from each split (see `rows_of_period`)."""
        self._splits = list(splits)
        self._counts_S = np.array(counts)
        self._pattern_P = np.repeat(np.arange(len(splits)), self._counts_S)
        np.random.default_rng([seed, len(splits)]).shuffle(self._pattern_P)
        # How many rows of its split come before each position of a period.
        self._ranks_P = np.empty_like(self._pattern_P)
        for number, count in enumerate(counts):
            self._ranks_P[self._pattern_P == number] = np.arange(count)

    def __len__(self) -> int:
        """Return the number of rows of all splits together."""
        return sum(map(len, self._splits))

    def gather(self, positions_B: np.ndarray, sequence_length: int) -> dict[str, np.ndarray]:
        """Return the rows at these positions of the endless order, as `TokenBlocks.gather` does."""
        periods_B, places_B = np.divmod(positions_B, PERIOD)
        splits_B = self._pattern_P[places_B]
        of_split_B = periods_B * self._counts_S[splits_B] + self._ranks_P[places_B]
        batch: dict[str, np.ndarray] = {}
        for number in np.unique(splits_B).tolist():
            here_B = splits_B == number
            for name, values in self._splits[number].gather(of_split_B[here_B], sequence_length).items():
                batch.setdefault(name, np.empty((len(positions_B), *values.shape[1:]), values.dtype))[here_B] = values
        return batch

    def epochs(self, num_rows: int) -> list[float]:
        """Return how many epochs of each split the first `num_rows` rows are."""
        shares_S = self._counts_S / PERIOD
        return [num_rows * share / len(split) for share, split in zip(shares_S, self._splits, strict=True)]


def rows_of_period(weights: Sequence[float]) -> list[int]:
    """Return how many of `PERIOD` rows come from each split: its share, rounded so that all add up, and at least one.

    Raises:
        UserError: if a weight is not a finite number above 0, or there are more splits than rows in a period.
    """
    if not all(0 < weight < float("inf") for weight in weights):
        raise UserError(f"the weights of CORPUS are {', '.join(map(str, weights))}: each must be a number above 0")
    if len(weights) > PERIOD:
        raise UserError(f"CORPUS has {len(weights)} parts: a mixture has at most {PERIOD}")
    exact_S = np.array(weights, np.float64) / sum(weights) * PERIOD
    counts_S = np.maximum(np.floor(exact_S).astype(np.int64), 1)
    while (missing := PERIOD - int(counts_S.sum())) > 0:
        counts_S[np.argsort(counts_S - exact_S, kind="stable")[:missing]] += 1
    while counts_S.sum() > PERIOD:
        counts_S[np.argmax(counts_S)] -= 1
    return counts_S.tolist()


def concatenated(splits: Sequence[TokenBlocks]) -> TokenBlocks:
    """Concatenate several small splits into one split in memory."""
    ends = np.cumsum([0, *(len(split.tokens) for split in splits)])
    offsets = [split.offsets[1:] + start for split, start in zip(splits, ends[:-1], strict=True)]
    return TokenBlocks(
        np.concatenate([split.tokens for split in splits]),
        np.concatenate([np.zeros(1, np.int64), *offsets]),
        np.concatenate([split.second_starts for split in splits]),
        max(split.vocab_size for split in splits),
    )

"""Pack several whole examples into one row: short documents otherwise leave a row mostly padding.

The algorithm is best-fit decreasing on the histogram of lengths (Krell et al. 2021, "Efficient sequence packing without
cross-contamination"), whose cost hardly grows with the number of examples.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from electra_jax.data.blocks import TokenBlocks


class Pattern(NamedTuple):
    """A number of rows, and the lengths of the examples that each of them holds."""

    rows: int
    lengths: tuple[int, ...]


def best_fit(counts: Sequence[int], row_length: int) -> list[Pattern]:
    """Put each example, the longest first, into the fullest row that has room for it, or else into a new row.

    Args:
        counts: `counts[n]` examples have n tokens, for n up to `row_length`; those without a token are left out.
        row_length: tokens of a row.
    """
    by_room: list[list[Pattern]] = [[] for _ in range(row_length)]

    def keep(rows: int, lengths: tuple[int, ...], room: int) -> None:
        if rows:
            by_room[room].append(Pattern(rows, lengths))

    for length in range(row_length, 0, -1):
        left = int(counts[length])
        for room in range(length, row_length + 1):
            if not left:
                break
            # Added one by one, examples of this length would fill a row before the next one with as much room.
            most = room // length
            if room == row_length:
                open_here = [Pattern(-(-left // most), ())]
            else:
                open_here, by_room[room] = by_room[room], []
            for rows, lengths in open_here:
                full = min(rows, left // most)
                keep(full, lengths + (length,) * most, room - most * length)
                rows, left = rows - full, left - full * most
                if rows and left:
                    keep(1, lengths + (length,) * left, room - left * length)
                    rows, left = rows - 1, 0
                keep(rows, lengths, room)
    return [pattern for patterns in by_room for pattern in patterns]


@dataclasses.dataclass(frozen=True)
class PackedRows:
    """Assign each example of a split to one of R rows.

    Attributes:
        blocks: the split.
        examples: numbers of its examples, those of a row one after another.
        offsets: int64 [R + 1]; row r holds the examples `examples[offsets[r]:offsets[r + 1]]`, at least one.
    """

    blocks: TokenBlocks
    examples: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        """Return R."""
        return len(self.offsets) - 1

    def gather(self, rows_B: np.ndarray, sequence_length: int) -> dict[str, np.ndarray]:
        """Return these rows, padded with 0: int32 [B, L] arrays under BERT's names, and `example_ids`.

        `example_ids` is 1 at the tokens of a row's first example, 2 at those of its second and so on, 0 at padding.
        """
        firsts_B = self.offsets[rows_B]
        counts_B = self.offsets[rows_B + 1] - firsts_B
        # The next arrays have one entry for each example of the batch, and then one for each token.
        examples = self.examples[ranges(firsts_B, counts_B)]
        starts = self.blocks.offsets[examples]
        lengths = self.blocks.offsets[examples + 1] - starts
        places = ranges(np.zeros_like(lengths), lengths)
        lengths_B = np.add.reduceat(lengths, np.cumsum(counts_B) - counts_B)
        real_BL = np.arange(sequence_length) < lengths_B[:, None]

        def laid_out(values: np.ndarray) -> np.ndarray:
            values_BL = np.zeros(real_BL.shape, np.int32)
            values_BL[real_BL] = values
            return values_BL

        return {
            "input_ids": laid_out(self.blocks.tokens[np.repeat(starts, lengths) + places]),
            "token_type_ids": laid_out(places >= np.repeat(self.blocks.second_starts[examples], lengths)),
            "attention_mask": real_BL.astype(np.int32),
            "example_ids": laid_out(np.repeat(ranges(np.ones_like(counts_B), counts_B), lengths)),
        }


def pack_rows(blocks: TokenBlocks, row_length: int, *, seed: int) -> PackedRows:
    """Pack all examples of a split, none longer than a row; `seed` decides which of equal length share a row."""
    lengths = np.diff(blocks.offsets).astype(np.min_scalar_type(row_length))
    counts = np.bincount(lengths, minlength=row_length + 1)
    # The spawn key keeps these draws apart from those of the same seed that shuffle rows.
    draw = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,)))
    # Neighbouring examples are often alike, such as the descriptions of a package's parts.
    shuffled = draw.permutation(len(lengths)).astype(np.min_scalar_type(len(lengths)))
    by_length = shuffled[np.argsort(lengths[shuffled], kind="stable")]
    given = np.cumsum(counts) - counts
    rows, sizes = [], []
    for pattern in best_fit(counts, row_length):
        columns = []
        for length in pattern.lengths:
            columns.append(by_length[given[length] :][: pattern.rows])
            given[length] += pattern.rows
        rows.append(np.stack(columns, axis=1).ravel())
        sizes.append(np.full(pattern.rows, len(pattern.lengths)))
    return PackedRows(blocks, np.concatenate(rows), np.cumsum(np.concatenate([[0], *sizes])))


def ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Count up from each start, as many numbers as its count says: [4, 9] and [2, 3] give [4, 5, 9, 10, 11]."""
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(counts.sum())

"""Grow the shapes of batches over the steps of a run, and cut rows to a smaller length."""

import dataclasses
import itertools
from typing import NamedTuple

import numpy as np

from electra_jax.errors import UserError

# [CLS] A [SEP] B [SEP], with a token in each segment.
SHORTEST_TARGET = 5

# (share of the steps, size) pairs: each size holds up to its share, and the full size after the last one.
Warmup = tuple[tuple[float, int], ...]


class BatchShape(NamedTuple):
    """The rows of a global batch and the tokens of a row."""

    batch_size: int
    sequence_length: int


class Stage(NamedTuple):
    """The updates from `start` up to `end`, whose batches have one shape."""

    start: int
    end: int
    shape: BatchShape


@dataclasses.dataclass(frozen=True)
class BatchShapes:
    """The shape of each batch of a run.

    Attributes:
        full: the shape after the warm-ups.
        batch_size_warmup: smaller numbers of rows at the beginning.
        sequence_length_warmup: smaller lengths at the beginning.
        num_steps: the steps of the run, to which shares refer.
    """

    full: BatchShape
    batch_size_warmup: Warmup
    sequence_length_warmup: Warmup
    num_steps: int

    def __post_init__(self) -> None:
        """Check the warm-ups.

        Raises:
            UserError: if shares or sizes do not increase, or they reach the whole run or the full size.
        """
        for name, warmup, full in (
            ("BATCH_SIZE", self.batch_size_warmup, self.full.batch_size),
            ("SEQUENCE_LENGTH", self.sequence_length_warmup, self.full.sequence_length),
        ):
            try:
                shares, sizes = [0.0], [0]
                for share, size in warmup:
                    shares.append(float(share))
                    sizes.append(int(size))
            except (TypeError, ValueError) as error:
                raise UserError(
                    f"{name}_WARMUP is {warmup!r}: it must hold (share of the steps, size) pairs, as in "
                    "((0.1, 32), (0.2, 64))"
                ) from error
            for what, values in (("shares of the steps", [*shares, 1.0]), (f"sizes up to {name}", [*sizes, full])):
                if any(low >= high for low, high in itertools.pairwise(values)):
                    raise UserError(f"{name}_WARMUP is {warmup!r}: the {what} must increase, {values[1:]}")

    def at(self, step: int) -> BatchShape:
        """Return the shape of the batch of an update, counted from 0."""

        def size(warmup: Warmup, full: int) -> int:
            return next((size for share, size in warmup if step < round(share * self.num_steps)), full)

        return BatchShape(
            size(self.batch_size_warmup, self.full.batch_size),
            size(self.sequence_length_warmup, self.full.sequence_length),
        )

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of the run, in order, none of them empty."""
        shares = {share for share, _ in (*self.batch_size_warmup, *self.sequence_length_warmup)}
        ends = sorted({round(share * self.num_steps) for share in shares} - {0} | {self.num_steps})
        return tuple(Stage(start, end, self.at(start)) for start, end in itertools.pairwise([0, *ends]))

    @property
    def changes(self) -> tuple[int, ...]:
        """The numbers of updates after which the shape changes."""
        return tuple(stage.start for stage in self.stages[1:])

    def num_rows(self, start: int, end: int) -> int:
        """Return how many rows the global batches of the updates from `start` up to `end`, counted from 0, have."""
        bounds = [start, *(change for change in self.changes if start < change < end), end]
        return sum((last - first) * self.at(first).batch_size for first, last in itertools.pairwise(bounds))


def cut(batch: dict[str, np.ndarray], length: int) -> dict[str, np.ndarray]:
    """Cut rows to a smaller length; an example that extends beyond it loses its end, but not its last token, [SEP].

    Args:
        batch: int32 [B, L] arrays under BERT's names, and `example_ids` where several examples share a row.
        length: tokens to keep, fewer than L.
    """
    examples_BL = batch.get("example_ids", batch["attention_mask"])
    # The examples of a row are consecutive, so the last token of one is the last place that has its number.
    last_B = examples_BL.shape[1] - 1 - np.argmax(examples_BL[:, ::-1] == examples_BL[:, length - 1 : length], axis=1)
    shorter = {name: values[:, :length].copy() for name, values in batch.items()}
    shorter["input_ids"][:, -1] = np.take_along_axis(batch["input_ids"], last_B[:, None], axis=1)[:, 0]
    return shorter

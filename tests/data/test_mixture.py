"""A mixture gives each split its share of the rows, and each of its rows once in an epoch of its own."""

import collections
from typing import Any

import numpy as np
import pytest

from electra_jax.data.batch_shapes import BatchShape, BatchShapes
from electra_jax.data.batches import BlockBatches, evaluation_batches
from electra_jax.data.blocks import TokenBlocks
from electra_jax.data.mixture import PERIOD, WeightedBlocks, concatenated, rows_of_period
from electra_jax.errors import UserError


def blocks(first: int, num_examples: int) -> TokenBlocks:
    """Return examples [n, n, n], n from `first` on."""
    ids = np.repeat(np.arange(first, first + num_examples, dtype=np.uint16), 3)
    return TokenBlocks(ids, np.arange(num_examples + 1) * 3, np.full(num_examples, 2), first + num_examples)


MIXTURE = [WeightedBlocks("a", blocks(1, 300), 3.0), WeightedBlocks("b", blocks(1001, 50), 1.0)]


def batches(**changes: Any) -> BlockBatches:
    options = {"batch_size": 32, "sequence_length": 4, "seed": 5, "process_index": 0, "process_count": 1}
    return BlockBatches(MIXTURE, **options | changes)


def numbers(iterator: BlockBatches, count: int) -> list[int]:
    return [number for _ in range(count) for number in next(iterator)["input_ids"][:, 0].tolist()]


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ((3.0, 1.0), [768, 256]),
        ((1, 1, 1), [342, 341, 341]),
        ((1e9, 1.0), [1023, 1]),
        ((1e9, 1e9, 1.0), [511, 512, 1]),
    ],
)
def test_shares_are_rounded_to_a_period(weights: tuple[float, ...], expected: list[int]) -> None:
    assert sum(expected) == PERIOD
    assert sorted(rows_of_period(weights)) == sorted(expected)


def test_each_split_has_its_share_and_its_own_epochs() -> None:
    read = numbers(batches(), 64)  # two periods: 1,536 rows of a in 5.12 epochs, 512 of b in 10.24
    counts = collections.Counter(read)
    of_a, of_b = ([counts[number] for number in range(*bounds)] for bounds in ((1, 301), (1001, 1051)))
    assert (sum(of_a), sum(of_b)) == (1536, 512)
    assert (set(of_a), set(of_b)) == ({5, 6}, {10, 11})
    assert batches().epochs(2048) == batches().epochs_after(64) == [5.12, 10.24]
    first = [number for number in read if number <= 300][:300]
    assert sorted(first) == list(range(1, 301))
    assert first != sorted(first)
    # Mixed throughout: no batch is of one split alone, and none is as another.
    for start in range(0, 2048, 32):
        assert 0 < sum(number > 1000 for number in read[start : start + 32]) < 24


def test_a_mixture_resumes_at_any_batch_and_with_any_number_of_processes() -> None:
    whole = batches()
    for _ in range(37):
        next(whole)
    state = whole.state()
    expected = next(whole)
    shares = [batches(process_index=index, process_count=4) for index in range(4)]
    for share in shares:
        share.restore(state)
    joined = [next(share) for share in shares]
    for name, values in expected.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in joined]), values)


def test_packed_rows_are_mixed_too() -> None:
    read = next(batches(sequence_length=6, packed=True))
    assert read["example_ids"].max() == 2
    sources = {(row[0] > 1000, row[3] > 1000) for row in read["input_ids"].tolist()}
    assert sources == {(False, False), (True, True)}
    shapes = BatchShapes(BatchShape(32, 4), ((0.5, 8),), (), num_steps=10)
    assert len(next(batches(shapes=shapes))["input_ids"]) == 8


def test_held_out_examples_of_all_splits_are_one() -> None:
    joined = concatenated([blocks(1, 3), blocks(0, 0), blocks(9, 2)])
    (batch,) = evaluation_batches(joined, batch_size=5, sequence_length=4, process_index=0, process_count=1)
    assert sorted(batch["input_ids"][:, 0].tolist()) == [1, 2, 3, 9, 10]
    assert batch["token_type_ids"].sum() == 5


@pytest.mark.parametrize("weights", [(1.0, 0.0), (1.0, float("nan")), (float("inf"), 1.0), (1.0,) * 1025])
def test_weights_that_are_no_shares(weights: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match="CORPUS"):
        rows_of_period(weights)

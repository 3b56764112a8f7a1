"""Batches that grow: stages by hand, rows that are cut, and a place in the data that is resumed in any stage."""

import itertools
import json
from typing import Any

import numpy as np
import pytest

from electra_jax.data.batch_shapes import BatchShape, BatchShapes, Stage, Warmup, cut
from electra_jax.data.batches import BlockBatches
from electra_jax.data.blocks import TokenBlocks
from electra_jax.errors import UserError

SEP = 99
LENGTH = 6


def shapes(batch_size: Warmup = (), sequence_length: Warmup = (), *, num_steps: int = 20) -> BatchShapes:
    return BatchShapes(BatchShape(8, LENGTH), batch_size, sequence_length, num_steps)


GROWING = shapes(((0.1, 2), (0.25, 4)), ((0.25, 3), (0.5, 4)))


def test_stages_by_hand() -> None:
    assert GROWING.stages == (
        Stage(0, 2, BatchShape(2, 3)),
        Stage(2, 5, BatchShape(4, 3)),
        Stage(5, 10, BatchShape(8, 4)),
        Stage(10, 20, BatchShape(8, 6)),
    )
    assert GROWING.changes == (2, 5, 10)
    assert [GROWING.at(step).sequence_length for step in (4, 5, 9, 10, 19, 20, 50)] == [3, 4, 4, 6, 6, 6, 6]
    assert shapes().stages == (Stage(0, 20, BatchShape(8, LENGTH)),)


def test_a_stage_that_is_shorter_than_a_step_is_left_out() -> None:
    assert shapes(((0.01, 2), (0.1, 4))).stages[0] == Stage(0, 2, BatchShape(4, LENGTH))


@pytest.mark.parametrize(
    ("warmup", "message"),
    [
        (((0.2, 2), (0.1, 4)), r"the shares of the steps must increase, \[0.2, 0.1, 1.0\]"),
        (((0.0, 2),), "the shares of the steps must increase"),
        (((1.0, 2),), "the shares of the steps must increase"),
        (((0.1, 4), (0.2, 4)), r"the sizes up to BATCH_SIZE must increase, \[4, 4, 8\]"),
        (((0.1, 8),), "the sizes up to BATCH_SIZE must increase"),
        (((0.1, 0),), "the sizes up to BATCH_SIZE must increase"),
        ((0.1, 4), r"BATCH_SIZE_WARMUP is \(0.1, 4\): it must hold \(share of the steps, size\) pairs"),
        (((0.1, "four"),), "it must hold"),
    ],
)
def test_warm_ups_that_are_none(warmup: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        shapes(warmup)


def batch(ids: list[list[int]], examples: list[list[int]] | None = None) -> dict[str, np.ndarray]:
    arrays = {"input_ids": np.array(ids, np.int32), "attention_mask": (np.array(ids) > 0).astype(np.int32)}
    return arrays if examples is None else arrays | {"example_ids": np.array(examples, np.int32)}


def test_an_example_that_is_cut_keeps_its_last_token() -> None:
    """Cut in its middle, before its last token, ending where the row is cut, and shorter."""
    whole = batch([[1, 5, 6, 7, 8, SEP], [1, 5, 6, SEP, 0, 0], [1, 5, SEP, 0, 0, 0], [1, SEP, 0, 0, 0, 0]])
    kept = whole["input_ids"].copy()
    shorter = cut(whole, 3)
    assert shorter["input_ids"].tolist() == [[1, 5, SEP], [1, 5, SEP], [1, 5, SEP], [1, SEP, 0]]
    assert shorter["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 0]]
    np.testing.assert_array_equal(whole["input_ids"], kept)


def test_of_a_packed_row_only_the_example_at_its_end_is_cut() -> None:
    whole = batch(
        [[1, 5, SEP, 1, 7, SEP], [1, 5, 6, SEP, 1, SEP], [1, SEP, 1, SEP, 0, 0]],
        [[1, 1, 1, 2, 2, 2], [1, 1, 1, 1, 2, 2], [1, 1, 2, 2, 0, 0]],
    )
    shorter = cut(whole, 5)
    assert shorter["input_ids"].tolist() == [[1, 5, SEP, 1, SEP], [1, 5, 6, SEP, SEP], [1, SEP, 1, SEP, 0]]
    assert shorter["example_ids"].tolist() == [[1, 1, 1, 2, 2], [1, 1, 1, 1, 2], [1, 1, 2, 2, 0]]


def growing_batches(**options: Any) -> BlockBatches:
    """Example n of 50 begins with n + 1 and ends with SEP."""
    tokens = np.array([[n + 1, 60, 61, 62, 63, SEP] for n in range(50)], np.uint32)
    blocks = TokenBlocks(tokens.ravel(), LENGTH * np.arange(51), np.full(50, LENGTH), SEP + 1)
    defaults = {"batch_size": 8, "sequence_length": LENGTH, "seed": 0, "process_index": 0, "process_count": 1}
    return BlockBatches(blocks, **defaults | {"shapes": GROWING} | options)


def test_batches_grow_and_take_each_example_once_an_epoch() -> None:
    taken = list(itertools.islice(growing_batches(), 12))
    sizes = [(2, 3)] * 2 + [(4, 3)] * 3 + [(8, 4)] * 5 + [(8, 6)] * 2
    assert [one["input_ids"].shape for one in taken] == sizes
    assert all((one["input_ids"][:, -1] == SEP).all() for one in taken)
    firsts = [int(first) for one in taken for first in one["input_ids"][:, 0]]
    assert sorted(firsts[:50]) == list(range(1, 51))
    plain = growing_batches(shapes=None)
    assert firsts[:64] == [int(first) for one in itertools.islice(plain, 8) for first in one["input_ids"][:, 0]]


def test_epochs_count_the_rows_of_each_stage_and_beyond_the_last() -> None:
    """Two batches of 2, three of 4, then of 8; an epoch is 50 rows."""
    after = [0, 4, 16, 24, 56, 80]
    assert [growing_batches().epochs_after(step) for step in (0, 2, 5, 6, 10, 13)] == [[rows / 50] for rows in after]
    resumed = growing_batches()
    resumed.restore({"examples": 8, "step": 3})
    assert [resumed.epochs_after(step) for step in (3, 6)] == [[8 / 50], [24 / 50]]


@pytest.mark.parametrize("done", [1, 2, 4, 7, 11])
def test_a_place_in_any_stage_is_resumed_with_another_number_of_processes(done: int) -> None:
    whole = growing_batches()
    for _ in range(done):
        next(whole)
    state = json.loads(json.dumps(whole.state()))
    halves = [growing_batches(process_index=index, process_count=2) for index in (0, 1)]
    for half in halves:
        half.restore(state)
    for expected in itertools.islice(whole, 12 - done):
        parts = [next(half) for half in halves]
        for name, values in expected.items():
            np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), values)


def test_every_batch_must_divide_among_the_processes() -> None:
    with pytest.raises(UserError, match="A batch of 2 cannot be divided among 4"):
        growing_batches(process_count=4)

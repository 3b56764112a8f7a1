"""Batches of rows of different lengths: each row once an epoch, in an order that can be taken up anywhere."""

import itertools

import numpy as np
import pytest

from electra_jax.data.buckets import (
    Row,
    TrainingBatches,
    bucket_of,
    epoch_order,
    in_order_of_length,
    padded_lengths,
    stack,
)

BUCKETS = (8, 16, 32)
POOL_BATCHES = 6
Batch = dict[str, np.ndarray]


def rows_of(lengths: list[int]) -> list[Row]:
    """Row n holds its own number + 1 everywhere, so that it is known again in a batch."""
    return [
        {
            "input_ids": np.full(length, number + 1, np.int32),
            "token_type_ids": np.ones(length, np.int32),
            "label_mask": np.ones(length, np.float32),
            "label": np.array(number, np.int32),
        }
        for number, length in enumerate(lengths)
    ]


def random_rows(count: int, *, longest: int = 32) -> list[Row]:
    return rows_of(np.random.default_rng(0).integers(3, longest + 1, count).tolist())


def batches(rows: list[Row], *, batch_size: int = 4, seed: int = 0, step: int = 0) -> TrainingBatches:
    return TrainingBatches(rows, batch_size, BUCKETS, POOL_BATCHES, seed, step)


def numbers_of(batch: Batch) -> list[int]:
    return batch["label"][batch["row_weight"] == 1].tolist()


def padded_tokens(found: list[Batch]) -> int:
    return sum(int((1 - batch["attention_mask"]).sum()) for batch in found)


def test_a_row_goes_to_the_shortest_bucket_that_holds_it() -> None:
    assert [bucket_of(length, BUCKETS) for length in (1, 8, 9, 16, 32, 33, 100)] == [8, 8, 16, 16, 32, 33, 100]


def test_stacking_by_hand() -> None:
    batch = stack(rows_of([3, 1]), length=4, size=3)
    np.testing.assert_array_equal(batch["input_ids"], [[1, 1, 1, 0], [2, 0, 0, 0], [2, 0, 0, 0]])
    np.testing.assert_array_equal(batch["attention_mask"], [[1, 1, 1, 0], [1, 0, 0, 0], [1, 0, 0, 0]])
    np.testing.assert_array_equal(batch["token_type_ids"], batch["attention_mask"])
    np.testing.assert_array_equal(batch["label"], [0, 1, 1])
    np.testing.assert_array_equal(batch["row_weight"], [1, 1, 0])
    dtypes = {name: values.dtype for name, values in batch.items()}
    assert {name for name, dtype in dtypes.items() if dtype == np.float32} == {"label_mask", "row_weight"}
    assert all(dtype in (np.int32, np.float32) for dtype in dtypes.values())


def test_labels_of_a_whole_row_are_not_padded() -> None:
    """More labels than tokens, as few as tokens, or none."""
    for number in (9, 4, 1):
        rows = [row | {"labels": np.full(number, place, np.float32)} for place, row in enumerate(rows_of([4, 3]))]
        batch = stack(rows, length=8, size=3)
        assert batch["labels"].tolist() == [[0.0] * number, [1.0] * number, [1.0] * number]


@pytest.mark.parametrize("count", [1, 3, 4, 5, 4 * POOL_BATCHES * 2 + 7])
def test_every_row_once_an_epoch(count: int) -> None:
    """Also over several pools; the batch that is not full is filled up, and is one of each epoch."""
    rows = random_rows(count)
    stream = batches(rows)
    assert stream.batches_per_epoch == -(-count // 4)
    for _ in range(2):
        epoch = list(itertools.islice(stream, stream.batches_per_epoch))
        assert sorted(number for batch in epoch for number in numbers_of(batch)) == list(range(count))
        assert all(len(batch["label"]) == 4 for batch in epoch)
        sizes = sorted(int(batch["row_weight"].sum()) for batch in epoch)
        assert sizes == sorted([4] * (count // 4) + ([count % 4] if count % 4 else []))


def test_rows_arrive_whole_in_the_shortest_bucket() -> None:
    rows = random_rows(50)
    for batch in itertools.islice(batches(rows), 13):
        longest = 0
        for number, ids, mask in zip(batch["label"], batch["input_ids"], batch["attention_mask"], strict=True):
            size = len(rows[number]["input_ids"])
            assert (ids[:size] == number + 1).all()
            assert not ids[size:].any()
            assert mask.sum() == size
            longest = max(longest, size)
        assert batch["input_ids"].shape[1] == bucket_of(longest, BUCKETS)


def test_a_row_longer_than_any_bucket_is_not_cut() -> None:
    rows = rows_of([40, 5, 33, 6])
    shapes = [batch["input_ids"].shape[1] for batch in itertools.islice(batches(rows, batch_size=1), 4)]
    assert sorted(shapes) == [8, 8, 33, 40]
    lengths = [batch["input_ids"].shape[1] for _, batch in in_order_of_length(rows, batch_size=2, buckets=BUCKETS)]
    assert lengths == [40, 8]


def test_the_order_is_of_seed_and_epoch_alone() -> None:
    rows = random_rows(60)

    def order(seed: int, epochs: int = 2) -> list[list[int]]:
        stream = batches(rows, seed=seed)
        return [numbers_of(batch) for batch in itertools.islice(stream, epochs * stream.batches_per_epoch)]

    first, again, other = order(0), order(0), order(1)
    assert first == again
    assert first[:15] != first[15:]
    assert first[:15] != other[:15]
    # Rows meet others in the next epoch, not only in another order of the same batches.
    assert {frozenset(batch) for batch in first[:15]} != {frozenset(batch) for batch in first[15:]}


@pytest.mark.parametrize("step", [0, 1, 14, 15, 16, 29, 44])
def test_resumed_at_any_step(step: int) -> None:
    rows = random_rows(59)
    whole = list(itertools.islice(batches(rows), step + 20))
    resumed = batches(rows, step=step)
    for expected in whole[step:]:
        found = next(resumed)
        assert found.keys() == expected.keys()
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name])
    assert resumed.step == step + 20


@pytest.mark.parametrize("seed", range(5))
def test_sorting_saves_padding(seed: int) -> None:
    """Rows are padded as little as if they were sorted by their lengths, and half as much as in a random order."""
    draw = np.random.default_rng(seed)
    lengths = np.clip(draw.lognormal(2.3, 0.7, 704).astype(int), 3, 32)
    rows = rows_of(lengths.tolist())

    def cut(order: np.ndarray) -> list[Batch]:
        batches = order.reshape(-1, 8)
        return [
            stack([rows[n] for n in batch], length=bucket_of(lengths[batch].max(), BUCKETS), size=8)
            for batch in batches
        ]

    stream = TrainingBatches(rows, 8, BUCKETS, 88, seed, 0)
    ours = padded_tokens(list(itertools.islice(stream, 88)))
    assert ours == padded_tokens(cut(np.argsort(lengths)))
    assert ours < padded_tokens(cut(draw.permutation(704))) / 2


def meetings(padded: np.ndarray, *, epochs: int, **settings: int) -> float:
    """The share of the pairs of rows in one batch that are in one batch of the next epoch too."""
    met = again = 0
    before: set[tuple[int, int]] = set()
    for epoch in range(epochs):
        order = epoch_order(padded, seed=0, epoch=epoch, **settings)
        pairs = {pair for batch in order for pair in itertools.combinations(sorted(batch.tolist()), 2)}
        if epoch:
            met, again = met + len(pairs), again + len(pairs & before)
        before = pairs
    return again / met


@pytest.mark.parametrize(
    ("shares", "pool_batches", "chance"),
    [
        # Of 256 rows of one length, 255 others may be among a row's 15 mates.
        ([256], 64, 15 / 255),
        ([256, 256], 64, 15 / 255),
        ([512], 8, 15 / 511),
        # Batches of all rows, whatever their length.
        ([256, 256], 1, 15 / 511),
    ],
)
def test_mates_meet_again_by_chance(shares: list[int], pool_batches: int, chance: float) -> None:
    """Also where all rows are of one pool; those of a length may be of any order."""
    padded = np.repeat(BUCKETS[: len(shares)], shares)
    assert meetings(padded, epochs=20, batch_size=16, pool_batches=pool_batches) == pytest.approx(chance, rel=0.08)


def test_any_batch_may_be_the_small_one() -> None:
    """Of 4 rows of each length and 2 more of the longest, which was always the small batch."""
    padded = padded_lengths(rows_of([5] * 4 + [9] * 4 + [20] * 6), BUCKETS)
    assert padded.tolist() == [8] * 4 + [16] * 4 + [32] * 6
    small = []
    for epoch in range(200):
        order = epoch_order(padded, batch_size=4, pool_batches=64, seed=0, epoch=epoch)
        (batch,) = [batch for batch in order if len(batch) == 2]
        small.append(int(padded[batch].max()))
    counts = {length: small.count(length) for length in BUCKETS}
    # A batch in four of the first two lengths; standard deviation 6.
    assert all(30 < counts[length] < 70 for length in (8, 16))
    assert sum(counts.values()) == 200


def test_a_pool_is_sorted_and_its_batches_shuffled() -> None:
    padded = padded_lengths(random_rows(4 * POOL_BATCHES), BUCKETS)
    order = epoch_order(padded, batch_size=4, pool_batches=POOL_BATCHES, seed=0, epoch=0)
    longest = [int(padded[batch].max()) for batch in order]
    shortest = [int(padded[batch].min()) for batch in order]
    by_length = sorted(zip(shortest, longest, strict=True))
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(by_length))
    assert longest != sorted(longest)


@pytest.mark.parametrize("count", [0, 1, 8, 9])
def test_evaluation_covers_each_row_once(count: int) -> None:
    rows = random_rows(count)
    seen = []
    for numbers, batch in in_order_of_length(rows, batch_size=4, buckets=BUCKETS):
        assert numbers_of(batch) == numbers.tolist()
        assert len(batch["label"]) == 4
        longest = max(len(rows[number]["input_ids"]) for number in numbers)
        assert batch["input_ids"].shape[1] == bucket_of(longest, BUCKETS)
        seen += numbers.tolist()
    assert sorted(seen) == list(range(count))

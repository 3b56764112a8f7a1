"""Iterators: every example once an epoch, split among processes, resumed exactly, prefetched without a trace."""

import collections
import itertools
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import seqio

from electra_jax.data.batches import Batch, BatchIterator, BlockBatches, Prefetch, evaluation_batches, whole_state
from electra_jax.data.blocks import TokenBlocks
from electra_jax.errors import UserError
from electra_jax.tasks.host_tensorflow import tf
from electra_jax.tasks.pretraining.streams import StreamBatches, reading

LENGTH = 6


def _blocks(num_examples: int) -> TokenBlocks:
    """Example n is [n + 1] * (1 + n % LENGTH)."""
    lengths = 1 + np.arange(num_examples) % LENGTH
    tokens = np.repeat(np.arange(1, num_examples + 1), lengths).astype(np.uint32)
    return TokenBlocks(tokens, np.concatenate([[0], np.cumsum(lengths)]), lengths // 2, num_examples + 1)


def _block_batches(num_examples: int = 50, **options: Any) -> BlockBatches:
    defaults = {"batch_size": 8, "sequence_length": LENGTH, "seed": 0, "process_index": 0, "process_count": 1}
    return BlockBatches(_blocks(num_examples), **defaults | options)


def _examples(batches: Iterator[Batch], num_batches: int) -> list[int]:
    return [int(i) for batch in itertools.islice(batches, num_batches) for i in batch["input_ids"][:, 0]]


def test_each_example_once_an_epoch_in_another_order_each() -> None:
    seen = _examples(_block_batches(), 25)
    epochs = [seen[i : i + 50] for i in range(0, 200, 50)]
    assert all(sorted(epoch) == list(range(1, 51)) for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 4
    assert seen == _examples(_block_batches(), 25)
    assert seen != _examples(_block_batches(seed=1), 25)


def test_a_batch_may_reach_into_the_next_epoch_and_no_further() -> None:
    seen = _examples(_block_batches(9, batch_size=8), 18)
    assert all(sorted(seen[start : start + 9]) == list(range(1, 10)) for start in range(0, 144, 9))
    assert sorted(_examples(_block_batches(8, batch_size=8), 1)) == list(range(1, 9))
    with pytest.raises(UserError, match="7 examples, fewer than a batch of 8"):
        _block_batches(7, batch_size=8)


@pytest.mark.parametrize("process_count", [2, 4, 8])
def test_processes_share_each_global_batch(process_count: int) -> None:
    whole = _block_batches()
    parts = [_block_batches(process_index=p, process_count=process_count) for p in range(process_count)]
    for _ in range(20):
        expected = next(whole)
        shares = [next(part) for part in parts]
        for key, values_BL in expected.items():
            np.testing.assert_array_equal(np.concatenate([share[key] for share in shares]), values_BL)


def test_epochs_are_of_the_steps_trained_on_and_go_on_where_a_run_resumes() -> None:
    """50 examples in batches of 8: 25 steps are 4 epochs."""
    batches = _block_batches()
    assert [batches.epochs_after(step) for step in (0, 5, 25)] == [[0.0], [0.8], [4.0]]
    _examples(batches, 9)  # read ahead of step 5
    assert batches.epochs_after(5) == [0.8]
    half = _block_batches(process_index=1, process_count=2)
    half.restore(batches.state())
    assert [half.epochs_after(step) for step in (9, 25)] == [[72 / 50], [4.0]]
    # Of a run that had larger batches until then.
    half.restore({"examples": 250, "step": 9})
    assert [half.epochs_after(step) for step in (9, 14)] == [[5.0], [5.8]]


def test_a_state_restores_with_another_number_of_processes() -> None:
    whole = _block_batches()
    _examples(whole, 9)
    state = json.loads(json.dumps(whole.state()))
    assert state == {"examples": 72, "step": 9}
    expected = _examples(whole, 9)
    halves = [_block_batches(process_index=p, process_count=2) for p in (0, 1)]
    for half in halves:
        half.restore(state)
    resumed = [example for _ in range(9) for half in halves for example in _examples(half, 1)]
    assert resumed == expected


@pytest.mark.parametrize("process_count", [1, 2])
@pytest.mark.parametrize("num_examples", [1, 3, 4, 5, 15, 16, 17])
def test_evaluation_reads_each_example_once(num_examples: int, process_count: int) -> None:
    options = {"batch_size": 4, "sequence_length": LENGTH, "process_count": process_count}
    parts = [list(evaluation_batches(_blocks(num_examples), process_index=p, **options)) for p in range(process_count)]
    assert {len(part) for part in parts} == {-(-num_examples // 4)}
    batches = [{key: np.concatenate([b[key] for b in group]) for key in group[0]} for group in zip(*parts, strict=True)]
    assert all(batch["input_ids"].shape == (4, LENGTH) for batch in batches)
    ids_NL = np.concatenate([batch["input_ids"] for batch in batches])
    mask_NL = np.concatenate([batch["attention_mask"] for batch in batches])
    numbers_N = ids_NL[:num_examples, 0].tolist()
    assert sorted(numbers_N) == list(range(1, num_examples + 1))
    # A fixed permutation, whoever reads it.
    whole = evaluation_batches(_blocks(num_examples), process_index=0, **options | {"process_count": 1})
    assert [batch["input_ids"][:, 0].tolist() for batch in whole] == ids_NL[:, 0].reshape(-1, 4).tolist()
    assert num_examples < 8 or numbers_N != sorted(numbers_N)
    assert not ids_NL[num_examples:].any()
    assert not mask_NL[num_examples:].any()
    assert mask_NL[:num_examples].sum() == sum(1 + n % LENGTH for n in range(num_examples))


def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(UserError, match="no example"):
        _block_batches(0)
    with pytest.raises(UserError, match="no example"):
        next(evaluation_batches(_blocks(0), batch_size=4, sequence_length=4, process_index=0, process_count=1))
    with pytest.raises(UserError, match="cannot be divided"):
        _block_batches(process_count=3)
    with pytest.raises(UserError, match="6 tokens, more than the sequence length of 5"):
        _block_batches(sequence_length=5)


@pytest.fixture
def task() -> Iterator[str]:
    """A task of 40 examples [n, ..., n] with a random number in each, in four shards."""

    class Source(seqio.DataSource):
        supports_arbitrary_sharding = False

        def list_shards(self, split: str) -> list[str]:
            return ["0", "1", "2", "3"]

        def get_dataset(
            self, split: str, shuffle: bool, seed: int | None, shard_info: seqio.ShardInfo | None = None
        ) -> tf.data.Dataset:
            shard_info = shard_info or seqio.ShardInfo(0, 1)
            numbers = list(range(1, 41 if split == "train" else 1))
            numbers = numbers[shard_info.index :: shard_info.num_shards]
            dataset = tf.data.Dataset.from_tensor_slices(np.array(numbers, np.int32))
            return dataset.map(lambda n: {"input_ids": tf.fill([1 + n % LENGTH], n)})

    @seqio.map_over_dataset(num_seeds=1)
    def draw(features: dict[str, tf.Tensor], seed: tf.Tensor) -> dict[str, tf.Tensor]:
        return features | {"draw": tf.random.stateless_uniform([1], seed, 0, 2**30, tf.int32)}

    number = seqio.Feature(seqio.PassThroughVocabulary(0), add_eos=False)
    seqio.TaskRegistry.add(
        "stream_test",
        Source(splits=("train", "validation")),
        output_features={"input_ids": number, "draw": number},
        preprocessors=[draw],
    )
    seqio.MixtureRegistry.add("stream_test_mixture", [("stream_test", 1)])
    yield "stream_test"
    seqio.TaskRegistry.remove("stream_test")
    seqio.MixtureRegistry.remove("stream_test_mixture")


def _stream(name: str, **options: int | str) -> StreamBatches:
    defaults = {"split": "train", "use_cached": False, "batch_size": 12, "seed": 2**31 - 1} | {
        "feature_lengths": {"input_ids": LENGTH, "draw": 1},
        "process_index": 0,
        "process_count": 1,
    }
    return StreamBatches(name, **defaults | options)


def test_a_stream_has_each_example_once_an_epoch(task: str) -> None:
    batches = list(itertools.islice(_stream(task), 10))
    assert all(batch["input_ids"].shape == (12, LENGTH) for batch in batches)
    seen = [int(i) for batch in batches for i in batch["input_ids"][:, 0]]
    epochs = [seen[i : i + 40] for i in (0, 40, 80)]
    assert all(sorted(epoch) == list(range(1, 41)) for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 3
    draws = [int(i) for batch in batches for i in batch["draw"][:, 0]]
    assert len(set(draws)) == 120


def test_a_mixture_streams_too(task: str) -> None:
    seen = _examples(_stream("stream_test_mixture"), 10)
    assert sorted(seen) == sorted([*range(1, 41)] * 3)


def test_processes_share_an_epoch_of_a_stream(task: str) -> None:
    parts = [_stream(task, process_index=p, process_count=2, batch_size=10) for p in (0, 1)]
    seen = [example for part in parts for example in _examples(part, 4)]
    assert sorted(seen) == list(range(1, 41))


@pytest.mark.parametrize("began", [1, 2, 4])
@pytest.mark.parametrize("goes_on", [1, 2, 4])
def test_a_stream_goes_on_with_another_number_of_processes(task: str, began: int, goes_on: int) -> None:
    # With shares of 10 and 12 rows of a batch a process is in another epoch than another, at one time or another.
    def group(count: int) -> list[StreamBatches]:
        return [_stream(task, process_index=p, process_count=count, batch_size=12) for p in range(count)]

    def batch(parts: list[StreamBatches]) -> dict[str, list[list[int]]]:
        shares = [next(part) for part in parts]
        return {key: np.concatenate([share[key] for share in shares]).tolist() for key in shares[0]}

    first, second = group(began), group(goes_on)
    seen = [batch(first) for _ in range(4)]
    state = json.loads(json.dumps(whole_state([part.state() for part in first])))
    for part in second:
        part.restore(state)
    for _ in range(8):
        expected = batch(first)
        assert batch(second) == expected
        seen.append(expected)
    assert whole_state([part.state() for part in second]) == whole_state([part.state() for part in first])
    # Of three epochs and 24 rows of the fourth, every example came three times at least.
    counts = collections.Counter(row[0] for one in seen for row in one["input_ids"])
    assert sorted(counts) == list(range(1, 41))
    assert set(counts.values()) <= {3, 4}


def test_a_stream_that_processes_cannot_share(task: str) -> None:
    two = _stream(task, process_index=0, process_count=2, batch_size=12)
    with pytest.raises(UserError, match="began with 3 processes, and 2 cannot share"):
        two.restore({"readers": 3, "places": {}})
    # 40 examples over four processes: ten for each, in an epoch.
    four = _stream(task, process_index=1, process_count=4, batch_size=44)
    with pytest.raises(UserError, match=r"10 example.* for process 1 of 4, fewer than its 11 rows of a batch"):
        next(four)


def test_processes_without_files_of_their_own_are_told(task: str, caplog: pytest.LogCaptureFixture) -> None:
    assert len(_examples(_stream(task, process_index=7, process_count=8, batch_size=16), 2)) == 4
    assert "stream_test has 4 file(s) in its train split, fewer than the 8 processes" in caplog.text


@pytest.mark.parametrize("num_batches", [0, 1, 3, 4, 10])
def test_a_stream_resumes(task: str, num_batches: int) -> None:
    first = _stream(task)
    _examples(first, num_batches)
    state = json.loads(json.dumps(first.state()))
    second = _stream(task)
    second.restore(state)
    for _ in range(5):
        expected, resumed = next(first), next(second)
        for key, values in expected.items():
            np.testing.assert_array_equal(resumed[key], values)
        assert first.state() == second.state()


def test_streams_that_cannot_be_read_are_refused(task: str) -> None:
    with pytest.raises(UserError, match=r"no task or mixture strem_test; there are: .*stream_test"):
        _stream("strem_test")
    with pytest.raises(UserError, match="no example"):
        next(_stream(task, split="validation"))


@pytest.mark.parametrize("kind", ["blocks", "stream"])
def test_prefetching_changes_neither_batches_nor_states(task: str, kind: str) -> None:
    def make() -> BatchIterator:
        return _block_batches() if kind == "blocks" else _stream(task)

    plain = make()
    with Prefetch(make(), depth=3) as ahead:
        assert ahead.state() == plain.state()
        states = []
        for _ in range(12):
            np.testing.assert_array_equal(next(ahead)["input_ids"], next(plain)["input_ids"])
            states.append(ahead.state())
            assert ahead.state() == plain.state()
        ahead.restore(states[4])
        plain.restore(states[4])
        for _ in range(3):
            np.testing.assert_array_equal(next(ahead)["input_ids"], next(plain)["input_ids"])


def test_prefetching_runs_ahead_by_its_depth_and_ends() -> None:
    made = collections.deque()

    class Counting(BlockBatches):
        def __next__(self) -> Batch:
            made.append(threading.current_thread().name)
            return super().__next__()

    ahead = Prefetch(
        Counting(_blocks(9), batch_size=2, sequence_length=LENGTH, seed=0, process_index=0, process_count=1), depth=2
    )
    deadline = time.monotonic() + 10
    while len(made) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    # Two that wait and one in the thread's hand.
    assert list(made) == ["prefetch"] * 3
    ahead.close()
    ahead.close()
    assert not any(thread.name == "prefetch" for thread in threading.enumerate())
    with pytest.raises(RuntimeError, match="closed"):
        next(ahead)


def test_an_exception_in_the_thread_reaches_the_consumer_in_its_place() -> None:
    class Failing(BlockBatches):
        def __next__(self) -> Batch:
            if self.state()["examples"] >= 16:
                raise UserError("the disk is gone")
            return super().__next__()

    inner = Failing(_blocks(50), batch_size=8, sequence_length=LENGTH, seed=0, process_index=0, process_count=1)
    with Prefetch(inner, depth=4) as ahead:
        assert _examples(ahead, 2) == _examples(_block_batches(), 2)
        for _ in range(2):
            with pytest.raises(UserError, match="the disk is gone"):
                next(ahead)
        assert ahead.state() == {"examples": 16, "step": 2}


def test_tensorflow_sees_no_accelerator() -> None:
    assert {device.device_type for device in tf.config.get_visible_devices()} == {"CPU"}


def test_records_that_cannot_be_read_are_one_sentence_and_a_users_own_code_keeps_its_traceback() -> None:
    for error in (tf.errors.InvalidArgumentError, tf.errors.NotFoundError, tf.errors.DataLossError):
        with (
            pytest.raises(UserError, match=r"x reads is damaged, gone or not of its kind \(no input_ids\)"),
            reading("x"),
        ):
            raise error(None, None, "no input_ids")
    with pytest.raises(tf.errors.UnknownError), reading("x"):
        raise tf.errors.UnknownError(None, None, "ValueError: own\nTraceback (most recent call last):\n")

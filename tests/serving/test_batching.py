"""Requests that wait are answered in one call, in their order, and what fails is told to those who asked."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from electra_jax.inference.input_files import Item
from electra_jax.inference.prediction import Record
from electra_jax.serving.batching import Batcher, QueueFullError


class Model:
    """Answers each input by its index, and holds the first call until it is let go."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, items: Sequence[Item]) -> list[Record]:
        self.calls.append([item.index for item in items])
        self.begun.set()
        assert self.go.wait(10)
        if any(item.index < 0 for item in items):
            raise RuntimeError("lost")
        return [{"index": item.index} for item in items]


def items(*numbers: int) -> list[Item]:
    return [Item(number) for number in numbers]


async def until_begun(model: Model) -> None:
    assert await asyncio.to_thread(model.begun.wait, 10)


def test_requests_that_came_during_a_batch_are_the_next_one() -> None:
    model = Model()

    async def scenario() -> list[list[Record]]:
        batcher = Batcher(model, batch_size=4, max_wait=0.0, max_queue=100)
        async with batcher.running():
            asked = [asyncio.create_task(batcher.ask(items(0)))]
            await until_begun(model)
            asked += [asyncio.create_task(batcher.ask(items(*numbers))) for numbers in ((1,), (2, 3), (4,), (5,), (6,))]
            await asyncio.sleep(0)
            assert batcher.waiting == 6
            model.go.set()
            return await asyncio.gather(*asked)

    records = asyncio.run(scenario())
    assert model.calls == [[0], [1, 2, 3, 4], [5, 6]]
    assert [[one["index"] for one in found] for found in records] == [[0], [1], [2, 3], [4], [5], [6]]


@pytest.mark.parametrize(("wait", "calls"), [(30.0, [[0, 1]]), (0.0, [[0], [1]])])
def test_a_request_waits_for_others_as_long_as_it_is_told(wait: float, calls: list[list[int]]) -> None:
    model = Model()
    model.go.set()

    async def scenario() -> None:
        batcher = Batcher(model, batch_size=2, max_wait=wait, max_queue=100)
        async with batcher.running():
            first = asyncio.create_task(batcher.ask(items(0)))
            await asyncio.sleep(0.2)
            await asyncio.gather(first, batcher.ask(items(1)))

    asyncio.run(asyncio.wait_for(scenario(), 10))
    assert model.calls == calls


def test_a_batch_that_fails_fails_its_requests_alone() -> None:
    model = Model()
    model.go.set()

    async def scenario() -> list[Record]:
        batcher = Batcher(model, batch_size=1, max_wait=0.0, max_queue=100)
        async with batcher.running():
            with pytest.raises(RuntimeError, match="lost"):
                await batcher.ask(items(-1))
            return await batcher.ask(items(1))

    assert asyncio.run(scenario()) == [{"index": 1}]


def test_a_full_queue_refuses_and_has_room_again() -> None:
    model = Model()

    async def scenario() -> None:
        batcher = Batcher(model, batch_size=8, max_wait=0.0, max_queue=3)
        async with batcher.running():
            first = asyncio.create_task(batcher.ask(items(0)))
            await until_begun(model)
            second = asyncio.create_task(batcher.ask(items(1, 2)))
            await asyncio.sleep(0)
            with pytest.raises(QueueFullError, match="2 inputs wait already, of at most 3"):
                await batcher.ask(items(3, 4))
            third = asyncio.create_task(batcher.ask(items(5)))
            # One who no longer waits does not disturb the others.
            await asyncio.sleep(0)
            second.cancel()
            model.go.set()
            assert await asyncio.gather(first, third) == [[{"index": 0}], [{"index": 5}]]
            assert await batcher.ask(items(6, 7, 8)) == [{"index": 6}, {"index": 7}, {"index": 8}]

    asyncio.run(scenario())

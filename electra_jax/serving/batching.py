"""Join the inputs of waiting requests into one call of the model."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from electra_jax.inference.items import Item
from electra_jax.inference.prediction import Record

Answer = Callable[[Sequence[Item]], list[Record]]


class QueueFullError(Exception):
    """Raised if the queue has no room for a request; the message says how many inputs wait."""


class Asked(NamedTuple):
    """Hold the inputs of a request, its time of arrival by the loop's clock, and the future that gets the records."""

    items: Sequence[Item]
    time: float
    records: asyncio.Future[list[Record]]


class Batcher:
    """Answer requests in their order, one batch after another; a batch is one or more whole requests.

    While a batch is computed, the next requests gather, so a busy server forms large batches without waiting.
    """

    def __init__(self, answer: Answer, *, batch_size: int, max_wait: float, max_queue: int) -> None:
        """Prepare an empty queue; `running` answers its requests.

        Args:
            answer: a function that returns a record for each input. It is called in a separate thread, one call at a
                time.
            batch_size: the number of inputs from which a batch takes no further request.
            max_wait: how long a request waits for others to join it, seconds. The time that it waits for the previous
                batch counts.
            max_queue: the most inputs that may wait.
        """
        self._answer = answer
        self._batch_size = batch_size
        self._max_wait = max_wait
        self._max_queue = max_queue
        self._queue: asyncio.Queue[Asked] = asyncio.Queue()
        self.waiting = 0

    async def ask(self, items: Sequence[Item]) -> list[Record]:
        """Return a record for each input of a request, in their order.

        Raises:
            QueueFullError: if the queue has no room for them.
        """
        if self.waiting + len(items) > self._max_queue:
            raise QueueFullError(f"{self.waiting} inputs wait already, of at most {self._max_queue}")
        loop = asyncio.get_running_loop()
        asked = Asked(items, loop.time(), loop.create_future())
        self.waiting += len(items)
        self._queue.put_nowait(asked)
        return await asked.records

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answer requests until the end of the `async with` block."""
        with ThreadPoolExecutor(1, "model") as thread:
            task = asyncio.create_task(self._answer_all(thread))
            try:
                yield
            finally:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def _answer_all(self, thread: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = await self._next_batch()
            items = [item for asked in batch for item in asked.items]
            try:
                records = await loop.run_in_executor(thread, self._answer, items)
            except Exception as error:
                for asked in batch:
                    settle(asked.records, error)
                continue
            for asked in batch:
                settle(asked.records, records[: len(asked.items)])
                records = records[len(asked.items) :]

    async def _next_batch(self) -> list[Asked]:
        """Return the next request, and those that arrive before its wait ends, until there are enough inputs."""
        batch = [await self._queue.get()]
        end = batch[0].time + self._max_wait
        while sum(len(asked.items) for asked in batch) < self._batch_size:
            try:
                async with asyncio.timeout_at(end):
                    batch.append(await self._queue.get())
            except TimeoutError:
                break
        self.waiting -= sum(len(asked.items) for asked in batch)
        return batch


def settle(future: asyncio.Future[list[Record]], result: list[Record] | Exception) -> None:
    """Set the result or the exception of a future, unless its client has disconnected."""
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)

"""Join the inputs of requests that wait into one call of the model."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from electra_jax.inference.items import Item
from electra_jax.inference.prediction import Record

Answer = Callable[[Sequence[Item]], list[Record]]


class QueueFullError(Exception):
    """A request found no room in the queue; the message says how many inputs wait."""


class Asked(NamedTuple):
    """Hold the inputs of a request, when it came by the loop's clock, and the future that gets the records."""

    items: Sequence[Item]
    time: float
    records: asyncio.Future[list[Record]]


class Batcher:
    """Answer requests one batch after another, in their order; a batch is one or more whole requests.

    While a batch is computed the next requests gather, so that a busy server forms large batches without waiting.
    """

    def __init__(self, answer: Answer, *, batch_size: int, max_wait: float, max_queue: int) -> None:
        """Prepare an empty queue; `running` answers it.

        Args:
            answer: returns a record for each input. It is called in a thread of its own, one call at a time.
            batch_size: a batch takes no further request once it holds so many inputs.
            max_wait: how long a request waits for others to join it, seconds; where it has waited so long for the
                batch before, it is answered at once.
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
        """Answer requests until the end of the body."""
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
        """Return the next request with those that came, or come within the wait, until there are enough inputs."""
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
    """Give a future its result, unless the one who waited for it has gone."""
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)

"""Count the requests and inputs of a server, for Prometheus."""

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
INPUTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """Hold the counters of one server.

    Attributes:
        inputs: the number of inputs that were answered, with a record or an error.
        cut: the number of texts that did not fit into a row and were cut.
        batch: a histogram of the number of inputs in a batch.
        waiting: the number of inputs in the queue.
    """

    def __init__(self) -> None:
        """Register all counters, at 0."""
        self._registry = CollectorRegistry()
        self._requests = Counter("electra_requests", "requests", ["path", "status"], registry=self._registry)
        self._seconds = Histogram(
            "electra_request_seconds",
            "time from a request's head to the end of its response",
            ["path"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self.inputs = Counter("electra_inputs", "inputs that were answered", registry=self._registry)
        self.cut = Counter("electra_cut_texts", "texts that were longer than a row", registry=self._registry)
        self.batch = Histogram("electra_batch_inputs", "inputs of a batch", buckets=INPUTS, registry=self._registry)
        self.waiting = Gauge("electra_waiting_inputs", "inputs in the queue", registry=self._registry)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def observe(self, path: str, status: int, seconds: float) -> None:
        """Count a request to a path, its status and its seconds."""
        self._requests.labels(path, status).inc()
        self._seconds.labels(path).observe(seconds)


class CountRequests:
    """Count every request of an ASGI application: its path, the status of its response, and how long it took."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: frozenset[str]) -> None:
        """Wrap the application; a path that is not among `paths` counts as "other"."""
        self._app, self._metrics, self._paths = app, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application and count the request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, start = 500, time.perf_counter()

        async def noting_status(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, noting_status)
        finally:
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._metrics.observe(path, status, time.perf_counter() - start)

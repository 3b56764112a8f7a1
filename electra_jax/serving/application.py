"""Answer HTTP requests: `POST /predict`, the page at `/`, `/health` and `/metrics`."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from electra_jax.config.serving import ServingRun
from electra_jax.errors import UserError
from electra_jax.files import absolute
from electra_jax.inference.item_records import answered_together, named_records
from electra_jax.inference.items import InputColumns, Item, item_of, read_json
from electra_jax.inference.network import Network
from electra_jax.inference.output_files import as_json
from electra_jax.inference.prediction import Record
from electra_jax.serving import page
from electra_jax.serving.batching import Batcher, QueueFullError
from electra_jax.serving.metrics import CountRequests, Metrics
from electra_jax.serving.warm_up import served_lengths
from electra_jax.tasks.long_texts import CutCount

PATHS = frozenset({"/", "/predict", "/health", "/metrics"})

# A body that is too large is still read, up to this many times the limit, and discarded: a client that is still sending
# when the connection closes does not see the answer.
DISCARDED = 4

# The page is one file that loads nothing, and may send its form only to this server.
PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


class Service:
    """Answer the requests of one model."""

    def __init__(self, model: Network, run: ServingRun) -> None:
        """Keep the model and the limits of requests."""
        self._model, self._run = model, run
        # Clients must not learn the path of the directory.
        self._name = absolute(run.model_dir).name
        self._columns = InputColumns(run.text_column, run.text_b_column, None, run.id_column)
        self._longest = served_lengths(model)[-1]
        self.metrics = Metrics()
        self.batcher = Batcher(
            self._answer, batch_size=run.max_batch_size, max_wait=run.max_wait_ms / 1000, max_queue=run.max_queue
        )
        self.metrics.waiting.set_function(lambda: self.batcher.waiting)

    def _answer(self, items: Sequence[Item]) -> list[Record]:
        cut = CutCount(self._model.description.row_length)
        answer = functools.partial(answered_together, self._model, batch_size=self._run.max_batch_size, cut=cut)
        records = named_records(items, answer)
        self.metrics.inputs.inc(len(items))
        self.metrics.cut.inc(cut.texts)
        self.metrics.batch.observe(len(items))
        return records

    async def predict(self, request: Request) -> Response:
        """Answer a JSON value with its record, and `{"inputs": [...]}` with `{"records": [...]}`."""
        body = await read_body(request, self._run)
        try:
            value = read_json(body.decode("utf-8-sig"), "the body")
        except UnicodeDecodeError as error:
            raise HTTPException(400, f"the body is not UTF-8 ({error.reason}): send JSON in UTF-8") from error
        except UserError as error:
            raise HTTPException(400, str(error)) from error
        if not (isinstance(value, dict) and "inputs" in value):
            return json_response(await self.record_of(value))
        values = value["inputs"]
        if not isinstance(values, list) or len(value) != 1:
            raise HTTPException(400, 'the body has inputs that are no list, or something beside: {"inputs": [...]}')
        if len(values) > self._run.max_inputs:
            raise HTTPException(
                413,
                f"the body has {len(values)} inputs and this server takes {self._run.max_inputs} a request: send them "
                "in several, or raise MAX_INPUTS",
            )
        items = [self._read_or_error(value, f"input {index + 1}", index) for index, value in enumerate(values)]
        return json_response({"records": await self._ask(items)})

    async def record_of(self, value: Any) -> Record:
        """Return the record of one input.

        Raises:
            HTTPException: if the model cannot read the input (400), or the queue is full (503).
        """
        try:
            item = self._read(value, "the input", 0)
        except UserError as error:
            raise HTTPException(400, str(error)) from error
        (record,) = [{"error": item.error}] if item.error is not None else await self._ask([item])
        if "error" in record:
            raise HTTPException(400, record["error"])
        return record

    def _read_or_error(self, value: Any, where: str, index: int) -> Item:
        try:
            return self._read(value, where, index)
        except UserError as error:
            return Item(index, error=str(error))

    def _read(self, value: Any, where: str, index: int) -> Item:
        """Convert a JSON value to an input of the model.

        Raises:
            UserError: if the model cannot read the value, or its row has a shape that was not compiled.
        """
        item = item_of(value, self._model, self._columns, where, index)
        if item.ids is not None and self._model.description.kind == "multiple_choice":
            # Each number of choices would need a compiled shape of its own.
            raise UserError(f'{where} has input_ids, and this server reads {{"text": ..., "choices": [..., ...]}}')
        if item.ids is not None and len(item.ids["input_ids"]) > self._longest:
            raise UserError(
                f"{where} has {len(item.ids['input_ids'])} input_ids, and this server takes {self._longest}: send fewer"
            )
        return item

    async def _ask(self, items: Sequence[Item]) -> list[Record]:
        if not items:
            return []
        try:
            return await self.batcher.ask(items)
        except QueueFullError as error:
            raise HTTPException(503, f"the queue is full ({error}): try again later", {"Retry-After": "1"}) from error

    async def show(self, request: Request) -> Response:
        """Return the page, with the answer to the input that its form sent."""
        given: dict[str, str] = {}
        status, shown, problem = 200, None, ""
        if request.method == "POST":
            try:
                given = page.read_form(await read_body(request, self._run))
                value = page.input_of(self._model, given)
                shown = page.shown(self._model, given, await self.record_of(value))
            except HTTPException as error:
                status, problem = error.status_code, error.detail
        text = page.lay_out(self._model, self._name, given, shown, problem)
        return HTMLResponse(text, status, {"Content-Security-Policy": PAGE_POLICY})

    async def health(self, request: Request) -> Response:
        """Report that the server answers, the kind of model, and the number of inputs that wait."""
        del request
        return json_response({"status": "ok", "kind": self._model.description.kind, "waiting": self.batcher.waiting})

    async def count(self, request: Request) -> Response:
        """Return the metrics in Prometheus' text format."""
        del request
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def make_application(model: Network, run: ServingRun) -> Starlette:
    """Return the ASGI application that serves a model; `warm_up` should run first."""
    service = Service(model, run)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with service.batcher.running():
            yield

    return Starlette(
        routes=[
            Route("/", service.show, methods=["GET", "POST"]),
            Route("/predict", service.predict, methods=["POST"]),
            Route("/health", service.health),
            Route("/metrics", service.count),
        ],
        middleware=[Middleware(CountRequests, service.metrics, PATHS)],
        exception_handlers={HTTPException: refuse, ClientDisconnect: forget, Exception: report},
        lifespan=lifespan,
    )


async def read_body(request: Request, run: ServingRun) -> bytes:
    """Return the body of a request.

    Raises:
        HTTPException: if the body is larger than the run allows (413), or does not arrive in the allowed time (408).
    """
    parts, size, most = [], 0, run.max_body_bytes
    try:
        # Without a timeout, a client that never ends its request would keep the server from stopping.
        async with asyncio.timeout(run.max_body_seconds):
            async for part in request.stream():
                size += len(part)
                if size > DISCARDED * most:
                    break
                if size <= most:
                    parts.append(part)
    except TimeoutError as error:
        raise HTTPException(
            408,
            f"the body did not arrive in {run.max_body_seconds:g} seconds: send it at once, or raise MAX_BODY_SECONDS",
            {"Connection": "close"},
        ) from error
    if size > most:
        raise HTTPException(
            413, f"the body has more than {most:,} bytes: send less in a request, or raise MAX_BODY_BYTES"
        )
    return b"".join(parts)


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a response with JSON in the form that `electra predict` prints."""
    return Response(as_json(value) + "\n", status, headers, media_type="application/json")


async def refuse(_: Request, error: Exception) -> Response:
    """Return the message of an error as JSON."""
    assert isinstance(error, HTTPException)
    return json_response({"error": error.detail}, error.status_code, dict(error.headers or {}))


async def forget(_: Request, error: Exception) -> Response:
    """Return a response for a client that has disconnected, which nobody reads."""
    del error
    return Response(status_code=400)


async def report(_: Request, error: Exception) -> Response:
    """Return a response for a failure of the server; Starlette raises the error again, so the log has its traceback."""
    return json_response({"error": f"the server failed ({type(error).__name__}): its log says where"}, 500)

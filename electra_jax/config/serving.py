"""Configure `electra serve`."""

import dataclasses
from typing import Annotated

from electra_jax import ranges
from electra_jax.errors import UserError
from electra_jax.ranges import AT_LEAST_0, AT_LEAST_1, NAMED, POSITIVE, Range


@dataclasses.dataclass(frozen=True)
class ServingRun:
    """Everything that determines an `electra serve`.

    Attributes:
        model_dir: a model directory.
        host: the address to listen on: an IP address, or a name that resolves to one.
        port: the TCP port; 0 for any free one.
        text_column, text_b_column: the fields of JSON objects that hold the texts; None for "text", and for "text_pair"
            or "text_b".
        id_column: the field that holds an id to repeat in the record.
        max_batch_size: the most rows of a forward pass, and about the most inputs of requests that are joined.
        max_wait_ms: how long a request may wait for others to join it while the device is idle, milliseconds.
        max_body_bytes: the largest body of a request, bytes.
        max_body_seconds: how long a body may take to arrive, seconds.
        max_inputs: the most inputs of a request.
        max_queue: the most inputs that may wait to be answered.
    """

    model_dir: Annotated[str, NAMED]
    host: Annotated[str, NAMED]
    port: Annotated[int, Range(0, 65535)]
    text_column: str | None
    text_b_column: str | None
    id_column: str | None
    max_batch_size: Annotated[int, AT_LEAST_1]
    max_wait_ms: Annotated[float, AT_LEAST_0]
    max_body_bytes: Annotated[int, AT_LEAST_1]
    max_body_seconds: Annotated[float, POSITIVE]
    max_inputs: Annotated[int, AT_LEAST_1]
    max_queue: Annotated[int, AT_LEAST_1]

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            UserError: if a setting is out of range, or the queue has no room for the largest request.
        """
        ranges.check(self)
        if self.max_queue < self.max_inputs:
            raise UserError(
                f"MAX_QUEUE is {self.max_queue} and MAX_INPUTS {self.max_inputs}: a request of so many inputs would "
                "never be taken; raise MAX_QUEUE"
            )

"""Run rows of different lengths through a model's forward pass, for all evaluation and prediction."""

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from electra_jax.data.buckets import Row, in_order_of_length

# The arrays of a row that a model reads.
INPUTS = ("input_ids", "token_type_ids")


@dataclasses.dataclass(frozen=True)
class RowRunner:
    """Run rows through a model, in batches of a fixed size and of few lengths.

    Attributes:
        launch: starts the forward pass of a batch (see `buckets.stack`) and returns its outputs, on the device: an
            array, which is called `logits`, or a dict of arrays.
        per_token: names of the outputs that have a value, or a row of them, for each token.
        batch_size: rows of a batch.
        buckets: increasing lengths that rows are padded to.
    """

    launch: Callable[[Mapping[str, np.ndarray]], Any]
    per_token: Collection[str]
    batch_size: int
    buckets: Sequence[int]

    def __call__(self, rows: Sequence[Row]) -> list[dict[str, np.ndarray]]:
        """Return the outputs of each row, by name; those of tokens are cut to the row's length.

        Rows are batched with others of about their length, so that little is computed for padding. The outputs of a row
        do not depend on the other rows, except for the rounding of float32.
        """
        outputs: list[dict[str, np.ndarray]] = [{} for _ in rows]
        for numbers, found in self._batches(rows):
            for slot, number in enumerate(numbers):
                outputs[number] = row_outputs(found, slot, len(rows[number]["input_ids"]), self.per_token)
        return outputs

    def _batches(self, rows: Sequence[Row]) -> Iterator[tuple[np.ndarray, Any]]:
        """Yield the numbers of each batch's rows and its outputs, fetched after the next batch is launched."""
        read = [{name: row[name] for name in INPUTS} for row in rows]
        waiting: tuple[np.ndarray, Any] | None = None
        for numbers, batch in in_order_of_length(read, batch_size=self.batch_size, buckets=self.buckets):
            launched = numbers, self.launch(batch)
            if waiting is not None:
                yield jax.device_get(waiting)
            waiting = launched
        if waiting is not None:
            yield jax.device_get(waiting)


def row_outputs(
    outputs: np.ndarray | Mapping[str, np.ndarray], slot: int, length: int, per_token: Collection[str]
) -> dict[str, np.ndarray]:
    """Return one row of a batch's outputs, by name; those of tokens are cut to the row's length."""
    named = outputs if isinstance(outputs, Mapping) else {"logits": outputs}
    return {name: values[slot, :length] if name in per_token else values[slot] for name, values in named.items()}

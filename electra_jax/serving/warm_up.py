"""Compile the programs that a served model may need, so that no request waits for a compilation."""

from collections.abc import Sequence

import numpy as np

from electra_jax.data.buckets import bucket_of
from electra_jax.inference.network import Network
from electra_jax.inference.prediction import rows_of_batch


def served_lengths(model: Network) -> list[int]:
    """Return the lengths that rows of requests are padded to; the last one is the shortest that holds every row."""
    of_task = model.description.task_kind is not None
    longest = model.description.row_length if of_task else model.description.encoder.max_position_embeddings
    lengths = model.lengths
    return [length for length in lengths if length <= bucket_of(longest, lengths)]


def served_shapes(model: Network, batch_size: int) -> list[tuple[int, int]]:
    """Return the shapes (rows, length) that a batch of requests can have.

    Args:
        model: the model.
        batch_size: the most rows of a batch.
    """
    sizes = sorted({rows_of_batch(count, batch_size) for count in range(1, batch_size + 1)})
    return [(size, length) for length in served_lengths(model) for size in sizes]


def warm_up(model: Network, shapes: Sequence[tuple[int, int]]) -> None:
    """Run a model once with each shape; the model keeps the compiled programs."""
    chooses = model.description.kind == "multiple_choice"
    for shape in shapes:
        ids = np.zeros(shape, np.int32)
        model.logits(ids[:, None] if chooses else ids)
        # Masks are filled one row at a time.
        if shape[0] == 1 and model.description.generator is not None:
            model.generator_logits(ids)

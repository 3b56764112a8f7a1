"""Name the epochs of a run in lines of metrics and on the console."""

from collections.abc import Callable, Sequence

from electra_jax.monitoring.reporter import COLUMNS, Columns

# A function from a number of updates to the epochs that they make of a corpus, or of each part of a mixture.
Epochs = Callable[[int], list[float]]


def epoch_metrics(epochs: Sequence[float]) -> dict[str, float]:
    """Return "epoch", that of the part that was read most often; and "epoch_1", ... if there are several parts."""
    parts = {f"epoch_{number}": epoch for number, epoch in enumerate(epochs, start=1)} if len(epochs) > 1 else {}
    return {"epoch": max(epochs), **parts}


def epoch_columns(num_parts: int) -> Columns:
    """Return the columns of the console: the epoch of the corpus, or of each of several parts, and then the others."""
    if num_parts == 1:
        return {"epoch": ("epoch", ".2f"), **COLUMNS}
    parts = {f"epoch_{number}": (f"epoch of part {number}", ".2f") for number in range(1, num_parts + 1)}
    return {**parts, **COLUMNS}

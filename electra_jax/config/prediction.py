"""What Gin binds of `electra predict`, and of `electra evaluate` on a downstream task."""

import dataclasses

from electra_jax.errors import UserError
from electra_jax.tasks.options import TaskOptions


@dataclasses.dataclass(frozen=True)
class PredictionRun:
    """What `electra predict` does.

    Attributes:
        model_dir: a model directory.
        task: of `split`; without a name, the one that the model was fine-tuned on.
        split: predict this split of the task, rather than the input of the command line.
        output_dir: where a split's files go; None for `predictions` in the model directory.
        batch_size: rows at a time; changes only the speed.
    """

    model_dir: str
    task: TaskOptions
    split: str | None
    output_dir: str | None
    batch_size: int

    def __post_init__(self) -> None:
        """Refuses what cannot be.

        Raises:
            UserError: names it.
        """
        check_batch_size(self.batch_size)


@dataclasses.dataclass(frozen=True)
class EvaluationRun:
    """What `electra evaluate` does with a downstream task.

    Attributes:
        model_dir: a fine-tuned model; None to score `predictions`.
        task: where its data is; without a name, the one that the model was fine-tuned on.
        split: that is scored; "dev" is both of MNLI's.
        predictions: a file of predictions to score without a model.
        null_odds: null_odds.json beside it, of SQuAD 2.0.
        output: where the metrics are saved; None for evaluation.json in the model directory, or `predictions` with
            .metrics.json at its end.
        batch_size: rows at a time; changes only the speed.
    """

    model_dir: str | None
    task: TaskOptions
    split: str
    predictions: str | None
    null_odds: str | None
    output: str | None
    batch_size: int

    def __post_init__(self) -> None:
        """Refuses what cannot be.

        Raises:
            UserError: names it.
        """
        check_batch_size(self.batch_size)
        if self.null_odds is not None and self.predictions is None:
            raise UserError(f"NULL_ODDS is {self.null_odds!r}, and belongs to a file of answers: set PREDICTIONS too")


def check_batch_size(size: int) -> None:
    """Refuses batches without rows.

    Raises:
        UserError: says what it must be.
    """
    if size < 1:
        raise UserError(f"BATCH_SIZE is {size}: it must be at least 1")

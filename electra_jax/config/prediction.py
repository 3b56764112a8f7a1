"""Configure `electra predict`, and `electra evaluate` on a downstream task."""

import dataclasses
from typing import Annotated

from electra_jax import ranges
from electra_jax.errors import UserError
from electra_jax.ranges import AT_LEAST_1, NAMED, Checked
from electra_jax.tasks.options import TaskOptions


@dataclasses.dataclass(frozen=True)
class PredictionRun(Checked):
    """Everything that determines an `electra predict`.

    Attributes:
        model_dir: a model directory.
        task: the task of `split`; without a name, the task that the model was fine-tuned on.
        split: a split of the task to predict, instead of the command line's input.
        id_column: the column of a table, or the field of JSON objects, that holds ids to repeat in the output.
        output_dir: the directory for the files of a split; None for `predictions` in the model directory.
        batch_size: rows of a batch; changes only the speed.
    """

    model_dir: Annotated[str, NAMED]
    task: TaskOptions
    split: str | None
    id_column: str | None
    output_dir: Annotated[str | None, NAMED]
    batch_size: Annotated[int, AT_LEAST_1]


@dataclasses.dataclass(frozen=True)
class EvaluationRun:
    """Everything that determines an `electra evaluate` on a downstream task.

    Attributes:
        model_dir: a fine-tuned model, or, for minimal pairs, a pre-trained one; None to score `predictions`.
        task: the task and where its data is; without a name, the task that the model was fine-tuned on.
        split: the split to score; "dev" stands for both dev splits of MNLI.
        predictions: a file of predictions to score without a model.
        null_odds: the file null_odds.json that belongs to predictions of SQuAD 2.0.
        output: the file for the metrics; None for evaluation.json in the model directory (minimal_pairs.json for
            minimal pairs, prompt.json for a prompt to a pre-trained model), or for `predictions` with .metrics.json
            appended.
        batch_size: rows of a batch; changes only the speed.
    """

    model_dir: Annotated[str | None, NAMED]
    task: TaskOptions
    split: str
    predictions: Annotated[str | None, NAMED]
    null_odds: Annotated[str | None, NAMED]
    output: Annotated[str | None, NAMED]
    batch_size: Annotated[int, AT_LEAST_1]

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            UserError: if a setting is out of range, or there are null odds without predictions.
        """
        ranges.check(self)
        if self.null_odds is not None and self.predictions is None:
            raise UserError(f"NULL_ODDS is {self.null_odds!r}, and belongs to a file of answers: set PREDICTIONS too")

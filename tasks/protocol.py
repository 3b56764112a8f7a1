"""Define the interface of tasks for fine-tuning, of any family: examples, rows for the model, predictions, scores.

The families are `text.task` (classification and regression of texts and pairs), `tagging.task`, `qa.task` and
`multiple_choice.task`. None of them needs TensorFlow: the same objects read raw text for
`electra_jax.load(path)(texts)`. `seqio_export` makes SeqIO tasks from them.
"""

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

# The fields of one row that the model reads, unpadded: `input_ids` and `token_type_ids` int32 [L]; `example`, int32 [],
# the number of the row's example; `num_tokens` and `num_cut`, int32 [], the tokens of the whole text, sentence or
# question and those of them that are in no row (for a question, `question_length`, the most that a row has); and the
# targets of its kind, if the example has them:
#   classification      label int32 []
#   multi_label_classification  labels float32 [C], 1 for each label that the text has
#   regression          label float32 [], from 0 to 1
#   tagging             label_ids int32 [L]; label_mask float32 [L], 1 at the first piece of each labelled word
#   question_answering  start_positions, end_positions, is_impossible int32 []; always answer_mask int32 [L]
#   similarity          label float32 [], from 0 to 1; like retrieval, in training both texts in a row, with
#                       example_ids int32 [L] 1 and 2 for them, and otherwise a row for each, with its side int32 []
#   multiple_choice     label int32 []; in training all choices in a row, with token arrays [C, L],
#                       attention_mask int32 [C, L] and choice_mask float32 [C], 0 where there is no such choice; and
#                       otherwise a row for each, with its index, choice int32 []
#   prompt              label int32 []; word_mask float32 [L], 1 at the pieces of the label's word; all labels in a row
#                       or a row for each, choice, as for multiple_choice
#   retrieval           in training first_id, second_id int32 []: the numbers of both texts among the distinct ones
Row = dict[str, np.ndarray]

KINDS = (
    *("classification", "multi_label_classification", "regression", "tagging", "question_answering"),
    *("similarity", "retrieval", "multiple_choice", "prompt"),
)

# The kinds whose models compute a vector for each text.
VECTOR_KINDS = ("similarity", "retrieval")


@dataclasses.dataclass(frozen=True)
class Examples:
    """Hold the examples of a split.

    Attributes:
        examples: the examples, in order.
        skipped: how many records were left out, by reason.
        file: the file that the examples come from, if any.
    """

    examples: Sequence[Any]
    skipped: collections.Counter[str]
    file: str | None = None


class Prediction(Protocol):
    """Hold a model's prediction for one example."""

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, for `electra predict`."""


class DownstreamTask(Protocol):
    """Name the interface of a task, which has its vocabulary and its row length.

    Attributes:
        name: its name in the catalogue.
        kind: one of `KINDS`.
        labels: names of the outputs of classifications and tagging, in order; () for the other kinds.
        main_metric: the score by which the best checkpoint is chosen; larger is better, unless it is one of
            `text.metrics.LOWER_IS_BETTER`.
        splits: the splits that can be read.
        length: largest number of tokens of a row.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    main_metric: str
    splits: tuple[str, ...]
    length: int

    def examples(self, split: str) -> Examples:
        """Read a split; "dev" and "test" are the first ones of their kind.

        Raises:
            UserError: if there is no such split or file, or it has nothing that can be used.
        """

    def raw_examples(self, inputs: Sequence[Any]) -> Sequence[Any]:
        """Return examples from user inputs: see `electra_jax.inference.inputs.canonical`.

        Raises:
            UserError: if the task does not read such an input.
        """

    def rows(self, examples: Sequence[Any], *, training: bool) -> list[Row]:
        """Tokenise: one row per example, or per window of it; in training only rows with a target."""

    def predictions(
        self, examples: Sequence[Any], rows: Sequence[Row], outputs: Sequence[dict[str, np.ndarray]]
    ) -> list[Prediction]:
        """Return a prediction for each example from the model's float32 outputs for each row, cut to its length."""

    def score(self, examples: Sequence[Any], predictions: Sequence[Prediction]) -> dict[str, float]:
        """Return the official metrics, per cent, the main one first."""

    def describe(self) -> dict[str, Any]:
        """Return JSON values from which `catalog.task_from_facts` rebuilds the task to read raw input, without data."""

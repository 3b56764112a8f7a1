"""Define multiple choice as a task to fine-tune on: each choice gets a logit, and the softmax is over the choices."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from electra_jax.errors import UserError
from electra_jax.tasks.joined_rows import joined_rows
from electra_jax.tasks.long_texts import count_fields
from electra_jax.tasks.multiple_choice.examples import ChoiceExample
from electra_jax.tasks.multiple_choice.sources import choice_sources
from electra_jax.tasks.options import TaskOptions
from electra_jax.tasks.probabilities import softmax
from electra_jax.tasks.protocol import Row
from electra_jax.tasks.split_files import NO_SOURCES, FromSources, Sources
from electra_jax.tasks.text.tables import TextWindows, text_windows
from electra_jax.tasks.vocabulary import Vocabulary

CHOICE_TASKS = ("multiple_choice", "swag", "race")

# RACE's mark for the place of the answer in a question.
BLANK = "_"


@dataclasses.dataclass(frozen=True)
class ChoicePrediction:
    """The likeliest choice of an example, by its index and its text, and the probability of each, in order."""

    label: int
    choice: str
    probabilities: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """Return `label`, `choice` and `probabilities`."""
        return {"label": self.label, "choice": self.choice, "probabilities": list(self.probabilities)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChoiceTask(FromSources):
    """A task of multiple choice: a `protocol.DownstreamTask`.

    Attributes:
        name: its name in the catalogue.
        fills_blanks: whether a choice is written into the blank of its question, "_", if it has one.
        vocabulary: tokenises the text.
        length: the most tokens of a row, which is one choice.
        sources: its splits.
    """

    name: str
    fills_blanks: bool
    vocabulary: Vocabulary
    length: int
    sources: Sources

    @property
    def kind(self) -> str:
        """Return "multiple_choice"."""
        return "multiple_choice"

    @property
    def labels(self) -> tuple[str, ...]:
        """Return (): examples have choices of their own."""
        return ()

    @property
    def main_metric(self) -> str:
        """Return the name of the score by which the best checkpoint is chosen."""
        return "accuracy"

    def raw_examples(self, inputs: Sequence[Mapping[str, Any]]) -> list[ChoiceExample]:
        """Return examples from mappings with "text", "text_b" (None without a question) and "choices"."""
        return [
            ChoiceExample(index, value["text"], value["text_b"], tuple(value["choices"]), None)
            for index, value in enumerate(inputs)
        ]

    def rows(self, examples: Sequence[ChoiceExample], *, training: bool) -> list[Row]:
        """Tokenise: `[CLS] text [SEP] question choice [SEP]` for each choice, the longer part cut first.

        In training an example is one row, with the largest number of choices of any example; `choice_mask` is 0 for
        those that it lacks. Otherwise each choice is a row.
        """
        used = {number: each for number, each in enumerate(examples) if not training or each.label is not None}
        pairs = [
            (example.text_a, self._second_text(example.text_b, choice))
            for example in used.values()
            for choice in example.choices
        ]
        made = iter(text_windows(pairs, vocabulary=self.vocabulary, length=self.length, long_texts="cut"))
        most = max((len(example.choices) for example in used.values()), default=0)
        rows = []
        for number, example in used.items():
            choices = [next(made) for _ in example.choices]
            longest = max(choices, key=lambda choice: choice.num_tokens)
            shared = {"example": np.array(number, np.int32)} | count_fields(longest.num_tokens, longest.num_cut)
            if example.label is not None:
                shared["label"] = np.array(example.label, np.int32)
            apart = list(map(_tokens, choices))
            if training:
                rows.append(joined_rows(apart, most) | shared)
            else:
                rows += [row | shared | {"choice": np.array(place, np.int32)} for place, row in enumerate(apart)]
        return rows

    def predictions(
        self, examples: Sequence[ChoiceExample], rows: Sequence[Row], outputs: Sequence[Mapping[str, np.ndarray]]
    ) -> list[ChoicePrediction]:
        """Return a prediction for each example.

        Args:
            examples: as they were given to `rows`.
            rows: the rows for prediction, in any order.
            outputs: the outputs of each row: `logits`, float32 [1], the score of one choice.
        """
        logits = [np.zeros(len(example.choices), np.float64) for example in examples]
        for row, output in zip(rows, outputs, strict=True):
            logits[int(row["example"])][int(row["choice"])] = output["logits"].item()
        found = []
        for example, logits_C in zip(examples, logits, strict=True):
            best = int(np.argmax(logits_C))
            found.append(ChoicePrediction(best, example.choices[best], tuple(map(float, softmax(logits_C)))))
        return found

    def score(self, examples: Sequence[ChoiceExample], predictions: Sequence[ChoicePrediction]) -> dict[str, float]:
        """Return the accuracy, per cent.

        Raises:
            UserError: if examples have no label, as in a test set.
        """
        unknown = sum(example.label is None for example in examples)
        if unknown:
            raise UserError(
                f"{unknown} of the {len(examples)} examples of {self.name} have no label, as in a test set: they can "
                "be predicted (electra predict), but not scored; name a split with labels"
            )
        right = [found.label == example.label for example, found in zip(examples, predictions, strict=True)]
        return {"accuracy": 100.0 * float(np.mean(right))}

    def describe(self) -> dict[str, Any]:
        """Return the facts that `choice_task_from_facts` needs."""
        return {
            "task": self.name,
            "kind": self.kind,
            "fills_blanks": self.fills_blanks,
            "rules": "standard",
            "length": self.length,
        }

    def _second_text(self, question: str | None, choice: str) -> str:
        if question is None:
            return choice
        if self.fills_blanks and BLANK in question:
            return question.replace(BLANK, choice)
        return f"{question} {choice}".strip()


def _tokens(choice: TextWindows) -> Row:
    """Return the tokens of one choice's row."""
    (feature,) = choice.rows
    return {name: np.array(values, np.int32) for name, values in feature._asdict().items()}


def make_choice_task(options: TaskOptions, vocabulary: Vocabulary) -> ChoiceTask:
    """Make a task with its data.

    Args:
        options: which task, and where its data is.
        vocabulary: tokenises the text.

    Raises:
        UserError: if there is no data, the settings do not say how to read it, or long texts should have windows.
    """
    if options.long_texts != "cut":
        raise UserError(
            f"LONG_TEXTS is {options.long_texts!r}: {options.task} reads one row for each choice; set it to 'cut'"
        )
    return ChoiceTask(
        name=options.task,
        fills_blanks=options.task == "race",
        vocabulary=vocabulary,
        length=options.row_length,
        sources=choice_sources(options),
    )


def choice_task_from_facts(facts: Mapping[str, Any], vocabulary: Vocabulary) -> ChoiceTask:
    """Rebuild a task from the result of `ChoiceTask.describe`, to read raw input."""
    return ChoiceTask(
        name=facts["task"],
        fills_blanks=facts["fills_blanks"],
        vocabulary=vocabulary,
        length=facts["length"],
        sources=NO_SOURCES,
    )

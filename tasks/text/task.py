"""Define the classification and the regression of texts and of pairs of texts as tasks to fine-tune on."""

import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from electra_jax.errors import UserError
from electra_jax.tasks.long_texts import check_long_texts, count_fields
from electra_jax.tasks.options import TaskOptions
from electra_jax.tasks.probabilities import softmax
from electra_jax.tasks.protocol import Examples, Row
from electra_jax.tasks.split_files import NO_SOURCES, Sources
from electra_jax.tasks.text.glue import GLUE
from electra_jax.tasks.text.glue_metrics import METRICS, TASK_METRICS, f1
from electra_jax.tasks.text.sources import glue_sources, table_sources
from electra_jax.tasks.text.tables import Classes, Interval, TextExample, text_windows
from electra_jax.tasks.vocabulary import Vocabulary

# A user's own: scores, the main one first.
OWN_METRICS = {
    "classification": ("accuracy", "matthews"),
    "pair_classification": ("accuracy", "matthews"),
    "regression": ("spearman", "pearson"),
}

NAMES = (*GLUE, *OWN_METRICS)


@dataclasses.dataclass(frozen=True)
class TextRules:
    """Decide how texts are scored, where implementations differ.

    Attributes:
      name: what a fine-tuned model records.
      f1: given labels and predictions, numbers of classes, returns the F1 of class 1, per cent.
    """

    name: str
    f1: Callable[[Sequence[int], Sequence[int]], float]


STANDARD_RULES = TextRules(name="standard", f1=f1)


@dataclasses.dataclass(frozen=True)
class LabelPrediction:
    """The likeliest class of an example, and the probability of each."""

    label: str
    probabilities: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return `label` and `probabilities`."""
        return {"label": self.label, "probabilities": dict(self.probabilities)}


@dataclasses.dataclass(frozen=True)
class ValuePrediction:
    """The value of an example, in the units of the task's own interval."""

    value: float

    def to_json(self) -> dict[str, Any]:
        """Return `value`."""
        return {"value": self.value}


TextPrediction = LabelPrediction | ValuePrediction


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextTask:
    """A classification or regression: a `protocol.DownstreamTask`.

    Attributes:
      name: its name in the catalogue.
      target: its classes, or the interval of its values.
      pair: whether examples are pairs.
      clips: whether predicted values are brought into the interval.
      metrics: names of its scores, the main one first.
      rules: how it is scored, where implementations differ.
      vocabulary: tokenises.
      length: the most tokens of a row.
      long_texts: what becomes of longer texts, a name of `long_texts.LONG_TEXTS`.
      sources: where the splits are.
    """

    name: str
    target: Classes | Interval
    pair: bool
    clips: bool
    metrics: tuple[str, ...]
    rules: TextRules
    vocabulary: Vocabulary
    length: int
    long_texts: str
    sources: Sources

    @property
    def kind(self) -> str:
        """Return "classification" or "regression"."""
        return "regression" if isinstance(self.target, Interval) else "classification"

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the names of the classes; () for a regression."""
        return () if isinstance(self.target, Interval) else self.target.labels

    @property
    def main_metric(self) -> str:
        """Return the name of the score by which the best checkpoint is chosen."""
        return self.metrics[0]

    @property
    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits that can be read."""
        return tuple(self.sources.readers)

    def examples(self, split: str) -> Examples:
        """Read the `TextExample`s of a split.

        Raises:
          UserError: if there is no such split or file, or nothing in it can be used.
        """
        return self.sources.read(self.name, split)

    def raw_examples(self, inputs: Sequence[Any]) -> list[TextExample]:
        """Return the examples of raw input: texts; pairs of texts; or mappings with "text" and "text_b".

        Raises:
          UserError: if an input is a pair where the task's examples are single texts, or the other way round.
        """
        return [self._raw_example(index, value) for index, value in enumerate(inputs)]

    def rows(self, examples: Sequence[TextExample], *, training: bool) -> list[Row]:
        """Tokenise, a row per example, or per window of a long one; in training those that have a label."""
        texts = [(example.text_a, example.text_b) for example in examples]
        rows = []
        made = text_windows(texts, vocabulary=self.vocabulary, length=self.length, long_texts=self.long_texts)
        for number, (example, windows) in enumerate(zip(examples, made, strict=True)):
            if training and example.label is None:
                continue
            shared = {"example": np.array(number, np.int32)} | count_fields(windows.num_tokens, windows.num_cut)
            if example.label is not None:
                shared["label"] = self._label(example.label)
            for feature in windows.rows:
                ids = {name: np.array(values, np.int32) for name, values in feature._asdict().items()}
                rows.append(ids | shared)
        return rows

    def predictions(
        self, examples: Sequence[TextExample], rows: Sequence[Row], outputs: Sequence[Mapping[str, np.ndarray]]
    ) -> list[TextPrediction]:
        """Return a prediction for each example, from the mean of its windows' logits.

        Args:
          examples: as they were given to `rows`.
          rows: all of them, in any order.
          outputs: of each row, `logits`: float32 [C], of a regression [1] or [].
        """
        found: dict[int, list[np.ndarray]] = collections.defaultdict(list)
        for row, output in zip(rows, outputs, strict=True):
            found[int(row["example"])].append(output["logits"])
        return [self._prediction(np.mean(found[number], axis=0)) for number in range(len(examples))]

    def score(self, examples: Sequence[TextExample], predictions: Sequence[TextPrediction]) -> dict[str, float]:
        """Return the official metrics, per cent, the main one first.

        Raises:
          UserError: if examples have no labels, as in a test set.
        """
        gold = [example.label for example in examples if example.label is not None]
        if not gold or len(gold) < len(examples):
            raise UserError(
                f"{len(examples) - len(gold)} of the {len(examples)} examples of {self.name} have no label, as in a "
                "test set: they can be predicted (electra predict), but not scored; name a split with labels"
            )
        return self.scores(gold, [self._number(prediction) for prediction in predictions])

    def scores(self, labels: Sequence[float], predictions: Sequence[float]) -> dict[str, float]:
        """Return the metrics of class numbers, or of values in the task's interval."""
        metrics = METRICS | {"f1": self.rules.f1}
        return {name: metrics[name](labels, predictions) for name in self.metrics}

    def value_of(self, output: float) -> float:
        """Return the value that a regression's output stands for."""
        assert isinstance(self.target, Interval)
        value = self.target.denormalised(output)
        return self.target.nearest(value) if self.clips else value

    def describe(self) -> dict[str, Any]:
        """Return what `text_task_from_facts` needs."""
        target = self.target
        return {
            "task": self.name,
            "kind": self.kind,
            "target": [target.low, target.high] if isinstance(target, Interval) else list(target.labels),
            "pair": self.pair,
            "clips": self.clips,
            "metrics": list(self.metrics),
            "rules": self.rules.name,
            "length": self.length,
            "long_texts": self.long_texts,
        }

    def _raw_example(self, index: int, value: Any) -> TextExample:
        if isinstance(value, Mapping):
            texts = [value[key] for key in ("text", "text_b") if value.get(key) is not None]
        else:
            texts = list(value) if isinstance(value, (list, tuple)) else [value]
        if len(texts) != 1 + self.pair or not all(isinstance(text, str) for text in texts):
            expected = 'two texts, as in {"text": ..., "text_b": ...}' if self.pair else "one text"
            raise UserError(f"input {index + 1} is {value!r}: {self.name} expects {expected}")
        return TextExample(index, texts[0], texts[1] if self.pair else None, None)

    def _label(self, label: int | float) -> np.ndarray:
        if isinstance(self.target, Interval):
            return np.array(self.target.normalised(label), np.float32)
        return np.array(label, np.int32)

    def _prediction(self, logits_C: np.ndarray) -> TextPrediction:
        if isinstance(self.target, Interval):
            return ValuePrediction(self.value_of(float(np.asarray(logits_C).reshape(()))))
        probabilities_C = softmax(logits_C.astype(np.float64))
        labels = self.target.labels
        return LabelPrediction(
            labels[int(np.argmax(logits_C))], dict(zip(labels, map(float, probabilities_C), strict=True))
        )

    def _number(self, prediction: TextPrediction) -> float:
        if isinstance(prediction, ValuePrediction):
            return prediction.value
        return self.labels.index(prediction.label)


def make_text_task(
    options: TaskOptions, vocabulary: Vocabulary, *, rules: TextRules, recorded: Mapping[str, Any] | None = None
) -> TextTask:
    """Make a task of GLUE or a user's own.

    Args:
      options: which, and where its data is.
      vocabulary: tokenises.
      rules: how it is scored, where implementations differ.
      recorded: what `TextTask.describe` said of the task that a model was fine-tuned on; its labels are then
        taken rather than looked for in the training file, which need not be there.

    Raises:
      UserError: if there is no data, or the settings do not say how to read it.
    """
    check_long_texts(options)
    target = None if recorded is None else _target(recorded)
    if options.task in GLUE:
        task = GLUE[options.task]
        sources, target, metrics = glue_sources(task, options), task.target, TASK_METRICS[task.name]
        pair = len(task.tfds_texts) == 2
    else:
        sources, target = table_sources(options, regression=options.task == "regression", target=target)
        metrics, pair = OWN_METRICS[options.task], options.text_b_column is not None
    return TextTask(
        name=options.task,
        target=target,
        pair=pair,
        clips=options.clip_predictions if recorded is None else recorded["clips"],
        metrics=metrics,
        rules=rules,
        vocabulary=vocabulary,
        length=options.row_length,
        long_texts=options.long_texts,
        sources=sources,
    )


def text_task_from_facts(facts: Mapping[str, Any], vocabulary: Vocabulary, *, rules: TextRules) -> TextTask:
    """Rebuild a task from what `TextTask.describe` gave, to read raw input; `rules` are those that it names."""
    return TextTask(
        name=facts["task"],
        target=_target(facts),
        pair=facts["pair"],
        clips=facts["clips"],
        metrics=tuple(facts["metrics"]),
        rules=rules,
        vocabulary=vocabulary,
        length=facts["length"],
        long_texts=facts["long_texts"],
        sources=NO_SOURCES,
    )


def _target(facts: Mapping[str, Any]) -> Classes | Interval:
    return Interval(*facts["target"]) if facts["kind"] == "regression" else Classes(tuple(facts["target"]))

"""Define the classification and the regression of texts and of pairs of texts as tasks to fine-tune on."""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from electra_jax.errors import UserError
from electra_jax.tasks.long_texts import check_long_texts, count_fields
from electra_jax.tasks.options import TaskOptions
from electra_jax.tasks.probabilities import sigmoid, softmax
from electra_jax.tasks.protocol import Row
from electra_jax.tasks.split_files import NO_SOURCES, FromSources, Sources
from electra_jax.tasks.text.glue import GLUE
from electra_jax.tasks.text.glue_metrics import TASK_METRICS, f1
from electra_jax.tasks.text.label_sets import METRICS as LABEL_SET_METRICS
from electra_jax.tasks.text.label_sets import LabelSets, best_threshold
from electra_jax.tasks.text.metrics import AUC, METRICS, auc, own_metrics
from electra_jax.tasks.text.sources import glue_sources, table_sources
from electra_jax.tasks.text.tables import Classes, Interval, Target, TextExample, text_windows
from electra_jax.tasks.vocabulary import Vocabulary

# A user's own tasks.
OWN = ("classification", "pair_classification", "regression")

NAMES = (*GLUE, *OWN)

# The kind of a task, by what it predicts.
_KINDS = {Classes: "classification", LabelSets: "multi_label_classification", Interval: "regression"}


@dataclasses.dataclass(frozen=True)
class TextRules:
    """Decide how texts are scored, where implementations differ.

    Attributes:
        name: the name that a fine-tuned model records.
        f1: maps labels and predictions, both class numbers, to the F1 of class 1, per cent.
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
class LabelsPrediction:
    """The labels of an example, which may have several or none, and the probability of each."""

    labels: tuple[str, ...]
    probabilities: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return `labels` and `probabilities`."""
        return {"labels": list(self.labels), "probabilities": dict(self.probabilities)}


@dataclasses.dataclass(frozen=True)
class ValuePrediction:
    """The value of an example, in the units of the task's own interval."""

    value: float

    def to_json(self) -> dict[str, Any]:
        """Return `value`."""
        return {"value": self.value}


TextPrediction = LabelPrediction | LabelsPrediction | ValuePrediction


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextTask(FromSources):
    """A classification or regression: a `protocol.DownstreamTask`.

    Attributes:
        name: its name in the catalogue.
        target: its classes, if an example has exactly one, its labels, if it has any number, or the interval of its
            values.
        thresholds: if an example has any number of labels, the probability from which it has each; None for 0.5, until
            they are fitted to a dev split.
        pair: whether examples are pairs.
        clips: whether predicted values are clipped to the interval.
        metrics: names of its scores, the main one first.
        rules: the rules of scoring, where implementations differ.
        vocabulary: tokenises the texts.
        length: the most tokens of a row.
        long_texts: how longer texts are handled, a name of `long_texts.LONG_TEXTS`.
        sources: its splits.
    """

    name: str
    target: Target
    thresholds: tuple[float, ...] | None
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
        """Return "classification", "multi_label_classification" or "regression"."""
        return _KINDS[type(self.target)]

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the names of the classes; () for a regression."""
        return () if isinstance(self.target, Interval) else self.target.labels

    @property
    def main_metric(self) -> str:
        """Return the name of the score by which the best checkpoint is chosen."""
        return self.metrics[0]

    def raw_examples(self, inputs: Sequence[Any]) -> list[TextExample]:
        """Return examples from raw input: texts; pairs of texts; or mappings with "text" and "text_b".

        Raises:
            UserError: if an input is a pair but the task's examples are single texts, or the other way round.
        """
        return [self._raw_example(index, value) for index, value in enumerate(inputs)]

    def rows(self, examples: Sequence[TextExample], *, training: bool) -> list[Row]:
        """Tokenise into a row per example, or per window of a long one; in training only examples with a label."""
        texts = [(example.text_a, example.text_b) for example in examples]
        rows = []
        made = text_windows(texts, vocabulary=self.vocabulary, length=self.length, long_texts=self.long_texts)
        for number, (example, windows) in enumerate(zip(examples, made, strict=True)):
            if training and example.label is None:
                continue
            shared = {"example": np.array(number, np.int32)} | count_fields(windows.num_tokens, windows.num_cut)
            if example.label is not None:
                shared |= self._targets(example.label)
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
            rows: all rows, in any order.
            outputs: the outputs of each row: `logits`, float32 [C], for a regression [1] or [].
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
        if isinstance(self.target, LabelSets):
            gold_NC, found_NC = self._indicators(gold), self._indicators(map(self._numbers, predictions))
            return {name: LABEL_SET_METRICS[name](gold_NC, found_NC) for name in self.metrics}
        scores = self.scores(gold, [self._number(prediction) for prediction in predictions])
        if AUC in self.metrics:
            scores[AUC] = auc(gold, [prediction.probabilities[self.labels[1]] for prediction in predictions])
        return {name: scores[name] for name in self.metrics}

    def scores(self, labels: Sequence[float], predictions: Sequence[float]) -> dict[str, float]:
        """Return the metrics of class numbers, or of values in the task's interval: all but the AUC."""
        metrics = METRICS | {"f1": self.rules.f1}
        return {name: metrics[name](labels, predictions) for name in self.metrics if name != AUC}

    def fitted(
        self, examples: Sequence[TextExample], predictions: Sequence[LabelsPrediction]
    ) -> tuple["TextTask", list[LabelsPrediction]]:
        """Return the task with each label's threshold of highest F1, and predictions by these thresholds.

        Args:
            examples: the examples of a dev split, all with labels.
            predictions: their predictions.
        """
        gold_NC = self._indicators(example.label for example in examples)
        thresholds = tuple(
            best_threshold(gold_N, np.array([prediction.probabilities[label] for prediction in predictions]))
            for label, gold_N in zip(self.labels, gold_NC.T, strict=True)
        )
        task = dataclasses.replace(self, thresholds=thresholds)
        return task, [task.labels_prediction(prediction.probabilities) for prediction in predictions]

    def labels_prediction(self, probabilities: Mapping[str, float]) -> LabelsPrediction:
        """Return the labels whose probability reaches their threshold."""
        assert isinstance(self.target, LabelSets)
        return LabelsPrediction(self.target.named(probabilities, self.thresholds), probabilities)

    def value_of(self, output: float) -> float:
        """Return the value for a regression's output."""
        assert isinstance(self.target, Interval)
        value = self.target.denormalised(output)
        return self.target.nearest(value) if self.clips else value

    def describe(self) -> dict[str, Any]:
        """Return the facts that `text_task_from_facts` needs."""
        target = self.target
        return {
            "task": self.name,
            "kind": self.kind,
            "target": [target.low, target.high] if isinstance(target, Interval) else list(target.labels),
            "thresholds": None if self.thresholds is None else list(self.thresholds),
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

    def _targets(self, label: int | float | tuple[int, ...]) -> Row:
        """Return the targets of a row, by their names: see `protocol.Row`."""
        if isinstance(self.target, LabelSets):
            return {"labels": self.target.indicators(label)}
        if isinstance(self.target, Interval):
            return {"label": np.array(self.target.normalised(label), np.float32)}
        return {"label": np.array(label, np.int32)}

    def _prediction(self, logits_C: np.ndarray) -> TextPrediction:
        if isinstance(self.target, Interval):
            return ValuePrediction(self.value_of(float(np.asarray(logits_C).reshape(()))))
        share = sigmoid if isinstance(self.target, LabelSets) else softmax
        probabilities = dict(zip(self.labels, map(float, share(logits_C.astype(np.float64))), strict=True))
        if isinstance(self.target, LabelSets):
            return self.labels_prediction(probabilities)
        return LabelPrediction(self.labels[int(np.argmax(logits_C))], probabilities)

    def _number(self, prediction: TextPrediction) -> float:
        if isinstance(prediction, ValuePrediction):
            return prediction.value
        return self.labels.index(prediction.label)

    def _numbers(self, prediction: LabelsPrediction) -> tuple[int, ...]:
        return tuple(map(self.labels.index, prediction.labels))

    def _indicators(self, numbers: Iterable[tuple[int, ...]]) -> np.ndarray:
        """Return whether each example has each label, bool [N, C]."""
        return np.stack([self.target.indicators(each) for each in numbers]).astype(bool)


def make_text_task(
    options: TaskOptions, vocabulary: Vocabulary, *, rules: TextRules, recorded: Mapping[str, Any] | None = None
) -> TextTask:
    """Make a GLUE task or a user's own.

    Args:
        options: which task, and where its data is.
        vocabulary: tokenises the texts.
        rules: the rules of scoring, where implementations differ.
        recorded: the result of `TextTask.describe` for the task on which a model was fine-tuned; its labels are then
            used instead of those in the training file, which need not exist.

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
        metrics, pair = own_metrics(target), options.text_b_column is not None
    return TextTask(
        name=options.task,
        target=target,
        thresholds=_thresholds(options, target, recorded),
        pair=pair,
        clips=options.clip_predictions if recorded is None else recorded["clips"],
        metrics=main_first(metrics, options),
        rules=rules,
        vocabulary=vocabulary,
        length=options.row_length,
        long_texts=options.long_texts,
        sources=sources,
    )


def text_task_from_facts(facts: Mapping[str, Any], vocabulary: Vocabulary, *, rules: TextRules) -> TextTask:
    """Rebuild a task from the result of `TextTask.describe`, to read raw input; `rules` are those that it names."""
    return TextTask(
        name=facts["task"],
        target=_target(facts),
        thresholds=_recorded_thresholds(facts),
        pair=facts["pair"],
        clips=facts["clips"],
        metrics=tuple(facts["metrics"]),
        rules=rules,
        vocabulary=vocabulary,
        length=facts["length"],
        long_texts=facts["long_texts"],
        sources=NO_SOURCES,
    )


def _target(facts: Mapping[str, Any]) -> Target:
    if facts["kind"] == "regression":
        return Interval(*facts["target"])
    several = facts["kind"] == "multi_label_classification"
    return (LabelSets if several else Classes)(tuple(facts["target"]))


def main_first(metrics: tuple[str, ...], options: TaskOptions) -> tuple[str, ...]:
    """Return the scores with the one first that chooses checkpoints and heads the tables.

    Raises:
        UserError: if the task has no such score.
    """
    if options.main_metric is None:
        return metrics
    if options.main_metric not in metrics:
        raise UserError(
            f"MAIN_METRIC is {options.main_metric!r}: for {options.task} here it must be one of {', '.join(metrics)}"
        )
    return (options.main_metric, *(name for name in metrics if name != options.main_metric))


def _thresholds(options: TaskOptions, target: Target, recorded: Mapping[str, Any] | None) -> tuple[float, ...] | None:
    if options.label_threshold is not None and isinstance(target, LabelSets):
        return (options.label_threshold,) * len(target.labels)
    return None if recorded is None else _recorded_thresholds(recorded)


def _recorded_thresholds(facts: Mapping[str, Any]) -> tuple[float, ...] | None:
    return None if facts["thresholds"] is None else tuple(facts["thresholds"])

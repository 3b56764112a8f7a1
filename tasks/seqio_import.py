"""Make a downstream task from a task in SeqIO's registry, whoever added it: the inverse of `seqio_export`."""

import collections
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import seqio

from electra_jax.errors import UserError
from electra_jax.tasks.long_texts import count_fields
from electra_jax.tasks.probabilities import softmax
from electra_jax.tasks.protocol import Examples, Row
from electra_jax.tasks.rows import text_of
from electra_jax.tasks.text.tables import Interval, text_windows
from electra_jax.tasks.text.task import LabelPrediction, ValuePrediction
from electra_jax.tasks.vocabulary import Vocabulary

TARGETS = "targets"


@dataclasses.dataclass(frozen=True)
class RegisteredExample:
    """Hold the features of an example from SeqIO, and the same in readable form; raw input has only texts.

    Attributes:
        features: the task's features.
        index: the example's number in the split.
        text_a, text_b: its texts, or its word pieces.
        label: the number of its class, or its value; None for raw input and for tagging.
        words, tags: for tagging, the word pieces that have a label, and the labels.
    """

    features: Mapping[str, Any]
    index: int = 0
    text_a: str = ""
    text_b: str | None = None
    label: int | float | None = None
    words: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class LabelsPrediction:
    """Hold the predicted labels of the tokens of a row.

    Attributes:
        label_ids: numbers of the labels of all tokens, int32 [L].
        words: the word pieces that the task labels.
        tags: names of their labels.
        probabilities: the model's probability of each of those labels.
    """

    label_ids: np.ndarray
    words: tuple[str, ...]
    tags: tuple[str, ...]
    probabilities: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """Return `words` (word pieces), `tags`, and the model's `probabilities` of those tags."""
        return {"words": list(self.words), "tags": list(self.tags), "probabilities": list(self.probabilities)}


RegisteredPrediction = LabelPrediction | ValuePrediction | LabelsPrediction


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegisteredTask:
    """Read and score a task of SeqIO's registry; see `protocol.DownstreamTask`.

    Attributes:
        name: its name in the registry.
        kind: "classification", "regression" or "tagging", depending on whether its targets are class numbers, values,
            or a class number for each token.
        labels: the class numbers, as texts.
        interval: for a regression, the smallest and the largest value of the training split.
        clips: whether predicted values are clipped to the interval.
        main_metric: the first score that its metrics return.
        vocabulary: tokenises texts; a task's own word pieces must belong to it.
        length: largest number of tokens of a row; longer ones are cut.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    interval: Interval | None
    clips: bool
    main_metric: str
    vocabulary: Vocabulary
    length: int

    @property
    def splits(self) -> tuple[str, ...]:
        """Return SeqIO's splits, with "dev" for "validation"."""
        return tuple(split.replace("validation", "dev", 1) for split in self._seqio.splits)

    def examples(self, split: str) -> Examples:
        """Read a split through all of its preprocessors.

        Raises:
            UserError: if there is no such split, it is empty, or its word pieces belong to another vocabulary.
        """
        names = [name for name in self.splits if name == split or name.startswith(f"{split}_")]
        if not names:
            raise UserError(f"{self.name} has no {split} split in SeqIO's registry, but {', '.join(self.splits)}.")
        found = list(_read(self._seqio, names[0].replace("dev", "validation", 1), self.length))
        if not found:
            raise UserError(f"The {split} split of {self.name} in SeqIO's registry is empty.")
        largest = max((int(np.max(x.features.get("input_ids", 0), initial=0)) for x in found), default=0)
        if largest >= len(self.vocabulary.tokens):
            raise UserError(
                f"{self.name} has the word piece {largest}, but the model's vocabulary only "
                f"{len(self.vocabulary.tokens)}: register the task with the vocabulary of the model."
            )
        readable = [self._readable(number, example.features) for number, example in enumerate(found)]
        return Examples(readable, collections.Counter())

    def raw_examples(self, inputs: Sequence[Any]) -> list[RegisteredExample]:
        """Return the examples of texts, or of pairs of texts.

        Raises:
            UserError: if the task labels tokens, whose words are not known.
        """
        if self.kind == "tagging":
            raise UserError(
                f"{self.name} labels tokens that SeqIO made, so that raw input has none: add it to a split."
            )
        examples = []
        for value in inputs:
            texts = [value] if isinstance(value, str) else list(value)
            examples.append(RegisteredExample(dict(zip(("text", "text_b"), texts, strict=False))))
        return examples

    def rows(self, examples: Sequence[RegisteredExample], *, training: bool) -> list[Row]:
        """Return a row per example, with its target if it has one."""
        del training
        return [self._row(number, example.features) for number, example in enumerate(examples)]

    def predictions(
        self, examples: Sequence[RegisteredExample], rows: Sequence[Row], outputs: Sequence[Mapping[str, np.ndarray]]
    ) -> list[RegisteredPrediction]:
        """Return a prediction for each example from `logits`: [C]; [1] for a regression, [L, C] for tagging."""
        logits = {int(row["example"]): output["logits"] for row, output in zip(rows, outputs, strict=True)}
        return [self._prediction(example, logits[number]) for number, example in enumerate(examples)]

    def score(
        self, examples: Sequence[RegisteredExample], predictions: Sequence[RegisteredPrediction]
    ) -> dict[str, float]:
        """Return the scores of the task's own metrics, the main one first."""
        task = self._seqio
        targets, values = [], []
        for example, prediction in zip(examples, predictions, strict=True):
            target = np.asarray(example.features[TARGETS])
            for is_target, value, into in ((True, target, targets), (False, self._number(prediction), values)):
                shaped = (
                    np.broadcast_to(value, target.shape).tolist() if target.size == 1 else np.asarray(value).tolist()
                )
                into.append(task.postprocess_fn(shaped, example=example.features, is_target=is_target))
        return _metrics(task, targets, values)

    def describe(self) -> dict[str, Any]:
        """Return the facts that `task_from_facts` needs; raw input is read without the registry."""
        return {
            "task": self.name,
            "kind": self.kind,
            "registered": True,
            "labels": list(self.labels),
            "interval": None if self.interval is None else [self.interval.low, self.interval.high],
            "clips": self.clips,
            "main_metric": self.main_metric,
            "length": self.length,
        }

    @property
    def _seqio(self) -> seqio.Task:
        if self.name not in seqio.TaskRegistry.names():
            raise UserError(
                f"The task {self.name!r} is not in SeqIO's registry: give a Gin file that imports the module that adds "
                "it (--gin_file)."
            )
        return seqio.TaskRegistry.get(self.name)

    def _row(self, number: int, features: Mapping[str, Any]) -> Row:
        counts: Row = {}
        if "input_ids" in features:
            # SeqIO has already cut them, and does not report how many there were.
            ids = np.asarray(features["input_ids"], np.int32)
            types = np.asarray(features.get("token_type_ids", np.zeros_like(ids)), np.int32)
        else:
            texts = [text_of(features["text"]), text_of(features["text_b"]) if "text_b" in features else None]
            pair = texts[0] or "", texts[1]
            (made,) = text_windows([pair], vocabulary=self.vocabulary, length=self.length, long_texts="cut")
            ids, types = (np.array(values, np.int32) for values in made.rows[0])
            counts = count_fields(made.num_tokens, made.num_cut)
        row = {"input_ids": ids, "token_type_ids": types, "example": np.array(number, np.int32)} | counts
        if TARGETS not in features:
            return row
        target = np.asarray(features[TARGETS])
        if self.kind == "tagging":
            labelled = {"label_ids": np.maximum(target, 0), "label_mask": (target >= 0).astype(np.float32)}
            return row | labelled
        if self.interval is not None:
            return row | {"label": np.array(self.interval.normalised(target.item()), np.float32)}
        return row | {"label": np.array(target.item(), np.int32)}

    def _readable(self, number: int, features: Mapping[str, Any]) -> RegisteredExample:
        pieces = [self.vocabulary.tokens[piece] for piece in np.asarray(features.get("input_ids", ()), np.int32)]
        texts = [text_of(features[name]) for name in ("text", "text_b") if name in features]
        text_a, text_b = [*(texts or [" ".join(pieces)]), None][:2]
        if TARGETS not in features:
            return RegisteredExample(features, number, text_a, text_b)
        target = np.asarray(features[TARGETS])
        if self.kind != "tagging":
            return RegisteredExample(features, number, text_a, text_b, label=target.item())
        labelled = np.flatnonzero(target >= 0).tolist()
        words, tags = (tuple(of[place] for place in labelled) for of in (pieces, target.tolist()))
        return RegisteredExample(features, number, text_a, words=words, tags=tuple(self.labels[tag] for tag in tags))

    def _prediction(self, example: RegisteredExample, logits: np.ndarray) -> RegisteredPrediction:
        if self.kind == "tagging":
            label_ids = np.argmax(logits, axis=-1).astype(np.int32)
            labelled = np.flatnonzero(np.asarray(example.features[TARGETS]) >= 0)
            shares = np.exp(logits.max(-1) - np.logaddexp.reduce(logits, axis=-1))[labelled].tolist()
            tags = tuple(self.labels[number] for number in label_ids[labelled])
            return LabelsPrediction(label_ids, example.words, tags, tuple(shares))
        if self.interval is not None:
            value = self.interval.denormalised(np.asarray(logits).item())
            return ValuePrediction(self.interval.nearest(value) if self.clips else value)
        probabilities = softmax(logits.astype(np.float64)).tolist()
        return LabelPrediction(self.labels[int(np.argmax(logits))], dict(zip(self.labels, probabilities, strict=True)))

    def _number(self, prediction: RegisteredPrediction) -> Any:
        if isinstance(prediction, LabelsPrediction):
            return prediction.label_ids
        if isinstance(prediction, ValuePrediction):
            return prediction.value
        return self.labels.index(prediction.label)


def task_of_registry(name: str, vocabulary: Vocabulary, *, length: int, clips: bool) -> RegisteredTask:
    """Return a task of SeqIO's registry as a downstream task.

    Its features must be `text` (and `text_b`) or `input_ids` (and `token_type_ids`), and `targets`: an integer (a
    class, with as many classes as entries in the feature's vocabulary), a float (a value), or an integer for each word
    piece (-1: none).

    Args:
        name: a name in the registry.
        vocabulary: tokenises texts.
        length: largest number of tokens of a row.
        clips: whether predicted values are clipped to the interval of the training split's.

    Raises:
        UserError: if the task has other features, has no metric of `targets` and `predictions`, or has no example.
    """
    task = seqio.TaskRegistry.get(name)
    features = task.output_features
    if TARGETS not in features or not {"text", "input_ids"} & features.keys() or "answer_mask" in features:
        raise UserError(
            f"The task {name} of SeqIO's registry has the features {', '.join(features)}: it needs text or input_ids, "
            "and targets that are a class, a value or a label for each token."
        )
    if not task.predict_metric_fns:
        raise UserError(f"The task {name} of SeqIO's registry has no metric_fn of (targets, predictions) to choose by.")
    training = list(_read(task, task.splits[0], length))
    if not training:
        raise UserError(f"The {task.splits[0]} split of {name} in SeqIO's registry is empty.")
    targets = [np.asarray(example.features[TARGETS]) for example in training]
    is_tagging = features[TARGETS].rank == 1 and any(target.size != 1 for target in targets)
    interval, labels = None, tuple(map(str, range(features[TARGETS].vocabulary.vocab_size)))
    if features[TARGETS].dtype.is_floating:
        values = [target.item() for target in targets]
        interval, labels = Interval(min(values), max(values)), ()
    kind = "tagging" if is_tagging else "classification" if interval is None else "regression"
    if kind != "regression" and len(labels) < 2:
        raise UserError(
            f"The targets of {name} have a vocabulary of {len(labels)} entries: give them "
            "seqio.PassThroughVocabulary(number of classes)."
        )
    # The names of the scores are known only once they are computed.
    scores = _metrics(
        task,
        *(
            [
                task.postprocess_fn(np.asarray(target).tolist(), example=example.features, is_target=is_target)
                for target, example in zip(targets, training, strict=True)
            ]
            for is_target in (True, False)
        ),
    )
    return RegisteredTask(
        name=name,
        kind=kind,
        labels=labels,
        interval=interval,
        clips=clips,
        main_metric=next(iter(scores)),
        vocabulary=vocabulary,
        length=length,
    )


def task_from_facts(facts: Mapping[str, Any], vocabulary: Vocabulary) -> RegisteredTask:
    """Rebuild a task from the result of `RegisteredTask.describe`; only its splits and scores need the registry."""
    return RegisteredTask(
        name=facts["task"],
        kind=facts["kind"],
        labels=tuple(facts["labels"]),
        interval=None if facts["interval"] is None else Interval(*facts["interval"]),
        clips=facts["interval"] is not None and facts["clips"],
        main_metric=facts["main_metric"],
        vocabulary=vocabulary,
        length=facts["length"],
    )


def _read(task: seqio.Task, split: str, length: int) -> Iterator[RegisteredExample]:
    lengths = {key: length for key, feature in task.output_features.items() if feature.rank == 1}
    dataset = task.get_dataset(sequence_length=lengths, split=split, shuffle=False, num_epochs=1)
    for features in dataset.as_numpy_iterator():
        yield RegisteredExample(features)


def _metrics(task: seqio.Task, targets: Sequence[Any], predictions: Sequence[Any]) -> dict[str, float]:
    scores = {}
    for metric_fn in task.predict_metric_fns:
        for name, value in metric_fn(targets=targets, predictions=predictions).items():
            scores[name] = float(getattr(value, "value", value))
    return scores

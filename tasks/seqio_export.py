"""Make SeqIO tasks from downstream tasks, for `seqio.get_dataset`, SeqIO's Evaluator and T5X.

Such a SeqIO task yields a row of word pieces for each example (or window of it), with these features:

    input_ids, token_type_ids   int32 [L]
    targets                     classification: int32 [1], the class's number; regression: float32 [1], from 0 to 1;
                                tagging: int32 [L], -1 where no label is; question answering: int32 [3]: start and end
                                (inclusive) and 1 if there is no answer. Unlabelled: -1, or NaN.
    answer_mask                 question answering: int32 [L]

"dev" is called "validation". The metrics are the official ones. They take predictions in the form of the targets, an
array for each row; for question answering, the best span [2] of each window, with `aux_values`: its `scores` and, if
questions may have no answer, the `null_scores`.

A task of your own is registered like any SeqIO task, with `text` (and `text_b`) or word pieces as its features.
`seqio_import.task_of_registry` reads it, so that `electra finetune --gin.TASK="weather"` finds it by its name:

    import numpy as np, seqio, tensorflow as tf

    classes = seqio.PassThroughVocabulary(3)
    features = {"text": seqio.Feature(classes, dtype=tf.string, rank=0), "targets": seqio.Feature(classes, rank=0)}
    seqio.TaskRegistry.add(
        "weather",
        source=seqio.TextLineDataSource({"train": "train.tsv", "validation": "dev.tsv"}),
        preprocessors=[lambda d: d.map(lambda x: dict(zip(features, tf.io.decode_csv(x, ["", 0], "\\t", False))))],
        output_features=features,
        metric_fns=[lambda targets, predictions: {"accuracy": 100 * np.mean(np.equal(targets, predictions))}],
    )
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import seqio

from electra_jax.errors import UserError
from electra_jax.tasks.host_tensorflow import tf
from electra_jax.tasks.protocol import VECTOR_KINDS, DownstreamTask, Row
from electra_jax.tasks.seqio_vocabulary import SeqioVocabulary
from electra_jax.tasks.text.tables import Interval
from electra_jax.tasks.text.task import TextTask

_ROW_FEATURES = ("input_ids", "token_type_ids")


def register(task: DownstreamTask) -> None:
    """Register a downstream task with SeqIO under its name, replacing any other task of that name.

    Raises:
        UserError: if examples may have several labels or choices, or the task is on vectors of texts, for whose pairs
            SeqIO's features have no place.
    """
    if task.kind in VECTOR_KINDS:
        raise UserError(f"{task.name} makes vectors, which SeqIO has no place for: use electra finetune")
    if task.kind in ("multiple_choice", "prompt"):
        raise UserError(
            f"{task.name} reads a row for each choice or label, which SeqIO has no place for: use electra finetune"
        )
    if task.kind == "multi_label_classification":
        raise UserError(
            f"{task.name} gives a text several labels, and a SeqIO task of ours has one target: use electra "
            "finetune, or set MULTI_LABEL = False for one label each"
        )
    features = {key: seqio.Feature(SeqioVocabulary(task.vocabulary), add_eos=False) for key in ("input_ids",)}
    number = functools.partial(seqio.Feature, add_eos=False)
    features["token_type_ids"] = number(seqio.PassThroughVocabulary(2))
    if task.kind == "question_answering":
        features["answer_mask"] = number(seqio.PassThroughVocabulary(2))
    target_type = tf.float32 if task.kind == "regression" else tf.int32
    features["targets"] = number(seqio.PassThroughVocabulary(len(task.labels)), dtype=target_type)
    scorer = _Scorer(task)
    seqio.TaskRegistry.remove(task.name)
    seqio.TaskRegistry.add(
        task.name,
        source=RowSource(task),
        preprocessors=[],
        output_features=features,
        postprocess_fn=scorer.postprocess,
        metric_fns=[scorer.metric_fn],
    )


def seqio_split(split: str) -> str:
    """Return SeqIO's name of a split: "validation_matched" for "dev_matched"."""
    return split.replace("dev", "validation", 1) if split.startswith("dev") else split


def sequence_lengths(task: DownstreamTask) -> dict[str, int]:
    """Return SeqIO's `sequence_length` of a registered task, which pads its rows to the task's length."""
    lengths = dict.fromkeys(_ROW_FEATURES, task.length)
    if task.kind == "question_answering":
        return lengths | {"answer_mask": task.length, "targets": 3}
    return lengths | {"targets": task.length if task.kind == "tagging" else 1}


class RowSource(seqio.DataSource):
    """Read the rows of a downstream task, with `row`, the number of each, and `split`, the task's name of the split."""

    def __init__(self, task: DownstreamTask) -> None:
        """Take the task; nothing is read before the first dataset is requested."""
        self._task = task
        self._splits_of_task = {seqio_split(split): split for split in task.splits}
        super().__init__(splits=list(self._splits_of_task))

    @property
    def supports_arbitrary_sharding(self) -> bool:
        """Return False: a split is read as a whole."""
        return False

    def list_shards(self, split: str) -> Sequence[str]:
        """Return the one shard of a split."""
        return [split]

    def get_dataset(
        self,
        split: str = "train",
        shuffle: bool = True,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
        **_unused: Any,
    ) -> tf.data.Dataset:
        """Return the rows in the order of the file or, if `shuffle`, in one drawn from `seed`.

        Raises:
            UserError: if more than one shard is requested.
        """
        if shard_info is not None and shard_info.num_shards > 1:
            raise UserError(f"The split {split} of {self._task.name} is one shard: let SeqIO shard its examples.")
        signature = {
            key: tf.TensorSpec([None], value.dtype)
            for key, value in _seqio_row(self._task, _empty_row(self._task)).items()
        }
        signature |= {"row": tf.TensorSpec([], tf.int32), "split": tf.TensorSpec([], tf.string)}
        return tf.data.Dataset.from_generator(
            lambda: self._rows(self._splits_of_task[split], shuffle=shuffle, seed=seed), output_signature=signature
        )

    def _rows(self, split: str, *, shuffle: bool, seed: int | None) -> Iterator[dict[str, Any]]:
        rows = self._task.rows(self._task.examples(split).examples, training=split == "train")
        order = np.random.default_rng(seed).permutation(len(rows)) if shuffle else np.arange(len(rows))
        for number in order.tolist():
            yield {"row": number, "split": split} | _seqio_row(self._task, rows[number])


class RowFeatureConverter(seqio.FeatureConverter):
    """Pad rows with 0 and name features as `protocol.Row` does; there is a subclass for each kind of task."""

    PACKING_FEATURE_DTYPES: Mapping[str, tf.dtypes.DType] = {}

    def __init__(self, pack: bool = False, **kwargs: Any) -> None:
        """Take the arguments of SeqIO's own converters, as T5X calls them.

        Raises:
            UserError: if `pack` is True.
        """
        if pack:
            raise UserError("Rows of downstream tasks are not packed: set pack to False.")
        super().__init__(pack=pack, **kwargs)

    def _convert_features(self, ds: tf.data.Dataset, task_feature_lengths: Mapping[str, int]) -> tf.data.Dataset:
        def prepare(features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            kept = {key: features[key] for key in self.TASK_FEATURES}
            # Add 1 so that padding with 0 does not look like a target.
            return kept | {"targets": kept["targets"] + 1, "attention_mask": tf.ones_like(kept["input_ids"])}

        def finish(features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            targets = features.pop("targets") - 1
            return features | self._model_targets(targets)

        lengths = {**task_feature_lengths, "attention_mask": task_feature_lengths["input_ids"]}
        return self._pack_or_pad(ds.map(prepare), lengths).map(finish)

    def get_model_feature_lengths(self, task_feature_lengths: Mapping[str, int]) -> Mapping[str, int]:
        """Return the length of a row for every feature; SeqIO ignores that of a scalar target."""
        return dict.fromkeys(self.MODEL_FEATURES, task_feature_lengths["input_ids"])

    def _model_targets(self, targets: tf.Tensor) -> dict[str, tf.Tensor]:
        raise NotImplementedError


def _specs(
    names: Sequence[str], dtype: tf.dtypes.DType = tf.int32, rank: int = 1
) -> dict[str, seqio.FeatureConverter.FeatureSpec]:
    return {name: seqio.FeatureConverter.FeatureSpec(dtype=dtype, rank=rank) for name in names}


class ClassificationFeatureConverter(RowFeatureConverter):
    """Produce `label`, int32 []."""

    TASK_FEATURES = _specs((*_ROW_FEATURES, "targets"))
    MODEL_FEATURES = _specs((*_ROW_FEATURES, "attention_mask")) | _specs(("label",), rank=0)

    def _model_targets(self, targets: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"label": targets[0]}


class RegressionFeatureConverter(ClassificationFeatureConverter):
    """Produce `label`, float32 [], from 0 to 1."""

    TASK_FEATURES = _specs(_ROW_FEATURES) | _specs(("targets",), tf.float32)
    MODEL_FEATURES = _specs((*_ROW_FEATURES, "attention_mask")) | _specs(("label",), tf.float32, rank=0)


class TaggingFeatureConverter(RowFeatureConverter):
    """Produce `label_ids`, int32 [L], and `label_mask`, float32 [L]."""

    TASK_FEATURES = _specs((*_ROW_FEATURES, "targets"))
    MODEL_FEATURES = _specs((*_ROW_FEATURES, "attention_mask", "label_ids")) | _specs(("label_mask",), tf.float32)

    def _model_targets(self, targets: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"label_ids": tf.maximum(targets, 0), "label_mask": tf.cast(targets >= 0, tf.float32)}


class QuestionAnsweringFeatureConverter(RowFeatureConverter):
    """Produce `answer_mask`, int32 [L], and `start_positions`, `end_positions` and `is_impossible`, int32 []."""

    TASK_FEATURES = _specs((*_ROW_FEATURES, "answer_mask", "targets"))
    MODEL_FEATURES = _specs((*_ROW_FEATURES, "answer_mask", "attention_mask")) | _specs(
        ("start_positions", "end_positions", "is_impossible"), rank=0
    )

    def _model_targets(self, targets: tf.Tensor) -> dict[str, tf.Tensor]:
        return dict(zip(("start_positions", "end_positions", "is_impossible"), tf.unstack(targets), strict=True))


FEATURE_CONVERTERS = {
    "classification": ClassificationFeatureConverter,
    "regression": RegressionFeatureConverter,
    "tagging": TaggingFeatureConverter,
    "question_answering": QuestionAnsweringFeatureConverter,
}


class _Scorer:
    """Compute a downstream task's scores as SeqIO's Evaluator asks: from a target and a prediction of each row."""

    def __init__(self, task: DownstreamTask) -> None:
        self._task = task
        self._read = functools.cache(self._examples_and_rows)

    @property
    def metric_fn(self) -> Callable[..., dict[str, float]]:
        """Return the metric; the names of its arguments tell SeqIO what to pass."""
        if self._task.kind == "question_answering":
            return self._score_spans
        return self._score_texts if isinstance(self._task, TextTask) else self._score_labels

    def postprocess(self, decoded: Any, *, example: Mapping[str, Any], is_target: bool) -> Any:
        """Return the label of a text; for other families, the split and the number of a row as its target."""
        if not isinstance(self._task, TextTask):
            place = (example["split"].decode(), int(example["row"]))
            return place if is_target else np.asarray(decoded)
        (value,) = np.ravel(decoded).tolist()
        if isinstance(self._task.target, Interval):
            return self._task.target.denormalised(value) if is_target else self._task.value_of(value)
        return None if value < 0 else int(value)

    def _score_texts(self, targets: Sequence[float | None], predictions: Sequence[float]) -> dict[str, float]:
        if any(target is None or np.isnan(target) for target in targets):
            raise UserError(f"Examples of {self._task.name} have no label, as in a test set: they cannot be scored.")
        return self._task.scores(targets, predictions)

    def _score_labels(self, targets: Sequence[tuple[str, int]], predictions: Sequence[np.ndarray]) -> dict[str, float]:
        if self._task.kind == "regression":
            return self._score(targets, [{"logits": value} for value in predictions])
        # Predictions at padding belong to no word.
        one_hot = np.eye(len(self._task.labels), dtype=np.float32)
        logits = [one_hot[np.maximum(ids, 0)] for ids in predictions]
        return self._score(targets, [{"logits": x[0] if self._task.kind == "classification" else x} for x in logits])

    def _score_spans(
        self,
        targets: Sequence[tuple[str, int]],
        predictions: Sequence[np.ndarray],
        aux_values: Mapping[str, Sequence[float]],
    ) -> dict[str, float]:
        outputs = [
            {
                "start_top_index": np.array([start]),
                "end_top_index": np.array([[end]]),
                "start_top_log_probs": np.array([score], np.float32),
                "end_top_log_probs": np.zeros((1, 1), np.float32),
            }
            for (start, end), score in zip(predictions, aux_values["scores"], strict=True)
        ]
        for output, null_score in zip(outputs, aux_values.get("null_scores", ()), strict=False):
            output["answerable_logit"] = np.float32(null_score)
        return self._score(targets, outputs)

    def _score(self, targets: Sequence[tuple[str, int]], outputs: Sequence[dict[str, np.ndarray]]) -> dict[str, float]:
        examples, rows = self._read(targets[0][0])
        if len(targets) != len(rows):
            raise UserError(
                f"{len(targets)} of the {len(rows)} rows of {self._task.name} were predicted: the official scores need "
                "all, so leave num_examples unset."
            )
        found = {number: output for (_, number), output in zip(targets, outputs, strict=True)}
        predictions = self._task.predictions(examples, rows, [found[number] for number in range(len(rows))])
        return self._task.score(examples, predictions)

    def _examples_and_rows(self, split: str) -> tuple[Sequence[Any], list[Row]]:
        examples = self._task.examples(split).examples
        return examples, self._task.rows(examples, training=False)


def _empty_row(task: DownstreamTask) -> Row:
    names = ("input_ids", "token_type_ids", "answer_mask")
    return {name: np.zeros(0, np.int32) for name in names[: 3 if task.kind == "question_answering" else 2]}


def _seqio_row(task: DownstreamTask, row: Row) -> dict[str, np.ndarray]:
    """Return the features of a row; targets that it lacks are filled in."""
    features = {key: row[key] for key in (*_ROW_FEATURES, "answer_mask") if key in row}
    if task.kind == "tagging":
        labelled = row["label_mask"] > 0 if "label_mask" in row else np.zeros(len(row["input_ids"]), bool)
        targets = np.where(labelled, row.get("label_ids", -1), -1).astype(np.int32)
    elif task.kind == "question_answering":
        names = ("start_positions", "end_positions", "is_impossible")
        targets = np.array([row.get(name, -1) for name in names], np.int32)
    elif task.kind == "regression":
        targets = np.array([row.get("label", np.nan)], np.float32)
    else:
        targets = np.array([row.get("label", -1)], np.int32)
    return features | {"targets": targets}

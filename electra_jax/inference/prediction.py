"""Answer texts and token ids: `electra_jax.load(path)(texts)`, `electra predict`, `electra evaluate`.

A fine-tuned model answers as its task does. A pre-trained one shows which tokens look replaced, and fills in [MASK].
TensorFlow is not needed.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from electra_jax.checkpoints.model_record import TASK_KINDS, per_token_outputs
from electra_jax.data.buckets import bucket_of, stack
from electra_jax.data.forward import INPUTS, RowRunner, row_outputs
from electra_jax.errors import UserError
from electra_jax.inference.inputs import FIELDS, as_input, as_list
from electra_jax.inference.network import Network
from electra_jax.tasks.answering import RunRows, predict_rows
from electra_jax.tasks.catalog import task_from_facts
from electra_jax.tasks.long_texts import CutCount, count_fields
from electra_jax.tasks.probabilities import sigmoid, softmax
from electra_jax.tasks.protocol import DownstreamTask, Prediction, Row
from electra_jax.tasks.text.tables import TextExample, text_windows

logger = logging.getLogger(__name__)

Record = dict[str, Any]

NUM_FILLINGS = 5


def predict(model: Network, inputs: Any, *, batch_size: int) -> list[Record]:
    """Return a record for each input, in order; see `Model.__call__`.

    Raises:
        UserError: if an input has another form than the model reads, or the model reads no text.
    """
    values = [as_input(model, value, f"input {number}") for number, value in enumerate(as_list(inputs), start=1)]
    count = CutCount(model.description.row_length)
    records = answers(model, values, batch_size=batch_size, count=count)
    if count.texts:
        logger.warning("%s", count)
    return records


def answers(model: Network, values: Sequence[Any], *, batch_size: int, count: CutCount) -> list[Record]:
    """Return a record for each value that `as_input` returned, and add to `count` what was cut off from them.

    Raises:
        UserError: if the model's vocabulary lacks a special token, or a row is too long for the model.
    """
    if not values:
        return []
    if model.description.task_kind is None:
        return describe_texts(model, list(map(as_pair, values)), batch_size, count)
    facts = model.description.task
    task = task_from_facts(facts_of_head(model) if facts is None else facts, model.pieces)
    if facts is None and task.kind in ("classification", "multi_label_classification", "regression"):
        # An imported model does not record whether it reads pairs, so it reads what it is given.
        pairs = map(as_pair, values)
        examples: Sequence[Any] = [TextExample(number, *pair, None) for number, pair in enumerate(pairs)]
    else:
        examples = task.raw_examples(values)
    found = predict_examples(model, task, examples, batch_size=batch_size, count=count)
    return [prediction.to_json() for prediction in found]


def as_pair(value: str | tuple[str, str]) -> tuple[str, str | None]:
    """Return a text and its second text; the latter is None if there is none."""
    return (value, None) if isinstance(value, str) else value


def facts_of_head(model: Network) -> Mapping[str, Any]:
    """Return the facts of a task for a model of another library, of which only the head is known.

    Rows are as long as the directory states, or as the model can read.
    """
    kind, length = TASK_KINDS[model.description.kind], model.description.longest_row
    if kind == "tagging":
        return {
            "task": "this model",
            "kind": kind,
            "length": length,
            "labels": list(model.labels),
            # Tags are returned as the model has them, because they may not mark entities.
            "scheme": None,
            "encoding": "BIO",
            "rules": "standard",
        }
    if kind == "multiple_choice":
        return {"task": "this model", "kind": kind, "fills_blanks": False, "rules": "standard", "length": length}
    if kind == "question_answering":
        windows = {
            "max_sequence_length": length,
            "max_question_length": min(64, length // 4),
            "doc_stride": min(128, length // 2),
        }
        decoding = {"n_best_size": 20, "max_answer_length": 30, "null_odds_against_best_span": True}
        # SQuAD 2.0 scoring gives null odds; without a threshold, every question is answered anyway.
        return {
            "task": "this model",
            "kind": kind,
            "scoring": "squad_v2",
            "windows": windows,
            "decoding": decoding,
            "null_threshold": None,
            "rules": "standard",
        }
    # Numbers are returned without clipping, cosines too.
    target = [-np.inf, np.inf] if kind in ("regression", "similarity") else list(model.labels)
    return {
        "task": "this model",
        "kind": kind,
        "target": target,
        "pair": False,
        "metrics": [],
        "rules": "standard",
        "length": length,
    }


def predict_examples(
    model: Network, task: DownstreamTask, examples: Sequence[Any], *, batch_size: int, count: CutCount
) -> list[Prediction]:
    """Return a prediction for each example of a task that the model's labels fit; see `answers` for `count`."""
    rows = task.rows(examples, training=False)
    # A pre-training head has no labels of its own.
    labels = model.labels or task.labels
    found = predict_rows(task, examples, rows, row_runner(model, batch_size, len(rows)), labels=labels)
    # Count only now: examples that are refused together are asked again in parts.
    count.add(rows)
    return found


def row_runner(model: Network, batch_size: int, num_rows: int) -> RunRows:
    """Return a function that runs a model on rows, on one device; a row of multiple choice is one choice.

    It raises UserError if the outputs are not numbers.

    Args:
        model: the model.
        batch_size: the most rows of a batch.
        num_rows: the total number of rows; see `rows_of_batch`.
    """
    choices = model.description.kind == "multiple_choice"

    def launch(batch: Mapping[str, np.ndarray]) -> Any:
        return model.launch(*(batch[name][:, None] if choices else batch[name] for name in FIELDS))

    runner = RowRunner(
        launch=launch,
        per_token=per_token_outputs(model.description.kind),
        batch_size=rows_of_batch(num_rows, batch_size),
        buckets=model.lengths,
    )

    def run(rows: Sequence[Row]) -> list[dict[str, np.ndarray]]:
        outputs = runner(rows)
        for output in outputs:
            check_numbers(output)
        return outputs

    return run


def check_numbers(outputs: Mapping[str, np.ndarray]) -> None:
    """Check that the outputs of a row are numbers: JSON has no others, and no answer could be drawn from them.

    Raises:
        UserError: if one is NaN or infinite, except for minus infinity, the logit of an impossible output.
    """
    if any((np.isnan(values) | np.isposinf(values)).any() for values in outputs.values()):
        raise UserError(
            "the model's outputs are NaN or infinite, which are no numbers: its weights are damaged, or its training "
            "diverged"
        )


def rows_of_batch(num_rows: int, batch_size: int) -> int:
    """Return the size to which a batch is filled up: a power of two or `batch_size`, so that few sizes are compiled."""
    return min(batch_size, 1 << max(0, num_rows - 1).bit_length())


def describe_texts(
    model: Network, pairs: Sequence[tuple[str, str | None]], batch_size: int, count: CutCount
) -> list[Record]:
    """Return a record of tokens for each text from a model without a task: see `describe_logits`.

    If there is a generator, "[MASK]" in a text is the mask token, and `fillings` are its likeliest tokens there. A
    discriminator of the same model then reads the likeliest one, as in pre-training.
    """
    pieces = model.pieces
    fills_masks = model.description.fills_masks
    length = model.description.encoder.max_position_embeddings
    made = text_windows(pairs, vocabulary=pieces, length=length, long_texts="cut", read_mask=fills_masks)
    rows = [{name: np.array(values, np.int32) for name, values in each.rows[0]._asdict().items()} for each in made]
    fillings = [fill(model, row) if fills_masks and pieces.mask_id in row["input_ids"] else None for row in rows]
    outputs = row_runner(model, batch_size, len(rows))(rows)
    records = []
    for row, output, found in zip(rows, outputs, fillings, strict=True):
        record = describe_tokens(model, row["input_ids"]) | describe_logits(model, output["logits"])
        records.append(record if found is None else record | {"fillings": found})
    count.add(
        [
            {"example": np.array(number)} | count_fields(text.num_tokens, text.num_cut)
            for number, text in enumerate(made)
        ]
    )
    return records


def fill(model: Network, row: Row) -> list[Record]:
    """Return the likeliest tokens at each [MASK] of a row.

    If the model has a discriminator, which reads the row next, the likeliest token is written into the row.
    """
    count = len(row["input_ids"])
    batch = stack([{name: row[name] for name in INPUTS}], length=bucket_of(count, model.lengths), size=1)
    logits_LV = model.generator_logits(*(batch[name] for name in FIELDS))[0, :count]
    found = []
    for position in np.flatnonzero(row["input_ids"] == model.pieces.mask_id).tolist():
        probabilities_V = softmax(logits_LV[position])
        best = np.argsort(-probabilities_V, kind="stable")[:NUM_FILLINGS].tolist()
        candidates = [
            {"token": model.pieces.tokens[token], "probability": float(probabilities_V[token])} for token in best
        ]
        found.append({"position": position, "candidates": candidates})
        if model.description.discriminator is not None:
            row["input_ids"][position] = best[0]
    return found


def predict_ids(model: Network, examples: Sequence[Mapping[str, Any]], *, batch_size: int) -> list[Record]:
    """Return a record for each example of token ids: `describe_tokens`, and the head's outputs without padding.

    The outputs are the arrays of a question-answering head, or for other models the result of `describe_logits`.

    Args:
        model: the model.
        examples: mappings with `input_ids` [L] (multiple choice: [C, L]) and optionally the other arguments of
            `Network.logits`; at most `batch_size`.
        batch_size: the most rows of a batch.

    Raises:
        UserError: if the arrays of an example have different shapes, the model does not read them, or its outputs are
            not numbers.
    """
    batch = in_bucket(model, examples, batch_size=batch_size)
    per_token = per_token_outputs(model.description.kind)
    result = model.logits(**batch)
    records = []
    for slot, example in enumerate(examples):
        ids = np.asarray(example["input_ids"])
        outputs = row_outputs(result, slot, ids.shape[-1], per_token)
        check_numbers(outputs)
        if "logits" in outputs:
            described = describe_logits(model, outputs["logits"])
        else:
            described = {name: values.tolist() for name, values in outputs.items()}
        records.append(describe_tokens(model, ids) | described)
    return records


def in_bucket(model: Network, examples: Sequence[Mapping[str, Any]], *, batch_size: int) -> dict[str, np.ndarray]:
    """Return examples of token ids padded to one of few shapes, so that few programs are compiled; see `padded_ids`."""
    longest = max(np.shape(example["input_ids"])[-1] for example in examples)
    length, size = bucket_of(longest, model.lengths), rows_of_batch(len(examples), batch_size)
    return padded_ids(examples, length=length, size=size)


def padded_ids(examples: Sequence[Mapping[str, Any]], *, length: int, size: int) -> dict[str, np.ndarray]:
    """Return the arguments of `Network.logits`, padded; the attention mask of the padding is 0.

    Args:
        examples: as for `predict_ids`.
        length: length to which the rows are padded, at least that of the longest.
        size: number of examples; copies of the last one fill up the batch.

    Raises:
        UserError: if the arrays of an example have different shapes, or examples different numbers of axes.
    """
    arrays: dict[str, list[np.ndarray]] = {name: [] for name in FIELDS}
    for example in [*examples, *[examples[-1]] * (size - len(examples))]:
        ids = np.asarray(example["input_ids"])
        defaults = {"attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        for name in FIELDS:
            values = np.asarray(example.get(name, defaults.get(name)))
            if values.shape != ids.shape:
                raise UserError(f"an example has {name} of shape {values.shape} and input_ids of {ids.shape}")
            padding = [(0, 0)] * (ids.ndim - 1) + [(0, length - ids.shape[-1])]
            # Ids are padded with the row's last one, so that an error about unknown ids concerns only the user's own.
            arrays[name].append(np.pad(values, padding, mode="edge" if name == "input_ids" else "constant"))
    try:
        return {name: np.stack(rows) for name, rows in arrays.items()}
    except ValueError as error:
        raise UserError(f"the examples do not have the same number of axes ({error})") from error


def describe_tokens(model: Network, ids: np.ndarray) -> Record:
    """Return `input_ids`, and `tokens` where the model has a vocabulary."""
    record: Record = {"input_ids": ids.tolist()}
    if model.vocabulary is not None and ids.ndim == 1:
        record["tokens"] = [model.vocabulary.tokens[token] for token in ids]
    return record


def describe_logits(model: Network, logits: np.ndarray) -> Record:
    """Return the logits of one example as JSON values, with what they mean.

    The record of a discriminator has `logits` and `replaced_probability` for each token; that of a generator
    `predicted_ids`, `predicted_logits` and, with a vocabulary, `predictions`; that of any other head `logits`, for
    classification and tagging also `probabilities` and the likeliest `label`, but only `probabilities` if a text may
    have several labels.
    """
    kind = model.description.kind
    if model.description.gives_energies:
        return {"logits": logits.tolist()}
    if kind in ("pretraining", "discriminator"):
        return {"logits": logits.tolist(), "replaced_probability": (1.0 / (1.0 + np.exp(-logits))).tolist()}
    if kind == "generator":
        best = logits.argmax(axis=-1)
        record: Record = {"predicted_ids": best.tolist(), "predicted_logits": logits.max(axis=-1).tolist()}
        if model.vocabulary is not None:
            record["predictions"] = [model.vocabulary.tokens[token] for token in best]
        return record
    record = {"logits": logits.tolist()}
    if kind == "multi_label_classification":
        record["probabilities"] = sigmoid(logits).tolist()
    if kind in ("sequence_classification", "token_classification"):
        record["probabilities"] = softmax(logits).tolist()
        best = logits.argmax(axis=-1)
        labels = model.labels
        record["label"] = labels[int(best)] if best.ndim == 0 else [labels[number] for number in best]
    return record

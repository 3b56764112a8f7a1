"""What a model says of text: `electra_jax.load(path)(texts)`, `electra predict`, `electra evaluate`.

A fine-tuned model answers as its task does. A pre-trained one is asked which tokens were replaced, and what stands
behind [MASK]. TensorFlow is not needed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from electra_jax.checkpoints.model_record import TASK_KINDS, per_token_outputs
from electra_jax.data.buckets import bucket_of, stack
from electra_jax.data.forward import RowRunner
from electra_jax.errors import UserError
from electra_jax.inference.inputs import FIELDS, as_input, as_list
from electra_jax.inference.network import Network
from electra_jax.tasks.answering import predict_rows
from electra_jax.tasks.catalog import task_from_facts
from electra_jax.tasks.probabilities import softmax
from electra_jax.tasks.protocol import DownstreamTask, Prediction, Row
from electra_jax.tasks.text.tables import TextExample, text_features
from electra_jax.tasks.tokenizer import WordPieces

Record = dict[str, Any]

# Rows are padded to one of these lengths, or to the most that the model takes.
LENGTHS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048)

# Where a user wants a token to be filled in.
MASK = "[MASK]"
NUM_FILLINGS = 5


def predict(model: Network, inputs: Any, *, batch_size: int) -> list[Record]:
    """What the model says of each input, in their order; see `Model.__call__`.

    Raises:
        UserError: an input of another form than the model reads, or a model that reads no text.
    """
    values = [as_input(model, value, f"input {number}") for number, value in enumerate(as_list(inputs), start=1)]
    return answers(model, values, batch_size=batch_size)


def answers(model: Network, values: Sequence[Any], *, batch_size: int) -> list[Record]:
    """What the model says of each of `as_input`'s values.

    Raises:
        UserError: the vocabulary or the sizes of the model do not do.
    """
    if not values:
        return []
    if model.description.kind not in TASK_KINDS:
        return look(model, list(map(as_pair, values)), batch_size)
    facts = model.description.facts.get("task")
    task = task_from_facts(facts_of_head(model) if facts is None else facts, model.pieces)
    if facts is None and task.kind in ("classification", "regression"):
        # An imported model does not say whether it reads pairs: it reads what it is given.
        pairs = map(as_pair, values)
        examples: Sequence[Any] = [TextExample(number, *pair, None) for number, pair in enumerate(pairs)]
    else:
        examples = task.raw_examples(values)
    found = predict_examples(model, task, examples, batch_size=batch_size)
    return [prediction.to_json() for prediction in found]


def as_pair(value: str | tuple[str, str]) -> tuple[str, str | None]:
    """A text without a second one, or both."""
    return (value, None) if isinstance(value, str) else value


def facts_of_head(model: Network) -> Mapping[str, Any]:
    """What can be said of the task of a model that comes from elsewhere: it reads as much text as it can."""
    kind, length = TASK_KINDS[model.description.kind], model.description.encoder.max_position_embeddings
    if kind == "tagging":
        return {
            "task": "this model",
            "kind": kind,
            "length": length,
            "labels": list(model.labels),
            # As the model says them: they need not be those of entities.
            "scheme": None,
            "encoding": "BIO",
            "rules": "standard",
        }
    if kind == "question_answering":
        windows = {
            "max_sequence_length": length,
            "max_question_length": min(64, length // 4),
            "doc_stride": min(128, length // 2),
        }
        decoding = {"n_best_size": 20, "max_answer_length": 30, "null_odds_against_best_span": True}
        # Scored as SQuAD 2.0, so that it gives null odds; without a threshold it answers all the same.
        return {
            "task": "this model",
            "kind": kind,
            "scoring": "squad_v2",
            "windows": windows,
            "decoding": decoding,
            "null_threshold": None,
            "rules": "standard",
        }
    target = list(model.labels) if kind == "classification" else [-np.inf, np.inf]
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
    model: Network, task: DownstreamTask, examples: Sequence[Any], *, batch_size: int
) -> list[Prediction]:
    """A prediction for each example of the model's task."""
    rows = task.rows(examples, training=False)
    return predict_rows(task, examples, rows, row_runner(model, batch_size, len(rows)), labels=model.labels)


def row_runner(model: Network, batch_size: int, num_rows: int) -> RowRunner:
    """Return what runs rows through a model, on one device.

    Args:
        model: any.
        batch_size: the most rows of a batch.
        num_rows: how many there are: fewer than a batch fill a smaller one, a power of two, so that few sizes are
            compiled.
    """
    return RowRunner(
        launch=lambda batch: model.launch(*(batch[name] for name in FIELDS)),
        per_token=per_token_outputs(model.description.kind),
        batch_size=min(batch_size, 1 << max(0, num_rows - 1).bit_length()),
        buckets=lengths_of(model),
    )


def tokens_of(row: Row) -> Row:
    """What the model reads of a row."""
    return {name: row[name] for name in ("input_ids", "token_type_ids")}


def lengths_of(model: Network) -> list[int]:
    """The lengths that rows are padded to; a row that is too long for the model stays so, and is refused by it."""
    most = model.description.encoder.max_position_embeddings
    return [*(length for length in LENGTHS if length < most), most]


class MaskedPieces:
    """A vocabulary that reads "[MASK]" in a text as the mask; `downstream.Pieces` never does."""

    def __init__(self, pieces: WordPieces) -> None:
        """Reads the rest of the text by `pieces`."""
        self.pieces = pieces
        self.cls_id, self.sep_id = pieces.cls_id, pieces.sep_id

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without special tokens other than the mask."""
        return [self._encode(text) for text in texts]

    def _encode(self, text: str) -> list[int]:
        first, *others = self.pieces.encode_batch(text.split(MASK))
        return [*first, *(token for part in others for token in (self.pieces.mask_id, *part))]


def look(model: Network, pairs: Sequence[tuple[str, str | None]], batch_size: int) -> list[Record]:
    """What a model without a task says of texts: a record of tokens, as `describe_logits`.

    Where there is a generator, "[MASK]" in a text is the mask, and `fillings` are what likely stands there. A
    discriminator beside it then reads the likeliest, as in pre-training.
    """
    pieces = model.pieces
    has_generator = model.description.generator is not None
    length = model.description.encoder.max_position_embeddings
    features = text_features(pairs, vocabulary=MaskedPieces(pieces) if has_generator else pieces, length=length)
    rows = [{name: np.array(values, np.int32) for name, values in each._asdict().items()} for each in features]
    fillings = [fill(model, row) if has_generator and pieces.mask_id in row["input_ids"] else None for row in rows]
    outputs = row_runner(model, batch_size, len(rows))(rows)
    records = []
    for row, output, found in zip(rows, outputs, fillings, strict=True):
        record = describe_tokens(model, row["input_ids"]) | describe_logits(model, output["logits"])
        records.append(record if found is None else record | {"fillings": found})
    return records


def fill(model: Network, row: Row) -> list[Record]:
    """The likeliest tokens at each [MASK] of a row, which gets the first of them if a discriminator is to read it."""
    count = len(row["input_ids"])
    batch = stack([tokens_of(row)], length=bucket_of(count, lengths_of(model)), size=1)
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


def predict_ids(model: Network, examples: Sequence[Mapping[str, Any]]) -> list[Record]:
    """A record for each example of token ids: `describe_tokens` and what the head says, per token as many as it has.

    Question answering gives each of its arrays, other heads what `describe_logits` says.

    Args:
        model: any.
        examples: mappings with `input_ids` [L] (of multiple choice [C, L]) and perhaps the other arguments of
            `Network.logits`.

    Raises:
        UserError: arrays that do not fit together or to the model.
    """
    batch, per_token = padded_ids(examples), per_token_outputs(model.description.kind)
    result = model.logits(**batch)
    records = []
    for slot, example in enumerate(examples):
        ids = np.asarray(example["input_ids"])
        named = result if isinstance(result, dict) else {"logits": result}
        outputs = {
            name: values[slot, : ids.shape[-1]] if name in per_token else values[slot] for name, values in named.items()
        }
        said = describe_logits(model, outputs["logits"]) if "logits" in outputs else as_lists(outputs)
        records.append(describe_tokens(model, ids) | said)
    return records


def as_lists(outputs: Mapping[str, np.ndarray]) -> Record:
    """Arrays as JSON values."""
    return {name: values.tolist() for name, values in outputs.items()}


def padded_ids(examples: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """The arguments of `Network.logits`, rows padded to the longest with 0, which the attention mask leaves out."""
    length = max(np.shape(example["input_ids"])[-1] for example in examples)
    arrays: dict[str, list[np.ndarray]] = {name: [] for name in FIELDS}
    for example in examples:
        ids = np.asarray(example["input_ids"])
        defaults = {"attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        for name in FIELDS:
            values = np.asarray(example.get(name, defaults.get(name)))
            if values.shape != ids.shape:
                raise UserError(f"an example has {name} of shape {values.shape} and input_ids of {ids.shape}")
            arrays[name].append(np.pad(values, [(0, 0)] * (ids.ndim - 1) + [(0, length - ids.shape[-1])]))
    try:
        return {name: np.stack(rows) for name, rows in arrays.items()}
    except ValueError as error:
        raise UserError(f"the examples do not have the same number of axes ({error})") from error


def describe_tokens(model: Network, ids: np.ndarray) -> Record:
    """`input_ids`, and `tokens` where the model has a vocabulary."""
    record: Record = {"input_ids": ids.tolist()}
    if model.vocabulary is not None and ids.ndim == 1:
        record["tokens"] = [model.vocabulary.tokens[token] for token in ids]
    return record


def describe_logits(model: Network, logits: np.ndarray) -> Record:
    """Logits of one example as a person reads them.

    A discriminator's `logits` and `replaced_probability` per token; a generator's `predicted_ids` (and `predictions`)
    and their `predicted_logits`; of other heads the `logits`, and of classification and tagging `probabilities` and
    the likeliest `label`.
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
    if kind in ("sequence_classification", "token_classification"):
        record["probabilities"] = softmax(logits).tolist()
        best = logits.argmax(axis=-1)
        labels = model.labels
        record["label"] = labels[int(best)] if best.ndim == 0 else [labels[number] for number in best]
    return record

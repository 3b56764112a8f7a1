"""What a model says of text: `electra_jax.load(path)(texts)`, `electra predict`, `electra evaluate`.

A fine-tuned model answers as its task does. A pre-trained one is asked which tokens were replaced, and what stands
behind [MASK]. TensorFlow is not needed.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from electra_jax.data.buckets import bucket_of, in_order_of_length, stack
from electra_jax.errors import UserError
from electra_jax.inference.inputs import as_list, canonical
from electra_jax.inference.network import Model
from electra_jax.tasks.catalog import task_from_facts
from electra_jax.tasks.protocol import DownstreamTask, Prediction, Row
from electra_jax.tasks.text.tables import TextExample, text_features
from electra_jax.tasks.vocabulary import Vocabulary

Record = dict[str, Any]

# The family of tasks of each kind of fine-tuned model.
FAMILIES = {
    "sequence_classification": "classification",
    "regression": "regression",
    "token_classification": "tagging",
    "question_answering": "question_answering",
}

# What heads say of every token; the rest of what they say is of the row.
PER_TOKEN = ("start_logits", "end_logits")
KINDS_PER_TOKEN = ("pretraining", "discriminator", "generator", "encoder", "token_classification")

# The arguments of `Model.logits`.
FIELDS = ("input_ids", "attention_mask", "token_type_ids")

# Rows are padded to one of these lengths, or to the most that the model takes.
LENGTHS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048)

# Where a user wants a token to be filled in.
MASK = "[MASK]"
NUM_FILLINGS = 5


def predict(model: Model, inputs: Any, *, batch_size: int) -> list[Record]:
    """What the model says of each input, in their order; see `Model.__call__`.

    Raises:
        UserError: an input of another form than the model reads, or a model that reads no text.
    """
    values = [as_input(model, value, f"input {number}") for number, value in enumerate(as_list(inputs), start=1)]
    return answers(model, values, batch_size=batch_size)


def as_input(model: Model, value: Any, where: str) -> Any:
    """What a user gave, in the form that the model reads: see `raw_input.canonical`.

    Raises:
        UserError: it cannot be read; begins with `where`.
    """
    kind = model.description.kind
    if kind == "multiple_choice":
        raise UserError(f"{where} is text, which a model of multiple choice does not read: give input_ids")
    pair = model.description.facts.get("task", {}).get("pair")
    found = canonical(value, FAMILIES.get(kind, kind), pair, where)
    if model.vocabulary is None:
        raise UserError(f"{where} is text, but the model has no vocabulary: give input_ids")
    return found


def answers(model: Model, values: Sequence[Any], *, batch_size: int) -> list[Record]:
    """What the model says of each of `as_input`'s values.

    Raises:
        UserError: the vocabulary or the sizes of the model do not do.
    """
    if not values:
        return []
    if model.description.kind not in FAMILIES:
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


def facts_of_head(model: Model) -> Mapping[str, Any]:
    """What can be said of the task of a model that comes from elsewhere: it reads as much text as it can."""
    kind, length = FAMILIES[model.description.kind], model.description.encoder.max_position_embeddings
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
    model: Model, task: DownstreamTask, examples: Sequence[Any], *, batch_size: int
) -> list[Prediction]:
    """A prediction for each example of the model's task."""
    rows = task.rows(examples, training=False)
    outputs = run_rows(model, rows, batch_size=batch_size)
    if task.labels:
        order = label_order(model, task)
        outputs = [{"logits": output["logits"][..., order]} for output in outputs]
    return task.predictions(examples, rows, outputs)


def label_order(model: Model, task: DownstreamTask) -> list[int]:
    """Which output of the model's head is each label of the task: another library may number them otherwise.

    Raises:
        UserError: they are not the same labels.
    """
    names = [label.casefold() for label in model.labels]
    if all(re.fullmatch(r"label_\d+", name) for name in names) and len(names) == len(task.labels):
        return list(range(len(names)))
    wanted = [label.casefold() for label in task.labels]
    if sorted(names) != sorted(wanted):
        raise UserError(
            f"the model says one of {', '.join(model.labels)}, but the labels of {task.name} are "
            f"{', '.join(task.labels)}: it was fine-tuned on another task"
        )
    return [names.index(label) for label in wanted]


def run_rows(model: Model, rows: Sequence[Row], *, batch_size: int) -> list[dict[str, np.ndarray]]:
    """The outputs of the model's head for each row, cut to its length: heads without names give `logits`.

    Rows run beside others of about their length, so that little is computed for padding. What a row gives does not
    depend on its neighbours, but for the rounding of float32.
    """
    outputs: list[dict[str, np.ndarray]] = [{} for _ in rows]
    # Fewer rows than a batch fill up a smaller one: a power of two, so that few sizes are compiled.
    size = min(batch_size, 1 << max(0, len(rows) - 1).bit_length())
    buckets = lengths_of(model)
    batches = in_order_of_length([tokens_of(row) for row in rows], batch_size=size, buckets=buckets)
    for numbers, result in one_ahead(model, batches):
        named = result if isinstance(result, dict) else {"logits": result}
        for slot, number in enumerate(numbers):
            length = len(rows[number]["input_ids"])
            outputs[number] = {
                name: values[slot, :length] if is_per_token(model, name) else values[slot]
                for name, values in named.items()
            }
    return outputs


def one_ahead(model: Model, batches: Iterable[tuple[np.ndarray, Row]]) -> Iterator[tuple[np.ndarray, Any]]:
    """The numbers of each batch's rows and its logits, the next batch launched before they are waited for."""
    waiting: tuple[np.ndarray, Any] | None = None
    for numbers, batch in batches:
        launched = numbers, model.launch(*(batch[name] for name in FIELDS))
        if waiting is not None:
            yield jax.device_get(waiting)
        waiting = launched
    if waiting is not None:
        yield jax.device_get(waiting)


def tokens_of(row: Row) -> Row:
    """What the model reads of a row."""
    return {name: row[name] for name in ("input_ids", "token_type_ids")}


def is_per_token(model: Model, name: str) -> bool:
    """Whether an output has a value, or a row of them, for each token."""
    return name in PER_TOKEN or (name == "logits" and model.description.kind in KINDS_PER_TOKEN)


def lengths_of(model: Model) -> list[int]:
    """The lengths that rows are padded to; a row that is too long for the model stays so, and is refused by it."""
    most = model.description.encoder.max_position_embeddings
    return [*(length for length in LENGTHS if length < most), most]


class MaskedPieces:
    """A vocabulary that reads "[MASK]" in a text as the mask; `Vocabulary` never does."""

    def __init__(self, pieces: Vocabulary) -> None:
        """Reads the rest of the text by `pieces`."""
        self.pieces = pieces
        self.cls_id, self.sep_id = pieces.cls_id, pieces.sep_id

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without special tokens other than the mask."""
        return [self._encode(text) for text in texts]

    def _encode(self, text: str) -> list[int]:
        first, *others = self.pieces.encode_batch(text.split(MASK))
        return [*first, *(token for part in others for token in (self.pieces.mask_id, *part))]


def look(model: Model, pairs: Sequence[tuple[str, str | None]], batch_size: int) -> list[Record]:
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
    outputs = run_rows(model, rows, batch_size=batch_size)
    records = []
    for row, output, found in zip(rows, outputs, fillings, strict=True):
        record = describe_tokens(model, row["input_ids"]) | describe_logits(model, output["logits"])
        records.append(record if found is None else record | {"fillings": found})
    return records


def fill(model: Model, row: Row) -> list[Record]:
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


def predict_ids(model: Model, examples: Sequence[Mapping[str, Any]]) -> list[Record]:
    """A record for each example of token ids: `describe_tokens` and what the head says, per token as many as it has.

    Question answering gives each of its arrays, other heads what `describe_logits` says.

    Args:
        model: any.
        examples: mappings with `input_ids` [L] (of multiple choice [C, L]) and perhaps the other arguments of
            `Model.logits`.

    Raises:
        UserError: arrays that do not fit together or to the model.
    """
    batch = padded_ids(examples)
    result = model.logits(**batch)
    records = []
    for slot, example in enumerate(examples):
        ids = np.asarray(example["input_ids"])
        named = result if isinstance(result, dict) else {"logits": result}
        outputs = {
            name: values[slot, : ids.shape[-1]] if is_per_token(model, name) else values[slot]
            for name, values in named.items()
        }
        said = describe_logits(model, outputs["logits"]) if "logits" in outputs else as_lists(outputs)
        records.append(describe_tokens(model, ids) | said)
    return records


def as_lists(outputs: Mapping[str, np.ndarray]) -> Record:
    """Arrays as JSON values."""
    return {name: values.tolist() for name, values in outputs.items()}


def padded_ids(examples: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """The arguments of `Model.logits`, rows padded to the longest with 0, which the attention mask leaves out."""
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


def describe_tokens(model: Model, ids: np.ndarray) -> Record:
    """`input_ids`, and `tokens` where the model has a vocabulary."""
    record: Record = {"input_ids": ids.tolist()}
    if model.vocabulary is not None and ids.ndim == 1:
        record["tokens"] = [model.vocabulary.tokens[token] for token in ids]
    return record


def describe_logits(model: Model, logits: np.ndarray) -> Record:
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


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)

"""`electra predict MODEL_DIR INPUT`: what a model says of token ids or text, a JSON object per example."""

import argparse
import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TextIO

import numpy as np

import electra_jax
from electra_jax.errors import UserError
from electra_jax.model import Model

Example = dict[str, Any]
FIELDS = ("input_ids", "attention_mask", "token_type_ids")


def run(options: argparse.Namespace) -> None:
    """Reads examples, runs the model, and writes a line for each, in order.

    Raises:
        UserError: the model or an example cannot be read, or the output exists.
    """
    model = electra_jax.load(options.model)
    if options.batch_size < 1:
        raise UserError(f"--batch_size {options.batch_size}: it must be at least 1")
    if options.output and Path(options.output).exists():
        raise UserError(f"{options.output} exists: nothing was written; name another file, or remove it first")
    with open_output(options.output) as output:
        write_predictions(model, read_examples(options.input, model), output, options.batch_size)


def open_output(path: str | None) -> Any:
    """The file to write, or standard output."""
    return nullcontext(sys.stdout) if path is None else open(path, "w", encoding="utf-8")


def write_predictions(model: Model, examples: Iterable[Example], output: TextIO, batch_size: int) -> None:
    """A JSON line for each example."""
    examples = iter(examples)
    while batch := list(itertools.islice(examples, batch_size)):
        for record in predict(model, batch):
            print(json.dumps(record, ensure_ascii=False), file=output)


def predict(model: Model, batch: list[Example]) -> list[Example]:
    """One record per example, with as many tokens as it came with.

    Every record has `input_ids`, and `tokens` where the model has a vocabulary. A discriminator gives `logits` and
    `replaced_probability` per token; a generator its `predicted_ids` (and `predictions`) and their
    `predicted_logits`; other heads their `logits` (question answering each of its arrays), and classification and
    tagging `probabilities` and the likeliest `label`.
    """
    padded = pad(batch)
    result = model.logits(*(padded[name] for name in FIELDS))
    records = []
    for row, example in enumerate(batch):
        ids = np.asarray(example["input_ids"])
        record: Example = {"input_ids": ids.tolist()}
        if model.vocabulary is not None and ids.ndim == 1:
            record["tokens"] = [model.vocabulary.tokens[token] for token in ids]
        if isinstance(result, dict):
            outputs = {
                name: crop(values[row], ids.shape[-1], padded["input_ids"].shape[-1]) for name, values in result.items()
            }
            record |= {name: values.tolist() for name, values in outputs.items()}
        else:
            record |= describe_logits(model, crop_rows(result[row], ids, model))
        records.append(record)
    return records


def crop(values: np.ndarray, length: int, padded_length: int) -> np.ndarray:
    """The part of a per-token array that belongs to the example."""
    return values[:length] if values.ndim == 1 and values.shape == (padded_length,) else values


def crop_rows(values: np.ndarray, ids: np.ndarray, model: Model) -> np.ndarray:
    """Logits of the example's own tokens, for the heads that have one per token."""
    per_token = ("pretraining", "discriminator", "generator", "encoder", "token_classification")
    return values[: ids.shape[-1]] if model.description.kind in per_token else values


def describe_logits(model: Model, logits: np.ndarray) -> Example:
    """Logits as a person reads them."""
    kind = model.description.kind
    if kind in ("pretraining", "discriminator"):
        return {"logits": logits.tolist(), "replaced_probability": (1.0 / (1.0 + np.exp(-logits))).tolist()}
    if kind == "generator":
        best = logits.argmax(axis=-1)
        record: Example = {"predicted_ids": best.tolist(), "predicted_logits": logits.max(axis=-1).tolist()}
        if model.vocabulary is not None:
            record["predictions"] = [model.vocabulary.tokens[token] for token in best]
        return record
    record = {"logits": logits.tolist()}
    if kind in ("sequence_classification", "token_classification"):
        shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
        record["probabilities"] = (shifted / shifted.sum(axis=-1, keepdims=True)).tolist()
        best = logits.argmax(axis=-1)
        labels = model.labels
        record["label"] = labels[int(best)] if best.ndim == 0 else [labels[number] for number in best]
    return record


def pad(batch: list[Example]) -> dict[str, np.ndarray]:
    """The batch's arrays, rows padded to the longest with 0, which the attention mask leaves out."""
    length = max(np.shape(example["input_ids"])[-1] for example in batch)
    arrays: dict[str, list[np.ndarray]] = {name: [] for name in FIELDS}
    for example in batch:
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


def read_examples(path: str, model: Model) -> Iterator[Example]:
    """The examples of a file, of an .npz, or of standard input.

    Raises:
        UserError: a file or line that cannot be read (names it).
    """
    if path.endswith(".npz"):
        yield from read_arrays(Path(path))
        return
    try:
        with nullcontext(sys.stdin) if path == "-" else open(path, encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield read_line(line.strip(), model, f"{path}, line {number}")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error})") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error


def read_arrays(path: Path) -> Iterator[Example]:
    """The rows of an .npz with `input_ids` and, if it has them, the other two.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with np.load(path) as arrays:
            found = {name: arrays[name] for name in FIELDS if name in arrays.files}
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error})") from error
    if "input_ids" not in found:
        raise UserError(f"{path} has no array input_ids")
    for row in range(len(found["input_ids"])):
        yield {name: values[row] for name, values in found.items()}


def read_line(line: str, model: Model, where: str) -> Example:
    """One example: a JSON object or list, or plain text.

    Raises:
        UserError: JSON without ids or text, or text for a model without a vocabulary.
    """
    if line[0] not in "{[":
        return tokenise(line, None, model, where)
    try:
        value = json.loads(line)
    except ValueError as error:
        if line[0] == "[":
            return tokenise(line, None, model, where)
        raise UserError(f"{where}: not JSON ({error})") from error
    if isinstance(value, list):
        value = {"input_ids": value}
    if "input_ids" in value:
        example = {name: value[name] for name in FIELDS if name in value}
        check_integers(example, where)
        return example
    if "text" in value:
        return tokenise(value["text"], value.get("text_pair"), model, where)
    raise UserError(f"{where}: an object with neither input_ids nor text")


def check_integers(example: Example, where: str) -> None:
    """Refuses what is no list of integers.

    Raises:
        UserError: names the field.
    """
    for name, values in example.items():
        try:
            array = np.asarray(values)
        except ValueError as error:
            raise UserError(f"{where}: {name} is ragged") from error
        if array.dtype.kind != "i" or not array.size:
            raise UserError(f"{where}: {name} is no list of integers")


def tokenise(text: str, pair: str | None, model: Model, where: str) -> Example:
    """[CLS] text [SEP], or [CLS] text [SEP] pair [SEP], cut to what the model takes (the longer part first).

    Raises:
        UserError: the model has no vocabulary.
    """
    if model.vocabulary is None:
        raise UserError(f"{where}: text, but the model has no vocabulary: give input_ids")
    tokens = model.vocabulary.tokens
    parts = [model.tokenizer.encode(part, add_special_tokens=False).ids for part in (text, pair) if part is not None]
    room = model.description.encoder.max_position_embeddings - len(parts) - 1
    while sum(map(len, parts)) > room:
        max(parts, key=len).pop()
    ids, types = [tokens.index("[CLS]")], [0]
    for segment, part in enumerate(parts):
        ids += [*part, tokens.index("[SEP]")]
        types += [segment] * (len(part) + 1)
    return {"input_ids": ids, "token_type_ids": types}

"""`electra predict`: what a model says of text, of token ids, or of a split of its task."""

import argparse
import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np

import electra_jax
from electra_jax.config.prediction import PredictionRun
from electra_jax.errors import UserError
from electra_jax.files import local
from electra_jax.inference.network import Model
from electra_jax.inference.prediction import FIELDS, answers, as_input, predict_examples, predict_ids
from electra_jax.inference.task_data import open_task, splits_of
from electra_jax.monitoring.reporter import say
from electra_jax.runtime import keep_compilations
from electra_jax.tasks.outputs import left_out, write_outputs

# Batches that are read before they are sorted by length.
SORTED_BATCHES = 32

# An input of one of these ends is meant to be a file.
FILE_ENDS = (".npz", ".txt", ".json", ".jsonl", ".tsv", ".csv")


class Item(NamedTuple):
    """An input: arrays of token ids, or something to read."""

    ids: dict[str, Any] | None
    value: Any


def run(configuration: PredictionRun, options: argparse.Namespace) -> None:
    """Predicts, and writes a line for each input in order, or the files of a split.

    Args:
        configuration: what Gin built.
        options: with `input`, and `output` where it is not standard output.

    Raises:
        UserError: the model or an input cannot be read, or the output exists.
    """
    keep_compilations()
    model = electra_jax.load(configuration.model_dir)
    if configuration.split is not None:
        if options.output:
            raise UserError(f"--output {options.output} is for lines; a split's files go to OUTPUT_DIR")
        predict_split(model, configuration, configuration.split)
        return
    if options.output and Path(options.output).exists():
        raise UserError(f"{options.output} exists: nothing was written; name another file, or remove it first")
    items = read_items(options.input, model)
    with nullcontext(sys.stdout) if options.output is None else open(options.output, "w", encoding="utf-8") as output:
        write_predictions(model, items, output, configuration.batch_size)


def predict_split(model: Model, configuration: PredictionRun, name: str) -> None:
    """Predicts every split of that name (MNLI has two), and writes what the leaderboards take."""
    task = open_task(model, configuration.task)
    directory = configuration.output_dir or os.path.join(configuration.model_dir, "predictions")
    local(directory, "OUTPUT_DIR")
    for split in splits_of(task, name):
        found = task.examples(split)
        say(f"{task.name}, {split}: {len(found.examples)} examples{left_out(found.skipped)}")
        predictions = predict_examples(model, task, found.examples, batch_size=configuration.batch_size)
        for path in write_outputs(task, split, found.examples, predictions, directory):
            say(f"wrote {path}")


def write_predictions(model: Model, items: Iterable[Item], output: TextIO, batch_size: int) -> None:
    """A JSON line for each input, in order."""
    items = iter(items)
    while chunk := list(itertools.islice(items, SORTED_BATCHES * batch_size)):
        ids = [item.ids for item in chunk if item.ids is not None]
        starts = range(0, len(ids), batch_size)
        of_ids = iter([record for start in starts for record in predict_ids(model, ids[start : start + batch_size])])
        of_text = iter(answers(model, [item.value for item in chunk if item.ids is None], batch_size=batch_size))
        for item in chunk:
            record = next(of_text if item.ids is None else of_ids)
            print(json.dumps(record, ensure_ascii=False), file=output)
        output.flush()


def read_items(source: str | None, model: Model) -> Iterator[Item]:
    """The inputs of a file, of an .npz, of standard input (None or "-"), or the text itself.

    Raises:
        UserError: a file or line that cannot be read (names it).
    """
    # Not Path.is_file, which fails on a text that is longer than a name may be.
    if source is not None and source != "-" and not os.path.isfile(source):
        if source.endswith(FILE_ENDS) or (os.sep in source and not any(map(str.isspace, source))):
            raise UserError(f"{source} cannot be read (No such file): a text to predict is told by its spaces")
        yield read_line(source.strip(), model, "the input")
    elif source is not None and source.endswith(".npz"):
        yield from read_arrays(Path(source))
    else:
        yield from read_lines(None if source == "-" else source, model)


def read_lines(path: str | None, model: Model) -> Iterator[Item]:
    """The inputs of a file's lines, or of standard input's; blank ones are left out."""
    name = path or "standard input"
    try:
        with nullcontext(sys.stdin) if path is None else open(path, encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield read_line(line.strip(), model, f"{name}, line {number}")
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not UTF-8 ({error})") from error
    except OSError as error:
        raise UserError(f"{name} cannot be read ({error.strerror})") from error


def read_arrays(path: Path) -> Iterator[Item]:
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
        yield Item({name: values[row] for name, values in found.items()}, None)


def read_line(line: str, model: Model, where: str) -> Item:
    """One input: a JSON object or list, or plain text.

    Raises:
        UserError: JSON of another form than the model reads.
    """
    value: Any = line
    if line[:1] in ("{", "["):
        try:
            value = json.loads(line)
        except ValueError as error:
            # "[" also begins plain text, such as "[MASK] is here".
            if line[0] == "{":
                raise UserError(f"{where}: not JSON ({error})") from error
    if isinstance(value, list) and not (value and all(isinstance(one, str) for one in value)):
        value = {"input_ids": value}
    if isinstance(value, dict) and "input_ids" in value:
        ids = {name: value[name] for name in FIELDS if name in value}
        check_integers(ids, where)
        return Item(ids, None)
    return Item(None, as_input(model, value, where))


def check_integers(ids: dict[str, Any], where: str) -> None:
    """Refuses what is no list of integers.

    Raises:
        UserError: names the field.
    """
    for name, values in ids.items():
        try:
            array = np.asarray(values)
        except ValueError as error:
            raise UserError(f"{where}: {name} is ragged") from error
        if array.dtype.kind != "i" or not array.size:
            raise UserError(f"{where}: {name} is no list of integers")

"""`electra predict`: a model's answers to text, to token ids, or to a split of its task."""

import argparse
import itertools
import json
import os
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import TextIO

import electra_jax
from electra_jax.config.prediction import PredictionRun
from electra_jax.distributed.processes import print_on_leader
from electra_jax.errors import UserError
from electra_jax.files import local
from electra_jax.inference.input_files import SORTED_BATCHES, Item, read_items
from electra_jax.inference.network import Network
from electra_jax.inference.prediction import answers, predict_examples, predict_ids
from electra_jax.inference.task_data import open_task, splits_of
from electra_jax.run_directory import PREDICTIONS_FOLDER
from electra_jax.runtime import keep_compilations
from electra_jax.tasks.outputs import left_out, write_outputs


def run(configuration: PredictionRun, options: argparse.Namespace) -> None:
    """Write an answer to each input, a line each, or the files of a split.

    Args:
        configuration: what Gin built.
        options: `input`, and `output`, None for standard output.

    Raises:
        UserError: if the model or an input cannot be read, or the output exists.
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


def predict_split(model: Network, configuration: PredictionRun, name: str) -> None:
    """Predict every split of a name (MNLI has two dev splits), and write the files that leaderboards take."""
    task = open_task(model, configuration.task)
    directory = configuration.output_dir or os.path.join(configuration.model_dir, PREDICTIONS_FOLDER)
    local(directory, "OUTPUT_DIR")
    for split in splits_of(task, name):
        found = task.examples(split)
        print_on_leader(f"{task.name}, {split}: {len(found.examples)} examples{left_out(found.skipped)}")
        predictions = predict_examples(model, task, found.examples, batch_size=configuration.batch_size)
        for path in write_outputs(task, split, found.examples, predictions, directory):
            print_on_leader(f"wrote {path}")


def write_predictions(model: Network, items: Iterable[Item], output: TextIO, batch_size: int) -> None:
    """Write a JSON line for each input, in order."""
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

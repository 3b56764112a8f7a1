"""`electra predict`: a model's answers to text, to token ids, or to a split of its task."""

import argparse
import dataclasses
import functools
import logging
import os

import electra_jax
from electra_jax.config.prediction import PredictionRun
from electra_jax.distributed.processes import print_on_leader
from electra_jax.errors import UserError
from electra_jax.files import local
from electra_jax.inference.input_files import SORTED_BATCHES, read_items
from electra_jax.inference.item_records import answered_together, write_records
from electra_jax.inference.items import InputColumns
from electra_jax.inference.network import Network
from electra_jax.inference.output_files import record_writer
from electra_jax.inference.prediction import predict_examples
from electra_jax.inference.task_data import open_task, prompted, splits_of
from electra_jax.inference.unfinished_output import job_of
from electra_jax.run_directory import PREDICTIONS_FOLDER
from electra_jax.runtime import keep_compilations
from electra_jax.tasks.long_texts import CutCount
from electra_jax.tasks.outputs import left_out, write_outputs

logger = logging.getLogger(__name__)


def run(configuration: PredictionRun, options: argparse.Namespace) -> None:
    """Write a record for each input, in order, or the files of a split.

    Args:
        configuration: what Gin built.
        options: `input`, and `output`, None for standard output.

    Raises:
        UserError: if the model or the input cannot be read, the output exists, or no input could be answered.
    """
    keep_compilations()
    model = prompted(electra_jax.load(configuration.model_dir), configuration.task)
    if configuration.split is not None:
        if options.output:
            raise UserError(f"--output {options.output} is for lines; a split's files go to OUTPUT_DIR")
        predict_split(model, configuration, configuration.split)
        return
    task, most = configuration.task, SORTED_BATCHES * configuration.batch_size
    columns = InputColumns(
        task.text_column,
        task.text_b_column,
        task.choice_columns,
        configuration.id_column,
        task.word_column,
        task.skip_bad_rows,
    )
    cut = CutCount(model.description.row_length)
    answer = functools.partial(answered_together, model, batch_size=configuration.batch_size, cut=cut)
    job = job_of(options.input, model, dataclasses.asdict(configuration)) if options.output else None
    with record_writer(options.output, job) as output:
        write_records(read_items(options.input, model, columns, most=most), answer, output)
    if cut.texts:
        logger.warning("%s", cut)


def predict_split(model: Network, configuration: PredictionRun, name: str) -> None:
    """Predict every split that a name stands for (MNLI has two dev splits), and write the files for leaderboards."""
    task = open_task(model, configuration.task)
    directory = configuration.output_dir or os.path.join(configuration.model_dir, PREDICTIONS_FOLDER)
    local(directory, "OUTPUT_DIR")
    for split in splits_of(task, name):
        found = task.examples(split)
        print_on_leader(f"{task.name}, {split}: {len(found.examples)} examples{left_out(found.skipped)}")
        count = CutCount(task.length)
        predictions = predict_examples(model, task, found.examples, batch_size=configuration.batch_size, count=count)
        if count.texts:
            print_on_leader(f"{split}: {count}")
        for path in write_outputs(task, split, found.examples, predictions, directory):
            print_on_leader(f"wrote {path}")

"""Find the examples of text tasks: GLUE's files, TFDS's GLUE, and a user's own tables."""

import collections
import dataclasses
import functools
import math
import pathlib

from electra_jax.errors import UserError
from electra_jax.tasks.options import TaskOptions
from electra_jax.tasks.protocol import Examples
from electra_jax.tasks.records import TABLE_SUFFIXES, column_names
from electra_jax.tasks.split_files import Sources, file_sources, reads_tfds, split_paths, what_is_missing
from electra_jax.tasks.text.glue import GlueTask, examples_of_tfds, in_both_orders, read_glue
from electra_jax.tasks.text.label_sets import LabelSets
from electra_jax.tasks.text.tables import (
    Columns,
    Interval,
    Target,
    TextExample,
    discover_target,
    indicator_columns,
    read_table,
)

# TFDS's names of the splits that it names differently. MNLI's diagnostic split is its dataset "ax".
_TFDS_SPLITS = {"dev": "validation", "dev_matched": "validation_matched", "dev_mismatched": "validation_mismatched"}

_GLUE_SUFFIXES = (".tsv",)

# A user's own tasks that take only pairs.
_PAIRS = ("pair_classification", "similarity", "retrieval")


def glue_sources(task: GlueTask, options: TaskOptions) -> Sources:
    """Return the splits of a GLUE task under their files' names; ax has only "test", the file diagnostic.tsv.

    Raises:
        UserError: if `options.source` is unknown, or TFDS has not prepared the dataset.
    """
    if reads_tfds(options):
        return _glue_of_tfds(task, options)
    looked = {"folders": task.folders, "suffixes": _GLUE_SUFFIXES, "splits": tuple(task.layouts)}
    paths = split_paths(options, **looked)
    if task.name == "ax" and options.test_file is not None:
        paths["diagnostic"] = pathlib.Path(options.test_file)
    readers = {
        _public_name(task, split): functools.partial(
            read_glue,
            task,
            path,
            split=split,
            both_orders=options.double_unordered and split == "train",
            skip_bad_rows=options.skip_bad_rows,
        )
        for split, path in paths.items()
    }
    return Sources(readers, what_is_missing(options, **looked))


def table_sources(options: TaskOptions, *, regression: bool, target: Target | None) -> tuple[Sources, Target]:
    """Return the splits of a user's own tables, and its labels: `target`, or those of the training file.

    Raises:
        UserError: if there is no file or no text column, or the training file has no labels.
    """
    if options.source != "files":
        raise UserError(f"SOURCE is {options.source!r}: the task {options.task!r} is read from 'files'")
    looked = {"folders": (options.task,), "suffixes": TABLE_SUFFIXES}
    paths = split_paths(options, **looked)
    if not paths:
        raise UserError(f"{options.task} has no split at all: {what_is_missing(options, **looked)}")
    columns = _columns(options, next(iter(paths.values())), target)
    if target is None:
        if "train" not in paths:
            raise UserError(
                f"the labels of {options.task!r} are those of its training file, and there is none: set TRAIN_FILE, "
                "or start from a model that was fine-tuned on it"
            )
        columns = _with_labels(columns, options, paths["train"], regression=regression)
        target = discover_target(
            paths["train"],
            columns=columns,
            regression=regression,
            multi_label=options.multi_label,
            skip_bad_rows=options.skip_bad_rows,
        )
    # Values outside the training interval are no mistake, although no prediction will reach them.
    accepted = Interval(-math.inf, math.inf) if isinstance(target, Interval) else target
    read = functools.partial(_read_table, columns=columns, target=accepted, skip_bad_rows=options.skip_bad_rows)
    return file_sources(options, **looked, read=read, text_of=_texts_in_any_order), target


def _glue_of_tfds(task: GlueTask, options: TaskOptions) -> Sources:
    from electra_jax.tasks.tfds import prepared_builder, records, sentences_of  # imports TensorFlow

    builder = prepared_builder(f"glue/{task.name}", options.tfds_data_dir)
    names = None if isinstance(task.target, Interval) else builder.info.features["label"].names

    def read(split: str, tfds_split: str) -> Examples:
        with sentences_of(f"{builder.info.full_name}, {tfds_split}"):
            examples = examples_of_tfds(task, records(builder, tfds_split), label_names=names)
        found = Examples(examples, collections.Counter())
        doubled = options.double_unordered and task.unordered and split == "train"
        return in_both_orders(found) if doubled else found

    readers = {}
    for split in (_public_name(task, split) for split in task.layouts):
        tfds_split = _TFDS_SPLITS.get(split, split)
        if tfds_split in builder.info.splits:
            readers[split] = functools.partial(read, split, tfds_split)
    return Sources(readers, f"TFDS's {builder.info.full_name} has only {', '.join(builder.info.splits)}")


def _public_name(task: GlueTask, split: str) -> str:
    return "test" if task.name == "ax" else split


def _read_table(path: pathlib.Path, split: str, *, columns: Columns, target: Target, skip_bad_rows: bool) -> Examples:
    # A test file need not have labels.
    if split == "test" and not set(columns.labels) <= set(column_names(path)):
        columns = dataclasses.replace(columns, label=None)
    return read_table(path, columns=columns, target=target, skip_bad_rows=skip_bad_rows)


def _texts_in_any_order(example: TextExample) -> str:
    return "\t".join(sorted((example.text_a, example.text_b or "")))


def _columns(options: TaskOptions, path: pathlib.Path, target: Target | None) -> Columns:
    if options.text_column is None:
        raise UserError(_unset("TEXT_COLUMN", "text", path))
    if options.text_b_column is None and options.task in _PAIRS:
        raise UserError(_unset("TEXT_B_COLUMN", "second text", path))
    label = options.label_column
    if label is None and isinstance(target, LabelSets):
        # A fine-tuned model had a column for each label, which were recognised.
        label = target.labels
    if label is not None and not isinstance(label, str):
        label = tuple(dict.fromkeys(label))
    columns = Columns(options.text_column, options.text_b_column, label or None)
    twice = next((name for name in columns.used if columns.used.count(name) > 1), None)
    if twice is not None:
        raise UserError(
            f"the column {twice!r} of {path} is named twice by TEXT_COLUMN, TEXT_B_COLUMN and LABEL_COLUMN: name "
            f"another (it has: {', '.join(column_names(path))})"
        )
    return columns


def _with_labels(columns: Columns, options: TaskOptions, path: pathlib.Path, *, regression: bool) -> Columns:
    """Return columns with a training file's label columns; they are recognised if at least two hold only 0 and 1."""
    if columns.label is not None:
        return columns
    found = () if regression or options.multi_label is False else indicator_columns(path, texts=columns.used)
    if len(found) < 2:
        raise UserError(_unset("LABEL_COLUMN", "label", path))
    return dataclasses.replace(columns, label=found)


def _unset(macro: str, what: str, path: pathlib.Path) -> str:
    names = ", ".join(column_names(path))
    return f"{macro} is not set: name the column of {path} that holds the {what} (it has: {names})"

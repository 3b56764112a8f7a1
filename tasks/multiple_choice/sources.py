"""Find the examples of multiple choice: a user's own tables, SWAG's, and RACE's folders."""

import collections
import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from electra_jax.errors import UserError
from electra_jax.files import regular
from electra_jax.tasks.multiple_choice.examples import BadRecordError, ChoiceColumns, ChoiceExample, example_of
from electra_jax.tasks.options import TaskOptions
from electra_jax.tasks.protocol import Examples
from electra_jax.tasks.records import TABLE_SUFFIXES, column_names, records
from electra_jax.tasks.rows import BadRows
from electra_jax.tasks.split_files import Sources, file_sources, split_paths, what_is_missing

# The files of rowanz/swagaf (Zellers et al., 2018): https://github.com/rowanz/swagaf/tree/master/data
SWAG_COLUMNS = ChoiceColumns("sent1", "sent2", tuple(f"ending{number}" for number in range(4)), "label")

# The fields of a RACE passage (Lai et al., 2017), a .txt file of JSON below RACE/<split>/{middle,high}, and those of
# one of its questions.
_RACE_LISTS = ("questions", "options", "answers")
_RACE_COLUMNS = ChoiceColumns("article", "questions", "options", "answers")


def choice_sources(options: TaskOptions) -> Sources:
    """Return the splits of a multiple-choice task.

    Raises:
        UserError: if they are not to be read from files, or the settings do not say how.
    """
    if options.source != "files":
        raise UserError(f"SOURCE is {options.source!r}: the task {options.task!r} is read from 'files'")
    if options.task == "race":
        read = functools.partial(read_race, skip_bad_rows=options.skip_bad_rows)
        return file_sources(options, folders=("RACE", "race"), suffixes=("",), read=read, text_of=None)
    if options.task == "swag":
        looked: dict[str, Any] = {"folders": ("swag", "SWAG"), "suffixes": (".csv",)}
        read_table = functools.partial(read_choices, columns=SWAG_COLUMNS, skip_bad_rows=options.skip_bad_rows)
        return file_sources(_with_val(options, looked["folders"]), **looked, read=read_table, text_of=None)
    looked = {"folders": (options.task,), "suffixes": TABLE_SUFFIXES}
    paths = split_paths(options, **looked)
    if not paths:
        raise UserError(f"{options.task} has no split at all: {what_is_missing(options, **looked)}")
    columns = _own_columns(options, next(iter(paths.values())))
    read_table = functools.partial(read_choices, columns=columns, skip_bad_rows=options.skip_bad_rows)
    return file_sources(options, **looked, read=read_table, text_of=_context_of)


def read_choices(path: pathlib.Path, split: str, *, columns: ChoiceColumns, skip_bad_rows: bool) -> Examples:
    """Read a table; see `records`.

    Args:
        path: the file, UTF-8.
        split: "test" need not have labels.
        columns: the names of the columns.
        skip_bad_rows: whether to leave out and count a row that is not an example, instead of stopping.

    Raises:
        UserError: if the file is missing, empty or of another format, lacks a column, has a bad row, or has no usable
            row.
    """
    if split == "test" and columns.label not in column_names(path):
        columns = dataclasses.replace(columns, label=None)
    bad_rows = BadRows(path, skip=skip_bad_rows)
    examples = []
    for index, (line, record) in enumerate(records(path, columns.used, bad_rows)):
        if record is None:
            continue
        try:
            examples.append(example_of(index, record, columns))
        except BadRecordError as error:
            bad_rows.report(line, *error.args)
    if not examples:
        raise UserError(f"{path} holds no row that can be used")
    return Examples(examples, bad_rows.skipped, str(path))


def read_race(folder: pathlib.Path, split: str, *, skip_bad_rows: bool) -> Examples:
    """Read the passages of a split of RACE: all .txt files below a folder, in the order of their paths.

    Args:
        folder: such as RACE/train, or RACE/train/middle; or a file.
        split: no effect, because every split has answers.
        skip_bad_rows: whether to leave out and count an unusable passage or question, instead of stopping.

    Raises:
        UserError: if there is no file, one cannot be read or differs from the published format, or no question is
            usable.
    """
    del split
    paths = sorted(folder.rglob("*.txt")) if folder.is_dir() else [folder]
    if not paths:
        raise UserError(f"{folder} holds no .txt file: RACE's passages are in its folders middle and high")
    examples: list[ChoiceExample] = []
    skipped: collections.Counter[str] = collections.Counter()
    index = 0
    for path in paths:
        bad_rows = BadRows(path, skip=skip_bad_rows)
        for place, question in _race_questions(path, bad_rows):
            try:
                examples.append(example_of(index, question, _RACE_COLUMNS))
            except BadRecordError as error:
                problem, expected = error.args
                bad_rows.report(1, f"question {place}: {problem}", expected)
            index += 1
        skipped += bad_rows.skipped
    if not examples:
        raise UserError(f"{folder} holds no question that can be used")
    return Examples(examples, skipped, str(folder))


def _race_questions(path: pathlib.Path, bad_rows: BadRows) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Yield the questions of a passage with their numbers, from 1: each a record with the fields of `_RACE_COLUMNS`."""
    try:
        passage = json.loads(regular(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError):
        passage = None
    lists = [passage.get(name) for name in _RACE_LISTS] if isinstance(passage, dict) else []
    if not lists or not all(isinstance(each, list) for each in lists) or len({len(each) for each in lists}) > 1:
        bad_rows.report(
            1, "no passage of RACE", 'an object with "article" and as many "questions" as "options" and "answers"'
        )
        return
    for place, fields in enumerate(zip(*lists, strict=True), start=1):
        yield place, {"article": passage.get("article")} | dict(zip(_RACE_LISTS, fields, strict=True))


def _with_val(options: TaskOptions, folders: tuple[str, ...]) -> TaskOptions:
    """Return options that name the file of the dev split, which was published as val.csv."""
    if options.dev_file is not None or options.data_dir is None:
        return options
    places = (pathlib.Path(options.data_dir) / folder / "val.csv" for folder in (*folders, ""))
    found = next((str(place) for place in places if os.path.lexists(place)), None)
    return dataclasses.replace(options, dev_file=found)


def _own_columns(options: TaskOptions, path: pathlib.Path) -> ChoiceColumns:
    names = ", ".join(column_names(path))
    wanted = {
        "TEXT_COLUMN": (options.text_column, "the column of PATH that holds the text"),
        "CHOICE_COLUMNS": (options.choice_columns, "the columns of PATH that hold a choice each, or the one of lists"),
        "LABEL_COLUMN": (options.label_column, "the column of PATH that says which choice is right"),
    }
    for macro, (value, what) in wanted.items():
        if not value:
            raise UserError(f"{macro} is not set: name {what.replace('PATH', str(path))} (it has: {names})")
    text, choices, label = options.text_column, options.choice_columns, options.label_column
    if not isinstance(label, str):
        raise UserError(f"LABEL_COLUMN is {label!r}: one column says which choice is right")
    if not isinstance(choices, str) and len(choices) == 1:
        (choices,) = choices
    return ChoiceColumns(text, options.text_b_column, choices if isinstance(choices, str) else tuple(choices), label)


def _context_of(example: ChoiceExample) -> str:
    return example.text_a

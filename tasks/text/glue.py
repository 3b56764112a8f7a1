"""Read GLUE's files and write those for its leaderboard."""

import dataclasses
import math
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from electra_jax.errors import UserError
from electra_jax.files import replace_file
from electra_jax.tasks.protocol import Examples
from electra_jax.tasks.rows import BadRows, numbered_lines, text_of
from electra_jax.tasks.text.tables import Classes, Interval, RawRow, TextExample, understood


@dataclasses.dataclass(frozen=True)
class ColumnLayout:
    """The column of each field (from 0; negative from the end), and whether the first line is a header."""

    text_a: int
    text_b: int | None
    label: int | None
    header: bool = True


@dataclasses.dataclass(frozen=True)
class GlueTask:
    """A task of GLUE.

    Attributes:
        name: our name, which is TFDS's too ("glue/<name>").
        folders: the folders of its files, in search order: the public script's, ours, the original's.
        target: its classes, in the original's order, or the interval of its values.
        layouts: the layout of each split, whose name is the stem of its file ("train" is `train.tsv`).
        tfds_texts: TFDS's names of the texts.
        submissions: for each split that is predicted, the stem of the leaderboard's file.
        unordered: whether the order of the two texts does not matter.
    """

    name: str
    folders: tuple[str, ...]
    target: Classes | Interval
    layouts: Mapping[str, ColumnLayout]
    tfds_texts: tuple[str, ...]
    submissions: Mapping[str, str]
    unordered: bool = False

    def split(self, name: str) -> str:
        """Return the split for a name; "dev" and "test" mean the matched ones of MNLI, "test" the only one of ax."""
        for candidate in (name, f"{name}_matched", "diagnostic" if name == "test" else name):
            if candidate in self.layouts:
                return candidate
        raise UserError(f"{self.name} has no split {name!r}: use one of {', '.join(self.layouts)}")


_YES_NO = Classes(("0", "1"))
_ENTAILMENT = Classes(("entailment", "not_entailment"))
_INFERENCE = Classes(("contradiction", "entailment", "neutral"))


def _layouts(labelled: ColumnLayout, test: ColumnLayout) -> dict[str, ColumnLayout]:
    return {"train": labelled, "dev": labelled, "test": test}


_PAIR = _layouts(ColumnLayout(1, 2, 3), ColumnLayout(1, 2, None))
_MNLI, _MNLI_TEST, _DIAGNOSTIC = ColumnLayout(8, 9, -1), ColumnLayout(8, 9, None), ColumnLayout(1, 2, None)

GLUE = {
    task.name: task
    for task in (
        GlueTask(
            "cola",
            ("CoLA", "cola"),
            _YES_NO,
            _layouts(ColumnLayout(3, None, 1, header=False), ColumnLayout(1, None, None)),
            ("sentence",),
            {"test": "CoLA"},
        ),
        GlueTask(
            "sst2",
            ("SST-2", "sst2", "sst"),
            _YES_NO,
            _layouts(ColumnLayout(0, None, 1), ColumnLayout(1, None, None)),
            ("sentence",),
            {"test": "SST-2"},
        ),
        GlueTask(
            "mrpc",
            ("MRPC", "mrpc"),
            _YES_NO,
            _layouts(ColumnLayout(3, 4, 0), ColumnLayout(3, 4, None)),
            ("sentence1", "sentence2"),
            {"test": "MRPC"},
            unordered=True,
        ),
        GlueTask(
            "stsb",
            ("STS-B", "stsb", "sts"),
            Interval(0.0, 5.0),
            _layouts(ColumnLayout(-3, -2, -1), ColumnLayout(-2, -1, None)),
            ("sentence1", "sentence2"),
            {"test": "STS-B"},
            unordered=True,
        ),
        GlueTask(
            "qqp",
            ("QQP", "qqp"),
            _YES_NO,
            _layouts(ColumnLayout(3, 4, 5), ColumnLayout(1, 2, None)),
            ("question1", "question2"),
            {"test": "QQP"},
        ),
        GlueTask(
            "mnli",
            ("MNLI", "mnli"),
            _INFERENCE,
            {
                "train": _MNLI,
                "dev_matched": _MNLI,
                "dev_mismatched": _MNLI,
                "test_matched": _MNLI_TEST,
                "test_mismatched": _MNLI_TEST,
                "diagnostic": _DIAGNOSTIC,
            },
            ("premise", "hypothesis"),
            {"test_matched": "MNLI-m", "test_mismatched": "MNLI-mm", "diagnostic": "AX"},
        ),
        GlueTask("qnli", ("QNLI", "qnli"), _ENTAILMENT, _PAIR, ("question", "sentence"), {"test": "QNLI"}),
        GlueTask("rte", ("RTE", "rte"), _ENTAILMENT, _PAIR, ("sentence1", "sentence2"), {"test": "RTE"}),
        GlueTask("wnli", ("WNLI", "wnli"), _YES_NO, _PAIR, ("sentence1", "sentence2"), {"test": "WNLI"}),
        GlueTask(
            "ax",
            ("diagnostic", "AX", "ax", "MNLI", "mnli"),
            _INFERENCE,
            {"diagnostic": _DIAGNOSTIC},
            ("premise", "hypothesis"),
            {"diagnostic": "AX"},
        ),
    )
}


def read_glue(
    task: GlueTask, path: str | os.PathLike[str], *, split: str, both_orders: bool, skip_bad_rows: bool
) -> Examples:
    """Read a file of GLUE's public layout. Test splits have no labels, whatever their file says.

    Args:
        task: the task.
        path: the file.
        split: the split of the task.
        both_orders: whether to append every pair of an unordered task (mrpc, stsb) with its texts swapped, as published
            for training: twice the examples. The indices of the swapped ones continue those of the others.
        skip_bad_rows: whether to leave out and count rows that lack a column or whose label is unknown, such as MNLI's
            "-", instead of stopping.

    Raises:
        UserError: if the file is missing or empty, a row is bad, or no row can be used.
    """
    bad_rows = BadRows(path, skip=skip_bad_rows)
    found = understood(_rows(path, task.layouts[task.split(split)], bad_rows), task.target, bad_rows, path)
    return in_both_orders(found) if both_orders and task.unordered else found


def in_both_orders(found: Examples) -> Examples:
    """Append every pair with its texts swapped; their indices continue those of the others."""
    number = len(found.examples)
    swapped = [
        TextExample(index + number, text_b or "", text_a, label) for index, text_a, text_b, label in found.examples
    ]
    return Examples([*found.examples, *swapped], found.skipped)


def examples_of_tfds(
    task: GlueTask, records: Iterable[Mapping[str, Any]], *, label_names: Sequence[str] | None
) -> list[TextExample]:
    """Turn the records of TFDS's "glue/<name>" (numpy values) into examples.

    `label_names`: TFDS's names of the classes (None for stsb). Its order differs from the original's for MNLI, so that
    labels are matched by name if ours are names, and by number if ours are numbers. A label of -1 is none.
    """
    examples = []
    for record in records:
        texts = [text_of(record[name]) for name in task.tfds_texts]
        raw = float(record["label"])
        label: int | float | None = None
        if isinstance(task.target, Interval):
            label = raw if raw >= task.target.low else None
        elif raw >= 0:
            name = label_names[int(raw)] if label_names is not None else ""
            label = task.target.parse(name if name in task.target.labels else str(int(raw)))
        examples.append(TextExample(int(record["idx"]), texts[0], texts[1] if len(texts) > 1 else None, label))
    return examples


def write_submission(
    task: GlueTask, split: str, predictions: Mapping[int, int | float], *, directory: str | os.PathLike[str]
) -> pathlib.Path:
    """Write the leaderboard's file of a test split: `index<TAB>prediction`, labels by name, values to three digits.

    `predictions`: for each row's index, the class number, or the value in the task's own interval.
    """
    path = pathlib.Path(directory) / f"{task.submissions[task.split(split)]}.tsv"
    lines = ["index\tprediction\n"]
    for index in sorted(predictions):
        value = predictions[index]
        label = f"{value:.3f}" if isinstance(task.target, Interval) else task.target.labels[int(value)]
        lines.append(f"{index}\t{label}\n")
    replace_file(path, "".join(lines))
    return path


def read_submission(task: GlueTask, path: str | os.PathLike[str]) -> dict[int, int | float]:
    """Read such a file: for each index, the class number or the value.

    Raises:
        UserError: if the file is missing or empty, or a line is not `index<TAB>prediction` or names an unknown label.
    """
    predictions: dict[int, int | float] = {}
    # A model may predict values outside the interval.
    accepted = Interval(-math.inf, math.inf) if isinstance(task.target, Interval) else task.target
    for line, text in numbered_lines(path):
        index, _, label = text.partition("\t")
        if line == 1 and not index.isdecimal():
            continue
        try:
            predictions[int(index)] = accepted.parse(label)
        except ValueError as error:
            raise UserError(
                f"{path}, line {line}: {text!r} is not a prediction; expected an index, a tab and {accepted.expected}"
            ) from error
    return predictions


def _rows(path: str | os.PathLike[str], layout: ColumnLayout, bad_rows: BadRows) -> Iterator[RawRow]:
    used = [column for column in (layout.text_a, layout.text_b, layout.label) if column is not None]
    num_columns = max(column + 1 if column >= 0 else -column for column in used)
    for line, text in numbered_lines(path):
        # The csv module is not used: GLUE's files have no quoting, and texts begin with lone quotation marks.
        columns = text.split("\t")
        if line == 1 and layout.header:
            # A row may have more columns than are used, and columns counted from the end need all of them.
            num_columns = max(num_columns, len(columns))
            continue
        if not text:
            continue
        if len(columns) < num_columns:
            bad_rows.report(line, f"{len(columns)} columns", f"{num_columns}, separated by tabs")
            continue
        yield RawRow(
            line,
            line - 1 - layout.header,
            columns[layout.text_a],
            None if layout.text_b is None else columns[layout.text_b],
            None if layout.label is None else columns[layout.label],
        )

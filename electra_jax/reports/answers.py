"""Break down the answers of the best seed: confusions of classes, entities by type, questions, and values."""

import collections
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from electra_jax.monitoring.metrics_file import Rows
from electra_jax.reports.charts import Figure, scatter_chart
from electra_jax.reports.page import Table, number, score
from electra_jax.tasks.tagging.conlleval import SpanReader, evaluate_tags

# With more classes than this, their names are turned by 90 degrees to save width.
_MOST_UPRIGHT = 6
_NO_ANSWER, _ANSWER = "no answer", "an answer"


@dataclass(frozen=True)
class Cell:
    """A cell of a confusion matrix: the count, its share of the row, whether it is correct, and the hover text."""

    count: int
    share: float
    right: bool
    note: str


@dataclass(frozen=True)
class MatrixRow:
    """A row of a confusion matrix: the examples of one gold class."""

    label: str
    cells: Sequence[Cell]
    total: int
    recall: str


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix: a row for each gold class and a column for each predicted class."""

    rows: Sequence[MatrixRow]
    called: Sequence[int]
    precision: Sequence[str]
    turned: bool


@dataclass(frozen=True)
class Answers:
    """The data of the section on a task's answers; a field that the kind of task does not have is None.

    Attributes:
        kind: the kind of task, one of `tasks.protocol.KINDS`.
        matrix: the confusions of classes, of positions of choices, or of whether there is an answer.
        values: predicted against gold values.
        table: the scores of entities by type, of labels, or of questions.
        num_words: the number of words in tagged sentences.
        accuracy: the percentage of these words with the right tag.
    """

    kind: str
    matrix: Matrix | None = None
    values: Figure | None = None
    table: Table | None = None
    num_words: int = 0
    accuracy: str = ""


def read_answers(kind: str, records: Rows, metrics: Mapping[str, Any], spans_of: SpanReader) -> Answers:
    """Prepare the section on the answers to a kind of task.

    Args:
        kind: the kind of task, one of `tasks.protocol.KINDS`.
        records: the lines of predictions.jsonl; at least one.
        metrics: the scores of the seed that made the predictions.
        spans_of: the function that reads entities from tags.
    """
    if kind == "classification":
        return Answers(kind, matrix=_classes(records))
    if kind == "multiple_choice":
        return Answers(kind, matrix=_places(records))
    if kind == "multi_label_classification":
        return Answers(kind, table=_labels(records))
    if kind == "regression":
        return Answers(kind, values=_values(records))
    return _entities(records, spans_of) if kind == "tagging" else _questions(records, metrics)


def confusion(pairs: Sequence[tuple[str, str]], labels: Sequence[str]) -> list[list[int]]:
    """Count how often each gold label (rows) was predicted as each label (columns), from (gold, predicted) pairs."""
    counts = collections.Counter(pairs)
    return [[counts[gold, predicted] for predicted in labels] for gold in labels]


def _classes(records: Rows) -> Matrix:
    pairs = [(str(record["gold"]), str(record["prediction"]["label"])) for record in records]
    known = records[0]["prediction"].get("probabilities", {})
    labels = list(dict.fromkeys([*known, *sorted({label for pair in pairs for label in pair})]))
    return _matrix(confusion(pairs, labels), labels)


def _places(records: Rows) -> Matrix:
    """Count the chosen position for each right one: a model that prefers a position fills its column."""
    pairs = [(record["gold"], record["prediction"]["label"]) for record in records]
    labels = list(map(str, range(1 + max(max(pair) for pair in pairs))))
    return _matrix(confusion([(str(gold), str(said)) for gold, said in pairs], labels), labels)


def _matrix(counts: Sequence[Sequence[int]], labels: Sequence[str]) -> Matrix:
    turned = len(labels) > _MOST_UPRIGHT
    digits = 0 if turned else 1
    rows = []
    for i, (label, row) in enumerate(zip(labels, counts, strict=True)):
        total = sum(row)
        cells = [
            Cell(count, count / max(total, 1), i == j, f"{label} called {labels[j]}: {count} of {total}")
            for j, count in enumerate(row)
        ]
        rows.append(MatrixRow(label, cells, total, _per_cent(row[i], total, digits)))
    columns = list(zip(*counts, strict=True))
    precision = [_per_cent(column[j], sum(column), digits) for j, column in enumerate(columns)]
    return Matrix(rows, [sum(column) for column in columns], precision, turned)


def _per_cent(part: int, whole: int, digits: int) -> str:
    return f"{100 * part / whole:.{digits}f}" if whole else "–"


def _values(records: Rows) -> Figure:
    points = []
    for record in records:
        gold, predicted = number(record, "gold"), number(record["prediction"], "value")
        points.append((gold, predicted, f"{_start(record)} (gold {gold:.3g}, predicted {predicted:.3g})"))
    chart = scatter_chart("predicted against gold values", points, axes=("gold value", "predicted value"))
    note = "On the dashed line they are equal; above it the prediction is too high."
    return Figure("Predicted against gold", f"{len(points):,} examples", note, chart)


def _start(record: Mapping[str, Any]) -> str:
    text = str(record.get("text_a", ""))
    return text if len(text) <= 60 else f"{text[:60]}…"


def _entities(records: Rows, spans_of: SpanReader) -> Answers:
    found = evaluate_tags(
        [record["gold"] for record in records],
        [record["prediction"]["tags"] for record in records],
        spans_of=spans_of,
    )
    rows = [
        [kind or "(no type)", *(f"{count:,}" for count in (scores.gold, scores.found, scores.correct))]
        + [score(value) for value in (scores.precision, scores.recall, scores.f1)]
        for kind, scores in [*found.by_type.items(), ("all", found.overall)]
    ]
    table = Table(["", "gold", "found", "correct", "precision", "recall", "F1"], rows)
    return Answers("tagging", table=table, num_words=found.num_tokens, accuracy=score(found.accuracy))


def _labels(records: Rows) -> Table:
    """Return the counts and scores of each label, for texts that may have several labels."""
    rows = []
    for name in records[0]["prediction"]["probabilities"]:
        gold, found = ([name in labels for labels in of] for of in _gold_and_found(records))
        correct = sum(right and said for right, said in zip(gold, found, strict=True))
        counts = sum(gold), sum(found), correct
        shares = ((correct, counts[1]), (correct, counts[0]), (2 * correct, counts[0] + counts[1]))
        rows.append([name, *(f"{count:,}" for count in counts), *(_per_cent(*share, 2) for share in shares)])
    return Table(["", "gold", "found", "correct", "precision", "recall", "F1"], rows)


def _gold_and_found(records: Rows) -> tuple[list[list[str]], list[list[str]]]:
    return [record["gold"] for record in records], [record["prediction"]["labels"] for record in records]


def _questions(records: Rows, metrics: Mapping[str, Any]) -> Answers:
    answerable = [bool(record["gold"]) for record in records]
    counts = {"": len(records), "HasAns_": sum(answerable), "NoAns_": len(records) - sum(answerable)}
    names = {"": "all questions", "HasAns_": "with an answer", "NoAns_": "without an answer"}
    rows = []
    for prefix, name in names.items():
        exact = metrics.get(f"{prefix}exact", metrics.get(f"{prefix}exact_match"))
        overlap = metrics.get(f"{prefix}f1")
        if exact is not None or overlap is not None:
            rows.append([name, f"{counts[prefix]:,}", score(exact), score(overlap)])
    table = Table(["", "questions", "exact match", "F1"], rows)
    if all(answerable):
        return Answers("question_answering", table=table)
    labels = [_ANSWER, _NO_ANSWER]
    pairs = [
        (_ANSWER if known else _NO_ANSWER, _ANSWER if record["prediction"]["answer"] else _NO_ANSWER)
        for known, record in zip(answerable, records, strict=True)
    ]
    return Answers("question_answering", matrix=_matrix(confusion(pairs, labels), labels), table=table)

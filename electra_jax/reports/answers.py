"""How the answers of the best seed fall: confusions of classes, entities by type, questions, and values, as HTML."""

import collections
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from electra_jax.reports.charts import scatter_chart
from electra_jax.reports.page import Rows, figure_html
from electra_jax.reports.style import table_html
from electra_jax.reports.summary import number
from electra_jax.tasks.tagging.conlleval import SpanReader, evaluate_tags

# Names of classes turned by a quarter save the width that many of them take.
_MOST_UPRIGHT = 6
_NO_ANSWER, _ANSWER = "no answer", "an answer"


def score(value: Any) -> str:
    """A score in per cent with two decimals; a count without; "–" where there is none."""
    if value is None or value != value:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.2f}"


def confusion(pairs: Sequence[tuple[str, str]], labels: Sequence[str]) -> list[list[int]]:
    """How often each label of `labels` (rows, gold) was called each of them (columns), from (gold, predicted)."""
    counts = collections.Counter(pairs)
    return [[counts[gold, predicted] for predicted in labels] for gold in labels]


def answers_html(kind: str, records: Rows, metrics: Mapping[str, Any], spans_of: SpanReader) -> str:
    """The section of a kind of task.

    Args:
      kind: of `tasks.downstream.KINDS`.
      records: predictions.jsonl; at least one.
      metrics: the scores of the seed that made them.
      spans_of: how the task reads entities.
    """
    if kind == "classification":
        return _classes(records)
    if kind == "regression":
        return _values(records)
    return _entities(records, spans_of) if kind == "tagging" else _questions(records, metrics)


def _classes(records: Rows) -> str:
    pairs = [(str(record["gold"]), str(record["prediction"]["label"])) for record in records]
    known = records[0]["prediction"].get("probabilities", {})
    labels = list(dict.fromkeys([*known, *sorted({label for pair in pairs for label in pair})]))
    return (
        '<h2>Confusions</h2><p class="note">Each row holds the examples of one class, each column what the model '
        "called them: blue is right, orange wrong, the stronger the larger the share of its row.</p>"
        + _matrix(confusion(pairs, labels), labels)
    )


def _matrix(counts: Sequence[Sequence[int]], labels: Sequence[str]) -> str:
    many = len(labels) > _MOST_UPRIGHT
    turned, digits = (' class="turned"', 0) if many else ("", 1)
    named = [f'<span title="{escape(label)}">{escape(label)}</span>' for label in labels]
    head = "".join(f"<th{turned}>{name}</th>" for name in named)
    body = ""
    for i, (name, row) in enumerate(zip(named, counts, strict=True)):
        total = sum(row)
        cells = "".join(
            f'<td class="cell{" right" if i == j else ""}" style="--p:{count / max(total, 1):.3f}"'
            f' title="{escape(f"{labels[i]} called {labels[j]}: {count} of {total}")}">{count or ""}</td>'
            for j, count in enumerate(row)
        )
        body += f"<tr><th>{name}</th>{cells}<td>{total:,}</td><td>{_per_cent(row[i], total, digits)}</td></tr>"
    columns = list(zip(*counts, strict=True))
    called = "".join(f"<td>{sum(column):,}</td>" for column in columns)
    precision = "".join(f"<td>{_per_cent(column[j], sum(column), digits)}</td>" for j, column in enumerate(columns))
    return (
        '<div class="scroll matrix"><table><thead><tr><th>gold \N{RIGHTWARDS ARROW} called</th>'
        f"{head}<th>examples</th><th>recall, %</th></tr></thead><tbody>{body}"
        f"<tr><th>called so</th>{called}<td></td><td></td></tr>"
        f"<tr><th>precision, %</th>{precision}<td></td><td></td></tr></tbody></table></div>"
    )


def _per_cent(part: int, whole: int, digits: int) -> str:
    return f"{100 * part / whole:.{digits}f}" if whole else "–"


def _values(records: Rows) -> str:
    points = []
    for record in records:
        gold, predicted = number(record, "gold"), number(record["prediction"], "value")
        points.append((gold, predicted, f"{_start(record)} (gold {gold:.3g}, predicted {predicted:.3g})"))
    chart = scatter_chart("predicted against gold values", points, axes=("gold value", "predicted value"))
    note = "On the dashed line they are equal; above it the model says too much."
    figure = figure_html("Predicted against gold", f"{len(points):,} examples", note, chart)
    return f'<h2>Values</h2><div class="charts single">{figure}</div>'


def _start(record: Mapping[str, Any]) -> str:
    text = str(record.get("text_a", ""))
    return text if len(text) <= 60 else f"{text[:60]}…"


def _entities(records: Rows, spans_of: SpanReader) -> str:
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
    header = ["", "gold", "found", "correct", "precision", "recall", "F1"]
    return (
        '<h2>Entities</h2><p class="note">An entity is correct where its first word, its last word and its type '
        f"are. Of {found.num_tokens:,} words, {score(found.accuracy)} % have the right tag.</p>"
        + table_html(header, rows)
    )


def _questions(records: Rows, metrics: Mapping[str, Any]) -> str:
    answerable = [bool(record["gold"]) for record in records]
    counted = {"": len(records), "HasAns_": sum(answerable), "NoAns_": len(records) - sum(answerable)}
    names = {"": "all questions", "HasAns_": "with an answer", "NoAns_": "without an answer"}
    rows = []
    for prefix, name in names.items():
        exact = metrics.get(f"{prefix}exact", metrics.get(f"{prefix}exact_match"))
        overlap = metrics.get(f"{prefix}f1")
        if exact is not None or overlap is not None:
            rows.append([name, f"{counted[prefix]:,}", score(exact), score(overlap)])
    section = "<h2>Questions</h2>" + table_html(["", "questions", "exact match", "F1"], rows)
    if all(answerable):
        return section
    labels = [_ANSWER, _NO_ANSWER]
    pairs = [
        (_ANSWER if known else _NO_ANSWER, _ANSWER if record["prediction"]["answer"] else _NO_ANSWER)
        for known, record in zip(answerable, records, strict=True)
    ]
    return (
        section + '<p class="note">Whether there is an answer (rows), and whether the model gave one (columns).</p>'
        f"{_matrix(confusion(pairs, labels), labels)}"
    )

"""Prepare the errors that a fine-tuned model is most confident in, with their texts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from electra_jax.monitoring.metrics_file import Rows
from electra_jax.reports.page import number, percent
from electra_jax.tasks.qa.languages import AnswerMetric
from electra_jax.tasks.qa.metrics import METRICS

MOST = 20
# Longer texts are cut to this many characters.
_MOST_CHARACTERS = 700
# Longer tagged sentences are cut to this many words.
_MOST_WORDS = 120


@dataclass(frozen=True)
class Span:
    """A piece of a text; a marked piece is framed, with a note inside the frame ("" for none)."""

    text: str
    marked: bool = False
    note: str = ""


@dataclass(frozen=True)
class Text:
    """A text that the model read, under a name ("" for none)."""

    name: str
    spans: Sequence[Span]


@dataclass(frozen=True)
class Error:
    """A wrong answer.

    Attributes:
        weight: the value that errors are ranked by, the largest first: the probability of the wrong answer, or the
            absolute error of a value.
        sure: the weight in words.
        said: the model's answer.
        gold: the right answer.
        texts: the texts that the model read.
    """

    weight: float
    sure: str
    said: str
    gold: str
    texts: Sequence[Text]


@dataclass(frozen=True)
class Errors:
    """The errors of a split with the largest weights, at most `MOST`, and the numbers of errors and examples."""

    kind: str
    shown: Sequence[Error]
    num_errors: int
    num_examples: int


def read_errors(kind: str, records: Rows, metric: str) -> Errors:
    """Prepare the errors with the largest weights.

    Args:
        kind: the kind of task, one of `tasks.protocol.KINDS`.
        records: the lines of predictions.jsonl; at least one.
        metric: the metric that compares answers to questions, a name of `qa.metrics.METRICS`.
    """
    found = ranked_errors(kind, records, metric)
    shown = [replace(error, said=clipped(error.said), gold=clipped(error.gold)) for error in found[:MOST]]
    return Errors(kind, shown, len(found), len(records))


def ranked_errors(kind: str, records: Rows, metric: str) -> list[Error]:
    """Return every error by falling weight, equal weights in the order of the file; see `read_errors`."""
    read = {
        "classification": _class_error,
        "multi_label_classification": _labels_error,
        "multiple_choice": _choice_error,
        "regression": _value_error,
        "tagging": _tags_error,
        "question_answering": partial(_answer_error, METRICS[metric]),
    }[kind]
    errors = [error for record in records if (error := read(record)) is not None]
    return sorted(errors, key=lambda error: -error.weight)


def clipped(text: str) -> str:
    """Cut a text to `_MOST_CHARACTERS` characters, and state how many are left out."""
    left_out = len(text) - _MOST_CHARACTERS
    return text if left_out <= 0 else f"{text[:_MOST_CHARACTERS]}… ({left_out:,} more characters)"


def _class_error(record: Mapping[str, Any]) -> Error | None:
    prediction, gold = record["prediction"], record["gold"]
    if prediction["label"] == gold:
        return None
    probabilities = prediction.get("probabilities", {})
    sure, right = number(probabilities, prediction["label"]), number(probabilities, gold)
    words = f"{percent(sure)} sure; {percent(right)} for the right answer"
    return Error(_finite(sure), words, prediction["label"], str(gold), _texts(record))


def _choice_error(record: Mapping[str, Any]) -> Error | None:
    prediction, gold = record["prediction"], record["gold"]
    if prediction["label"] == gold:
        return None
    sure, right = (number({"p": prediction["probabilities"][place]}, "p") for place in (prediction["label"], gold))
    words = f"{percent(sure)} sure; {percent(right)} for the right answer"
    return Error(_finite(sure), words, prediction["choice"], record["choices"][gold], _texts(record))


def _labels_error(record: Mapping[str, Any]) -> Error | None:
    """Return a text's error, weighted by its most confident wrong label; None if every label is right."""
    prediction, gold = record["prediction"], record["gold"]
    wrong = set(gold) ^ set(prediction["labels"])
    if not wrong:
        return None
    shares = {name: number(prediction["probabilities"], name) for name in prediction["probabilities"] if name in wrong}
    sure = {name: 1.0 - share if name in gold else share for name, share in shares.items()}
    worst = max(sure, key=lambda name: _finite(sure[name]))
    said, right = (", ".join(labels) or "no label" for labels in (prediction["labels"], gold))
    words = f"{worst}: {percent(shares[worst])}"
    return Error(_finite(sure[worst]), words, said, right, _texts(record))


def _value_error(record: Mapping[str, Any]) -> Error | None:
    gold, value = number(record, "gold"), number(record["prediction"], "value")
    if gold == value:
        return None
    off = abs(value - gold)
    return Error(_finite(off), f"off by {off:.3f}", f"{value:.3f}", f"{gold:.3g}", _texts(record))


def _tags_error(record: Mapping[str, Any]) -> Error | None:
    """Return a sentence's error, weighted by its most confident wrong tag; None if every tag is right."""
    gold, tags = record["gold"], record["prediction"]["tags"]
    wrong = [i for i, (right, tag) in enumerate(zip(gold, tags, strict=True)) if right != tag]
    if not wrong:
        return None
    sure = [number({"p": p}, "p") for p in record["prediction"].get("probabilities", [math.nan] * len(tags))]
    first = max(wrong, key=lambda i: _finite(sure[i]))
    words = record["words"]
    said = f"{words[first]}: {tags[first]}"
    text = Text("", _tagged(words, gold, tags, first))
    return Error(_finite(sure[first]), f"{percent(sure[first])} sure", said, gold[first], [text])


def _tagged(words: Sequence[str], gold: Sequence[str], tags: Sequence[str], middle: int) -> list[Span]:
    """Return the sentence around its most confident error; wrong words are marked with the given and the right tag."""
    start = max(0, min(middle - _MOST_WORDS // 2, len(words) - _MOST_WORDS))
    spans = [Span("… ")] if start > 0 else []
    for word, right, tag in list(zip(words, gold, tags, strict=True))[start : start + _MOST_WORDS]:
        if right == tag:
            spans.append(Span(clipped(word)))
        else:
            spans.append(Span(clipped(word), marked=True, note=f"{tag}, not {right}"))
        spans.append(Span(" "))
    return [*spans[:-1], Span(" …")] if start + _MOST_WORDS < len(words) else spans[:-1]


def _answer_error(metric: AnswerMetric, record: Mapping[str, Any]) -> Error | None:
    prediction, gold = record["prediction"], [text for text in record["gold"] if metric.normalize(text)]
    answer = prediction["answer"]
    if any(metric.exact_match(answer, text) for text in gold or [""]):
        return None
    odds = number(prediction, "null_odds")
    # Null odds are log odds that there is no answer; "probability" is the span's probability among the n-best.
    sure = number(prediction, "probability") if answer or not math.isfinite(odds) else 0.5 + 0.5 * math.tanh(odds / 2)
    accepted = " | ".join(dict.fromkeys(gold)) or "no answer"
    texts = [
        Text("question", [Span(clipped(record["question"]))]),
        Text("context", _context(record["context"], answer, gold)),
    ]
    return Error(_finite(sure), f"{percent(sure)} sure", answer or "no answer", accepted, texts)


def _context(context: str, answer: str, gold: Sequence[str]) -> list[Span]:
    """Return the context around the answer, which is marked where it first occurs; else around the first right one."""
    at = context.find(answer) if answer else -1
    right = min((where for text in gold if (where := context.find(text)) >= 0), default=0)
    middle = right if at < 0 else at
    start = max(0, min(middle - _MOST_CHARACTERS // 2, len(context) - _MOST_CHARACTERS))
    end = start + _MOST_CHARACTERS
    before, after = "… " * (start > 0), " …" * (end < len(context))
    if at < 0:
        return [Span(before + context[start:end] + after)]
    answer_end = min(at + len(answer), end)
    return [
        Span(before + context[start:at]),
        Span(context[at:answer_end], marked=True),
        Span(context[answer_end:end] + after),
    ]


def _texts(record: Mapping[str, Any]) -> list[Text]:
    texts = [text for text in (record.get("text_a"), record.get("text_b")) if text is not None]
    names = ("1", "2") if len(texts) == 2 else ("",)
    return [Text(name, [Span(clipped(text))]) for name, text in zip(names, texts, strict=False)]


def _finite(value: float) -> float:
    """Return a value as a weight: one that is not finite comes last."""
    return value if math.isfinite(value) else -1.0

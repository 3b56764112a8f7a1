"""The errors that a fine-tuned model is surest of, with their text, as HTML."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from electra_jax.reports.page import Rows
from electra_jax.reports.summary import number, percent
from electra_jax.tasks.qa.metrics import exact_match, normalize_answer

MOST = 20
# Of a long text this many characters are shown.
_MOST_CHARACTERS = 700
# Of a tagged sentence this many words are shown.
_MOST_WORDS = 120


@dataclasses.dataclass(frozen=True)
class Error:
    """A wrong answer.

    Attributes:
      weight: what errors are ranked by, the first largest: the probability of the wrong answer, or by how much a value
        is off.
      sure: the weight in words.
      said: what the model answered, plain text.
      gold: what is right, plain text.
      text: what it read, markup.
    """

    weight: float
    sure: str
    said: str
    gold: str
    text: str


def errors_html(kind: str, records: Rows) -> str:
    """The at most `MOST` errors of largest weight, after a sentence that says how many there are.

    Args:
      kind: of `tasks.downstream.KINDS`.
      records: predictions.jsonl; at least one.
    """
    found = ranked_errors(kind, records)
    title = "The largest errors" if kind == "regression" else "The most confident errors"
    if not found:
        return f"<h2>{title}</h2><p>None: {len(records):,} of {len(records):,} are right.</p>"
    unit, wrong = {
        "classification": ("examples", "are wrong"),
        "regression": ("examples", "are off"),
        "tagging": ("sentences", "have a wrong tag"),
        "question_answering": ("questions", "have none of the right answers"),
    }[kind]
    count = f"{len(found):,} of {len(records):,} dev {unit} {wrong}"
    surest = "furthest off" if kind == "regression" else "that the model was surest of"
    order = f"these are the {MOST} {surest}" if len(found) > MOST else f"the one {surest} comes first"
    items = "".join(map(_error_html, found[:MOST]))
    return f'<h2>{title}</h2><p class="note">{count}; {order}.</p><ol class="errors">{items}</ol>'


def ranked_errors(kind: str, records: Rows) -> list[Error]:
    """Every error, those of largest weight first; equal ones in the order of the file."""
    read = {
        "classification": _class_error,
        "regression": _value_error,
        "tagging": _tags_error,
        "question_answering": _answer_error,
    }[kind]
    errors = [error for record in records if (error := read(record)) is not None]
    return sorted(errors, key=lambda error: -error.weight)


def _error_html(error: Error) -> str:
    return (
        f'<li class="error"><p class="said"><span class="sure">{escape(error.sure)}</span>'
        f'said <b>{escape(clipped(error.said))}</b>, right is <b class="gold">{escape(clipped(error.gold))}</b></p>'
        f"{error.text}</li>"
    )


def _class_error(record: Mapping[str, Any]) -> Error | None:
    prediction, gold = record["prediction"], record["gold"]
    if prediction["label"] == gold:
        return None
    probabilities = prediction.get("probabilities", {})
    sure, right = number(probabilities, prediction["label"]), number(probabilities, gold)
    words = f"{percent(sure)} sure; of the right one {percent(right)}"
    return Error(_finite(sure), words, prediction["label"], str(gold), _texts(record))


def _value_error(record: Mapping[str, Any]) -> Error | None:
    gold, value = number(record, "gold"), number(record["prediction"], "value")
    if gold == value:
        return None
    off = abs(value - gold)
    return Error(_finite(off), f"off by {off:.3f}", f"{value:.3f}", f"{gold:.3g}", _texts(record))


def _tags_error(record: Mapping[str, Any]) -> Error | None:
    """A sentence counts as sure as the surest of its wrong words."""
    gold, tags = record["gold"], record["prediction"]["tags"]
    wrong = [i for i, (right, tag) in enumerate(zip(gold, tags, strict=True)) if right != tag]
    if not wrong:
        return None
    sure = [number({"p": p}, "p") for p in record["prediction"].get("probabilities", [math.nan] * len(tags))]
    first = max(wrong, key=lambda i: _finite(sure[i]))
    words = record["words"]
    said = f"{words[first]}: {tags[first]}"
    text = f'<p class="text" dir="auto">{_marked(words, gold, tags, first)}</p>'
    return Error(_finite(sure[first]), f"{percent(sure[first])} sure", said, gold[first], text)


def _marked(words: Sequence[str], gold: Sequence[str], tags: Sequence[str], middle: int) -> str:
    """The sentence around its surest error; wrong words are framed, with the given and the right tag."""
    start = max(0, min(middle - _MOST_WORDS // 2, len(words) - _MOST_WORDS))
    shown = []
    for word, right, tag in list(zip(words, gold, tags, strict=True))[start : start + _MOST_WORDS]:
        note = f"<small>{escape(tag)}, not {escape(right)}</small>"
        shown.append(escape(clipped(word)) if right == tag else f"<mark>{escape(clipped(word))}{note}</mark>")
    before, after = "… " * (start > 0), " …" * (start + _MOST_WORDS < len(words))
    return f"{before}{' '.join(shown)}{after}"


def _answer_error(record: Mapping[str, Any]) -> Error | None:
    prediction, gold = record["prediction"], [text for text in record["gold"] if normalize_answer(text)]
    answer = prediction["answer"]
    if any(exact_match(answer, text) for text in gold or [""]):
        return None
    odds = number(prediction, "null_odds")
    # Null odds are log odds that there is no answer; the probability is that of the span among the n-best.
    sure = number(prediction, "probability") if answer or not math.isfinite(odds) else 0.5 + 0.5 * math.tanh(odds / 2)
    accepted = " | ".join(dict.fromkeys(gold)) or "no answer"
    texts = f'<p class="text" dir="auto"><small>question</small>{escape(clipped(record["question"]))}</p>'
    texts += f'<p class="text" dir="auto"><small>context</small>{_context(record["context"], answer, gold)}</p>'
    return Error(_finite(sure), f"{percent(sure)} sure", answer or "no answer", accepted, texts)


def _context(context: str, answer: str, gold: Sequence[str]) -> str:
    """The context around the answer, which is framed where it is first found; else around the first right one."""
    at = context.find(answer) if answer else -1
    right = min((where for text in gold if (where := context.find(text)) >= 0), default=0)
    middle = right if at < 0 else at
    start = max(0, min(middle - _MOST_CHARACTERS // 2, len(context) - _MOST_CHARACTERS))
    end = start + _MOST_CHARACTERS
    before, after = "… " * (start > 0), " …" * (end < len(context))
    if at < 0:
        return before + escape(context[start:end]) + after
    answer_end = min(at + len(answer), end)
    framed = f"<mark>{escape(context[at:answer_end])}</mark>"
    return before + escape(context[start:at]) + framed + escape(context[answer_end:end]) + after


def _texts(record: Mapping[str, Any]) -> str:
    texts = [text for text in (record.get("text_a"), record.get("text_b")) if text is not None]
    names = ("1", "2") if len(texts) == 2 else ("",)
    return "".join(
        f'<p class="text" dir="auto">{f"<small>{name}</small>" if name else ""}{escape(clipped(text))}</p>'
        for name, text in zip(names, texts, strict=False)
    )


def clipped(text: str) -> str:
    """A text of at most `_MOST_CHARACTERS` characters and a word on what is left out."""
    left_out = len(text) - _MOST_CHARACTERS
    return text if left_out <= 0 else f"{text[:_MOST_CHARACTERS]}… ({left_out:,} more characters)"


def _finite(value: float) -> float:
    """For ranking: what is not a number comes last."""
    return value if math.isfinite(value) else -1.0

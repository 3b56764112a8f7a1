"""Read question-answering files in their public formats: SQuAD 1.1 and 2.0, MRQA, and predictions."""

import collections
import contextlib
import dataclasses
import gzip
import json
import math
import pathlib
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from electra_jax.errors import UserError
from electra_jax.tasks.protocol import Examples
from electra_jax.tasks.rows import without_surrogates


@dataclasses.dataclass(frozen=True)
class Answer:
    """An annotated answer: its text and the characters of the context that it claims to be, the end excluded."""

    text: str
    start: int
    end: int


@dataclasses.dataclass(frozen=True)
class QAExample:
    """A question about a context.

    Attributes:
      example_id: the name that predictions go by.
      answers: where the annotators found it; the first is learnt from. Empty if there is none, or none is given.
      gold_texts: what predictions are scored against. Empty if there is no answer, or none is given.
      is_impossible: whether the file says that the context holds no answer (SQuAD 2.0).
    """

    example_id: str
    question: str
    context: str
    answers: tuple[Answer, ...]
    gold_texts: tuple[str, ...]
    is_impossible: bool


def read_squad(file: str, *, skip_bad_rows: bool) -> Examples:
    """Read the `QAExample`s of SQuAD 1.1 or 2.0 JSON, plain or .gz. Answers may be absent, as in a test set.

    Args:
      file: its path.
      skip_bad_rows: leave out malformed records and count them by what is wrong with them, rather than stop.

    Raises:
      UserError: if the file is unreadable, empty, damaged or not JSON; or a record is malformed.
    """
    skipped: collections.Counter[str] = collections.Counter()
    counted = skipped if skip_bad_rows else None
    data = _get(_json(_read_text(file), file, 1), "data", list, f"{file}")
    examples = []
    for article, entry in enumerate(data):
        paragraphs = _get(entry, "paragraphs", list, f"{file}, data[{article}]")
        for number, paragraph in enumerate(paragraphs):
            place = f"{file}, data[{article}].paragraphs[{number}]"
            with _malformed(place, counted):
                context = _get(paragraph, "context", str, place)
                for index, question in enumerate(_get(paragraph, "qas", list, place)):
                    with _malformed(f"{place}.qas[{index}]", counted):
                        examples.append(squad_example(question, context, f"{place}.qas[{index}]"))
    if not examples:
        raise UserError(f"{file} holds no question; is it the right file?")
    return Examples(examples, skipped)


def read_mrqa(file: str, *, skip_bad_rows: bool) -> Examples:
    """Read the `QAExample`s of MRQA JSON lines, plain or .gz, with or without the header line.

    Spans include their last character.

    Args:
      file, skip_bad_rows: see `read_squad`.

    Raises:
      UserError: if the file is unreadable, empty or damaged, or a line is not JSON or holds a malformed record.
    """
    skipped: collections.Counter[str] = collections.Counter()
    counted = skipped if skip_bad_rows else None
    examples = []
    # Not splitlines(): JSON may hold what it takes for line ends, such as U+2028.
    for number, line in enumerate(_read_text(file).split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{file}, line {number}"
        with _malformed(place, counted):
            record = _json(line, file, number)
            if isinstance(record, dict) and "header" in record:
                continue
            context = _get(record, "context", str, place)
            for index, question in enumerate(_get(record, "qas", list, place)):
                with _malformed(f"{place}, qas[{index}]", counted):
                    examples.append(mrqa_example(question, context, f"{place}, qas[{index}]"))
    if not examples:
        raise UserError(f"{file} holds no question; is it the right file?")
    return Examples(examples, skipped)


def raw_example(record: Any, place: str) -> QAExample:
    """Return a question that a user asks: {"question": ..., "context": ...}, with an optional "id", else `place`.

    Raises:
      UserError: if a field is missing or is not a text.
    """
    fields = {name: _get(record, name, str, place) for name in ("question", "context")}
    return QAExample(
        _get(record, "id", str, place, default=place), **fields, answers=(), gold_texts=(), is_impossible=False
    )


def read_predictions(file: str) -> dict[str, str]:
    """Read predictions in the official format: a JSON object of answer texts by question.

    Raises:
      UserError: if the file is unreadable, empty or malformed.
    """
    return _read_object(file, str, "answer texts")


def read_null_odds(file: str) -> dict[str, float]:
    """Read null odds in the official format: a JSON object of numbers by question, larger where no answer is likelier.

    Raises:
      UserError: if the file is unreadable, empty or malformed, or a number is infinite or NaN.
    """
    odds = _read_object(file, (int, float), "numbers")
    for example_id, value in odds.items():
        if not math.isfinite(value):
            raise UserError(f"{file}: the null odds of question {example_id!r} are {value}, which cannot be ranked")
    return odds


def squad_example(question: Any, context: str, place: str) -> QAExample:
    """Return a question of a SQuAD paragraph from its JSON object; `place` is for messages.

    Raises:
      UserError: if a field is missing or has another type.
    """
    answers = []
    for index, record in enumerate(_get(question, "answers", list, place, default=[])):
        text = _get(record, "text", str, f"{place}.answers[{index}]")
        start = _get(record, "answer_start", int, f"{place}.answers[{index}]")
        answers.append(Answer(text, start, start + len(text)))
    return QAExample(
        example_id=_get(question, "id", str, place),
        question=_get(question, "question", str, place),
        context=context,
        answers=tuple(answers),
        gold_texts=tuple(answer.text for answer in answers),
        is_impossible=_get(question, "is_impossible", bool, place, default=False),
    )


def mrqa_example(question: Any, context: str, place: str) -> QAExample:
    """Return a question of an MRQA context, as `squad_example`; spans include their last character."""
    answers = []
    for index, record in enumerate(_get(question, "detected_answers", list, place, default=[])):
        text = _get(record, "text", str, f"{place}.detected_answers[{index}]")
        for span in _get(record, "char_spans", list, f"{place}.detected_answers[{index}]"):
            if not (isinstance(span, list) and len(span) == 2 and all(type(border) is int for border in span)):
                raise UserError(f"{place}.detected_answers[{index}]: char_spans holds {span!r}, not two whole numbers")
            answers.append(Answer(text, span[0], span[1] + 1))
    gold_texts = _get(question, "answers", list, place, default=[])
    if not all(isinstance(text, str) for text in gold_texts):
        raise UserError(f"{place}: 'answers' must be a list of texts")
    return QAExample(
        example_id=_get(question, "qid", str, place),
        question=_get(question, "question", str, place),
        context=context,
        answers=tuple(answers),
        gold_texts=tuple(gold_texts),
        is_impossible=False,
    )


class _MalformedError(UserError):
    """A malformed record whose message already says what can be done about it."""


@contextlib.contextmanager
def _malformed(place: str, skipped: collections.Counter[str] | None) -> Iterator[None]:
    """Count a malformed record, or say what can be done about it."""
    try:
        yield
    except _MalformedError:
        raise
    except UserError as error:
        if skipped is None:
            remedy = "correct it, or set SKIP_BAD_ROWS = True to leave out such records and count them"
            raise _MalformedError(f"{error}; {remedy}") from error
        skipped[str(error)[len(place) :].partition(": ")[2]] += 1


def _get(record: Any, field: str, kind: type, place: str, **default: Any) -> Any:
    if not isinstance(record, Mapping):
        raise UserError(f"{place}: an object with the field {field!r} is expected, not {_shown(record)}")
    if field not in record and default:
        return default["default"]
    if field not in record:
        raise UserError(f"{place}: the field {field!r} is missing (fields: {', '.join(map(repr, record))})")
    # type(): True would pass for a whole number.
    if type(record[field]) is not kind:
        raise UserError(f"{place}: {field!r} must be of type {kind.__name__}, not {_shown(record[field])}")
    return without_surrogates(record[field]) if kind is str else record[field]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _read_object(file: str, kind: type | tuple[type, ...], content: str) -> dict[str, Any]:
    record = _json(_read_text(file), file, 1)
    if not isinstance(record, dict):
        raise UserError(f"{file} must be a JSON object of {content} by question, not {_shown(record)}")
    for example_id, value in record.items():
        if not isinstance(value, kind) or isinstance(value, bool):
            raise UserError(f"{file}: question {example_id!r} has {_shown(value)}; {content} are expected")
    return record


def _json(text: str, file: str, first_line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise UserError(f"{file}, line {line}, column {error.colno}: not JSON ({error.msg})") from error
    except RecursionError as error:
        raise UserError(f"{file}: JSON nested too deeply to be read") from error


def _read_text(file: str) -> str:
    path = pathlib.Path(file)
    try:
        content = path.read_bytes()
        if path.suffix == ".gz" and content:
            content = gzip.decompress(content)
        text = content.decode("utf-8-sig")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{file} is truncated or damaged ({error}); fetch or make the file again") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 at byte {error.start}; convert the file") from error
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror})") from error
    if not text.strip():
        raise UserError(f"{file} is empty")
    return text

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
from electra_jax.files import regular
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

    Rows as hubs have them, `{"id", "context", "question", "answers": {"text": [...], "answer_start": [...]}}`, are
    read too: a list of them, alone or as "data", or JSON lines (.jsonl).

    Args:
      file: its path.
      skip_bad_rows: leave out malformed records and count them by what is wrong with them, rather than stop.

    Raises:
      UserError: if the file is unreadable, empty, damaged or not JSON; a record is malformed; or two questions have
        one id.
    """
    skipped: collections.Counter[str] = collections.Counter()
    counted = skipped if skip_bad_rows else None
    text = _read_text(file)
    lines = file.removesuffix(".gz").endswith(".jsonl")
    if lines:
        numbered = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
        data = [_json(line, file, number) for number, line in numbered]
    else:
        whole = _json(text, file, 1)
        data = whole if _is_flat(whole) else _get(whole, "data", list, f"{file}")
    examples = []
    for article, entry in enumerate(data):
        if _is_flat([entry]):
            place = f"{file}, line {numbered[article][0]}" if lines else f"{file}, row {article}"
            with _malformed(place, counted):
                examples.append(squad_example(entry, _get(entry, "context", str, place), place))
            continue
        paragraphs = _get(entry, "paragraphs", list, f"{file}, data[{article}]")
        for number, paragraph in enumerate(paragraphs):
            place = f"{file}, data[{article}].paragraphs[{number}]"
            with _malformed(place, counted):
                context = _get(paragraph, "context", str, place)
                for index, question in enumerate(_get(paragraph, "qas", list, place)):
                    with _malformed(f"{place}.qas[{index}]", counted):
                        examples.append(squad_example(question, context, f"{place}.qas[{index}]"))
    _check_ids(examples, file)
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
    _check_ids(examples, file)
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
    for index, record in enumerate(_answer_records(question, place)):
        text = _get(record, "text", str, f"{place}.answers[{index}]")
        start = _get(_whole(record, "answer_start"), "answer_start", int, f"{place}.answers[{index}]")
        answers.append(Answer(text, start, start + len(text)))
    return QAExample(
        example_id=_get(_named(question, "id"), "id", str, place),
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
        example_id=_get(_named(question, "qid"), "qid", str, place),
        question=_get(question, "question", str, place),
        context=context,
        answers=tuple(answers),
        gold_texts=tuple(gold_texts),
        is_impossible=False,
    )


def _is_flat(rows: Any) -> bool:
    """Return whether records are questions with their contexts, rather than articles with paragraphs."""
    return (
        isinstance(rows, list) and bool(rows) and isinstance(rows[0], dict) and "question" in rows[0]
        and "paragraphs" not in rows[0]
    )  # fmt: skip


def _answer_records(question: Any, place: str) -> list[Any]:
    """Return the answers as objects; hubs keep them as lists of texts and of starts, and none as null."""
    if not isinstance(question, Mapping) or question.get("answers", []) is None:
        return []
    if not isinstance(question.get("answers"), Mapping):
        return _get(question, "answers", list, place, default=[])
    columns = question["answers"]
    texts, starts = (_get(columns, name, list, f"{place}.answers") for name in ("text", "answer_start"))
    if len(texts) != len(starts):
        raise UserError(f"{place}.answers: {len(texts)} texts, but {len(starts)} of 'answer_start'")
    return [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]


def _whole(record: Any, field: str) -> Any:
    """Return the record with 12.0, which spreadsheets make of 12, as the whole number that it is."""
    value = record.get(field) if isinstance(record, Mapping) else None
    return {**record, field: int(value)} if type(value) is float and value.is_integer() else record


def _named(question: Any, field: str) -> Any:
    """Return the question with a number for its id as text, by which predictions go."""
    value = question.get(field) if isinstance(question, Mapping) else None
    return {**question, field: str(value)} if type(value) is int else question


def _check_ids(examples: list[QAExample], file: str) -> None:
    if not examples:
        raise UserError(f"{file} holds no question; is it the right file?")
    numbers = collections.Counter(example.example_id for example in examples)
    twice = [name for name, number in numbers.items() if number > 1]
    if twice:
        raise UserError(
            f"{file}: {numbers[twice[0]]} questions have the id {twice[0]!r} ({len(twice)} ids are not unique), so "
            f"that predictions cannot be told apart; give each question its own id"
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
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: JSON that cannot be read ({error})") from error


def _read_text(file: str) -> str:
    path = pathlib.Path(file)
    try:
        content = regular(path).read_bytes()
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

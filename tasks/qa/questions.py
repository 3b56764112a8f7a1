"""Define a question about a context, and read one from a JSON object: SQuAD's, MRQA's, CMRC 2018's or a hub's row."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from electra_jax.errors import UserError
from electra_jax.tasks.rows import without_surrogates

# The field names of CMRC 2018's own files, and SQuAD's names for the same.
_NAMES_OF_CMRC = {"context_text": "context", "query_text": "question", "query_id": "id"}

# The start of an answer if its file does not state it.
UNKNOWN_START = -1


@dataclasses.dataclass(frozen=True)
class Answer:
    """An annotated answer: its text and its claimed characters in the context, the end excluded.

    Its start is negative if the file does not state it.
    """

    text: str
    start: int
    end: int


@dataclasses.dataclass(frozen=True)
class QAExample:
    """A question about a context.

    Attributes:
        example_id: the name by which predictions refer to it.
        answers: the annotated answers; the first is learnt from. Empty if there is none, or none is given.
        gold_texts: the texts against which predictions are scored. Empty if there is no answer, or none is given.
        is_impossible: whether the file says that the context holds no answer (SQuAD 2.0).
    """

    example_id: str
    question: str
    context: str
    answers: tuple[Answer, ...]
    gold_texts: tuple[str, ...]
    is_impossible: bool


def raw_example(record: Any, place: str) -> QAExample:
    """Return a question from a user: {"question": ..., "context": ...}, with an optional "id", else `place`.

    Raises:
        UserError: if a field is missing or is not a text.
    """
    fields = {name: value_of(record, name, str, place) for name in ("question", "context")}
    return QAExample(
        value_of(record, "id", str, place, default=place), **fields, answers=(), gold_texts=(), is_impossible=False
    )


def squad_example(question: Any, context: str, place: str) -> QAExample:
    """Return a question of a SQuAD paragraph, or of a row, from its JSON object; `place` is for messages.

    Answers are objects, texts without positions, a single one of either ("answer"), or a hub's two lists. A question
    marked as impossible has none, even if plausible answers are listed. A question of MRQA has MRQA's fields.

    Raises:
        UserError: if a field is missing or has another type.
    """
    if isinstance(question, Mapping) and "detected_answers" in question:
        return mrqa_example(question, context, place)
    marked = isinstance(question, Mapping) and question.get("is_impossible") is not None
    is_impossible = marked and value_of(question, "is_impossible", bool, place)
    records = [] if is_impossible else _answer_records(question, place)
    answers = tuple(_answer(record, f"{place}.answers[{index}]") for index, record in enumerate(records))
    return QAExample(
        example_id=value_of(_named(question, "id"), "id", str, place),
        question=value_of(question, "question", str, place),
        context=context,
        answers=answers,
        gold_texts=tuple(answer.text for answer in answers),
        is_impossible=is_impossible,
    )


def mrqa_example(question: Any, context: str, place: str) -> QAExample:
    """Return a question of an MRQA context, as `squad_example`; spans include their last character."""
    answers = []
    for index, record in enumerate(value_of(question, "detected_answers", list, place, default=[])):
        text = value_of(record, "text", str, f"{place}.detected_answers[{index}]")
        for span in value_of(record, "char_spans", list, f"{place}.detected_answers[{index}]"):
            if not (isinstance(span, list) and len(span) == 2 and all(type(border) is int for border in span)):
                raise UserError(f"{place}.detected_answers[{index}]: char_spans holds {span!r}, not two whole numbers")
            answers.append(Answer(text, span[0], span[1] + 1))
    gold_texts = value_of(question, "answers", list, place, default=[])
    if not all(isinstance(text, str) for text in gold_texts):
        raise UserError(f"{place}: 'answers' must be a list of texts")
    return QAExample(
        example_id=value_of(_named(question, "qid"), "qid", str, place),
        question=value_of(question, "question", str, place),
        context=context,
        answers=tuple(answers),
        gold_texts=tuple(gold_texts),
        is_impossible=False,
    )


def with_names_of_squad(record: Any) -> Any:
    """Return a JSON object with SQuAD's names in place of CMRC 2018's; other values unchanged."""
    if not isinstance(record, Mapping):
        return record
    return {name: value for name, value in record.items() if name not in _NAMES_OF_CMRC} | {
        squad: record[name] for name, squad in _NAMES_OF_CMRC.items() if name in record
    }


def value_of(record: Any, field: str, kind: type, place: str, **default: Any) -> Any:
    """Return the value of a field of a JSON object; `default`, if given, if the field is missing.

    Raises:
        UserError: if the record is not an object, the field is missing, or its value is not of this type.
    """
    if not isinstance(record, Mapping):
        raise UserError(f"{place}: an object with the field {field!r} is expected, not {shown(record)}")
    if field not in record and default:
        return default["default"]
    if field not in record:
        raise UserError(f"{place}: the field {field!r} is missing (fields: {', '.join(map(repr, record))})")
    # isinstance() would accept True as an integer.
    if type(record[field]) is not kind:
        raise UserError(f"{place}: {field!r} must be of type {kind.__name__}, not {shown(record[field])}")
    return without_surrogates(record[field]) if kind is str else record[field]


def shown(value: Any) -> str:
    """Return the beginning of a value, for a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _answer(record: Any, place: str) -> Answer:
    if isinstance(record, str):
        text, start = without_surrogates(record), UNKNOWN_START
    else:
        text = value_of(record, "text", str, place)
        start = value_of(_whole(record, "answer_start"), "answer_start", int, place)
    return Answer(text, start, start + len(text))


def _answer_records(question: Any, place: str) -> list[Any]:
    """Return the answers as objects or texts; hubs keep them as lists of texts and of starts, and none as null."""
    if isinstance(question, Mapping) and "answers" not in question and "answer" in question:
        # KorQuAD 2 has one answer a question.
        return [] if question["answer"] is None else [question["answer"]]
    if not isinstance(question, Mapping) or question.get("answers", []) is None:
        return []
    if not isinstance(question.get("answers"), Mapping):
        return value_of(question, "answers", list, place, default=[])
    columns = question["answers"]
    texts, starts = (value_of(columns, name, list, f"{place}.answers") for name in ("text", "answer_start"))
    if len(texts) != len(starts):
        raise UserError(f"{place}.answers: {len(texts)} texts, but {len(starts)} of 'answer_start'")
    return [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]


def _whole(record: Any, field: str) -> Any:
    """Return the record with a float such as 12.0, which spreadsheets make of 12, as an integer."""
    value = record.get(field) if isinstance(record, Mapping) else None
    return {**record, field: int(value)} if type(value) is float and value.is_integer() else record


def _named(question: Any, field: str) -> Any:
    """Return the question with a numeric id as text, since predictions refer to it by text."""
    value = question.get(field) if isinstance(question, Mapping) else None
    return {**question, field: str(value)} if type(value) is int else question

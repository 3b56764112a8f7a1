"""Read question-answering files in their public formats: SQuAD 1.1 and 2.0, rows, MRQA, and predictions."""

import collections
import contextlib
import gzip
import json
import math
import pathlib
import zlib
from collections.abc import Iterator
from typing import Any

from electra_jax.errors import UserError
from electra_jax.files import regular
from electra_jax.tasks.corpora.byte_streams import HEAD_BYTES
from electra_jax.tasks.protocol import Examples
from electra_jax.tasks.qa.questions import (
    QAExample,
    mrqa_example,
    shown,
    squad_example,
    value_of,
    with_names_of_squad,
)
from electra_jax.tasks.rows import format_of_no_text
from electra_jax.tasks.whole_tables import whole_table

# The formats that are read besides SQuAD's own, for messages.
_ROWS = "JSON lines with 'id', 'context', 'question' and 'answers' ({'text': [...], 'answer_start': [...]})"


def read_squad(file: str, *, skip_bad_rows: bool) -> Examples:
    """Read the `QAExample`s of SQuAD 1.1 or 2.0 JSON, plain or .gz, or of Parquet. Answers may be absent.

    Rows in the form of hubs, `{"id", "context", "question", "answers": {"text": [...], "answer_start": [...]}}`, and
    contexts with their questions, `{"context", "qas"}`, are read too: a list of them, alone or as "data", or JSON
    lines. So are the field names of CMRC 2018's own files.

    Args:
        file: its path.
        skip_bad_rows: whether to leave out malformed records and count them by problem, instead of stopping.

    Raises:
        UserError: if the file is unreadable, empty, damaged or not JSON, has none of these layouts, or has a malformed
            record or two questions with the same id.
    """
    skipped: collections.Counter[str] = collections.Counter()
    counted = skipped if skip_bad_rows else None
    examples: list[QAExample] = []
    if pathlib.Path(file).suffix.lower() == ".parquet":
        entries = ((f"{file}, row {number}", row) for number, row in enumerate(whole_table(file)[1], start=1))
    else:
        entries = _entries(_read_text(file), file, counted)
    for number, (place, entry) in enumerate(entries):
        if number == 0:
            _check_layout(entry, place)
        for inner, paragraph in _paragraphs(entry, place):
            with _malformed(inner, counted):
                context = value_of(paragraph, "context", str, inner)
                if "qas" not in paragraph:
                    examples.append(squad_example(paragraph, context, inner))
                    continue
                for index, question in enumerate(value_of(paragraph, "qas", list, inner)):
                    with _malformed(f"{inner}.qas[{index}]", counted):
                        examples.append(squad_example(with_names_of_squad(question), context, f"{inner}.qas[{index}]"))
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
    for place, record in _lines(_read_text(file), file, counted):
        with _malformed(place, counted):
            if _is_header(record):
                continue
            context = value_of(record, "context", str, place)
            for index, question in enumerate(value_of(record, "qas", list, place)):
                with _malformed(f"{place}, qas[{index}]", counted):
                    examples.append(mrqa_example(question, context, f"{place}, qas[{index}]"))
    _check_ids(examples, file)
    return Examples(examples, skipped)


def read_predictions(file: str) -> dict[str, str]:
    """Read predictions in the official format: a JSON object of answer texts by question.

    Raises:
        UserError: if the file is unreadable, empty or malformed.
    """
    return _read_object(file, str, "answer texts")


def read_null_odds(file: str) -> dict[str, float]:
    """Read null odds in the official format: a JSON object of numbers by question, larger if no answer is more likely.

    Raises:
        UserError: if the file is unreadable, empty or malformed, or a number is infinite or NaN.
    """
    odds = _read_object(file, (int, float), "numbers")
    for example_id, value in odds.items():
        if not math.isfinite(value):
            raise UserError(f"{file}: the null odds of question {example_id!r} are {value}, which cannot be ranked")
    return odds


def _entries(text: str, file: str, skipped: collections.Counter[str] | None) -> Iterator[tuple[str, Any]]:
    """Yield the records of a file, which are articles, contexts with questions or rows, and their places."""
    if text.lstrip()[0] not in "{[":
        raise UserError(f"{file} is no JSON: write its questions in SQuAD's format, or {_ROWS}")
    if _is_json_lines(text, file):
        yield from ((place, each) for place, each in _lines(text, file, skipped) if not _is_header(each))
        return
    whole = _json(text, file, 1)
    if isinstance(whole, dict) and "data" not in whole:
        yield file, whole
        return
    for number, entry in enumerate(whole if isinstance(whole, list) else value_of(whole, "data", list, file)):
        rows = isinstance(entry, dict) and "question" in entry and "paragraphs" not in entry
        yield f"{file}, row {number}" if rows else f"{file}, data[{number}]", entry


def _is_json_lines(text: str, file: str) -> bool:
    """Return whether each line is a record, judging by the name of the file, or by its first line."""
    if text.lstrip().startswith("["):
        return False
    first, _, rest = text.strip().partition("\n")
    if not rest:
        return False
    try:
        return file.removesuffix(".gz").endswith(".jsonl") or isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _lines(text: str, file: str, skipped: collections.Counter[str] | None) -> Iterator[tuple[str, Any]]:
    """Yield the records of JSON lines with their places."""
    # splitlines() would split at characters such as U+2028, which JSON strings may contain.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{file}, line {number}"
        found = []
        with _malformed(place, skipped):
            found.append(_json(line, file, number))
        yield from ((place, record) for record in found)


def _check_layout(entry: Any, place: str) -> None:
    """Refuse a file of another layout by its first record.

    Raises:
        UserError: if the layout is not supported.
    """
    if not isinstance(entry, dict):
        raise UserError(f"{place}: SQuAD's object with 'data' is expected, or {_ROWS}, not {shown(entry)}")
    names = with_names_of_squad(entry)
    if not ("paragraphs" in names or "qas" in names or "question" in names):
        raise UserError(
            f"{place}: the layout is not known (fields: {', '.join(map(repr, entry))}); write the questions in SQuAD's "
            f"format, an object with 'data', or {_ROWS}"
        )


def _paragraphs(entry: Any, place: str) -> list[tuple[str, Any]]:
    """Return the contexts with their questions, or the row, of a record, and their places."""
    if isinstance(entry, dict) and "paragraphs" in entry:
        found = value_of(entry, "paragraphs", list, place)
        return [(f"{place}.paragraphs[{number}]", each) for number, each in enumerate(found)]
    return [(place, with_names_of_squad(entry))]


def _is_header(record: Any) -> bool:
    """Return whether a record is the first line of MRQA's files."""
    return isinstance(record, dict) and "header" in record


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
    """A malformed record whose message already says how it can be fixed."""


@contextlib.contextmanager
def _malformed(place: str, skipped: collections.Counter[str] | None) -> Iterator[None]:
    """Count a malformed record, or raise an error that says how it can be fixed."""
    try:
        yield
    except _MalformedError:
        raise
    except UserError as error:
        if skipped is None:
            remedy = "correct it, or set SKIP_BAD_ROWS = True to leave out such records and count them"
            raise _MalformedError(f"{error}; {remedy}") from error
        skipped[str(error)[len(place) :].partition(": ")[2]] += 1


def _read_object(file: str, kind: type | tuple[type, ...], content: str) -> dict[str, Any]:
    record = _json(_read_text(file), file, 1)
    if not isinstance(record, dict):
        raise UserError(f"{file} must be a JSON object of {content} by question, not {shown(record)}")
    for example_id, value in record.items():
        if not isinstance(value, kind) or isinstance(value, bool):
            raise UserError(f"{file}: question {example_id!r} has {shown(value)}; {content} are expected")
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
        if what := format_of_no_text(content[:HEAD_BYTES]):
            raise UserError(f"{file} is {what}: write what it holds as JSON in UTF-8")
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

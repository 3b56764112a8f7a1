"""Question files in the shapes that people bring: rows of hubs, whole numbers as ids, floats as starts, no flag."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from electra_jax.errors import UserError
from electra_jax.tasks.qa.answers import locate_answer
from electra_jax.tasks.qa.files import read_squad
from electra_jax.tasks.qa.questions import Answer, QAExample
from support.questions import CONTEXT, QUESTIONS, made, mrqa, squad, written

ROW = {"id": 7, "context": CONTEXT, "question": "Who?", "answers": {"text": ["John"], "answer_start": [15.0]}}
READ = QAExample("7", "Who?", CONTEXT, (Answer("John", 15, 19),), ("John",), False)


def test_rows_of_hubs_in_parquet(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([ROW]), tmp_path / "a.parquet")
    assert read_squad(str(tmp_path / "a.parquet"), skip_bad_rows=False).examples == [READ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", json.dumps([ROW])),
        ("a.json", json.dumps({"data": [ROW]})),
        ("a.jsonl", f"{json.dumps(ROW)}\n\n"),
        ("a.json", json.dumps(squad([("Who?", CONTEXT, "John")])).replace('"q0"', "7").replace(": 15", ": 15.0")),
    ],
)
def test_rows_of_hubs_whole_ids_and_float_starts(tmp_path: Path, name: str, text: str) -> None:
    assert read_squad(str(written(tmp_path / name, text)), skip_bad_rows=False).examples == [READ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answers": {"text": ["John"], "answer_start": []}}, r"row 0\.answers: 1 texts, but 0 of 'answer_start'"),
        ({"answers": {"text": ["John"], "answer_start": [1.5]}}, "'answer_start' must be of type int, not 1.5"),
        ({"id": True}, "'id' must be of type str, not True"),
    ],
)
def test_rows_that_cannot_be_read_are_told(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_squad(str(written(tmp_path / "a.json", json.dumps([ROW | changes]))), skip_bad_rows=False)


def test_null_is_no_answer(tmp_path: Path) -> None:
    text = json.dumps([ROW | {"answers": None, "is_impossible": True}])
    (example,) = read_squad(str(written(tmp_path / "a.json", text)), skip_bad_rows=False).examples
    assert (example.answers, example.is_impossible) == ((), True)


def test_ids_that_are_not_unique_are_refused(tmp_path: Path) -> None:
    file = written(tmp_path / "a.json", json.dumps([ROW, ROW, ROW | {"id": "8"}]))
    with pytest.raises(UserError, match=r"a\.json: 2 questions have the id '7' \(1 ids are not unique\)"):
        read_squad(str(file), skip_bad_rows=False)


def test_questions_without_answers_are_told_before_training(tmp_path: Path) -> None:
    data = squad(QUESTIONS)
    for paragraph in data["data"][0]["paragraphs"]:
        paragraph["qas"][0].pop("is_impossible", None)
    file = written(tmp_path / "a.json", data)
    unanswered = "split: 1 of 4 questions have no answer, the first 'q3': set TASK = 'squad_v2'"
    with pytest.raises(UserError, match=f"qa, train {unanswered}"):
        made("qa", None, train_file=str(file), dev_file=str(file))
    with pytest.raises(UserError, match=f"squad_v1, dev {unanswered}"):
        made("squad_v1", None, train_file=str(file), dev_file=str(file))
    # The setting that the message names learns from them.
    task = made("squad_v2", None, train_file=str(file), dev_file=str(file))
    assert [example.is_impossible for example in task.examples("train").examples] == [False, False, False, True]


def in_squads_format(questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return an article for each question, about `CONTEXT`."""
    return [{"paragraphs": [{"context": CONTEXT, "qas": [{"question": "Who?"} | each]}]} for each in questions]


@pytest.mark.parametrize(
    "text",
    [
        # As `to_json` of the library `datasets` writes a .json.
        f"{json.dumps(ROW)}\n{json.dumps(ROW | {'id': 8})}\n",
        json.dumps([{"context": CONTEXT, "qas": [ROW, ROW | {"id": 8}]}]),
        "\n".join(json.dumps({"context": CONTEXT, "qas": [ROW | {"id": number}]}) for number in (7, 8)),
        json.dumps({"context": CONTEXT, "qas": [ROW, ROW | {"id": 8}]}),
    ],
)
def test_contexts_with_questions_and_json_lines_under_any_name(tmp_path: Path, text: str) -> None:
    found = read_squad(str(written(tmp_path / "a.json", text)), skip_bad_rows=False).examples
    assert found == [READ, dataclasses.replace(READ, example_id="8")]


def test_the_layouts_of_korquad_2_cmrc_2018_and_mrqa(tmp_path: Path) -> None:
    answer = {"text": "John", "answer_start": 15, "html_answer_text": "<b>John</b>"}
    korquad = {"data": [{"title": "", "context": CONTEXT, "qas": [{"id": 7, "question": "Who?", "answer": answer}]}]}
    assert read_squad(str(written(tmp_path / "a.json", korquad)), skip_bad_rows=False).examples == [READ]
    lines = mrqa([("Who?", CONTEXT, "John")]).replace("q0", "7")
    assert read_squad(str(written(tmp_path / "a.jsonl", lines)), skip_bad_rows=False).examples == [READ]
    questions = [{"query_id": "7", "query_text": "Who?", "answers": ["John", "John Smith"]}]
    cmrc = json.dumps([{"context_id": "1", "context_text": CONTEXT, "title": "", "qas": questions}])
    (example,) = read_squad(str(written(tmp_path / "a.json", cmrc)), skip_bad_rows=False).examples
    assert dataclasses.replace(example, answers=READ.answers, gold_texts=READ.gold_texts) == READ
    assert example.gold_texts == ("John", "John Smith")
    assert [locate_answer(CONTEXT, answer) for answer in example.answers] == [(15, 19), (15, 25)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv",
            b"id,question,context,answer\n",
            r"a\.csv is no JSON: write its questions in SQuAD's format, or JSON li",
        ),
        ("a.json", b"PAR1\0\xff", r"a\.json is a Parquet file: write what it holds as JSON in UTF-8"),
        ("a.json", '{"data": []}'.encode("utf-16"), r"a\.json is text in UTF-16"),
        ("a.jsonl", b'{"document_text": ""}\n{}', r"a\.jsonl, line 1: the layout is not known \(fields: 'document_te"),
        (
            "a.json",
            b'{"train": []}',
            r"a\.json: the layout is not known \(fields: 'train'\); write the questions in SQuA",
        ),
    ],
)
def test_what_is_no_file_of_questions_is_told(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_squad(str(tmp_path / name), skip_bad_rows=False)


def test_a_broken_line_is_left_out_and_counted_if_asked(tmp_path: Path) -> None:
    file = str(written(tmp_path / "a.jsonl", f'{json.dumps(ROW)}\n{{"id": \n{{"id": 9}}\n'))
    with pytest.raises(UserError, match=r"a\.jsonl, line 2, column 8: not JSON .*SKIP_BAD_ROWS = True"):
        read_squad(file, skip_bad_rows=False)
    found = read_squad(file, skip_bad_rows=True)
    assert (found.examples, found.skipped.total()) == ([READ], 2)


def test_a_question_marked_as_impossible_has_no_answer_to_be_scored_by(tmp_path: Path) -> None:
    plausible = [{"text": "John", "answer_start": 15}]
    data = in_squads_format(
        [
            {"id": "a", "answers": plausible, "is_impossible": True},
            {"id": "b", "answers": plausible, "is_impossible": None},
        ]
    )
    found = read_squad(str(written(tmp_path / "a.json", {"data": data})), skip_bad_rows=False).examples
    assert [(each.is_impossible, each.gold_texts) for each in found] == [(True, ()), (False, ("John",))]


def test_an_answer_without_text_is_no_answer_where_none_is_allowed(tmp_path: Path) -> None:
    data = in_squads_format([{"id": "a", "answers": [{"text": "", "answer_start": -1}]}, ROW])
    file = str(written(tmp_path / "a.json", {"data": data}))
    task = made("squad_v2", None, train_file=file, dev_file=file)
    assert [each.is_impossible for each in task.examples("train").examples] == [True, False]
    assert [each.gold_texts for each in task.examples("dev").examples] == [(), ("John",)]


@pytest.mark.parametrize(
    ("text", "answer", "start", "found"),
    [
        # Bytes of UTF-8: the nearest occurrence would be the second.
        ("王小明是馆长。他叫王小明。", "王小明", 27, (9, 12)),
        ("馆长是王小明，他爱他，叫王小明。", "王小明", 9, (3, 6)),
        # Units of UTF-16, of which each of these takes two.
        ("😀😀😀😀 Paris Paris", "Paris", 9, (5, 10)),
        # No start: a whole word rather than a part of one, the first of these.
        ("The Parisian went to Paris, Paris.", "Paris", -1, (21, 26)),
        ("In 1985, 5 came.", "5", -1, (9, 10)),
        ("박물관은 1901년에 세웠다.", "1901년", -1, (5, 10)),
        ("Parisian", "Paris", -1, (0, 5)),
        # Letters and their accents composed here, and apart there.
        ("a Zu\u0308rich", "Z\u00fcrich", 2, (2, 9)),
        ("a Z\u00fcrich", "Zu\u0308rich", 0, (2, 8)),
    ],
)
def test_where_an_answer_stands(text: str, answer: str, start: int, found: tuple[int, int]) -> None:
    assert locate_answer(text, Answer(answer, start, start + len(answer))) == found


def test_answers_that_are_elsewhere_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        ROW,
        ROW | {"id": 8, "answers": {"text": ["John"], "answer_start": [16]}},
        ROW | {"id": 9, "answers": ["he"]},
    ]
    file = str(written(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows))))
    made("qa", None, train_file=file, dev_file=file).examples("train")
    assert (
        "2 of 3 training answers are not where 'answer_start' says, or it is not said, such as that of" in caplog.text
    )
    caplog.clear()
    written(tmp_path / "a.jsonl", json.dumps(ROW))
    made("qa", None, train_file=file, dev_file=file).examples("train")
    assert "answer_start" not in caplog.text

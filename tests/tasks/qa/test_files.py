"""Question files in the shapes that people bring: rows of hubs, whole numbers as ids, floats as starts, no flag."""

import json
from pathlib import Path
from typing import Any

import pytest

from electra_jax.errors import UserError
from electra_jax.tasks.qa.files import Answer, QAExample, read_squad
from support.questions import CONTEXT, QUESTIONS, made, squad, written

ROW = {"id": 7, "context": CONTEXT, "question": "Who?", "answers": {"text": ["John"], "answer_start": [15.0]}}
READ = QAExample("7", "Who?", CONTEXT, (Answer("John", 15, 19),), ("John",), False)


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

"""Question files of SQuAD and MRQA as they are published, whole and damaged."""

import gzip
import json
from pathlib import Path

import pytest

from electra_jax.errors import UserError
from electra_jax.tasks.qa.files import read_mrqa, read_null_odds, read_predictions, read_squad
from electra_jax.tasks.qa.questions import Answer, QAExample

CONTEXT = "The leader was John Smith (1895-1943). He liked  double  spaces."


def _squad(**changes: object) -> dict[str, object]:
    question = {"id": "a", "question": "When?", "answers": [{"text": "1895", "answer_start": 27}]}
    return {"data": [{"paragraphs": [{"context": CONTEXT, "qas": [question | changes]}]}]}


def test_squad_file_plain_and_compressed(tmp_path: Path) -> None:
    text = json.dumps(_squad(is_impossible=False))
    (tmp_path / "a.json").write_text(text)
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(text.encode()))
    expected = [QAExample("a", "When?", CONTEXT, (Answer("1895", 27, 31),), ("1895",), False)]
    assert read_squad(str(tmp_path / "a.json"), skip_bad_rows=False).examples == expected
    assert read_squad(str(tmp_path / "a.json.gz"), skip_bad_rows=False).examples == expected


def test_half_characters_in_a_file_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(_squad(question="When \ud800 now?")))
    (example,) = read_squad(str(tmp_path / "a.json"), skip_bad_rows=False).examples
    assert example.question == "When \ufffd now?"
    # As any text that is tokenized must.
    assert example.question.encode()


@pytest.mark.parametrize("header", [True, False])
def test_mrqa_file_with_spans_that_include_their_end(tmp_path: Path, header: bool) -> None:
    detected = [{"text": "1895-1943", "char_spans": [[27, 35], [1, 2]]}]
    question = {"qid": "m", "question": "When?", "answers": ["1895-1943", "1895"], "detected_answers": detected}
    # U+2028 ends a line for str.splitlines, but not in JSON.
    lines = [{"header": {"dataset": "x"}}] * header + [{"context": f"{CONTEXT}\u2028", "qas": [question]}]
    text = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    (example,) = read_mrqa(str(tmp_path / "a.jsonl.gz"), skip_bad_rows=False).examples
    assert [CONTEXT[answer.start : answer.end] for answer in example.answers] == ["1895-1943", "he"]
    assert example.gold_texts == ("1895-1943", "1895")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ('{"data": [}', "line 1, column 11"),
        ("[1]", "object with 'data' is expected"),
        ('{"Data": []}', r"the layout is not known \(fields: 'Data'\); write"),
        ('{"data": 1}', "'data' must be of type list"),
        ('{"data": []}', "holds no question"),
        (json.dumps(_squad(question=None)), r"data\[0\].paragraphs\[0\].qas\[0\]: 'question' must be"),
        (json.dumps(_squad(answers=[{"text": "x"}])), r"qas\[0\].answers\[0\]: the field 'answer_start' is missing"),
        (json.dumps(_squad(answers=[{"text": "x", "answer_start": "5"}])), "'answer_start' must be of type int"),
    ],
)
def test_damaged_squad_file_is_named_with_its_place(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(UserError, match=rf"bad\.json.*{message}"):
        read_squad(str(tmp_path / "bad.json"), skip_bad_rows=False)


def test_malformed_records_are_counted_if_asked(tmp_path: Path) -> None:
    data = _squad()
    (paragraph,) = data["data"][0]["paragraphs"]
    good = dict(paragraph["qas"][0])
    paragraph["qas"] += [{"id": "b"}, {"id": "c"}, dict(good, id="d", answers=[{"text": "x"}])]
    data["data"][0]["paragraphs"].append({"qas": [good]})
    (tmp_path / "a.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match=r"qas\[1\]: the field 'question' is missing .*SKIP_BAD_ROWS") as caught:
        read_squad(str(tmp_path / "a.json"), skip_bad_rows=False)
    assert str(caught.value).count("SKIP_BAD_ROWS") == 1
    found = read_squad(str(tmp_path / "a.json"), skip_bad_rows=True)
    assert [example.example_id for example in found.examples] == [good["id"]]
    assert found.skipped == {
        "the field 'question' is missing (fields: 'id')": 2,
        "the field 'answer_start' is missing (fields: 'text')": 1,
        "the field 'context' is missing (fields: 'qas')": 1,
    }
    line = {"context": "x y", "qas": [{"qid": "a", "question": "x?", "answers": ["y"]}, {"qid": "b"}]}
    (tmp_path / "a.jsonl").write_text(f'{json.dumps(line)}\n{{"context"\n{{"qas": []}}\n')
    found = read_mrqa(str(tmp_path / "a.jsonl"), skip_bad_rows=True)
    assert [example.example_id for example in found.examples] == ["a"]
    assert found.skipped.total() == 3


def test_other_damaged_files_are_named_with_their_place(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"header": 1}\n\n{"context": "x", "qas": [{}]}\n')
    with pytest.raises(UserError, match=r"line 3, qas\[0\].*'qid' is missing"):
        read_mrqa(str(tmp_path / "a.jsonl"), skip_bad_rows=False)
    (tmp_path / "a.jsonl").write_text('{"header": 1}\n{"context"\n')
    with pytest.raises(UserError, match="line 2, column 11"):
        read_mrqa(str(tmp_path / "a.jsonl"), skip_bad_rows=False)
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(b"{}" * 999)[:-9])
    with pytest.raises(UserError, match="truncated"):
        read_squad(str(tmp_path / "a.json.gz"), skip_bad_rows=False)
    with pytest.raises(UserError, match="cannot be read"):
        read_squad(str(tmp_path / "absent.json"), skip_bad_rows=False)
    (tmp_path / "p.json").write_text('{"a": 1}')
    with pytest.raises(UserError, match="'a' has 1; answer texts"):
        read_predictions(str(tmp_path / "p.json"))
    (tmp_path / "p.json").write_text('{"a": NaN}')
    with pytest.raises(UserError, match="'a' are nan"):
        read_null_odds(str(tmp_path / "p.json"))

"""Files that people bring to `electra predict` of which a line is no input: JSON, questions, words in columns."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

import electra_jax
from electra_jax.cli import main
from support.finetuned_model import QA, QUESTION, TAGGING, TAGS, text_facts, write_tuned

LABELS = ("bad", "good")
TEXTS = ["the cat sat", "the dog ran home"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("documents")
    write_tuned(path / "texts", "sequence_classification", labels=LABELS, task=text_facts("own", LABELS, pair=False))
    write_tuned(path / "tags", "token_classification", labels=TAGS, task=TAGGING)
    write_tuned(path / "answers", "question_answering", labels=(), task=QA)
    return path


def predicted(model: Path, path: Path, *more: str) -> list[dict[str, Any]]:
    output = path.with_name("out.jsonl")
    assert main(["predict", str(model), str(path), "--output", str(output), *more]) == 0
    found = [json.loads(line) for line in output.read_text().splitlines()]
    assert [record["index"] for record in found] == list(range(len(found)))
    return found


def labels(found: list[dict[str, Any]]) -> list[float]:
    return [record["probabilities"]["good"] for record in found]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("count", [1, 2])
def test_an_array_of_objects(indent: int | None, count: int, folder: Path, tmp_path: Path) -> None:
    rows = [{"id": number, "text": text} for number, text in enumerate(TEXTS[:count])]
    (tmp_path / "in.json").write_text(json.dumps(rows, indent=indent))
    found = predicted(folder / "texts", tmp_path / "in.json")
    assert [record["id"] for record in found] == list(range(count))
    assert labels(found) == pytest.approx(labels(electra_jax.load(folder / "texts")(TEXTS[:count])), abs=1e-6)


def test_one_object_over_several_lines_and_lines_of_json(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text(json.dumps({"text": TEXTS[0]}, indent=1))
    one = predicted(folder / "texts", tmp_path / "in.json")
    assert labels(one) == pytest.approx(labels(electra_jax.load(folder / "texts")(TEXTS[0])), abs=1e-6)
    (tmp_path / "out.jsonl").unlink()
    (tmp_path / "in.json").write_text("".join(f"{json.dumps({'text': text})}\n" for text in TEXTS))
    assert len(predicted(folder / "texts", tmp_path / "in.json")) == 2


def test_an_entry_that_cannot_be_read_spoils_no_other(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text(json.dumps([{"txt": "the cat"}, {"text": TEXTS[0]}]))
    first, second = predicted(folder / "texts", tmp_path / "in.json")
    assert first["error"].startswith("entry 1 is an object with neither input_ids nor text")
    assert second["label"] in LABELS


def test_a_list_of_objects_in_a_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('[{"text": "the cat"}]\n{"text": "the cat"}\n')
    first, second = predicted(folder / "texts", tmp_path / "in.jsonl")
    assert first["error"] == "line 1 is a list of objects, and one input is expected: give each object by itself"
    assert "label" in second


SQUAD = {
    "version": "1.1",
    "data": [
        {
            "title": "",
            "paragraphs": [
                {"context": QUESTION["context"], "qas": [{"id": f"q{n}", "question": "who sat?"} for n in range(2)]}
            ],
        }
    ],
}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("in.json", json.dumps(SQUAD)),
        ("in.json", json.dumps(SQUAD, indent=1)),
        ("in.json", json.dumps(SQUAD["data"][0]["paragraphs"])),
        ("in.jsonl", json.dumps(SQUAD["data"][0]["paragraphs"][0])),
        (
            "in.jsonl",
            json.dumps({"header": {"dataset": "x"}})
            + "\n"
            + json.dumps(
                {
                    "context": QUESTION["context"],
                    "qas": [{"qid": f"q{n}", "question": "who sat?", "answers": []} for n in range(2)],
                }
            ),
        ),
    ],
    ids=["squad", "squad over lines", "a list of contexts", "a context a line", "mrqa"],
)
def test_questions(name: str, content: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    found = predicted(folder / "answers", tmp_path / name)
    assert [record["id"] for record in found] == ["q0", "q1"]
    (said,) = electra_jax.load(folder / "answers")({"question": "who sat?", "context": QUESTION["context"]})
    assert [(record["answer"], record["start"]) for record in found] == [(said["answer"], said["start"])] * 2


def test_questions_that_are_malformed(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    context = {"context": QUESTION["context"], "qas": [{"id": "a", "question": 7}, {"id": "b", "question": "who?"}]}
    (tmp_path / "in.json").write_text(json.dumps([context]))
    assert main(["predict", str(folder / "answers"), str(tmp_path / "in.json")]) == 2
    assert "SKIP_BAD_ROWS = True" in capsys.readouterr().err
    (found,) = predicted(folder / "answers", tmp_path / "in.json", "--gin.SKIP_BAD_ROWS=True")
    assert found["id"] == "b"


WORDS = [["the", "cat", "sat"], ["john", "ran"]]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("in.txt", "the O\ncat O\nsat O\n\njohn B-PER\nran O\n"),
        ("in.tsv.txt", "# id = 1\nthe\tO\ncat\tI-PER\nsat\tO\n\njohn\tS-PER\nran\tO\n\n"),
        ("in.txt", "-DOCSTART- O\n\nthe O\ncat O\nsat O\n\njohn PER-B\nran O"),
        ("in.txt", "the\ncat\nsat\n\njohn\nran\n"),
        ("in.conll", "the DET x\ncat NOUN y\nsat VERB z\n\njohn NOUN .\nran VERB .\n"),
        ("in.txt", "the O\r\ncat O\r\nsat O\r\n\r\njohn O\r\nran O\r\n"),
    ],
    ids=["tags", "tabs", "documents", "words alone", "by its ending", "windows"],
)
def test_words_in_columns(
    name: str, content: str, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / name).write_bytes(content.encode())
    found = predicted(folder / "tags", tmp_path / name)
    assert [record["words"] for record in found] == WORDS
    assert found == [{"index": index} | record for index, record in enumerate(electra_jax.load(folder / "tags")(WORDS))]
    assert caplog.messages == [f"{name} is read as a word a line, a sentence until the blank line: 2 sentences"]


@pytest.mark.parametrize(
    "content",
    ["the cat sat\nthe dog ran\n", "the cat\nsat\n", "paris\njohn\n", "paris\n\njohn\n", "the cat\n\nthe O\n"],
    ids=["sentences", "two lengths", "single words", "single words apart", "no tag in a line"],
)
def test_lines_of_text_are_texts(content: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text(content)
    found = predicted(folder / "tags", tmp_path / "in.txt")
    assert [record["words"] for record in found] == [line.split() for line in content.splitlines()]


def test_a_column_that_is_not_there_is_the_error_of_its_sentence(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in.conll").write_text("1 the O\n2 cat O\n\n1\n")
    first, second = predicted(folder / "tags", tmp_path / "in.conll", "--gin.WORD_COLUMN=1")
    assert first["words"] == ["the", "cat"]
    assert second == {"index": 1, "error": "line 4: no column 1 of words (WORD_COLUMN, from 0)"}


def test_hubs_call_words_tokens(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"tokens": ["the", "cat"]}\n{"toks": ["the"]}\n')
    first, second = predicted(folder / "tags", tmp_path / "in.jsonl")
    assert first["words"] == ["the", "cat"]
    assert second["error"].startswith("line 2 is {'toks': ['the']}: this model tags a text")


def test_lines_of_an_old_macintosh(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes("\r".join(TEXTS).encode())
    found = predicted(folder / "texts", tmp_path / "in.txt")
    assert labels(found) == pytest.approx(labels(electra_jax.load(folder / "texts")(TEXTS)), abs=1e-6)


def test_a_parquet_table(folder: Path, tmp_path: Path) -> None:
    rows = [{"id": 7, "text": TEXTS[0]}, {"id": 8, "text": None}, {"id": 9, "text": TEXTS[1]}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "in.parquet")
    first, second, third = predicted(folder / "texts", tmp_path / "in.parquet")
    expected = electra_jax.load(folder / "texts")(TEXTS)
    assert labels([first, third]) == pytest.approx(labels(expected), abs=1e-6)
    assert [record["id"] for record in (first, second, third)] == [7, 8, 9]
    assert second["error"].startswith("row 2 is {'text': None}")


def parquet(path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"text": TEXTS}), path)


@pytest.mark.parametrize(
    ("name", "write", "what"),
    [
        ("in.txt", parquet, "a Parquet file"),
        ("in.jsonl.gz", lambda path: path.write_bytes(gzip.compress(b"the cat\n", mtime=0)), "compressed"),
        ("in.xlsx", lambda path: path.write_bytes(b"PK\x03\x04" + bytes(40)), "a zip archive, or an Excel workbook"),
        ("in.txt", lambda path: path.write_bytes("the cat\n".encode("utf-16")), "text in UTF-16"),
    ],
    ids=["parquet", "gzip", "workbook", "utf-16"],
)
def test_what_is_no_text_is_named(
    name: str, write: Any, what: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / name)
    assert main(["predict", str(folder / "texts"), str(tmp_path / name)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"electra: {tmp_path / name} is {what}: save what it holds as text in UTF-8")

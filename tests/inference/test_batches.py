"""Batch prediction keeps its place: one record out for each input, whatever is wrong with it."""

import csv
import functools
import io
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

import electra_jax
from electra_jax.cli import main
from electra_jax.inference.api import Model
from electra_jax.inference.input_files import arriving_lines
from electra_jax.inference.output_files import write_table
from support.command_line import COMMAND
from support.finetuned_model import QA, QUESTION, TAGGING, TAGS, text_facts, write_tuned

LABELS = ("bad", "good")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("batches")
    for name, pair in (("one", False), ("pairs", True)):
        write_tuned(path / name, "sequence_classification", labels=LABELS, task=text_facts("own", LABELS, pair=pair))
    write_tuned(path / "tags", "token_classification", labels=TAGS, task=TAGGING)
    write_tuned(path / "answers", "question_answering", labels=(), task=QA)
    return path


@functools.cache
def load(path: Path) -> Model:
    return electra_jax.load(path)


def said(folder: Path, inputs: Any, *, model: str = "one") -> list[dict[str, Any]]:
    """What the Python API says of each input by itself."""
    return [rounded(load(folder / model)(value)[0]) for value in inputs]


def rounded(value: Any) -> Any:
    """JSON values without the digits that depend on the other rows of a batch."""
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return round(value, 5) if isinstance(value, float) else value


def predicted(
    folder: Path, tmp_path: Path, name: str, content: str | bytes, *more: str, model: str = "one"
) -> list[Any]:
    """The records of a file, checked for their places."""
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    output = tmp_path / "out.jsonl"
    output.unlink(missing_ok=True)
    assert main(["predict", str(folder / model), str(tmp_path / name), "--output", str(output), *more]) == 0
    records = [rounded(json.loads(line)) for line in output.read_text().splitlines()]
    assert [record.pop("index") for record in records] == list(range(len(records)))
    return records


def test_every_line_of_a_plain_file_is_a_text(folder: Path, tmp_path: Path) -> None:
    lines = ["{the cat", "[the] dog", '{"text": "the cat"}', "", "[2, 5, 3]", "the dog ran"]
    records = predicted(folder, tmp_path, "in.txt", "\n".join(lines) + "\n", "--batch_size", "2")
    assert records == said(folder, lines)


def test_a_bad_line_is_an_error_and_the_job_goes_on(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = ['{"text": "the cat", "id": 7}', '{"text": ', "", '{"id": "b", "other": 1}', "[2, 99, 3]", '{"text": null}']
    lines += ["[[2], [2, 3]]", '{"text": "\\ud800 ran", "id": "\\ud800"}', "[" * 100_000, '"the dog"']
    records = predicted(folder, tmp_path, "in.jsonl", "\n".join(lines).encode() + b'\n"\xff"\n')
    assert [record.get("error", "").partition(" (")[0] for record in records] == [
        "",
        "line 2: not JSON",
        "line 3: an empty line",
        'line 4 is an object with neither input_ids nor text: give {"text": ...}',
        "input_ids goes from 2 to 99: this model has 0 to 63",
        "line 6 is {'text': None}: this model reads a text, or a pair of texts",
        "line 7: input_ids is ragged",
        "",
        "line 9: not JSON",
        "",
        "line 11: not UTF-8",
    ]
    assert [record.get("id") for record in records[:4]] == [7, None, None, "b"]
    assert records[7]["id"] == "\ufffd"
    one, two, three = said(folder, ["the cat", "\ufffd ran", "the dog"])
    assert [records[0], records[7], records[9]] == [{"id": 7} | one, {"id": "\ufffd"} | two, three]
    assert caplog.messages == ["8 of 11 inputs could not be answered: their records have an `error`"]


def test_what_is_cut_off_is_counted_once(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # Rows of 32 tokens, 30 without the special ones. The ids are refused, and the texts are asked again.
    lines = ['"the cat"', "[2, 99, 3]", f'"{"a " * 40}"']
    predicted(folder, tmp_path, "in.jsonl", "\n".join(lines))
    assert caplog.messages[-1].startswith("1 of 2 texts, 24 % of tokens, cut at 32: fine-tune with a larger MAX_SEQ")
    caplog.clear()
    load(folder / "one")(["a " * 31])
    assert caplog.messages[0].startswith("1 of 1 texts, 3 % of tokens, cut at 32")


def test_tables_are_read_as_for_training(folder: Path, tmp_path: Path) -> None:
    table = 'id,text,label\na,"the cat, sat",0\nb,the, cat, sat\n\nc,"{the ""dog",1\n'
    records = predicted(folder, tmp_path, "in.csv", table)
    first, last = said(folder, ["the cat, sat", '{the "dog'])
    expected = "expected 3, as the first line has (a text that holds a comma must be quoted)"
    assert records == [
        {"id": "a"} | first,
        {"error": f"line 3: 4 columns; {expected}"},
        {"error": "line 4: an empty line"},
        {"id": "c"} | last,
    ]
    named = ["--gin.TEXT_COLUMN='review'", "--gin.ID_COLUMN='number'"]
    tsv = predicted(folder, tmp_path, "in.TSV", "number\treview\n1\tthe cat, sat\n", *named)
    assert tsv == [{"id": "1"} | first]
    jsonl = predicted(folder, tmp_path, "in.jsonl", '{"number": 1, "review": "the cat, sat"}\n', *named)
    assert jsonl == [{"id": 1} | first]


def test_tables_of_pairs_words_and_questions(folder: Path, tmp_path: Path) -> None:
    pairs = predicted(folder, tmp_path, "in.csv", "text,text_b\nthe cat,ran\n", model="pairs")
    assert pairs == said(folder, [("the cat", "ran")], model="pairs")
    named = ["--gin.TEXT_COLUMN='x'", "--gin.TEXT_B_COLUMN='y'"]
    assert predicted(folder, tmp_path, "in.csv", "y,x\nran,the cat\n", *named, model="pairs") == pairs
    assert predicted(folder, tmp_path, "in.jsonl", '{"y": "ran", "x": "the cat"}\n', *named, model="pairs") == pairs
    # Of two names one may be that of training: the form that every model of pairs reads is never cut to one text.
    named = ["--gin.TEXT_COLUMN='text'", "--gin.TEXT_B_COLUMN='other'"]
    for second in ("other", "text_pair", "text_b"):
        line = json.dumps({"text": "the cat", second: "ran"})
        assert predicted(folder, tmp_path, "in.jsonl", line, *named, model="pairs") == pairs
    tagged = predicted(folder, tmp_path, "in.csv", "words\nthe cat\n", model="tags")
    assert tagged == said(folder, ["the cat"], model="tags")
    table = f"question,id,context\n{QUESTION['question']},3,{QUESTION['context']}\n"
    assert predicted(folder, tmp_path, "in.csv", table, model="answers") == [
        {"id": "3"} | said(folder, [QUESTION], model="answers")[0]
    ]
    # A model that reads no plain text takes JSON in any file.
    (found,) = predicted(folder, tmp_path, "in.txt", json.dumps(QUESTION | {"id": 3}), model="answers")
    assert found["id"] == 3


@pytest.mark.parametrize(
    ("model", "content", "sentence"),
    [
        ("one", "review\nthe cat\n", "has no column 'text': its first line names 'review'; set TEXT_COLUMN"),
        ("pairs", "text,other\nthe cat,ran\n", "has no column 'text_pair'"),
        ("answers", "context\nthe cat\n", "has no column 'question'"),
        ("one", "text,text\na,b\n", "2 columns are named 'text'"),
        ("one", "", "is empty"),
    ],
)
def test_a_table_that_cannot_be_read(
    model: str, content: str, sentence: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.csv").write_text(content)
    assert main(["predict", str(folder / model), str(tmp_path / "in.csv"), "--output", str(tmp_path / "out")]) == 2
    assert sentence in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["in.csv"]


def test_csv_out(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{\n{"id": "a", "text": "the cat"}\n')
    assert main(["predict", str(folder / "one"), str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "o.csv")]) == 0
    with open(tmp_path / "o.csv", newline="") as file:
        first, second = csv.DictReader(file)
    (found,) = load(folder / "one")("the cat")
    numbers = {f"probabilities.{label}": str(value) for label, value in found["probabilities"].items()}
    assert second == {"index": "1", "id": "a", "label": found["label"], **numbers, "error": ""}
    assert (first["index"], first["id"], first["error"][:6]) == ("0", "", "line 1")
    assert sorted(os.listdir(tmp_path)) == ["in.jsonl", "o.csv"]


def test_tsv_out(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"id": "a\\tb", "text": "the cat"}\n')
    assert main(["predict", str(folder / "one"), str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "o.tsv")]) == 0
    with open(tmp_path / "o.tsv", newline="") as file:
        (record,) = csv.DictReader(file, delimiter="\t")
    (found,) = load(folder / "one")("the cat")
    assert (record["id"], record["label"]) == ("a\tb", found["label"])


@pytest.mark.parametrize("name", ["o.parquet", "o.xlsx", "o.jsonl.gz", "o.npy"])
def test_an_output_of_another_format_is_refused(
    name: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(folder / "one"), "the cat", "--output", str(tmp_path / name)]) == 2
    assert f"{name}: records are not written as {Path(name).suffix}; name a .csv" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_lists_stand_in_a_table_as_json(tmp_path: Path) -> None:
    (tmp_path / "out").write_text('{"index": 0, "tags": ["B", "O"], "top": {"a": {"b": 1}}}\n')
    write_table(tmp_path / "out", tmp_path / "table", ",")
    assert (tmp_path / "table").read_text() == 'index,tags,top.a.b\n0,"[""B"", ""O""]",1\n'


def test_lines_are_given_when_they_have_arrived() -> None:
    ours, theirs = os.pipe()
    with open(ours, "rb") as stream, open(theirs, "wb", buffering=0) as writer:
        writer.write(b"one\ntwo\nthr")
        lines = arriving_lines(stream, 2)
        assert next(lines) == [b"one", b"two"]
        writer.write(b"ee\n\nfive")
        assert next(lines) == [b"three", b""]
        writer.close()
        assert list(lines) == [[b"five"]]


def test_a_typed_line_is_answered_and_a_closed_pipe_ends_it(folder: Path) -> None:
    command = [COMMAND, "predict", str(folder / "one")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        for place, text in enumerate(("the cat", "[the] dog")):
            process.stdin.write(f"{text}\n")
            # The second line is typed once the first is answered.
            record = json.loads(process.stdout.readline())
            assert record.pop("index") == place
            assert [rounded(record)] == said(folder, [text])
        process.stdout.close()
        process.stdin.write("the cat\n" * 3)
        process.stdin.close()
        assert process.wait(60) == 0
        assert process.stderr.read() == ""


def test_an_output_stands_whole_or_not_at_all(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("lost")

    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"the cat\n")))
    monkeypatch.setattr("electra_jax.inference.item_records.answers", fail)
    with pytest.raises(RuntimeError, match="lost"):
        main(["predict", str(folder / "one"), "-", "--output", str(tmp_path / "out.jsonl")])
    assert os.listdir(tmp_path) == []

"""Tagged sentences as hubs keep them give what columns of the same words and tags give."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from electra_jax.errors import UserError
from electra_jax.tasks.tagging.columns import column_sentences
from electra_jax.tasks.tagging.sentences import read_tagged_file

WORDS = [["Ann", "Lee", "runs"], ["in", "New York", "."]]
TAGS = [["B-PER", "I-PER", "O"], ["O", "B-LOC", "O"]]
NAMES = ["O", "B-PER", "I-PER", "B-LOC"]
ROWS = [{"tokens": words, "ner_tags": tags} for words, tags in zip(WORDS, TAGS, strict=True)]
NAMED = {"names": NAMES, "_type": "ClassLabel"}


def write(path: Path, rows: list[dict[str, Any]], feature: Any = None) -> Path:
    if path.suffix == ".parquet":
        described = json.dumps({"info": {"features": {"ner_tags": feature}}})
        table = pyarrow.Table.from_pylist(rows).replace_schema_metadata({"huggingface": described})
        pyarrow.parquet.write_table(table, path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def read(path: Path) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    found = read_tagged_file(path, word_column=0, tag_column=-1, scheme="IOB2", skip_bad_rows=False).examples
    return [(sentence.words, sentence.tags) for sentence in found]


def numbered() -> list[dict[str, Any]]:
    return [row | {"ner_tags": [NAMES.index(tag) for tag in row["ner_tags"]]} for row in ROWS]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.parquet"])
def test_the_sentences_are_those_of_columns(name: str, tmp_path: Path) -> None:
    columns = tmp_path / "a.txt"
    columns.write_text(
        "\n".join(
            "".join(f"{word}\t{tag}\n" for word, tag in zip(words, tags, strict=True))
            for words, tags in zip(WORDS, TAGS, strict=True)
        )
    )
    assert read(write(tmp_path / name, ROWS)) == read(columns)
    assert len(read(columns)) == 2


@pytest.mark.parametrize(
    "feature",
    [{"feature": NAMED, "_type": "Sequence"}, {"feature": NAMED, "_type": "List"}, [NAMED]],
    ids=["Sequence", "List", "list"],
)
def test_numbers_get_the_names_that_are_recorded(feature: Any, tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.parquet", numbered(), feature)) == read(write(tmp_path / "a.jsonl", ROWS))


def test_words_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"id": 1, "words": words} for words in WORDS])
    assert [[row for _, row in rows] for rows in column_sentences(path)] == [[[word] for word in one] for one in WORDS]


def test_of_several_lists_the_tags_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"tokens": row["tokens"], "pos_tags": ["X"] * 3, "ner_tags": row["ner_tags"]} for row in ROWS]
    assert read(write(tmp_path / "a.jsonl", rows)) == read(write(tmp_path / "b.jsonl", ROWS))
    assert "a.jsonl: the tags are 'ner_tags'; 'pos_tags' are not read" in caplog.text


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([{"text": "Ann runs"}], r"a\.jsonl has no list of words: its fields are 'text'; expected 'tokens'"),
        (numbered(), r"a\.jsonl, line 1: the ner_tags are numbers without names; write a list of texts"),
        ([*ROWS, {"tokens": ["a"], "ner_tags": []}], r"a\.jsonl, line 3: 1 tokens and 0 ner_tags; expected as many"),
        ([*ROWS, {"tokens": "a b", "ner_tags": ["O", "O"]}], r"line 3: the tokens are 'a b'; write a list of texts"),
        ([*ROWS, {"tokens": ["a", " "], "ner_tags": ["O", "O"]}], r"line 3: the tokens are \['a', ' '\]"),
        (
            [{"tokens": ["a"], "pos": ["X"], "chunk": ["O"]}],
            r"has the lists 'pos', 'chunk' in addition to .*: call that of",
        ),
    ],
    ids=["text", "numbers", "fewer tags", "a text", "white space", "two lists"],
)
def test_what_is_no_tagged_sentence(rows: list[dict[str, Any]], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        read(write(tmp_path / "a.jsonl", rows))

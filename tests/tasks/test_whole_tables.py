"""Tables that are no lines, as hubs keep data sets: they give what the same rows give as a .jsonl."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from electra_jax.errors import UserError
from electra_jax.tasks.records import column_names, records
from electra_jax.tasks.rows import BadRows
from electra_jax.tasks.text.tables import Columns, discover_target, read_table

ROWS = [
    {"id": 1, "text": "the cat, sat", "label": "good"},
    {"id": 2, "text": 'a "dog"\nran', "label": "bad"},
    {"id": 3, "text": "ガラス\u2028", "label": "good"},
]
COLUMNS = Columns("text", None, "label")
FEATURES = {"info": {"features": {"label": {"names": ["bad", "good"], "_type": "ClassLabel"}, "text": {"dtype": "x"}}}}


def write(path: Path, rows: list[dict[str, Any]], metadata: Any = None) -> Path:
    if path.suffix == ".parquet":
        table = pyarrow.Table.from_pylist(rows)
        described = {} if metadata is None else {b"huggingface": json.dumps(metadata).encode()}
        pyarrow.parquet.write_table(table.replace_schema_metadata(described), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=2))
    else:
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def read(path: Path, *, skip: bool = False) -> list[tuple[Any, ...]]:
    target = discover_target(path, columns=COLUMNS, regression=False, multi_label=None, skip_bad_rows=skip)
    found = read_table(path, columns=COLUMNS, target=target, skip_bad_rows=skip)
    return [(row.text_a, target.labels[row.label]) for row in found.examples if row.label is not None]


@pytest.mark.parametrize("name", ["rows.json", "rows.parquet"])
def test_the_rows_are_those_of_lines(name: str, tmp_path: Path) -> None:
    path, lines = write(tmp_path / name, ROWS), write(tmp_path / "rows.jsonl", ROWS)
    assert column_names(path) == ["id", "text", "label"]
    assert list(records(path, ["text"], BadRows(path, skip=False))) == list(enumerate(ROWS, start=1))
    assert read(path) == read(lines) == [(row["text"], row["label"]) for row in ROWS]


def test_an_object_a_line_under_the_other_name(tmp_path: Path) -> None:
    lines = write(tmp_path / "rows.jsonl", ROWS)
    path = lines.rename(tmp_path / "rows.json")
    assert column_names(path) == ["id", "text", "label"]
    assert read(path) == [(row["text"], row["label"]) for row in ROWS]


@pytest.mark.parametrize(
    ("metadata", "labels"),
    [
        (FEATURES, ["good", "bad", "good"]),
        (None, ["1", "0", "1"]),
        ({"info": {"features": {"label": {"names": 7, "_type": "ClassLabel"}}}}, ["1", "0", "1"]),
        ({"info": []}, ["1", "0", "1"]),
    ],
    ids=["names", "none", "no names", "no features"],
)
def test_names_of_classes(metadata: Any, labels: list[str], tmp_path: Path) -> None:
    numbered = [row | {"label": int(row["label"] == "good")} for row in ROWS]
    path = write(tmp_path / "rows.parquet", numbered, metadata)
    assert [label for _, label in read(path)] == labels


@pytest.mark.parametrize("name", ["rows.json", "rows.parquet"])
def test_a_missing_value_is_named_by_its_row(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, [*ROWS, {"id": 4, "text": None, "label": "good"}])
    with pytest.raises(UserError, match=rf"{name}, row 4: no 'text'; expected the columns text, label"):
        read(path)
    assert len(read(path, skip=True)) == 3


@pytest.mark.parametrize("name", ["rows.json", "rows.parquet"])
def test_a_column_that_is_not_there(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, [{"body": "the cat", "label": "good"}])
    with pytest.raises(UserError, match="text"):
        read(path)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("rows.json", b'{"data": [{"text": "a"}]\n}', "must be a list"),
        ("rows.json", b'["a", "b"]', "must be an object"),
        ("rows.json", b'[{"text": "a", "text": "b"}]', "the field 'text' twice"),
        ("rows.json", b'[{"text": "a"},\n', "is not JSON"),
        ("rows.json", b"[]", "is empty"),
        ("rows.json", b"[" * 100_000, "nests too deeply"),
        ("rows.parquet", b"PAR1 and nothing of it PAR1", "is no Parquet file, or a damaged one"),
        ("rows.parquet", b"", "is no Parquet file, or a damaged one"),
    ],
    ids=["an object", "texts", "twice", "cut off", "empty", "deep", "damaged", "no byte"],
)
def test_what_is_no_table(name: str, content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        column_names(tmp_path / name)


def test_a_flipped_byte_of_a_page_is_no_other_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist(ROWS), path, compression="none", use_dictionary=False, write_page_checksum=True
    )
    content = path.read_bytes()
    place = content.index(b"the cat")
    path.write_bytes(content[:place] + b"T" + content[place + 1 :])
    with pytest.raises(UserError, match="damaged"):
        read(path)

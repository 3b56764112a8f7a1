"""Files are read by what they hold, not by their suffix."""

import gzip
import json
import pathlib

import pytest

from electra_jax.errors import UserError
from electra_jax.tasks.corpora.open import open_corpus

WIKI = '<doc id="0" title="A">\nA\n\nOne.\nTwo.\n</doc>\n<doc id="1">\nThree.\n</doc>\n'


def read(path: pathlib.Path, text_format: str = "auto", text_field: str = "text") -> tuple[list[str], dict[str, int]]:
    corpus = open_corpus(str(path), text_format=text_format, text_field=text_field, skip_undecodable=False)
    found = [document.text for unit in corpus.units for document in corpus.documents(unit)]
    return found, dict(corpus.skipped)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("wikijson_00", json.dumps({"id": "0", "text": "One."}) + "\n", ["One."]),
        ("wiki_00", WIKI, ["A\nOne.\nTwo.", "Three."]),
        ("a.csv", 'id,text\n0,"One, ""a"".\n\nTwo."\n1,Three.\n', ['One, "a".\nTwo.', "Three."]),
        ("table.txt", "id\ttext\n0\tOne.\n", ["One."]),
        ("dna.txt", "ACGT" * 50_000, ["ACGT" * 50_000]),
        ("long.csv", "id,text\n0," + "A" * 200_000, ["A" * 200_000]),
        ("old_mac.txt", "One,\rtwo\n", ["One,\rtwo"]),
        ("prose.txt", "{braces} are prose.\n\n<docile> too.\n", ["{braces} are prose.", "<docile> too."]),
    ],
)
def test_a_file_is_read_as_its_first_lines_show(
    tmp_path: pathlib.Path, name: str, content: str, expected: list[str]
) -> None:
    (tmp_path / name).write_text(content)
    assert read(tmp_path / name)[0] == expected
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content.encode()))
    assert read(tmp_path / f"{name}.gz")[0] == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<mediawiki>\n<page>\n", "MediaWiki's XML.*wikiextractor"),
        ('<?xml version="1.0"?>\n<mediawiki xmlns="x">\n', "MediaWiki's XML"),
        (">sp|P0\nDFSGWDTHWVPMEERCYMIICELN\n", "FASTA"),
        ("PAR1\n", "Parquet"),
        ('[\n {"text": "One."}]', "JSON array.*jq"),
    ],
)
def test_what_is_recognised_and_not_read_is_refused(tmp_path: pathlib.Path, content: str, message: str) -> None:
    (tmp_path / "a").write_text(content)
    with pytest.raises(UserError, match=message):
        read(tmp_path / "a")
    assert read(tmp_path / "a", "lines")[0][0] == content.split("\n")[0]


def test_a_table_without_the_column_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.csv").write_text("id,body\n0,One.\n")
    with pytest.raises(UserError, match=r"no column 'text' .columns: 'id', 'body'.*TEXT_FIELD"):
        read(tmp_path / "a.csv")
    assert read(tmp_path / "a.csv", text_field="body")[0] == ["One."]


def test_fields_of_json_lines(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"content": {"text": "One."}}\n{"content": {"text": null}}\n{"content.text": ["Two.", "3."]}\n')
    assert read(path, text_field="content.text") == (["One.", "Two.\n3."], {"null texts": 1})
    path.write_text('{"text": "bad \\ud83d half"}\n')
    assert read(path)[0] == ["bad \ufffd half"]

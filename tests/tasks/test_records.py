"""Tables as people bring them: rows that are not what the header says, missing labels, lists as labels."""

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from electra_jax.errors import UserError
from electra_jax.tasks.protocol import Examples
from electra_jax.tasks.records import column_names
from electra_jax.tasks.text.label_sets import LabelSets
from electra_jax.tasks.text.sources import table_sources
from electra_jax.tasks.text.tables import Classes, Columns, Target, discover_target, indicator_columns, read_table
from support.tiny_model import task_options

COLUMNS = Columns("text", None, "label")
TARGET = Classes(("0", "1"))


def written(folder: Path, suffix: str, *lines: str) -> Path:
    path = folder / f"train{suffix}"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def read(path: Path, *, skip: bool = False) -> Examples:
    return read_table(path, columns=COLUMNS, target=TARGET, skip_bad_rows=skip)


@pytest.mark.parametrize(
    ("suffix", "lines", "told"),
    [
        (".csv", ("text,label", "a,1", "b, c,0"), "3 columns; expected 2, .*holds a comma must be quoted"),
        (".csv", ("label,text", "1,a", "0,b, c, d"), "4 columns; expected 2"),
        (".csv", ("label,text,note", "1,a,x", "0,b"), "2 columns; expected 3"),
        (".tsv", ("label\ttext", "1\ta", "0\tb\tc"), "3 columns; expected 2, .*no text may hold a tab"),
        (".tsv", ("label\ttext", "1\ta", "0"), "1 column; expected 2"),
    ],
)
def test_a_row_has_as_many_columns_as_the_header(
    tmp_path: Path, suffix: str, lines: tuple[str, ...], told: str
) -> None:
    path = written(tmp_path, suffix, *lines)
    with pytest.raises(UserError, match=rf"train\{suffix}, line 3: {told}"):
        read(path)
    with pytest.raises(UserError, match=rf"train\{suffix}, line 3: {told}"):
        discover_target(path, columns=COLUMNS, regression=False, multi_label=None, skip_bad_rows=False)
    file = read(path, skip=True)
    assert (file.examples, file.skipped) == ([(0, "a", None, 1)], {told.split(";")[0]: 1})


def test_a_stray_quote_costs_its_own_line_alone(tmp_path: Path) -> None:
    rows = [f"a{number},1" for number in range(20)]
    rows[3], rows[13] = '"a3,1', '"a13,1'
    for second in ('"a13,1', 'a13",1'):  # opened again, or closed there, which is sound CSV
        rows[13] = second
        path = written(tmp_path, ".csv", "text,label", *rows)
        with pytest.raises(UserError, match=r"train\.csv, line 5: (not CSV|a quoted field over 11 lines, each a row)"):
            read(path)
        file = read(path, skip=True)
        lost = {3, 13} if second.startswith('"') else {3}
        assert [example.index for example in file.examples] == [number for number in range(20) if number not in lost]
        assert file.skipped.total() == len(lost)


def test_a_long_quoted_text_is_no_stray_quote(tmp_path: Path) -> None:
    text = "\n".join(["Dear all,", *(["we met, ate, and left", "so it goes"] * 5)])
    path = written(tmp_path, ".csv", "text,label", f'"{text}",1', 'say ""hm"",0', '"b, ""c""",0')
    assert [example.text_a for example in read(path).examples] == [text, 'say ""hm""', 'b, "c"']


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_a_column_that_is_used_has_its_name_alone(tmp_path: Path, suffix: str) -> None:
    lines = [line.replace(",", "\t" if suffix == ".tsv" else ",") for line in ("text,label,text", "a,1,x")]
    with pytest.raises(UserError, match=rf"train\{suffix}, line 1: 2 columns are named 'text', expected 1"):
        read(written(tmp_path, suffix, *lines), skip=True)
    unused = [line.replace(",", "\t" if suffix == ".tsv" else ",") for line in ("x,text,label,x", "u,a,1,v")]
    assert read(written(tmp_path, suffix, *unused)).examples == [(0, "a", None, 1)]


def test_a_json_object_has_each_field_once(tmp_path: Path) -> None:
    path = written(tmp_path, ".jsonl", '{"text": "a", "label": 1}', '{"text": "a", "label": 1, "text": "b"}')
    with pytest.raises(UserError, match=r"line 2: the field 'text' twice"):
        read(path)
    assert read(path, skip=True).skipped == {"the field 'text' twice": 1}


def test_a_tsv_that_pandas_quoted(tmp_path: Path) -> None:
    path = written(tmp_path, ".tsv", "text\tlabel", '"she said ""hm"""\t1', '"two\nlines\tand a tab"\t0', "plain\t1")
    assert [example.text_a for example in read(path).examples] == ['she said "hm"', "two\nlines\tand a tab", "plain"]
    assert column_names(path) == ["text", "label"]
    path = written(tmp_path, ".tsv", '"text"\t"label"', '"a"\t1', "b\t0")
    assert (column_names(path), [row.text_a for row in read(path).examples]) == (["text", "label"], ["a", "b"])
    # Quotes that need not be there are text, as they were, and so are those that swallow rows.
    for lines in (('"a"\t1', 'b "c"\t0'), ('"a\t1', 'b"\t0'), ('"a\t1', '"b" c\t0')):
        texts = [line.split("\t")[0] for line in lines]
        assert [row.text_a for row in read(written(tmp_path, ".tsv", "text\tlabel", *lines)).examples] == texts


@pytest.mark.parametrize("label", ["", " ", "nan", "NaN", "NA", "N/A", "NULL", "null", "None", "<NA>"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_a_missing_label_is_no_class(tmp_path: Path, suffix: str, label: str) -> None:
    rows = [("a", "0"), ("b", label), ("c", "1")]
    lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
    if suffix != ".jsonl":
        lines = [("," if suffix == ".csv" else "\t").join(row) for row in [("text", "label"), *rows]]
    path = written(tmp_path, suffix, *lines)
    with pytest.raises(UserError, match=rf"line {2 if suffix == '.jsonl' else 3}: no 'label'; expected the columns"):
        discover_target(path, columns=COLUMNS, regression=False, multi_label=None, skip_bad_rows=False)
    assert discover_target(path, columns=COLUMNS, regression=False, multi_label=None, skip_bad_rows=True) == TARGET
    file = read(path, skip=True)
    assert (file.examples, file.skipped) == ([(0, "a", None, 0), (2, "c", None, 1)], Counter({"no 'label'": 1}))


def test_nothing_in_json_is_no_text(tmp_path: Path) -> None:
    path = written(tmp_path, ".jsonl", '{"text": NaN, "label": 1}', '{"text": "", "label": 0}', '{"text": "a"}')
    assert read(path, skip=True).examples == [(1, "", None, 0)]
    assert read(path, skip=True).skipped == {"no 'text'": 1, "no 'label'": 1}


def test_labels_have_one_order_whatever_comes_first(tmp_path: Path) -> None:
    labels = ["b", "NAN", "10", "9", "1.0", "1", "-inf", "a"]
    for given in (labels, labels[::-1], sorted(labels)):
        path = written(tmp_path, ".tsv", "text\tlabel", *(f"t\t{label}" for label in given))
        found = discover_target(path, columns=COLUMNS, regression=False, multi_label=None, skip_bad_rows=False)
        assert found == Classes(("-inf", "1", "1.0", "9", "10", "NAN", "a", "b"))


@pytest.mark.parametrize(
    ("suffix", "lines"),
    [
        (".jsonl", ('{"text": "a", "label": "0"}', '{"text": "b", "label": ["neg", "toxic"]}')),
        (".jsonl", ('{"text": "a", "label": "0"}', '{"text": "b", "label": {"neg": 1, "toxic": 0}}')),
        (".csv", ("text,label", "b,\"['neg', 'toxic']\"")),
        (".tsv", ("text\tlabel", "b\t[0, 1]")),
    ],
)
def test_lists_as_labels_are_refused_where_a_text_has_one(tmp_path: Path, suffix: str, lines: tuple[str, ...]) -> None:
    path = written(tmp_path, suffix, *lines)
    for skip in (False, True):
        with pytest.raises(UserError, match=r"line 2: the label .* (is a list, and here|is neither one label nor a)"):
            discover_target(path, columns=COLUMNS, regression=False, multi_label=False, skip_bad_rows=skip)
    bracketed = written(tmp_path, ".tsv", "text\tlabel", "a\t[POS]", "b\t(NEG")
    found = discover_target(bracketed, columns=COLUMNS, regression=False, multi_label=None, skip_bad_rows=False)
    assert found == Classes(("(NEG", "[POS]"))


def discovered(path: Path) -> Target:
    return discover_target(path, columns=COLUMNS, regression=False, multi_label=None, skip_bad_rows=False)


@pytest.mark.parametrize("text", ['["a", "b"]', '{"body": "a"}', "true"])
def test_a_text_is_no_list_or_object(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, ".jsonl", '{"text": "a", "label": 1}', f'{{"text": {text}, "label": 0}}')
    with pytest.raises(UserError, match=r"line 2: no text in 'text'; expected a text, not"):
        read(path)
    assert read(path, skip=True).examples == [(0, "a", None, 1)]


def test_labels_that_look_alike_are_one(tmp_path: Path) -> None:
    path = written(tmp_path, ".csv", "text,label", "a,caf\u00e9", "b,cafe\u0301 ", "c,\u00a0tea", "d,tea", "e,Tea")
    target = discovered(path)
    assert target == Classes(("Tea", "caf\u00e9", "tea"))
    rows = read_table(path, columns=COLUMNS, target=target, skip_bad_rows=False).examples
    assert [row.label for row in rows] == [1, 1, 2, 2, 0]
    lists = written(tmp_path, ".jsonl", '{"text": "a", "label": ["x ", "y"]}', '{"text": "b", "label": ["x", "x "]}')
    assert discovered(lists) == LabelSets(("x", "y"))
    rows = read_table(lists, columns=COLUMNS, target=LabelSets(("x", "y")), skip_bad_rows=False).examples
    assert [row.label for row in rows] == [(0, 1), (0,)]
    # A model of an earlier version keeps the blanks of its labels.
    assert Classes((" tea", "tea")).parse(" tea") == 0


def test_labels_of_one_row_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [f"t,{label}" for label in ("neg", "pos") * 4]
    discovered(written(tmp_path, ".csv", "text,label", *rows))
    assert not caplog.records
    discovered(written(tmp_path, ".csv", "text,label", *rows, "Total:,8"))
    assert "train.csv: 1 of 3 labels occur in only one row, such as '8'" in caplog.text


@pytest.mark.parametrize("mark", ["|", ";", "/", ", "])
def test_several_labels_in_one_cell_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture, mark: str) -> None:
    names = ["neg", mark.join(["neg", "toxic"]), mark.join(["rude", "toxic"])]
    found = discovered(written(tmp_path, ".csv", "text,label", *(f'a,"{name}"' for name in names * 2)))
    assert sorted(found.labels) == sorted(names)
    assert f"train.csv: 2 of 3 labels join others by {mark.strip()!r}, such as {names[1]!r}" in caplog.text
    assert 'write them as a list, ["neg", "toxic"], or as a column of 0 and 1 for each label' in caplog.text
    caplog.clear()
    # Signs within names, and lists.
    discovered(written(tmp_path, ".csv", "text,label", *(f'a,"{mark.join(pair)}"' for pair in ("ab", "cd") * 2)))
    discovered(written(tmp_path, ".jsonl", *(json.dumps({"text": "a", "label": names}) for _ in range(2))))
    assert not caplog.records


@pytest.mark.parametrize(
    "content",
    [
        'text;label\na, b;1\n"c;d";0\n',
        "text\tlabel\na, b\t1\nc;d\t0\n",
        'text,label\r"a, b",1\rc;d,0\r',  # as Excel for the old Macintosh wrote it
    ],
)
def test_the_separators_of_other_countries_and_machines(tmp_path: Path, content: str) -> None:
    path = tmp_path / "train.csv"
    path.write_bytes(content.encode())
    assert column_names(path) == ["text", "label"]
    assert read(path).examples == [(0, "a, b", None, 1), (1, "c;d", None, 0)]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"PK\x03\x04\x14", "a zip archive, or an Excel workbook"),
        (b"\xd0\xcf\x11\xe0\xa1", r"an old Office document \(\.doc, \.xls, \.ppt\)"),
        (b"PAR1\x15\x04", "a Parquet file"),
        (b"%PDF-1.7\n", "a PDF file"),
        (gzip.compress(b"text,label\na,1\n", mtime=0), "compressed"),
        ("text,label\na,1\n".encode("utf-16"), "text in UTF-16"),
        ("text,label\na,1\n".encode("utf-16-le"), "text in UTF-16"),
    ],
)
def test_what_is_no_text_is_refused_by_name(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "train.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"train\.csv is {told}.*: save what it holds as text in UTF-8"):
        read(path, skip=True)


def test_a_column_of_labels_with_a_slip_is_not_lost(tmp_path: Path) -> None:
    rows = [f"t{number},{number % 2},{'TRUE' if number % 3 else 'FALSE'},{number % 4}" for number in range(20)]
    rows[7] = "t7,-1,TRUE,3"
    path = written(tmp_path, ".csv", "text,toxic,rude,votes", *rows)
    names = indicator_columns(path, texts=("text",))
    assert names == ("toxic", "rude")
    columns = Columns("text", None, names)
    with pytest.raises(UserError, match="line 9: toxic '-1'; expected 0 or 1 in each column of LABEL_COLUMN"):
        read_table(path, columns=columns, target=LabelSets(names), skip_bad_rows=False)
    kept = read_table(path, columns=columns, target=LabelSets(names), skip_bad_rows=True)
    assert (len(kept.examples), kept.examples[1].label) == (19, (0, 1))


def test_no_column_is_text_and_label(tmp_path: Path) -> None:
    path = written(tmp_path, ".csv", "text,label", "a,1", "b,0")
    options = task_options("classification", train_file=str(path), text_column="text", label_column="text")
    with pytest.raises(UserError, match=r"the column 'text' of .*train\.csv is named twice by TEXT_COLUMN"):
        table_sources(options, regression=False, target=None)

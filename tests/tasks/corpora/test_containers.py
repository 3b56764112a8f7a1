"""Parquet, Arrow, saved data sets, archives and WET files give the texts that were put in, and stream."""

import bz2
import gzip
import io
import json
import pathlib
import sys
import tarfile
import types
import zipfile
from collections.abc import Callable

import pyarrow as pa
import pytest
from pyarrow import ipc, parquet

from electra_jax.errors import UserError
from electra_jax.tasks.corpora import hub
from electra_jax.tasks.corpora.open import Corpus, open_corpus

ROWS = ["One.\n\nTwo.", None, "  ", "Thrée."]
TEXTS = ["One.\nTwo.", "Thrée."]


def opened(corpus: object, **changes: object) -> Corpus:
    return open_corpus(
        str(corpus), **({"text_format": "auto", "text_field": "text", "skip_undecodable": False} | changes)
    )


def read(corpus: object, **changes: object) -> tuple[list[str], dict[str, int]]:
    found = opened(corpus, **changes)
    return [document.text for unit in found.units for document in found.documents(unit)], dict(found.skipped)


def write_parquet(path: pathlib.Path, table: pa.Table) -> None:
    parquet.write_table(table, path, row_group_size=2)


def write_arrow(path: pathlib.Path, table: pa.Table) -> None:
    with ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)


def write_stream(path: pathlib.Path, table: pa.Table) -> None:
    with ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)


Write = Callable[[pathlib.Path, pa.Table], None]
WRITERS: list[Write] = [write_parquet, write_arrow, write_stream]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_columns_of_text(tmp_path: pathlib.Path, write: Write, kind: pa.DataType) -> None:
    write(tmp_path / "a", pa.table({"id": range(4), "text": pa.array(ROWS).cast(kind)}))
    assert read(tmp_path / "a") == (TEXTS, {"null texts": 1})
    with pytest.raises(UserError, match=r"a: no column 'body' \(columns: 'id', 'text'\).*TEXT_FIELD"):
        read(tmp_path / "a", text_field="body")
    with pytest.raises(UserError, match=r"a, row 0: no text in the field 'id', which holds a number"):
        read(tmp_path / "a", text_field="id")


@pytest.mark.parametrize("write", WRITERS)
def test_nested_columns_and_lists(tmp_path: pathlib.Path, write: Write) -> None:
    table = pa.table({"content": [{"text": "One."}, None, {"text": None}], "parts": [["Two.", "3."], None, []]})
    write(tmp_path / "a", table)
    assert read(tmp_path / "a", text_field="content.text") == (["One."], {"null texts": 2})
    assert read(tmp_path / "a", text_field="parts") == (["Two.\n3."], {"null texts": 1})
    write(tmp_path / "a", pa.table({"turns": [[{"who": "a", "text": "One."}, {"who": "b", "text": "Two."}], None]}))
    assert read(tmp_path / "a", text_field="turns.text") == (["One.\nTwo."], {"null texts": 1})
    with pytest.raises(
        UserError, match=r"row 0: no text in the field 'turns', .*\(fields: 'turns\.who', 'turns\.text'\)"
    ):
        read(tmp_path / "a", text_field="turns")
    with pytest.raises(
        UserError, match=r"row 0: no text in the field 'turns\.text\.en' \(fields: 'turns\.who', 'turns\.te"
    ):
        read(tmp_path / "a", text_field="turns.text.en")


@pytest.mark.parametrize("write", WRITERS)
def test_a_text_that_is_not_utf8(tmp_path: pathlib.Path, write: Write) -> None:
    array = pa.array([b"One.", b"B\xe9", b"Two."]).view(pa.binary())
    bad = pa.Array.from_buffers(pa.string(), 3, array.buffers())
    write(tmp_path / "a", pa.table({"text": bad}))
    with pytest.raises(UserError, match=r"a, row 1: not UTF-8; .*SKIP_UNDECODABLE"):
        read(tmp_path / "a")
    assert read(tmp_path / "a", skip_undecodable=True) == (["One.", "Two."], {"undecodable texts": 1})


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_truncated_columns(tmp_path: pathlib.Path, write: Write, share: float) -> None:
    write(tmp_path / "a", pa.table({"text": [str(number**9) for number in range(5000)]}))
    whole = (tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match="a is damaged, truncated or not what"):
        read(tmp_path / "a")


def test_a_folder_of_save_to_disk(tmp_path: pathlib.Path) -> None:
    for split, text in (("train", "One."), ("test", "Two.")):
        folder = tmp_path / "saved" / split
        folder.mkdir(parents=True)
        for number in (1, 0):
            write_stream(folder / f"data-0000{number}-of-00002.arrow", pa.table({"text": [f"{text}{number}"]}))
        files = [{"filename": f"data-0000{number}-of-00002.arrow"} for number in range(2)]
        (folder / "state.json").write_text(json.dumps({"_data_files": files, "_fingerprint": "x"}))
    (tmp_path / "saved" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert read(tmp_path / "saved")[0] == ["One.0", "One.1"]
    assert opened(tmp_path / "saved").units == [f"train/data-0000{number}-of-00002.arrow" for number in range(2)]
    assert read(tmp_path / "saved" / "test")[0] == ["Two.0", "Two.1"]
    (folder / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(UserError, match=r"lacks data-00001-of-00002.arrow, which its state.json names"):
        read(tmp_path / "saved" / "test")
    (tmp_path / "saved" / "dataset_dict.json").write_text('{"splits": ["test"]}')
    with pytest.raises(UserError, match=r"the splits test: name the folder of one, such as .*saved/test"):
        read(tmp_path / "saved")
    (folder / "state.json").write_text('{"_data_files": [], "_indices_files": [{"filename": "i.arrow"}]}')
    with pytest.raises(UserError, match="flatten_indices"):
        read(folder)


def tar_of(files: dict[str, bytes], mode: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def zip_of(files: dict[str, bytes], mode: str = "") -> bytes:
    del mode
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


ARCHIVES = [(zip_of, ""), (tar_of, "w"), (tar_of, "w:gz"), (tar_of, "w:bz2"), (tar_of, "w:xz")]


@pytest.mark.parametrize(("archive", "mode"), ARCHIVES)
def test_archives_of_texts(
    tmp_path: pathlib.Path, archive: Callable[[dict[str, bytes], str], bytes], mode: str
) -> None:
    inside = {
        "b/one.txt": b"One.\n\nTwo.",
        "__MACOSX/b/._one.txt": b"\x00\x05\x16\x07",
        "two.gz": gzip.compress(b'{"text": "Three."}\n{"text": "Four."}\n'),
        "inner.tar": tar_of({"c.txt": b"Five."}, "w"),
        "empty.txt": b"",
    }
    (tmp_path / "a").write_bytes(archive(inside, mode))
    assert read(tmp_path / "a") == (["One.", "Two.", "Three.", "Four.", "Five."], {})
    assert read(tmp_path / "a", text_format="lines")[0][0] == "One."
    keys = [document.key for document in opened(tmp_path / "a").documents("a")]
    assert keys == [f"a#{number}" for number in range(5)]
    (tmp_path / "a").write_bytes(archive({"bad.txt": b"B\xe9"}, mode))
    with pytest.raises(UserError, match=r"a/bad.txt is not UTF-8 at byte 1 \(line 1\)"):
        read(tmp_path / "a")


@pytest.mark.parametrize(("archive", "mode"), ARCHIVES)
@pytest.mark.parametrize("share", [0.4, 0.8])
def test_truncated_archives(
    tmp_path: pathlib.Path, archive: Callable[[dict[str, bytes], str], bytes], mode: str, share: float
) -> None:
    text = " ".join(str(number**7) for number in range(20_000)).encode()
    whole = archive({f"{number}.txt": text for number in range(3)}, mode)
    (tmp_path / "a").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match=r"a is (damaged, )?truncated"):
        read(tmp_path / "a")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"[Content_Types].xml": b"", "word/document.xml": b"<x/>"}, "a Word, Excel or PowerPoint document"),
        ({"mimetype": b"", "META-INF/container.xml": b""}, "an EPUB book.*pandoc"),
        ({"archive/data.pkl": b""}, "a file of PyTorch"),
        ({"text.parquet": b"PAR1xxPAR1"}, r"a/text\.parquet is compressed, or within an archive.*unpack it first"),
    ],
)
def test_what_a_zip_may_be_besides(tmp_path: pathlib.Path, files: dict[str, bytes], message: str) -> None:
    (tmp_path / "a").write_bytes(zip_of(files))
    with pytest.raises(UserError, match=message):
        read(tmp_path / "a")


def warc_record(kind: str, content: str) -> bytes:
    data = content.encode()
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nContent-Type: text/plain\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data + b"\r\n\r\n"


def test_wet_files(tmp_path: pathlib.Path) -> None:
    records = [
        warc_record("warcinfo", "x: y"),
        warc_record("conversion", "Öne.\n\nTwo."),
        warc_record("conversion", "3"),
    ]
    path = tmp_path / "a.wet.gz"
    path.write_bytes(b"".join(map(gzip.compress, records)))
    assert read(path)[0] == ["Öne.\nTwo.", "3"]
    path.write_bytes(bz2.compress(b"".join(records)[:-5]))
    with pytest.raises(UserError, match=r"is damaged, truncated or .*a record of 1 bytes has 0"):
        read(path)
    (tmp_path / "b").write_bytes(warc_record("warcinfo", "x") + warc_record("response", "<html>"))
    with pytest.raises(UserError, match=r"a WARC file of fetched pages.*WET"):
        read(tmp_path / "b")
    (tmp_path / "b").write_bytes(warc_record("warcinfo", "x") + warc_record("metadata", "{}"))
    with pytest.raises(UserError, match=r"a WARC file of fetched pages or of facts about them.*WET"):
        read(tmp_path / "b")


@pytest.mark.parametrize("length", ["", "-1", "²", "9" * 12, "9" * 5000])
def test_a_wet_record_of_no_page(length: str, tmp_path: pathlib.Path) -> None:
    record = f"WARC/1.0\r\nWARC-Type: conversion\r\nContent-Length: {length}\r\n\r\ntext\r\n\r\n"
    (tmp_path / "a.wet").write_bytes(warc_record("warcinfo", "x: y") + record.encode())
    with pytest.raises(UserError, match=r"a record has no length|is longer than any page"):
        read(tmp_path / "a.wet")


class Hub(types.ModuleType):
    """Stands for huggingface_hub."""

    def __init__(self, folder: pathlib.Path | None) -> None:
        super().__init__("huggingface_hub")
        self.folder = folder
        self.errors = types.SimpleNamespace(RepositoryNotFoundError=FileNotFoundError)

    def HfApi(self) -> "Hub":  # noqa: N802
        return self

    def list_repo_files(self, name: str, repo_type: str) -> list[str]:
        assert (name, repo_type) == ("org/name", "dataset")
        if self.folder is None:
            raise ConnectionError("no route\nto host")
        return [path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file()]

    def snapshot_download(self, name: str, repo_type: str, allow_patterns: list[str]) -> str:
        return str(self.folder)


def test_a_data_set_of_the_hub(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    for split in ("train", "test"):
        write_parquet(tmp_path / "data" / f"{split}-0.parquet", pa.table({"text": [f"{split} text"]}))
    (tmp_path / "README.md").write_text("About.")
    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub(tmp_path))
    assert read("hf:org/name")[0] == ["train text"]
    assert opened("hf:org/name").name == "hf:org/name"
    assert read("hf:org/name:data/test*")[0] == ["test text"]
    with pytest.raises(UserError, match=r"no file of hf:org/name matches 'x' \(it has: README.md, data/test-0"):
        read("hf:org/name:x")
    with pytest.raises(UserError, match="not of the form hf:ORG/NAME"):
        read("hf:name")
    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub(None))
    with pytest.raises(UserError, match=r"hub is not reached \(ConnectionError: no route to host\).*another machine"):
        read("hf:org/name")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match="hf:org/name needs the package huggingface_hub: install it, or download"):
        read("hf:org/name")


def test_files_of_several_kinds_want_a_glob() -> None:
    with pytest.raises(UserError, match=r"several kinds or folders: choose with a glob.*\(it has: a.csv, b.jsonl\)"):
        hub.chosen_files(["README.md", "a.csv", "b.jsonl"], None, "o/n")
    with pytest.raises(UserError, match="several kinds or folders"):
        hub.chosen_files(["de/train.jsonl", "en/train.jsonl"], None, "o/n")
    assert hub.chosen_files(["en/val.jsonl.gz", "en/train.jsonl.gz"], None, "o/n") == ["en/train.jsonl.gz"]

"""Every kind of corpus is read as written, streams, and says where it is damaged."""

import bz2
import gzip
import json
import lzma
import os
import pathlib
import pickle
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable

import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
import zstandard

from electra_jax.errors import UserError
from electra_jax.tasks.corpora.open import Corpus, open_corpus
from support.shared import ORACLE, existing

TEXT = "\n\nFirst line.\n  Second line. \n\n\n\t\nAnother document: é.\r\n\r\nA third."
DOCUMENTS = ["First line.\nSecond line.", "Another document: é.", "A third."]
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


def opened(corpus: object, **changes: object) -> Corpus:
    return open_corpus(
        str(corpus), **({"text_format": "auto", "text_field": "text", "skip_undecodable": False} | changes)
    )


def texts(corpus: Corpus) -> list[str]:
    return [document.text for unit in corpus.units for document in corpus.documents(unit)]


@pytest.mark.parametrize("suffix", COMPRESS)
def test_blank_lines_separate_documents(tmp_path: pathlib.Path, suffix: str) -> None:
    (tmp_path / f"a.txt{suffix}").write_bytes(COMPRESS[suffix](TEXT.encode()))
    corpus = opened(tmp_path / "*")
    assert texts(corpus) == DOCUMENTS
    assert [document.key for document in corpus.documents(corpus.units[0])] == [f"a.txt{suffix}#{n}" for n in range(3)]
    assert not corpus.tokenised
    assert corpus.size_bytes > 0


def test_a_file_whose_name_is_a_pattern(tmp_path: pathlib.Path) -> None:
    for name in ("a[1].txt", "a1.txt", "b[2]/c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert texts(opened(tmp_path / "a[1].txt")) == ["a[1].txt"]
    assert texts(opened(tmp_path / "b[2]/c.txt")) == ["b[2]/c.txt"]
    # Where it is the name of no file, it is a pattern.
    (tmp_path / "a[1].txt").unlink()
    assert texts(opened(tmp_path / "a[1].txt")) == ["a1.txt"]
    with pytest.raises(UserError, match=r"no file matches .*; a \[ that belongs to a name is written \[\[\]"):
        opened(tmp_path / "b[2]/*.txt")
    assert texts(opened(tmp_path / "b[[]2]/*.txt")) == ["b[2]/c.txt"]


@pytest.mark.parametrize("suffix", COMPRESS)
def test_jsonl(tmp_path: pathlib.Path, suffix: str) -> None:
    records = [{"text": "One.\n\nTwo.", "id": 1}, {"text": "  "}, {"text": "Three é."}]
    content = "\n".join(json.dumps(record) for record in records) + "\n\n"
    (tmp_path / f"a.jsonl{suffix}").write_bytes(COMPRESS[suffix](content.encode()))
    assert texts(opened(tmp_path / "a.*")) == ["One.\nTwo.", "Three é."]
    (tmp_path / "b.txt").write_text('{"body": "Four."}')
    assert texts(opened(tmp_path / "b.txt", text_format="jsonl", text_field="body")) == ["Four."]


def test_a_document_a_line(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    assert texts(opened(tmp_path / "a.txt", text_format="lines")) == [
        "First line.",
        "Second line.",
        "Another document: é.",
        "A third.",
    ]


def test_a_byte_order_mark_is_no_text(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.txt").write_text("One.\n\nTwo.", encoding="utf-8-sig")
    assert texts(opened(tmp_path / "a.txt")) == ["One.", "Two."]


def test_several_frames_and_members_are_one_text(tmp_path: pathlib.Path) -> None:
    for suffix, compress in COMPRESS.items():
        (tmp_path / f"a.txt{suffix}").write_bytes(compress(b"One\n") + compress(b"two.\n\nThree."))
        assert texts(opened(tmp_path / f"a.txt{suffix}")) == ["One\ntwo.", "Three."]


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_what_follows_compressed_text_is_read_or_refused(tmp_path: pathlib.Path, suffix: str) -> None:
    """Zeros are the rest of a tape's block; text that is not compressed would be lost, as would a damaged stream."""
    path, compress = tmp_path / f"a.txt{suffix}", COMPRESS[suffix]
    for rest in (b"Two.\n", b"\1" + compress(b"Two.")[1:], bytes(512) + b"Two.\n"):
        path.write_bytes(compress(b"One.\n\n") + rest)
        with pytest.raises(UserError, match=r"damaged"):
            texts(opened(path))
    if suffix != ".zst":
        path.write_bytes(compress(b"One.\n\n") + bytes(70_000) + compress(b"Two.") + bytes(512))
        assert texts(opened(path)) == ["One.", "Two."]


def test_zstandard_as_pzstd_and_its_long_mode_write_it(tmp_path: pathlib.Path) -> None:
    frame = zstandard.compress(b"One\n")
    # pzstd writes the size of each frame before it, in a frame to be skipped.
    skippable = b"\x50\x2a\x4d\x18" + struct.pack("<II", 4, len(frame))
    (tmp_path / "a.txt.zst").write_bytes((skippable + frame) * 2)
    assert texts(opened(tmp_path / "a.txt.zst")) == ["One\nOne"]
    settings = zstandard.ZstdCompressionParameters(window_log=31)
    long = zstandard.ZstdCompressor(compression_params=settings).compressobj()
    (tmp_path / "a.txt.zst").write_bytes(long.compress(b"One\n") + long.flush())
    assert texts(opened(tmp_path / "a.txt.zst")) == ["One"]


def test_keys_are_unique_and_survive_a_move(tmp_path: pathlib.Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / "here" / folder).mkdir(parents=True)
        (tmp_path / "here" / folder / "a.txt").write_text(TEXT)
    corpus = opened(tmp_path / "here" / "**" / "*.txt")
    assert corpus.units == ["x/a.txt", "y/a.txt"]
    assert len({document.key for unit in corpus.units for document in corpus.documents(unit)}) == 6
    before = corpus.fingerprint()
    os.rename(tmp_path / "here", tmp_path / "there")
    assert opened(tmp_path / "there" / "**" / "*.txt").fingerprint() == before
    os.utime(tmp_path / "there" / "x" / "a.txt", (1, 1))
    assert opened(tmp_path / "there" / "**" / "*.txt").fingerprint() != before
    moved = tmp_path / "there" / "*" / "*.txt"
    assert opened(moved, text_format="lines").fingerprint() != opened(moved).fingerprint()


def test_a_corpus_pickles(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    assert texts(pickle.loads(pickle.dumps(opened(tmp_path / "a.txt")))) == DOCUMENTS


def test_reading_streams(tmp_path: pathlib.Path) -> None:
    with gzip.open(tmp_path / "a.txt.gz", "wt", compresslevel=1) as file:
        for _ in range(128):
            file.write(("word " * 199 + "word\n") * 1049)
    corpus = opened(tmp_path / "a.txt.gz")  # 128 MB without a single blank line
    tracemalloc.start()
    sizes = [len(document.text) for document in corpus.documents("a.txt.gz")]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(sizes) > 128e6
    assert peak < 64e6


def test_text_files_need_no_tensorflow() -> None:
    code = "import sys, electra_jax.tasks.corpora.open as s; "
    code += "sys.exit(bool({'tensorflow', 'seqio', 'jax'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_such_files(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match=r"no file matches .*\*\.txt"):
        opened(tmp_path / "*.txt")
    with pytest.raises(UserError, match=r"is a folder: say which files"):
        opened(tmp_path)
    with pytest.raises(UserError, match="text_format 'words' is none of"):
        opened(tmp_path, text_format="words")


def test_an_empty_corpus(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.txt").write_text(" \n\n \n")
    (tmp_path / "b.txt").write_text("")
    with pytest.raises(UserError, match="is empty: no document in 2 units"):
        opened(tmp_path / "*.txt")
    (tmp_path / "a.txt").write_bytes(b"\xff\n\n")
    with pytest.raises(UserError, match="left out: 1 undecodable lines"):
        opened(tmp_path / "*.txt", skip_undecodable=True)


@pytest.mark.parametrize("suffix", COMPRESS)
def test_undecodable_bytes(tmp_path: pathlib.Path, suffix: str) -> None:
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(COMPRESS[suffix](b"Good.\n\nB\xc3\xa9 bad \xe9t\xe9.\nGood too.\n"))
    with pytest.raises(UserError, match=rf"a\.txt{suffix} is not UTF-8 at byte 15 .*\(line 3\)"):
        texts(opened(path))
    corpus = opened(path, skip_undecodable=True)
    assert texts(corpus) == ["Good.", "Good too."]
    assert corpus.skipped == {"undecodable lines": 1}
    path.write_bytes(COMPRESS[suffix](b"\xff\n\nGood."))
    assert not opened(path, skip_undecodable=True).skipped  # though the line was read to find the first text


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_truncated_compressed_files(tmp_path: pathlib.Path, suffix: str, share: float) -> None:
    whole = COMPRESS[suffix](" ".join(str(number**7) for number in range(50_000)).encode())
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match=rf"a\.txt{suffix} is truncated"):
        texts(opened(path))


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_damaged_compressed_files(tmp_path: pathlib.Path, suffix: str) -> None:
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(b"This is no compressed text, whatever its name says.")
    with pytest.raises(UserError, match=rf"a\.txt{suffix} is damaged"):
        texts(opened(path))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "cut', r"a\.jsonl, line 2 is not JSON"),
        ('{"body": "x"}', r"a\.jsonl, line 2: no text in the field 'text' \(fields: 'body'\)"),
        ('{"text": 5}', r"a\.jsonl, line 2: no text in the field 'text'"),
        ('["text"]', r"a\.jsonl, line 2: .*no JSON object"),
    ],
)
def test_bad_jsonl(tmp_path: pathlib.Path, line: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "Good."}\n' + line)
    with pytest.raises(UserError, match=message):
        texts(opened(tmp_path / "a.jsonl"))


def write_tfrecord(path: pathlib.Path, examples: list[dict[str, list[int]]]) -> None:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for example in examples:
            features = {
                key: tf.train.Feature(int64_list=tf.train.Int64List(value=value)) for key, value in example.items()
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())


EXAMPLE = {"input_ids": [2, 7, 3, 8, 3, 0], "input_mask": [1, 1, 1, 1, 1, 0], "segment_ids": [0, 0, 0, 1, 1, 0]}


def test_tfrecords_lose_their_padding(tmp_path: pathlib.Path) -> None:
    write_tfrecord(tmp_path / "p.tfrecord-0-of-1", [EXAMPLE])
    corpus = opened(tmp_path / "*.tfrecord*")
    assert corpus.tokenised
    assert list(corpus.examples(corpus.units[0])) == [{"input_ids": [2, 7, 3, 8, 3], "token_type_ids": [0, 0, 0, 1, 1]}]


def test_tfrecords_of_the_original_writer() -> None:
    folder = existing(ORACLE / "build_pretraining") / "writer" / "out"
    corpus = opened(folder / "*.tfrecord*")
    examples = [example for unit in corpus.units for example in corpus.examples(unit)]
    recorded = json.loads((folder.parents[1] / "example_writer.json").read_text())
    assert len(examples) == 152
    assert all(example["input_ids"][0] == 101 and example["input_ids"][-1] == 102 for example in examples)
    assert all(len(example["input_ids"]) == len(example["token_type_ids"]) for example in examples)
    assert str(examples[0]["input_ids"])[1:-1] in json.dumps(recorded)


def test_damaged_tfrecords(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "p.tfrecord"
    write_tfrecord(path, [EXAMPLE] * 3)
    whole = path.read_bytes()
    read = lambda: list(opened(path).examples("p.tfrecord"))  # noqa: E731
    path.write_bytes(whole[:-5])
    with pytest.raises(UserError, match=r"p\.tfrecord, record 2: truncated or corrupt"):
        read()
    path.write_bytes(whole[: len(whole) // 2] + b"\x00" + whole[len(whole) // 2 + 1 :])
    with pytest.raises(UserError, match=r"p\.tfrecord, record 1: truncated or corrupt"):
        read()
    write_tfrecord(path, [EXAMPLE, {"input_ids": [1], "token_type_ids": [0]}])
    with pytest.raises(UserError, match=r"p\.tfrecord, record 1: lacks input_mask, segment_ids"):
        read()
    write_tfrecord(path, [EXAMPLE | {"segment_ids": [0]}])
    with pytest.raises(UserError, match=r"p\.tfrecord, record 0: features of different lengths"):
        read()
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(b"\xff\xff\xff")
    with pytest.raises(UserError, match=r"p\.tfrecord, record 0: not a tf\.train\.Example"):
        read()
    (tmp_path / "a.txt").write_text("Text.")
    with pytest.raises(UserError, match="matches TFRecords and other files"):
        opened(tmp_path / "*")


SPLITS = {"train": [b"One.\n\nTwo.", b" ", b"Three.", b"F\xe9ur."], "test": [b"Five."]}


@pytest.fixture
def prepared(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A dataset as TFDS leaves it on disk."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    folder = tmp_path / "small_texts" / "1.0.0"
    folder.mkdir(parents=True)
    for split, values in SPLITS.items():
        with tf.io.TFRecordWriter(str(folder / f"small_texts-{split}.tfrecord-00000-of-00001")) as writer:
            for value in values:
                feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
                features = tf.train.Features(feature={"text": feature})
                writer.write(tf.train.Example(features=features).SerializeToString())
    tfds.folder_dataset.write_metadata(
        data_dir=str(folder),
        features=tfds.features.FeaturesDict({"text": tfds.features.Text()}),
        split_infos=[
            tfds.core.SplitInfo(name=split, shard_lengths=[len(values)], num_bytes=100)
            for split, values in SPLITS.items()
        ],
        filename_template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    )
    return tmp_path


def test_tfds(prepared: pathlib.Path) -> None:
    corpus = opened("tfds:small_texts", skip_undecodable=True)
    assert texts(corpus) == ["One.\nTwo.", "Three."]
    assert corpus.skipped == {"undecodable texts": 1}
    assert texts(opened("tfds:small_texts:train[:25%]")) == ["One.\nTwo."]
    assert texts(opened("tfds:small_texts:1.0.0:test")) == ["Five."]
    assert opened("tfds:small_texts:test").fingerprint() != corpus.fingerprint()


def test_what_tfds_has_not(prepared: pathlib.Path) -> None:
    with pytest.raises(UserError, match=r"train\[0shard\], example 3: not UTF-8 at byte 1"):
        texts(opened("tfds:small_texts"))
    with pytest.raises(UserError, match=r"no split 'dev' \(it has: test, train\)"):
        opened("tfds:small_texts:dev")
    with pytest.raises(UserError, match=r"no text field 'body' \(it has: text\)"):
        opened("tfds:small_texts", text_field="body")
    with pytest.raises(UserError, match="knows no dataset 'no_such_texts'"):
        opened("tfds:no_such_texts")
    with pytest.raises(UserError, match=r"'lm1b' is not prepared under .*tfds build lm1b"):
        opened("tfds:lm1b")

"""Files that are not what they should be, wherever a command reads one: success, or 2 and one sentence."""

import gzip
import io
import json
import lzma
import os
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zstandard

from electra_jax.errors import UserError
from electra_jax.inference.input_files import read_arrays
from support.attacks import FEW_AND_MANY, attack
from support.command_line import FILES, SMALL, write_small_text
from support.finetuned_model import QA, TAGGING, TAGS, text_facts, write_tuned
from support.hf_models import SUBSET

ENDS = ("", ".txt", ".json", ".jsonl", ".csv", ".tsv", ".gz", ".xz", ".zst", ".npz", ".gin", ".parquet", ".jsonl.gz")
RECORD = {
    "id": "1",
    "text": "the cat sat",
    "label": "good",
    "question": "who?",
    "context": "the cat",
    "tokens": ["the"],
}
QUESTIONS = {
    "version": "2",
    "data": [{"paragraphs": [{"context": "the cat", "qas": [{"id": "1", "question": "who?", "answers": []}]}]}],
}
TEXT = b"the cat sat\nthe dog ran home\n\nthe cats\n"


def cut(content: bytes) -> bytes:
    return content[: max(1, len(content) * 2 // 3)]


# The content of a file, by what it is.
CONTENTS: dict[str, Callable[[random.Random], bytes]] = {
    "empty": lambda draw: b"",
    "a line end": lambda draw: b"\n",
    "binary": lambda draw: draw.randbytes(3000),
    "null bytes": lambda draw: bytes(3000),
    "null bytes in text": lambda draw: TEXT.replace(b" ", b"\0"),
    "a byte order mark": lambda draw: b"\xef\xbb\xbf",
    "utf-16": lambda draw: TEXT.decode().encode("utf-16"),
    "latin-1": lambda draw: "café\n".encode("latin-1") * 50,
    "carriage returns": lambda draw: TEXT.replace(b"\n", b"\r"),
    "a long line": lambda draw: b"the cat " * 50_000,
    "a long word": lambda draw: b"x" * 300_000,
    "deep JSON": lambda draw: b"[" * 100_000 + b"]" * 100_000,
    "deep objects": lambda draw: b'{"text":' * 50_000,
    "a long number": lambda draw: b'{"text": ' + b"9" * 5000 + b"}",
    "a surrogate": lambda draw: b'{"id": "1", "text": "the \\ud800 cat", "label": "good"}\n' * 2,
    "not a number": lambda draw: b'{"text": NaN, "label": Infinity}\n',
    "twice the same id": lambda draw: (json.dumps(RECORD) + "\n").encode() * 3,
    "twice the same key": lambda draw: b'{"text": "a", "text": "b", "label": "good", "label": "bad"}\n',
    "a table": lambda draw: b"text,label\nthe cat,good\nthe dog,bad\n",
    "a table of two lengths": lambda draw: b"text,label\nthe cat\nthe dog,bad,worse\n",
    "an open quote": lambda draw: b'text,label\n"the cat,good\n' + b"the dog,bad\n" * 200,
    "twice the same column": lambda draw: b"text,text,label,label\na,b,good,bad\n",
    "questions": lambda draw: json.dumps(QUESTIONS).encode(),
    "questions of another shape": lambda draw: json.dumps({"version": "2", "data": [{"paragraphs": [1]}]}).encode(),
    "a list": lambda draw: json.dumps([RECORD, RECORD]).encode(),
    "a JSON number": lambda draw: b"1",
    "null": lambda draw: b"null",
    "tags": lambda draw: b"the O\ncat B-PER\n\nJohn I-PER\n",
    "cut gz": lambda draw: cut(gzip.compress(TEXT * 99)),
    "cut xz": lambda draw: cut(lzma.compress(TEXT * 99)),
    "cut zst": lambda draw: cut(zstandard.compress(TEXT * 99)),
    "gz and rubbish": lambda draw: gzip.compress(TEXT) + b"rubbish",
    "cut zip": lambda draw: b"PK\x03\x04" + draw.randbytes(200),
    "parquet": lambda draw: b"PAR1" + draw.randbytes(200) + b"PAR1",
    "cut safetensors": lambda draw: (10**15).to_bytes(8, "little") + b"{}",
    "a pickle": lambda draw: b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR.",
    "gin": lambda draw: b"import os\nA = @os.system()\n",
}


def write_content(name: str) -> Callable[[Path, random.Random], None]:
    return lambda path, draw: path.write_bytes(CONTENTS[name](draw)) and None


def write_loop(path: Path, draw: random.Random) -> None:
    path.symlink_to(path.name)


def write_folder(path: Path, draw: random.Random) -> None:
    path.mkdir()
    if draw.random() < 0.5:
        shutil.copytree(SUBSET / "seqcls", path, dirs_exist_ok=True)


SHAPES: dict[str, Callable[[Path, random.Random], object]] = {
    **{name: write_content(name) for name in CONTENTS},
    "a folder": write_folder,
    "a fifo": lambda path, draw: os.mkfifo(path),
    "a loop of links": write_loop,
    "a dangling link": lambda path, draw: path.symlink_to("nowhere"),
    "no file": lambda path, draw: None,
    "a device": lambda path, draw: path.symlink_to("/dev/null"),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text, its vocabulary and models of each family."""
    folder = tmp_path_factory.mktemp("shapes")
    write_small_text(folder)
    labels = ("bad", "good")
    write_tuned(folder / "text", "sequence_classification", labels=labels, task=text_facts("own", labels, pair=False))
    write_tuned(folder / "tags", "token_classification", labels=TAGS, task=TAGGING)
    write_tuned(folder / "answers", "question_answering", labels=(), task=QA)
    write_tuned(folder / "pretrained", "discriminator", labels=(), task=None)
    return folder


# What reads the file `path`; in `models` stands the rest of what the command needs.
READERS: dict[str, Callable[[Path, Path, Path], list[str]]] = {
    "vocab": lambda path, models, place: [
        "vocab",
        f"--gin.CORPUS={str(path)!r}",
        f"--gin.TOKENIZER={str(place / 'new.txt')!r}",
        "--gin.VOCAB_SIZE=60",
    ],
    "cache": lambda path, models, place: [
        "cache",
        f"--gin.CORPUS={str(path)!r}",
        f"--gin.TOKENIZER={str(models / 'vocab.txt')!r}",
        f"--gin.CACHE_DIR={str(place / 'caches')!r}",
        "--gin.NUM_PROCESSES=1",
        "--gin.SEQUENCE_LENGTH=32",
    ],
    "tokenizer": lambda path, models, place: [
        "cache",
        f"--gin.CORPUS={str(models / 'text.txt')!r}",
        f"--gin.TOKENIZER={str(path)!r}",
        f"--gin.CACHE_DIR={str(place / 'caches')!r}",
        "--gin.NUM_PROCESSES=1",
        "--gin.SEQUENCE_LENGTH=32",
    ],
    "gin file": lambda path, models, place: [
        "inspect",
        *FILES,
        f"--gin_file={path}",
        *(f"--gin.{name}={value!r}" for name, value in SMALL.items()),
    ],
    "input": lambda path, models, place: ["predict", str(models / "text"), str(path)],
    "tagged input": lambda path, models, place: ["predict", str(models / "tags"), str(path)],
    "questions": lambda path, models, place: ["predict", str(models / "answers"), str(path)],
    "dev table": lambda path, models, place: [
        "evaluate",
        f"--gin.MODEL_DIR={str(models / 'text')!r}",
        f"--gin.DEV_FILE={str(path)!r}",
    ],
    "dev tags": lambda path, models, place: [
        "evaluate",
        f"--gin.MODEL_DIR={str(models / 'tags')!r}",
        f"--gin.DEV_FILE={str(path)!r}",
    ],
    "dev questions": lambda path, models, place: [
        "evaluate",
        f"--gin.MODEL_DIR={str(models / 'answers')!r}",
        f"--gin.DEV_FILE={str(path)!r}",
    ],
    # The file for training, and nothing to score with: what could be trained on is not.
    "train table": lambda path, models, place: [
        "finetune",
        f"--gin.INIT_FROM={str(models / 'pretrained')!r}",
        "--gin.TASK='own'",
        f"--gin.TRAIN_FILE={str(path)!r}",
        f"--gin.DEV_FILE={str(place / 'no.csv')!r}",
        f"--gin.MODEL_DIR={str(place / 'run')!r}",
    ],
    "run": lambda path, models, place: ["glue", str(path)],
    "source of import": lambda path, models, place: ["import", str(path), str(place / "new")],
    "source of export": lambda path, models, place: ["export", str(path), str(place / "new"), "--format=transformers"],
    "a model": lambda path, models, place: ["predict", str(path), "the cat"],
    "INIT_FROM": lambda path, models, place: [
        "finetune",
        f"--gin.INIT_FROM={str(path)!r}",
        "--gin.TASK='own'",
        f"--gin.TRAIN_FILE={str(place / 'no.csv')!r}",
        f"--gin.MODEL_DIR={str(place / 'run')!r}",
    ],
    "predictions": lambda path, models, place: [
        "evaluate",
        "--gin.TASK='squad_v2'",
        f"--gin.PREDICTIONS={str(path)!r}",
        f"--gin.DEV_FILE={str(place / 'no.json')!r}",
    ],
}


@pytest.mark.parametrize("many", FEW_AND_MANY)
def test_file_shapes(many: bool, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [(reader, shape) for shape in SHAPES for reader in READERS]
    random.Random(0).shuffle(pairs)

    def case(draw: random.Random, place: Path) -> list[str]:
        monkeypatch.chdir(place)
        reader, shape = pairs[int(place.name.rpartition(" ")[2]) % len(pairs)]
        path = place / f"file{draw.choice(ENDS)}"
        SHAPES[shape](path, draw)
        return READERS[reader](path, models, place)

    ends = attack(case, name="shape", count=3 * len(pairs) if many else 80, folder=tmp_path)
    assert sum(end.code == 2 for end in ends) > len(ends) / 2
    assert not list(tmp_path.rglob("pwned"))


def arrays(**values: object) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **values)
    return buffer.getvalue()


def array_alone() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ones((2, 3), np.int32))
    return buffer.getvalue()


def stored(**files: bytes) -> bytes:
    """An .npz whose arrays are these bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


IDS = np.ones((2, 3), np.int32)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "cannot be read"),
        (b"the cat", "cannot be read"),
        (b"PK\x03\x04", "cannot be read"),
        (cut(arrays(input_ids=IDS)), "cannot be read"),
        (arrays(input_ids=IDS).replace(b"NUMPY", b"numpy"), "cannot be read"),
        (array_alone(), "cannot be read"),
        (stored(input_ids=array_alone().replace(b")", b" ")), "cannot be read"),
        (arrays(ids=IDS), "has no array input_ids"),
        (arrays(input_ids=np.int32(7)), "must have as many rows each"),
        (arrays(input_ids=IDS, token_type_ids=IDS[:1]), "must have as many rows each"),
    ],
)
def test_arrays_that_are_none(content: bytes, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "ids.npz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        list(read_arrays(path))

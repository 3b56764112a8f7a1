"""One cache, whoever wrote it: the examples of a corpus's shards, read without its text, file by file."""

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gin
import pytest
import seqio

from electra_jax import cli
from electra_jax.config import gin_files
from electra_jax.config.data import open_data, vocabulary_for
from electra_jax.config.pretraining import PretrainingRun
from electra_jax.data.batches import BatchIterator
from electra_jax.errors import UserError
from electra_jax.tasks.host_tensorflow import tf
from support import beam_corpus
from support.beam_corpus import Example, built, read

FILES = 3


def split_into_files(cache: Path, num_files: int) -> None:
    """Writes a cache's training split anew in so many files."""
    old = sorted(cache.glob("train.tfrecord-*"))
    records = list(tf.data.TFRecordDataset(list(map(str, old))).as_numpy_iterator())
    for path in old:
        path.unlink()
    info = json.loads((cache / "info.train.json").read_text())
    (cache / "info.train.json").write_text(json.dumps(info | {"num_shards": num_files}))
    for number in range(num_files):
        with tf.io.TFRecordWriter(str(cache / f"train.tfrecord-{number:05d}-of-{num_files:05d}")) as writer:
            for record in records[number::num_files]:
                writer.write(record)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of texts, with the cache that `electra cache` makes of them in `cache`."""
    folder = tmp_path_factory.mktemp("corpus")
    beam_corpus.write(folder, FILES)
    built(folder).rename(folder / "cache")
    return folder


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    yield
    for suffix in ("", "_unmasked"):
        seqio.TaskRegistry.remove(beam_corpus.TASK + suffix)


def copied(corpus: Path, folder: Path, *, num_files: int) -> Path:
    """The cache where SeqIO finds it by the task's name, in so many files; the text does not come along."""
    shutil.copytree(corpus / "cache", folder / beam_corpus.TASK)
    split_into_files(folder / beam_corpus.TASK, num_files)
    seqio.set_global_cache_dirs([str(folder)])
    return folder / beam_corpus.TASK


def batches(corpus: Path, process_index: int, process_count: int, **macros: Any) -> BatchIterator:
    """What a process of `electra pretrain` reads."""
    macros = {"MODEL_DIR": "run", "VOCAB_FILE": str(corpus / "vocab.txt"), "BATCH_SIZE": 8} | macros
    bindings = [f"{name}={value!r}" for name, value in (beam_corpus.SETTINGS | macros).items()]
    run = gin_files.build(
        PretrainingRun,
        ["gin/models/tiny.gin", "gin/runs/pretrain.gin"],
        [f"VOCAB_SIZE={5 + len(beam_corpus.WORDS)}", *bindings],
        search_paths=[],
    )
    return open_data(
        run, vocabulary_for(run.cache, run.encoder), process_index=process_index, process_count=process_count
    ).train


def taken(reader: BatchIterator, number: int) -> list[Example]:
    """The next examples without their padding, in order."""
    rows: list[Example] = []
    while len(rows) < number:
        batch = next(reader)
        for ids, types, mask in zip(
            *(batch[name] for name in ("input_ids", "token_type_ids", "attention_mask")), strict=True
        ):
            rows.append((tuple(ids[mask > 0].tolist()), tuple(types[mask > 0].tolist())))
    return rows[:number]


def test_the_shards_of_a_corpus_make_the_cache(corpus: Path) -> None:
    """What a Beam worker does with one shard, alone and in any order, makes the examples that one process makes."""
    beam_corpus.register(corpus)
    task = seqio.TaskRegistry.get(beam_corpus.TASK)
    for split in ("train", "validation"):
        assert len(task.source.list_shards(split)) == FILES
        found: dict[int, Example] = {}
        for shard in reversed(range(FILES)):
            dataset = task.source.get_dataset(
                split=split, shuffle=False, seed=shard, shard_info=seqio.ShardInfo(shard, FILES)
            )
            made = list(task.preprocess_precache(dataset, seed=shard).as_numpy_iterator())
            for example in made:
                assert example["example_id"] not in found
                found[int(example["example_id"])] = tuple(
                    tuple(example[name].tolist()) for name in ("input_ids", "token_type_ids")
                )
        assert found
        assert found == read(corpus / "cache", split)


@pytest.mark.parametrize(("masking", "by_name"), [("device", True), ("task", True), ("device", False)])
def test_training_reads_a_cache_whose_text_is_gone(corpus: Path, tmp_path: Path, masking: str, by_name: bool) -> None:
    """By its directory or by the task's name: an epoch is every example once, and there is no text to tokenise."""
    cache = copied(corpus, tmp_path, num_files=2)
    text = tmp_path / "text"
    text.mkdir()
    for path in corpus.glob("*.txt"):
        shutil.copy(path, text)
    beam_corpus.register(text)
    for path in text.glob("*[0-9].txt"):
        path.unlink()
    source = {"MIXTURE_OR_TASK_NAME": beam_corpus.TASK} if by_name else {"CORPUS": str(cache)}
    reader = batches(corpus, 0, 1, MASKING=masking, **source)
    wanted = read(cache, "train").values()
    if masking == "task":
        # Masked tokens are others; what they stand for is the business of the tests of masking.
        assert sorted(types for _, types in taken(reader, len(wanted))) == sorted(types for _, types in wanted)
    else:
        assert sorted(taken(reader, len(wanted))) == sorted(wanted)


def test_a_process_reads_its_own_files(corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where there are as many files as processes; the shares are whole files, disjoint, and together everything."""
    cache = copied(corpus, tmp_path, num_files=4)
    beam_corpus.register(corpus)
    shares = []
    for process in range(2):
        files = [cache / f"train.tfrecord-{number:05d}-of-00004" for number in (process, process + 2)]
        wanted = {
            example
            for path in files
            for example in map(
                tuple,
                (
                    list(tf.train.Example.FromString(record).features.feature["input_ids"].int64_list.value)
                    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
                ),
            )
        }
        # Another process's files are not even there.
        others = [path for path in sorted(cache.glob("train.tfrecord-*")) if path not in files]
        contents = [path.read_bytes() for path in others]
        for path in others:
            path.write_bytes(b"damaged")
        reader = batches(corpus, process, 2, MIXTURE_OR_TASK_NAME=beam_corpus.TASK)
        share = [ids for ids, _ in taken(reader, len(wanted))]
        assert set(share) == wanted
        for path, content in zip(others, contents, strict=True):
            path.write_bytes(content)
        shares += share
    assert sorted(shares) == sorted(ids for ids, _ in read(cache, "train").values())
    assert "fewer than" not in caplog.text


def test_fewer_files_than_processes_are_said_and_read_by_all(
    corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Every example once in an epoch, and no process waits for files that are not there."""
    cache = copied(corpus, tmp_path, num_files=2)
    beam_corpus.register(corpus)
    wanted = sorted(read(cache, "train").values())
    sizes = [len(range(process, len(wanted), 4)) for process in range(4)]
    with caplog.at_level(logging.WARNING):
        shares = [
            taken(batches(corpus, process, 4, MIXTURE_OR_TASK_NAME=beam_corpus.TASK), size)
            for process, size in enumerate(sizes)
        ]
    assert sorted(example for share in shares for example in share) == wanted
    assert "has 2 file(s) in its train split, fewer than the 4 processes" in caplog.text


def test_seqio_is_told_of_a_cache_without_tfrecords_and_reads_it_once_they_are_added(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = copied(corpus, tmp_path, num_files=2)
    beam_corpus.register(corpus)
    wanted = sorted(read(cache, "train").values())
    for path in (*cache.glob("*.tfrecord-*"), *cache.glob("info.*"), *cache.glob("stats.*")):
        path.unlink()
    with pytest.raises(UserError, match=r"beam_corpus has no TFRecords, which SeqIO reads: add them with"):
        batches(corpus, 0, 1, MIXTURE_OR_TASK_NAME=beam_corpus.TASK)
    macros = beam_corpus.macros(corpus) | {"CORPUS": str(cache), "TFRECORDS": True}
    assert cli.main(["cache", *(f"--gin.{name}={value!r}" for name, value in macros.items())]) == 0
    assert capsys.readouterr().out == f"{cache}\n"
    gin.clear_config(clear_constants=True)
    reader = batches(corpus, 0, 1, MIXTURE_OR_TASK_NAME=beam_corpus.TASK)
    assert sorted(taken(reader, len(wanted))) == wanted


@pytest.mark.parametrize(
    ("masking", "by_name", "what"),
    [
        ("device", True, "the first 1,000 examples drawn from beam_corpus_unmasked"),
        ("task", True, "the first 1,000 examples drawn from beam_corpus"),
        ("device", False, r"\d+ examples of the cache "),
    ],
)
def test_unknown_tokens_that_no_record_counts_are_stated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], masking: str, by_name: bool, what: str
) -> None:
    """Of a task, with its own masks or without, and of a cache of SeqIO, which has no `made_by.json`."""
    beam_corpus.write(tmp_path, FILES)
    vocabulary = tmp_path / "vocab.txt"
    # The text has every word equally often.
    half = len(beam_corpus.WORDS) // 2
    tokens = vocabulary.read_text().split()
    vocabulary.write_text("\n".join([*tokens[:-half], *(f"other{number}" for number in range(half))]) + "\n")
    built(tmp_path).rename(tmp_path / "cache")
    cache = copied(tmp_path, tmp_path, num_files=2)
    (cache / "made_by.json").unlink()
    for split in ("train", "validation"):
        shutil.rmtree(cache / f"{split}.blocks")
    beam_corpus.register(tmp_path)
    source = {"MIXTURE_OR_TASK_NAME": beam_corpus.TASK} if by_name else {"CORPUS": str(cache)}
    with pytest.raises(UserError, match=rf"(4\d|5\d)\.\d\d % of the [\d,]+ tokens of {what}.* are \[UNK\]: learn a"):
        batches(tmp_path, 0, 1, MASKING=masking, **source)
    gin.clear_config(clear_constants=True)
    reader = batches(tmp_path, 0, 1, MASKING=masking, ALLOW_UNKNOWN=True, **source)
    assert "warning: " in capsys.readouterr().out
    # What was counted is read all the same.
    wanted = sorted(types for _, types in read(cache, "train").values())
    assert sorted(types for _, types in taken(reader, len(wanted))) == wanted


def test_a_task_of_another_vocabulary_is_refused(corpus: Path, tmp_path: Path) -> None:
    copied(corpus, tmp_path, num_files=2)
    beam_corpus.register(corpus)
    tokens = (corpus / "vocab.txt").read_text().split()
    (tmp_path / "vocab.txt").write_text("\n".join(tokens[:-1]) + "\n")
    with pytest.raises(
        UserError, match=rf"hold the token id {len(tokens) - 1}, but the vocabulary has {len(tokens) - 1} "
    ):
        batches(tmp_path, 0, 1, MIXTURE_OR_TASK_NAME=beam_corpus.TASK, VOCAB_SIZE=len(tokens) - 1)

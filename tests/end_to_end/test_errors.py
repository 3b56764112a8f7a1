"""Bad input through the command line: exit code 2, one sentence that says what to do, and nothing lost."""

import gzip
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from electra_jax import cli
from electra_jax.distributed.group import free_port
from electra_jax.distributed.owner import owned
from electra_jax.tasks.pretraining.tfrecords import encode_example, frame
from support.command_line import (
    FILES,
    SPECIAL,
    STEPS,
    WORDS,
    arrays,
    assert_same_arrays,
    checkpoint_steps,
    electra,
    reported_steps,
    small_run,
    unfinished_saves,
)

Refused = Callable[[list[str]], str]


@pytest.fixture
def refused(place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Refused:
    """Runs the command line in this process and returns its one sentence."""
    monkeypatch.setenv("ELECTRA_CACHE_DIR", str(place / "cache"))

    def run(arguments: list[str]) -> str:
        capfd.readouterr()
        assert cli.main(arguments) == 2
        stderr = capfd.readouterr().err
        *progress, sentence = stderr.splitlines()
        known = ("Tokenising ", " training examples of ", ", which begins ")
        assert all(any(words in line for words in known) for line in progress), stderr
        assert sentence.startswith("electra: ")
        return sentence.removeprefix("electra: ")

    return run


def _vocabulary(folder: Path, tokens: list[str]) -> str:
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens))
    return str(folder / "vocab.txt")


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("--gin.TRAIN_STEPZ=3", "no macro TRAIN_STEPZ is used by the Gin files; did you mean TRAIN_STEPS?"),
        ("--gin.run_config.PretrainingRun.batchsize=3", "named 'batchsize' in the command line's --gin bindings; did"),
        ("--gin.run_config.PretrainingRu.batch_size=3", "did you mean PretrainingRun?"),
        ("--gin.BATCH_SIZE", "--gin.BATCH_SIZE has no value: write --gin.BATCH_SIZE=VALUE"),
        ("--gin.MASKING=device", "needs its own quotes: --gin.MASKING='\"device\"'"),
        ("--gin.MASKING='devise'", "it must be 'device' or 'task'"),
        ("--gin.DTYPE='float8'", "it must be 'float32' or 'bfloat16'"),
        ("--gin.TRAIN_STEPS='ten'", "TRAIN_STEPS (run_config.PretrainingRun.schedule_steps) is 'ten': it must be int"),
        ("--gin.BATCH_SIZE=8.0", "is 8.0: it must be int"),
        ("--gin.LOWERCASE='yes'", "is 'yes': it must be bool | None"),
        ("--gin.SAVE_EVERY=0", "SAVE_EVERY (training.LoopConfig.save_every) is 0: it must be at least 1"),
        ("--gin.SEQUENCE_LENGTH=64", "SEQUENCE_LENGTH 64 is longer than the model's 32 positions"),
        ("--gin.encoder.EncoderConfig.num_attention_heads=3", "16 is not divisible by num_attention_heads 3"),
        ("--gin_file=gin/runs/pretrian.gin", "did you mean gin/runs/pretrain.gin?"),
        ("--gin.BATCH_SIZE=12", "batch size 12 is not divisible by 8 devices"),
        ("--gin.ACCUMULATION_STEPS=3", "the nearest that fits is 24"),
        ("--gin.MESH_TENSOR=3", "do not multiply to the 8 devices: tensor 1, 2, 4 or 8 would fit"),
        (
            "--gin.MESH_TENSOR=2",
            "mesh axis tensor 2 does not divide vocab 85 (embeddings/word_embeddings), heads 1 (gen",
        ),
        ("--gin.MESH_FSDP=8", "mesh axis fsdp 8 does not divide embed 4 (generator/"),
        ("--gin.BATCH_SIZE=4096", "examples, fewer than a batch of 4096"),
        ("--gin.VOCAB_SIZE=99", "entries and the model has 99: set --gin.VOCAB_SIZE="),
        ("--gin.MIXTURE_OR_TASK_NAME='x'", "CORPUS and MIXTURE_OR_TASK_NAME are both set"),
        ("--gin.CORPUS=None", "CORPUS is not set"),
        ("--gin.PACKING=1", "PACKING (run_config.PretrainingRun.packing) is 1: it must be bool"),
        ("--gin.CORPUS='none/*.txt'", "no file matches 'none/*.txt'"),
    ],
)
def test_bindings(place: Path, tmp_path: Path, refused: Refused, argument: str, sentence: str) -> None:
    model_dir = tmp_path / "run"
    assert sentence in refused([*small_run(place, model_dir), argument])
    assert not model_dir.exists()


def test_a_coordinator_that_cannot_be_reached(
    place: Path, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"127.0.0.1:{free_port()}"
    variables = {"COORDINATOR_ADDRESS": address, "NUM_PROCESSES": "2", "PROCESS_ID": "1"}
    for name, value in variables.items():
        monkeypatch.setenv(f"JAX_{name}", value)
    monkeypatch.setenv("ELECTRA_JOIN_SECONDS", "1")
    sentence = refused(small_run(place, tmp_path / "run"))
    assert f"process 1 of 2 could not reach the coordinator at {address} within 1 seconds" in sentence
    monkeypatch.setenv("JAX_PROCESS_ID", "0")
    sentence = refused(small_run(place, tmp_path / "run"))
    assert f"waited 1 seconds at {address} for 2 processes, and these did not come: 1;" in sentence
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("TRIAN_STEPS = 3", "no macro TRIAN_STEPS is used by the Gin files (FILE, line 3); did you mean TRAIN_STEPS?"),
        ("run_config.PretrainingRun.batch_sise = 3", 'in file "FILE", line 3; did you mean batch_size?'),
        ("run_config.PretrainingRun.seed = %SEDE", "the macro SEDE has no value (FILE, line 3): set it with"),
        ("BATCH_SIZE = = 3", "FILE, line 3 is not Gin"),
        ("MASKING = device", "FILE, line 3 is not Gin (a string needs quotes): MASKING = device"),
        ("include 'gin/models/tinny.gin'", "did you mean gin/models/tiny.gin?"),
        ("from electra_jax import no_such_module", "line 3"),
        ("from electra_jax.model import encodr", "line 3; did you mean encoder?"),
        (
            "run_config.PretrainingRum.seed = 3",
            'has no PretrainingRum in file "FILE", line 3; did you mean PretrainingRun?',
        ),
    ],
)
def test_gin_files(place: Path, tmp_path: Path, refused: Refused, line: str, sentence: str) -> None:
    file = tmp_path / "mine.gin"
    file.write_text(f"from __gin__ import dynamic_registration\nfrom electra_jax import run_config\n{line}\n")
    found = refused([*small_run(place, tmp_path / "run"), f"--gin_file={file}"])
    assert sentence.replace("FILE", str(file)) in found
    assert not (tmp_path / "run").exists()


def test_what_is_missing(tmp_path: Path, refused: Refused) -> None:
    sentence = refused(["pretrain", *FILES, f"--gin.MODEL_DIR='{tmp_path / 'run'}'"])
    assert re.search(r"the macro TOKENIZER has no value \(gin/runs/pretrain.gin, line \d+\): set it with", sentence)
    assert "did you mean" not in sentence
    settings = ["--gin.MODEL_DIR='x'", "--gin.VOCAB_FILE='y'"]
    assert "--gin_file=gin/models/small.gin" in refused(["pretrain", "--gin_file=gin/runs/pretrain.gin", *settings])
    assert "--gin_file" in refused(["pretrain"])


def test_a_directory_that_is_no_run(place: Path, tmp_path: Path, refused: Refused) -> None:
    assert "config.gin does not exist" in refused(["evaluate", f"--gin.MODEL_DIR='{tmp_path}'"])
    arguments = ["evaluate", *small_run(place, tmp_path)[1:]]
    assert "no checkpoint in" in refused(arguments)
    assert not list(tmp_path.iterdir())
    file = place / "text.txt"
    assert f"{file} cannot be used (File exists)" in refused(small_run(place, file))


def _truncated(path: Path, content: bytes) -> Path:
    path.write_bytes(content[: len(content) * 2 // 3 - 1])
    return path


def _corpora(place: Path, folder: Path) -> dict[str, Path]:
    """Damaged files by what is said of them."""
    text = (place / "text.txt").read_bytes()
    (folder / "empty.txt").write_text("\n \n")
    (folder / "latin.txt").write_bytes(text + b"\n\nba \xe9 be\n")
    records = frame([encode_example(0, [2, 5, 3], [0, 0, 0])])
    return {
        "empty": folder / "empty.txt",
        f"not UTF-8 at byte {len(text) + 5} (line": folder / "latin.txt",
        "truncated: its compressed text breaks off": _truncated(folder / "cut.txt.gz", gzip.compress(text)),
        "damaged, truncated or not what": _truncated(folder / "cut.parquet", _parquet(text)),
        "breaks off after 1 elements": _whole_record(folder / "cut.json", b'[{"text": "ba"},'),
        "a PDF file, which is not read": _whole_record(folder / "a.txt", b"%PDF-1.7\n" + text),
        "lacks input_mask": _whole_record(folder / "cache.tfrecord", records),
    }


def _parquet(text: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table({"text": text.decode().splitlines()}), sink)
    return sink.getvalue().to_pybytes()


def _whole_record(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_damaged_text(place: Path, whole: Path, tmp_path: Path, refused: Refused) -> None:
    for said, path in _corpora(place, tmp_path).items():
        sentence = refused(small_run(place, tmp_path / "run", CORPUS=str(path)))
        assert said in sentence
        assert path.name in sentence
    assert not (tmp_path / "run").exists()


def test_truncated_tfrecords(place: Path, tmp_path: Path, refused: Refused) -> None:
    import tensorflow as tf

    ids = [2, *range(5, 15), 3]
    features = {"input_ids": ids, "input_mask": [1] * len(ids), "segment_ids": [0] * len(ids)}
    example = tf.train.Example(
        features=tf.train.Features(
            feature={key: tf.train.Feature(int64_list=tf.train.Int64List(value=v)) for key, v in features.items()}
        )
    )
    path = tmp_path / "old.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for _ in range(9):
            writer.write(example.SerializeToString())
    assert "holds token ids, not text" in refused(vocab(str(path), tmp_path / "learnt.txt"))
    _truncated(path, path.read_bytes())
    sentence = refused(small_run(place, tmp_path / "run", CORPUS=str(path)))
    assert f"{path}, record 5: truncated or corrupt (truncated record at " in sentence
    assert "__" not in sentence
    assert not (tmp_path / "run").exists()


def vocab(corpus: str, vocab_file: Path) -> list[str]:
    """The arguments that learn 60 entries."""
    return ["vocab", f"--gin.CORPUS={corpus!r}", f"--gin.VOCAB_FILE='{vocab_file}'", "--gin.VOCAB_SIZE=60"]


def test_a_vocabulary_that_is_there_is_left_alone(place: Path, tmp_path: Path, refused: Refused) -> None:
    learnt = tmp_path / "new" / "vocab.txt"
    assert cli.main(vocab(str(place / "text.txt"), learnt)) == 0
    content = learnt.read_bytes()
    assert len(content.splitlines()) == 60
    assert f"{learnt} exists" in refused(vocab(str(place / "text.txt"), learnt))
    assert learnt.read_bytes() == content
    # The trainer would make room for all of them, and abort.
    many = [*vocab(str(place / "text.txt"), tmp_path / "many" / "vocab.txt"), f"--gin.VOCAB_SIZE={2**63}"]
    assert f"VOCAB_SIZE (run_config.VocabularyRun.vocab_size) is {2**63}: it must be from 1 to 10000000" in refused(
        many
    )


def test_a_cache_of_another_vocabulary(place: Path, whole: Path, tmp_path: Path, refused: Refused) -> None:
    """As many words, in another order: no id would tell."""
    cache = next((place / "caches").glob("*/COMPLETED")).parent
    other = _vocabulary(tmp_path, [*SPECIAL, *reversed(WORDS)])
    sentence = refused(small_run(place, tmp_path / "run", CORPUS=str(cache), VOCAB_FILE=other))
    assert f"{cache} was tokenised with another vocabulary" in sentence


def test_undecodable_lines_are_skipped_when_asked(
    place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes((place / "text.txt").read_bytes() + b"\n\nba \xe9 be\nba be\n\xff\n")
    bindings = {
        "CORPUS": str(path),
        "VOCAB_FILE": str(place / "vocab.txt"),
        "CACHE_DIR": str(tmp_path),
        "SKIP_UNDECODABLE": True,
        "NUM_PROCESSES": 1,
    }
    assert cli.main(["cache", *(f"--gin.{name}={value!r}" for name, value in bindings.items())]) == 0
    assert "2 undecodable lines skipped" in capfd.readouterr().err


def test_vocabularies(place: Path, tmp_path: Path, refused: Refused) -> None:
    for tokens, said in (
        ([token for token in [*SPECIAL, *WORDS] if token != "[MASK]"], "[MASK]"),
        ([*SPECIAL, *WORDS[:-1], WORDS[0]], WORDS[0]),
    ):
        sentence = refused(small_run(place, tmp_path / "run", VOCAB_FILE=_vocabulary(tmp_path, tokens)))
        assert said in sentence
        assert "vocab.txt" in sentence
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"INIT_FROM": "nowhere"}, "nowhere is not a model directory: there is no such directory"),
        ({"VOCAB_FILE": "other"}, "was trained with another vocabulary than TOKENIZER: set "),
        ({"encoder.EncoderConfig.intermediate_size": 48}, "layers/intermediate/bias (2, 32) there, (2, 48) here"),
    ],
)
def test_weights_that_a_run_cannot_begin_with(
    place: Path, whole: Path, tmp_path: Path, refused: Refused, changes: dict[str, object], sentence: str
) -> None:
    if "VOCAB_FILE" in changes:
        changes = {"VOCAB_FILE": _vocabulary(tmp_path, [*SPECIAL, *reversed(WORDS)])}
    assert sentence in refused(small_run(place, tmp_path / "run", **{"INIT_FROM": str(whole)} | changes))
    assert not (tmp_path / "run").exists()


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    """A copy of the undisturbed run."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"encoder.EncoderConfig.intermediate_size": 48},
            "params/discriminator/encoder/layers/intermediate/bias (2, 32) there, (2, 48) here",
        ),
        ({"VOCAB_FILE": "other"}, "was trained with another vocabulary"),
        ({"MASKING": "task"}, "MASKING 'task' takes the masks of a MIXTURE_OR_TASK_NAME, and a corpus has none"),
        ({"PACKING": True}, "read blocks and this run reads packed blocks"),
        ({"CORPUS": "other"}, "read its data in another order (the text of CORPUS "),
        ({"SEED": 7}, "SEED 0 there, 7 here), and its place means nothing"),
        ({"BATCH_SIZE": 16}, "(BATCH_SIZE 8 there, 16 here), and its place means nothing"),
        ({"SEQUENCE_LENGTH": 16}, "SEQUENCE_LENGTH 32 there, 16 here), and its place means nothing"),
    ],
)
def test_a_directory_of_another_run(
    place: Path, tmp_path: Path, copied: Path, refused: Refused, changes: dict[str, object], sentence: str
) -> None:
    if "VOCAB_FILE" in changes:
        changes = {"VOCAB_FILE": _vocabulary(tmp_path, [*SPECIAL, *reversed(WORDS)])}
    if "CORPUS" in changes:
        # As many examples of the same lengths.
        other = (place / "text.txt").read_text().replace("ba ", "bi ")
        changes = {"CORPUS": str(_whole_record(tmp_path / "other.txt", other.encode()))}
    before = _content(copied)
    assert sentence in refused(small_run(place, copied, **STEPS, **changes))
    assert _content(copied) == before


def test_a_directory_in_use(place: Path, copied: Path, refused: Refused) -> None:
    tuning = [
        f"--gin.{name}='{value}'" for name, value in {"TASK": "cola", "INIT_FROM": copied, "DATA_DIR": "glue"}.items()
    ]
    before = _content(copied)
    with owned(copied, "electra pretrain"):
        for arguments in (small_run(place, copied, **STEPS), ["finetune", f"--gin.MODEL_DIR='{copied}'", *tuning]):
            assert f"{copied} is in use by `electra pretrain` (process {os.getpid()} on " in refused(arguments)
    assert _content(copied) == before


def test_a_corrupt_newest_checkpoint(place: Path, whole: Path, copied: Path) -> None:
    newest = copied / "checkpoints" / "40"
    largest = max(newest.rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    _truncated(largest, largest.read_bytes())
    done = electra(small_run(place, copied, **STEPS), place / "cache")
    assert done.returncode == 0, done
    assert f"checkpoint 40 in {copied / 'checkpoints'} is corrupt ({largest.relative_to(newest)}" in done.stderr
    assert "resuming from step 36" in done.stdout
    assert_same_arrays(arrays(copied, 40), arrays(whole, 40))
    assert reported_steps(copied) == list(range(1, 41))


def test_a_loss_that_is_not_finite(place: Path, whole: Path, copied: Path) -> None:
    shutil.rmtree(copied / "checkpoints" / "40")
    broken = electra(small_run(place, copied, **STEPS, LEARNING_RATE=1e30), place / "cache")
    assert broken.returncode == 2, broken
    (sentence,) = broken.stderr.splitlines()
    assert "not finite at step 38" in sentence
    assert "the last good checkpoint is step 36" in sentence
    assert checkpoint_steps(copied) == [36]
    done = electra(small_run(place, copied, **STEPS), place / "cache")
    assert done.returncode == 0, done
    assert_same_arrays(arrays(copied, 40), arrays(whole, 40))


def test_a_full_disk(place: Path, whole: Path, small_disk: Path) -> None:
    model_dir = small_disk / "run"
    arguments = small_run(place, model_dir, **(STEPS | {"KEEP": 20}))
    stopped = electra(arguments, place / "cache")
    assert stopped.returncode == 2, stopped
    (sentence,) = stopped.stderr.splitlines()
    kept = checkpoint_steps(model_dir)
    assert kept
    assert "No space left on device" in sentence
    assert f"the last good checkpoint is step {kept[-1]}" in sentence
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    done = electra(arguments, place / "cache")
    assert done.returncode == 0, done
    assert f"resuming from step {kept[-1]}" in done.stdout
    assert not unfinished_saves(model_dir)
    assert_same_arrays(arrays(model_dir, 40), arrays(whole, 40))
    assert reported_steps(model_dir) == list(range(1, 41))

"""A mixture of corpora from the command line: shares of the batches, epochs of each, a cache of each."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from electra_jax.commands import cache as cache_command
from electra_jax.config import data, gin_files
from electra_jax.config.pretraining import CacheRun, PretrainingRun
from electra_jax.errors import UserError
from electra_jax.tasks.pretraining import cache
from electra_jax.tasks.pretraining.cache_worker import run_job
from electra_jax.tasks.tokenizer import SPECIAL_TOKENS
from electra_jax.tasks.tokenizer_file import load_tokenizer

LETTERS = "abcdefghij"
CAPITALS = "klmnopqrst"


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache._Worker, "run", lambda worker, job: run_job(worker._setup, job))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, *LETTERS, *CAPITALS]) + "\n")
    draw = random.Random(0)
    for name, letters, documents in (("a.txt", LETTERS, 120), ("b.jsonl", CAPITALS, 40)):
        texts = [" ".join(draw.choices(letters, k=60)) for _ in range(documents)]
        lines = [json.dumps({"text": text}) if name == "b.jsonl" else f"{text}\n" for text in texts]
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    return tmp_path


def built(kind: type[Any], file: str, folder: Path, *more: str) -> Any:
    mixture = [(str(folder / "a.txt"), 3.0), (str(folder / "*.jsonl"), 1)]
    values = {
        "CORPUS": mixture,
        "TOKENIZER": str(folder / "vocab.txt"),
        "CACHE_DIR": str(folder / "c"),
        "SEQUENCE_LENGTH": 64,
        "HELD_OUT_FRACTION": 0.1,
        "NUM_PROCESSES": 1,
    }
    bindings = [f"{name}={value!r}" for name, value in values.items()]
    files = ["gin/models/tiny.gin", file] if kind is PretrainingRun else [file]
    return gin_files.build(kind, files, [*bindings, *more], search_paths=[])


def test_a_run_reads_each_part_in_its_share(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = len(SPECIAL_TOKENS) + 20
    more = [f"MODEL_DIR={str(folder / 'm')!r}", f"VOCAB_SIZE={size}", "BATCH_SIZE=32", "TRAIN_STEPS=64"]
    run = built(PretrainingRun, "gin/runs/pretrain.gin", folder, *more)
    vocabulary = load_tokenizer(str(folder / "vocab.txt"), lowercase=None)
    opened = data.open_data(run, vocabulary, process_index=0, process_count=1)
    assert opened.name == f"3 x {folder}/a.txt + 1 x {folder}/*.jsonl"
    assert opened.kind == "mixture of blocks"
    first_capital = len(SPECIAL_TOKENS) + 10
    of_b = sum((next(opened.train)["input_ids"][:, 1] >= first_capital).sum() for _ in range(32))
    assert of_b == 256  # of 1,024 rows
    held_out = [row for batch in opened.held_out() for row in batch["input_ids"][:, 1].tolist() if row]
    assert min(held_out) < first_capital <= max(held_out)
    said = capsys.readouterr().out
    examples = [int(line.split(" examples")[0].rsplit(" ", 1)[1]) for line in said.splitlines() if " epochs " in line]
    assert f"a.txt: 75.0% of the rows, {examples[0]} examples, {1536 / examples[0]:.2f} epochs in 64 steps" in said
    assert f"*.jsonl: 25.0% of the rows, {examples[1]} examples, {512 / examples[1]:.2f} epochs in 64 steps" in said
    # A share that is too small to be kept is not said to be.
    uneven = f"CORPUS={[(f'{folder}/a.txt', 1e4), (f'{folder}/b.jsonl', 1)]!r}"
    small = built(PretrainingRun, "gin/runs/pretrain.gin", folder, *more, uneven)
    data.open_data(small, vocabulary, process_index=0, process_count=1)
    said = capsys.readouterr().out
    assert f"a.txt: 99.9% of the rows, {examples[0]} examples" in said
    assert "b.jsonl: 0.1% of the rows (its weight says 0.0001, and no share is finer than 1 in 1,024), " in said
    other = data.open_data(
        built(PretrainingRun, "gin/runs/pretrain.gin", folder, *more, f"CORPUS={str(folder / 'a.txt')!r}"),
        vocabulary,
        process_index=0,
        process_count=1,
    )
    assert (other.kind, other.fingerprint == opened.fingerprint) == ("blocks", False)
    with pytest.raises(UserError, match=r"CORPUS is the mixture 3 x .* and SeqIO has its own"):
        data.register_corpus_tasks(run, vocabulary)


def test_a_cache_of_each_part(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = built(CacheRun, "gin/runs/cache.gin", folder, "DEDUPLICATE='exact'")
    cache_command.run(run)
    said = capsys.readouterr()
    paths = said.out.split()
    assert [path.rsplit("_", 2)[0].endswith(end) for path, end in zip(paths, ("a_txt", "jsonl"), strict=True)] == [
        True
    ] * 2
    assert "b.jsonl: JSON lines, which begins '" in said.err
    again = built(CacheRun, "gin/runs/cache.gin", folder, f"CORPUS=[({paths[0]!r}, 1.0), ({paths[1]!r}, 9.0)]")
    cache_command.run(again)
    assert capsys.readouterr().out.split() == paths
    with pytest.raises(UserError, match=r"is the mixture .*name one of its parts"):
        data.open_source(run.cache.source)


@pytest.mark.parametrize("corpus", [{"a.txt": 1.0}, 5])
def test_what_is_no_list(folder: Path, corpus: object) -> None:
    with pytest.raises(UserError, match=r"CORPUS .* is .*: it must be str \| list \| None"):
        built(CacheRun, "gin/runs/cache.gin", folder, f"CORPUS={corpus!r}")


@pytest.mark.parametrize("corpus", [[], [("a.txt", 0.0)], [("a.txt", 10**400)], [("a.txt",)], ["a.txt", "b.txt"]])
def test_what_is_no_mixture(folder: Path, corpus: object) -> None:
    with pytest.raises(
        UserError, match=r"CORPUS is .*must be a name, or a mixture of names with weights above 0, as in"
    ):
        built(CacheRun, "gin/runs/cache.gin", folder, f"CORPUS={corpus!r}")

"""Pre-training on a bare machine: like `electra pretrain`, though nothing from below the wall is to be had there."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import electra_jax
from bench import beside_published, pack_blocks, pretrain_small
from electra_jax.cli import main
from electra_jax.config import gin_files
from electra_jax.errors import PREEMPTED, UserError
from electra_jax.finetuning.start import of_checkpoint
from electra_jax.interchange import carried
from support.command_line import (
    SMALL,
    arrays,
    assert_same_arrays,
    electra,
    environment,
    finish,
    reported_steps,
    signal_when,
    write_small_text,
)

BELOW = ("tensorflow", "seqio", "gin", "orbax", "clu", "tokenizers", "etils", "tensorstore")
STEPS = 16
# The model of gin/models/tiny.gin; what is left of these is the published recipe.
RECIPE = {name: SMALL[name] for name in ("WARMUP_STEPS", "BATCH_SIZE", "VOCAB_SIZE", "HELD_OUT_FRACTION")}
OPTIONS = [
    "--model=tiny",
    f"--steps={STEPS}",
    f"--warmup_steps={RECIPE['WARMUP_STEPS']}",
    f"--batch_size={RECIPE['BATCH_SIZE']}",
    "--log_every=1",
    "--save_every=2",
    "--evaluate_every=3",
]
PROGRAM = f"""
import sys
class Refuse:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in {BELOW!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
from bench import pretrain_small
sys.exit(pretrain_small.main(sys.argv[1:]))
"""


class Runs(NamedTuple):
    """What both commands made of one cache."""

    folder: Path
    blocks: Path
    model_dir: Path
    out: Path
    printed: str


def bare(blocks: Path, out: Path, folder: Path) -> subprocess.Popen[str]:
    """The command on a machine that has two folders of the repository and only what the core needs, running."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(blocks), str(out), *OPTIONS],
        cwd=folder / "machine",
        env=environment(folder / "compiled"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Runs:
    folder = tmp_path_factory.mktemp("bare")
    write_small_text(folder)
    for name in ("electra_jax", "bench"):
        shutil.copytree(repository / name, folder / "machine" / name, ignore=shutil.ignore_patterns("__pycache__"))
    macros = RECIPE | {
        "CORPUS": str(folder / "text.txt"),
        "VOCAB_FILE": str(folder / "vocab.txt"),
        "CACHE_DIR": str(folder / "caches"),
        "MODEL_DIR": str(folder / "at_home"),
        "NUM_PROCESSES": 1,
        "TRAIN_STEPS": STEPS,
        "LOG_EVERY": 1,
        "EVALUATE_EVERY": 3,
        "SAVE_EVERY": 2,
    }
    files = ["--gin_file=gin/models/tiny.gin", "--gin_file=gin/runs/pretrain.gin"]
    bindings = [f"--gin.{name}={value!r}" for name, value in macros.items()]
    result = electra(["pretrain", *files, *bindings], folder / "compiled")
    assert result.returncode == 0, result.stderr
    (cache,) = (path for path in (folder / "caches").iterdir() if (path / "COMPLETED").exists())
    assert pack_blocks.main([str(cache), str(folder / "vocab.txt"), str(folder / "blocks")]) == 0
    result = finish(bare(folder / "blocks", folder / "out", folder))
    assert result.returncode == 0, result.stderr
    return Runs(folder, folder / "blocks", folder / "at_home", folder / "out", result.stdout)


def lines(directory: Path, split: str) -> list[dict[str, float]]:
    """A split's lines of metrics.jsonl, without what the clock says."""
    found = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    clocked = ("examples_per_second", "tokens_per_second", "data_wait_share", "seconds")
    return [{k: v for k, v in line.items() if k not in clocked} for line in found if line["split"] == split]


def test_a_bare_machine_trains_as_electra_pretrain_does(runs: Runs) -> None:
    """The whole state to the bit, though one loads Gin files, SeqIO and Orbax, and the other none of them."""
    assert_same_arrays(arrays(runs.model_dir, STEPS), carried.read(runs.out / "checkpoint.npz").arrays)
    for split in ("train", "validation"):
        assert lines(runs.out, split) == lines(runs.model_dir, split)
    assert f"step {STEPS}/{STEPS} validation | gen loss" in runs.printed


def test_killed_ended_and_gone_on_with_equals_undisturbed(runs: Runs, tmp_path: Path) -> None:
    out = tmp_path / "out"
    killed = bare(runs.blocks, out, runs.folder)
    signal_when(killed, signal.SIGKILL, lambda: len(reported_steps(out)) >= 3)
    finish(killed)
    assert killed.returncode == -signal.SIGKILL
    first = carried.read(out / "checkpoint.npz").facts["step"]
    assert 2 <= first < STEPS
    # Lines of steps that are run again are dropped by the process that runs them: more than these are its own.
    there = reported_steps(out)[-1]
    ended = bare(runs.blocks, out, runs.folder)
    signal_when(ended, signal.SIGTERM, lambda: reported_steps(out)[-1] > there)
    result = finish(ended)
    assert result.returncode == PREEMPTED, result.stderr
    second = carried.read(out / "checkpoint.npz").facts["step"]
    assert f"going on from step {first}" in result.stdout
    assert f"ended by SIGTERM at step {second}, saved" in result.stdout
    assert first < second < STEPS
    assert carried.read(out / "weights.npz").facts["step"] == second
    result = finish(bare(runs.blocks, out, runs.folder))
    assert result.returncode == 0, result.stderr
    before, after = (carried.read(folder / "checkpoint.npz") for folder in (runs.out, out))
    assert_same_arrays(before.arrays, after.arrays)
    assert before.facts == after.facts
    assert lines(out, "train") == lines(runs.out, "train")


def test_time_is_up_after_the_step_under_way() -> None:
    assert not pretrain_small.Until(math.inf).after_step()
    until = pretrain_small.Until(0.0)
    assert until.after_step()
    assert until.requested == "--hours"


def test_at_home_it_is_a_model_directory_like_any(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", str(runs.out), str(tmp_path / "whole")]) == 0
    assert f"with Adam's moments at step {STEPS}" in capsys.readouterr().out
    # All that `electra pretrain` goes on from, and what it would have had itself.
    assert_same_arrays(arrays(tmp_path / "whole", STEPS), arrays(runs.model_dir, STEPS))
    assert main(["import", str(runs.out / "weights.npz"), str(tmp_path / "weights")]) == 0
    assert "moments" in capsys.readouterr().err
    models = [electra_jax.load(path) for path in (runs.model_dir, tmp_path / "whole", tmp_path / "weights")]
    ids = np.arange(24).reshape(2, 12)
    logits = [model.logits(ids) for model in models]
    assert np.ptp(logits[0]) > 0
    for model, found in zip(models, logits, strict=True):
        np.testing.assert_array_equal(found, logits[0])
        assert model.vocabulary == models[0].vocabulary
    started = of_checkpoint(str(tmp_path / "weights"), None, None)
    assert started.vocabulary == models[0].vocabulary
    assert started.encoder.hidden_size == models[0].description.encoder.hidden_size


def refused(capsys: pytest.CaptureFixture[str], blocks: Path, out: Path, *more: str) -> str:
    """What the command says, which must be one sentence with exit code 2."""
    capsys.readouterr()
    assert pretrain_small.main([str(blocks), str(out), *OPTIONS, *more]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    return sentence


def test_bad_input_is_refused_in_a_sentence_and_nothing_is_lost(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "holds no blocks to train on" in refused(capsys, tmp_path / "nothing", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert "fewer than a batch" in refused(capsys, runs.blocks, tmp_path / "out", "--batch_size=100000")
    assert "more than the sequence length" in refused(capsys, runs.blocks, tmp_path / "out", "--sequence_length=16")
    held = carried.read(runs.out / "checkpoint.npz")
    name = "params/discriminator/head/dense/kernel"
    changes = {
        "of other sizes": (held.arrays | {name: held.arrays[name][:, 1:]}, held.facts),
        f"{name} missing there": ({path: held.arrays[path] for path in held.arrays if path != name}, held.facts),
        "other blocks": (held.arrays, held.facts | {"data": {"examples": 1, "tokens": 1}}),
        "another vocabulary": (held.arrays, held.facts | {"vocabulary": {}}),
    }
    path = tmp_path / "out" / "checkpoint.npz"
    path.parent.mkdir()
    for words, (changed, facts) in changes.items():
        carried.write(path, carried.unnamed(changed), facts)
        before = path.read_bytes()
        assert words in refused(capsys, runs.blocks, tmp_path / "out")
        assert path.read_bytes() == before
    # A bit of a whole file.
    whole = bytearray((runs.out / "checkpoint.npz").read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)
    assert "not a whole file" in refused(capsys, runs.blocks, tmp_path / "out")
    assert main(["import", str(path), str(tmp_path / "model")]) == 2
    assert "not a whole file" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_blocks_are_packed_whole_or_not_at_all(runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vocabulary = str(runs.folder / "vocab.txt")
    for cache, dest, words in (
        (tmp_path, tmp_path / "blocks", "not a finished SeqIO cache"),
        (tmp_path, runs.blocks, "exists"),
    ):
        there = dest.exists()
        assert pack_blocks.main([str(cache), vocabulary, str(dest)]) == 2
        assert words in capsys.readouterr().err
        assert dest.exists() == there


def test_a_full_disk_leaves_the_file_before(small_disk: Path) -> None:
    path = small_disk / "checkpoint.npz"
    carried.write(path, {"a": np.arange(3)}, {"step": 1})
    with pytest.raises(UserError, match="free the disk"):
        carried.write(path, {"a": np.zeros(1_000_000)}, {"step": 2})
    assert carried.read(path).facts["step"] == 1
    assert [file.name for file in small_disk.iterdir()] == ["checkpoint.npz"]


def test_a_tree_stands_under_its_whole_name() -> None:
    arrays = {"params/a/b": np.arange(2), "params2/c": np.arange(3), "params": np.arange(4)}
    tree = carried.below(arrays, "params")
    assert list(carried.named(tree)) == ["a/b"]
    assert tree["a"]["b"].shape == (2,)


def test_the_script_of_fine_tuning_gives_commands_that_can_be_run(runs: Runs, tmp_path: Path) -> None:
    stub = tmp_path / "python"
    stub.write_text(f'#!/bin/sh\nprintf "%s\\t" "$@" >>"{tmp_path}/said"\necho >>"{tmp_path}/said"\n')
    stub.chmod(0o755)
    command = ["bench/finetune_small.sh", str(runs.model_dir), "data", str(tmp_path / "runs"), "--gin.NUM_SEEDS=1"]
    subprocess.run(command, env=os.environ | {"PYTHON": str(stub)}, check=True, capture_output=True)
    said = [line.split("\t")[:-1] for line in (tmp_path / "said").read_text().splitlines()]
    assert said[-1][:2] == ["-m", "bench.beside_published"]
    tasks = {}
    for line in said:
        if line[2] == "finetune":
            bindings = [word.removeprefix("--gin.") for word in line if word.startswith("--gin.")]
            with gin_files.isolated():
                name, files = "finetuning.FinetuningRun", ["gin/runs/finetune.gin"]
                run = gin_files.build(name, files, bindings, search_paths=[])
                rate = run.optimizer(num_train_steps=10, num_warmup_steps=1.0).learning_rate
            assert (run.num_seeds, rate) == (1, 3e-4)
            tasks[run.task.task] = run.model_dir
    assert list(tasks) == ["cola", "sst2", "mrpc", "stsb", "rte", "chunk", "squad_v1", "squad_v2"]
    assert len(set(tasks.values())) == len(tasks)


def test_scores_stand_beside_the_published(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = {"matthews": {"median": 12.34, "mean": 12.0, "std": 1.5, "best": 14.0, "n": 3}}
    results = {"task": "cola", "main_metric": "matthews", "summary": summary}
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert beside_published.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "| cola | matthews | 12.3 | 1.5 | 3 | 56.8 |"
    assert beside_published.main([str(tmp_path), str(tmp_path / "other")]) == 2
    assert "other has no results.json" in capsys.readouterr().err

"""Pre-training on a bare machine: like `electra pretrain`, though nothing from below the wall is to be had there."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import electra_jax
from bench import pack_blocks, pretrain_small
from electra_jax import carried
from electra_jax.cli import main
from tests.commands import (
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
STEPS = 6
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


def bare(blocks: Path, out: Path, folder: Path, *more: str) -> subprocess.Popen[str]:
    """The command on a machine where only the core is installed, running."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(blocks), str(out), *OPTIONS, *more],
        env=environment(folder / "compiled"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("bare")
    write_small_text(folder)
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


def test_killed_and_gone_on_with_equals_undisturbed(runs: Runs, tmp_path: Path) -> None:
    killed = bare(runs.blocks, tmp_path / "out", runs.folder)
    signal_when(killed, signal.SIGKILL, lambda: len(reported_steps(tmp_path / "out")) >= 3)
    finish(killed)
    assert killed.returncode == -signal.SIGKILL
    held = carried.read(tmp_path / "out" / "checkpoint.npz").facts
    assert held["step"] in (2, 4)
    assert not (tmp_path / "out" / "weights.npz").exists()
    result = finish(bare(runs.blocks, tmp_path / "out", runs.folder))
    assert result.returncode == 0, result.stderr
    assert f"going on from step {held['step']}" in result.stdout
    before, after = (carried.read(folder / "checkpoint.npz") for folder in (runs.out, tmp_path / "out"))
    assert_same_arrays(before.arrays, after.arrays)
    assert before.facts == after.facts
    assert reported_steps(tmp_path / "out") == list(range(1, STEPS + 1))

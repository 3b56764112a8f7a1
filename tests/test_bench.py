"""What the benchmarks rest on; nothing here times anything."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench import models, timing
from bench.pretrain_step import synthetic_blocks
from electra_jax import gin_config

UNNEEDED = ['MODEL_DIR = ""', 'VOCAB_FILE = ""']


@pytest.mark.parametrize("name", models.SIZES)
def test_recipes_are_those_of_the_gin_files(name: str) -> None:
    files = [f"gin/models/{name}.gin", "gin/runs/pretrain.gin"]
    run = gin_config.build("PretrainingRun", files, UNNEEDED, search_paths=[])
    recipe = models.recipe(name, dtype="float32")
    assert recipe.model == run.model
    assert recipe.objective == run.objective
    masking = run.masking_config(cls_id=models.CLS_ID, sep_id=models.SEP_ID, mask_id=models.MASK_ID)
    assert recipe.masking == masking
    short = recipe.optimizer.num_warmup_steps
    assert recipe.optimizer == dataclasses.replace(run.optimizer, num_warmup_steps=short)


def test_dtype_is_the_models() -> None:
    model = models.recipe("tiny", dtype="bfloat16").model
    assert (model.generator_config.dtype, model.discriminator_config.dtype) == ("bfloat16", "bfloat16")


@pytest.mark.parametrize("length", [8, 128])
def test_synthetic_examples_are_whole_and_legal(length: int) -> None:
    vocab_size = 30522
    batch = synthetic_blocks(200, length, vocab_size, seed=3).gather(np.arange(200), length)
    ids_BL = batch["input_ids"]
    assert batch["attention_mask"].all()
    assert (ids_BL[:, 0] == models.CLS_ID).all()
    assert (ids_BL[:, -1] == models.SEP_ID).all()
    assert ((ids_BL == models.SEP_ID).sum(axis=1) == 2).all()
    # Segment B starts behind the [SEP] of segment A.
    first_sep_B = (ids_BL == models.SEP_ID).argmax(axis=1)
    np.testing.assert_array_equal(batch["token_type_ids"].argmax(axis=1), first_sep_B + 1)
    words = ids_BL[~np.isin(ids_BL, [models.CLS_ID, models.SEP_ID])]
    assert words.min() > models.MASK_ID
    assert words.max() < vocab_size
    # As 1 / rank: as many tokens have ids of a quarter of the logarithmic range as of any other.
    share = np.mean(words < models.MASK_ID * (vocab_size / models.MASK_ID) ** 0.5)
    assert share == pytest.approx(0.5, abs=0.05)


def test_synthetic_examples_repeat_by_seed() -> None:
    one, same, other = (synthetic_blocks(4, 16, 500, seed=seed).tokens for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_spread() -> None:
    assert timing.spread([9.0, 1.0, 2.0, 4.0, 3.0]) == timing.Spread(5, 3.0, 1.0, 9.0, 2.0, 4.0)


def test_cpu_time_counts_the_children() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    elapsed = timing.stopwatch(lambda: subprocess.run([sys.executable, "-c", burn], check=True))
    assert elapsed.cpu >= 0.3


def test_the_step_runs_and_learns_without_anything_from_below_the_wall(repository: Path) -> None:
    program = """
import runpy, sys
class Refuse:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in {"tensorflow", "seqio", "gin", "orbax", "clu", "tokenizers"}:
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
sys.argv = ["pretrain_step", "--model=tiny", "--batch_size=4", "--sequence_length=16", "--steps=10"]
runpy.run_module("bench.pretrain_step", run_name="__main__")
"""
    result = subprocess.run([sys.executable, "-c", program], cwd=repository, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    words = result.stdout.splitlines()[-1].split()
    first, last = float(words[1]), float(words[6])
    assert words[-1] == "13"
    assert 0 < last < first
    assert "quartiles" in result.stdout
    assert "matrix FLOPs" in result.stdout

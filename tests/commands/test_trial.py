"""`electra inspect --trial`: what a step takes of a device, how long a run is, and what to set where it is too much."""

import dataclasses
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from electra_jax import cli
from electra_jax.commands import trial
from electra_jax.config import gin_files
from electra_jax.config.pretraining import PretrainingRun
from electra_jax.tasks.pretraining import cache
from electra_jax.tasks.pretraining.cache_worker import run_job
from electra_jax.training import sharding
from support.command_line import WORDS
from support.hf_models import SUBSET

FILES = ["gin/models/tiny.gin", "gin/runs/pretrain.gin"]
SMALL = {
    "BATCH_SIZE": 16,
    "SEQUENCE_LENGTH": 32,
    "TRAIN_STEPS": 1000,
    "WARMUP_STEPS": 10,
    "VOCAB_SIZE": 5 + len(WORDS),
    "encoder.EncoderConfig.num_hidden_layers": 1,
    "encoder.EncoderConfig.scan_unroll": 1,
}


def inspect(*, trial: bool = True, **macros: object) -> int:
    bindings = [f"--gin.{name}={value!r}" for name, value in (SMALL | macros).items()]
    return cli.main(["inspect", *(f"--gin_file={file}" for file in FILES), *["--trial"] * trial, *bindings])


def configured(**macros: object) -> PretrainingRun:
    values = SMALL | {"MODEL_DIR": "unread", "TOKENIZER": "unneeded"} | macros
    bindings = [f"{name}={value!r}" for name, value in values.items()]
    with gin_files.isolated():
        return gin_files.build(PretrainingRun, FILES, bindings, search_paths=[])


def test_a_trial_measures_and_says_what_fits(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache._Worker, "run", lambda worker, job: run_job(worker._setup, job))
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    (tmp_path / "text.txt").write_text("\n\n".join(" ".join(WORDS) for _ in range(40)))
    files = {"CORPUS": str(tmp_path / "text.txt"), "TOKENIZER": str(tmp_path / "vocab.txt")}
    where = {"CACHE_DIR": str(tmp_path / "c"), "HELD_OUT_FRACTION": 0.0, "NUM_PROCESSES": 1, "SEQUENCE_LENGTH": 32}
    cached = [f"--gin.{name}={value!r}" for name, value in (files | where).items()]
    assert cli.main(["cache", *cached]) == 0
    capfd.readouterr()
    assert inspect(**files, **where) == 0
    said = capfd.readouterr().out
    assert "trial: 2 steps on 8 of this machine's devices (cpu), compiled in " in said
    held, working, there = map(
        float,
        re.search(
            r"memory of a device: [\d.]+ of ([\d.,]+) GB: fits \(parameters, optimizer and batch ([\d.]+), gradients "
            r"and activations ([\d.]+)\); 2 rows at once, and there is room for about [\d,]+",
            said,
        ).group(2, 3, 1),
    )
    assert 0 <= held <= working < there
    seconds, rate = re.search(r"time of a step: ([\d.e-]+) s, ([\d,]+) examples/s", said).groups()
    assert float(rate.replace(",", "")) == pytest.approx(16 / float(seconds), rel=0.05)
    assert "the run: 1,000 steps in about " in said
    # Forty documents of one row each.
    rows = int(
        re.search(r"text of the run: 16,000 rows, 512,000 tokens with padding; ([\d,.]+) epochs of", said)[1][:-3]
    )
    (made,) = (path.parent for path in (tmp_path / "c").glob("*/COMPLETED"))
    assert rows == 16_000 // len(np.load(made / "train.blocks/example_ids.npy"))


def test_a_model_has_the_tokenizer_with_which_epochs_are_counted(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command as that of the run, `electra pretrain --gin.INIT_FROM=... --gin.CORPUS=...`, names none."""
    monkeypatch.setattr(cache._Worker, "run", lambda worker, job: run_job(worker._setup, job))
    model = tmp_path / "model"
    assert cli.main(["import", str(SUBSET / "pretraining"), str(model)]) == 0
    size = int(re.search(r"^VOCAB_SIZE = (\d+)$", (model / "config.gin").read_text(), re.MULTILINE)[1])
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS[:20]]
    tokens += [f"[unused{number}]" for number in range(size - len(tokens))]
    (model / "vocab.txt").write_text("\n".join(tokens) + "\n")
    (tmp_path / "text.txt").write_text("\n\n".join(" ".join(WORDS[:20]) for _ in range(40)))
    text = {"CACHE_DIR": str(tmp_path / "c"), "NUM_PROCESSES": 1, "SEQUENCE_LENGTH": 12, "HELD_OUT_FRACTION": 0.0}
    text["CORPUS"] = str(tmp_path / "text.txt")
    cached = text | {"TOKENIZER": str(model / "vocab.txt")}
    assert cli.main(["cache", *(f"--gin.{name}={value!r}" for name, value in cached.items())]) == 0
    where = [f"--gin.INIT_FROM={str(model)!r}", f"--gin.MODEL_DIR={str(tmp_path / 'run')!r}", "--gin.BATCH_SIZE=8"]
    capfd.readouterr()
    for corpus, said in (
        ("text.txt", r"tokens with padding; [\d,.]+ epochs of "),
        ("gone.txt", "cannot be told: .*gone"),
    ):
        named = text | {"CORPUS": str(tmp_path / corpus)}
        assert cli.main(["inspect", *where, *(f"--gin.{name}={value!r}" for name, value in named.items())]) == 0
        printed = " ".join(capfd.readouterr().out.split())
        assert re.search(said, printed), printed[-600:]


def test_without_it_nothing_runs(capfd: pytest.CaptureFixture[str]) -> None:
    assert inspect(trial=False) == 0
    said = capfd.readouterr().out
    assert "memory of a device" not in said
    # What can be said without a step is said: the text that the run reads.
    assert "text of the run: 16,000 rows, 512,000 tokens with padding; name CORPUS, and TOKENIZER, to learn how" in said


def test_the_bytes_are_those_of_the_state_and_the_batch() -> None:
    run = configured()
    mesh = sharding.make_mesh(run.mesh, len(jax.devices()))
    state = sharding.abstract(run.setup(trial.StandIn(1, 2, 3, [])).init, jax.random.key(0), mesh, run.mesh)
    compiled = jax.jit(lambda state, batch: (state, batch["input_ids"].sum()), donate_argnums=0).lower(
        state, {name: jax.ShapeDtypeStruct(rows.shape, rows.dtype) for name, rows in trial.batch_of(run).items()}
    )
    memory = trial.memory_of(compiled.compile(), mesh)
    of_state = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    assert abs(memory.held - (of_state + 16 * 32 * 4)) <= 2 * 16 * 32 * 4
    # The state that comes out is in the place of the one that went in.
    assert memory.working < of_state / 2
    assert 10**8 < memory.there < 10**13


def test_what_does_not_fit_is_made_smaller() -> None:
    run = configured(BATCH_SIZE=1024, ACCUMULATION_STEPS=2)
    mesh = sharding.make_mesh(run.mesh, len(jax.devices()))
    # 64 rows at once take 6.4 GB beside 1 GB; 90 % of 3 GB leave 1.7 GB, for 17 rows, of which 16 divide 64.
    memory = trial.Memory(held=10**9, working=64 * 10**8, there=3 * 10**9)
    line = trial.memory_line(run, memory, mesh)
    assert "memory of a device: 7.40 of 3.00 GB: DOES NOT FIT" in line
    assert "set ACCUMULATION_STEPS to 8, for 16 rows at once instead of 64" in line
    sharding.check_batch(1024, 8, mesh)
    larger = memory._replace(there=10**10)
    assert "fits (" in (line := trial.memory_line(run, larger, mesh))
    assert line.endswith("64 rows at once, and there is room for about 80")
    none = memory._replace(there=10**9)
    assert "not a row does: set REMAT_POLICY to 'full'" in trial.memory_line(run, none, mesh)
    unknown = memory._replace(there=None)
    assert unknown.fits
    assert "does not say how much it has" in trial.memory_line(run, unknown, mesh)


def test_times_are_read_at_a_glance() -> None:
    words = {0.25: "0.2 s", 59: "59.0 s", 61: "1 min 1 s", 3_600: "1 h 0 min", 90_061: "1 d 1 h", 864_000: "10 d 0 h"}
    assert {seconds: trial.duration(seconds) for seconds in words} == words


def test_batches_have_what_the_run_reads() -> None:
    packed = trial.batch_of(configured(PACKING=True))
    assert packed["example_ids"].shape == packed["input_ids"].shape == (16, 32)
    masked = trial.batch_of(dataclasses.replace(configured(), masking="task"))
    slots = configured().max_predictions(32)
    assert masked["masked_ids"].shape == masked["masked_positions"].shape == (16, slots)
    assert masked["input_ids"].max() < SMALL["VOCAB_SIZE"]

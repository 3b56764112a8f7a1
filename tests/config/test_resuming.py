"""What a resumed run is compared with: where its checkpoint stands in the data, and how it was configured."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from electra_jax.config import gin_files
from electra_jax.config.data import PretrainingData
from electra_jax.config.pretraining import PretrainingRun
from electra_jax.config.resuming import changes_since_the_last_start, data_state, differences, resume_data
from electra_jax.data.batches import BlockBatches
from electra_jax.data.blocks import TokenBlocks
from electra_jax.errors import UserError
from electra_jax.tasks.vocabulary import Vocabulary
from support.finetuned_model import TOKENS
from support.tiny_model import OBJECTIVE

BLOCKS = TokenBlocks(np.arange(800, dtype=np.uint16), np.arange(101) * 8, np.full(100, 3), 800)


def configured(model_dir: Path, **macros: Any) -> PretrainingRun:
    bound = {"MODEL_DIR": str(model_dir), "CORPUS": "embedded", "TOKENIZER": "vocab.txt", **macros}
    files = ["gin/models/tiny.gin", "gin/runs/pretrain.gin"]
    bindings = [f"{name}={value!r}" for name, value in bound.items()]
    return gin_files.build(PretrainingRun, files, bindings, search_paths=[])


def data(text: str = "a text") -> PretrainingData:
    batches = BlockBatches(BLOCKS, batch_size=4, sequence_length=8, seed=0, process_index=0, process_count=1)
    return PretrainingData("mine", "blocks", text, batches, lambda: iter(()), Vocabulary(TOKENS, True, True), None)


def test_a_place_is_resumed_in_the_same_data_alone(tmp_path: Path) -> None:
    run = configured(tmp_path)
    held = data_state(run, {"examples": 12, "step": 3}, data())
    resumed = data()
    resume_data(run, resumed, held, step=3)
    assert resumed.train.state() == {"examples": 12, "step": 3}
    # Checkpoints of earlier versions do not say in which order their data was read.
    resume_data(run, data("another"), {name: value for name, value in held.items() if name != "order"}, step=3)
    with pytest.raises(UserError) as refused:
        resume_data(configured(tmp_path, SEED=1, BATCH_SIZE=64), data("another"), held, step=3)
    assert str(refused.value) == (
        f"the checkpoint of step 3 in {tmp_path} read its data in another order (the text of CORPUS a text there, "
        "another here; BATCH_SIZE 128 there, 64 here; SEED 0 there, 1 here), and its place means nothing in this one: "
        "give what it was started with, or start again in another MODEL_DIR, with "
        f"--gin.INIT_FROM='\"{tmp_path}\"' to take its weights along"
    )


def test_text_is_known_by_its_examples() -> None:
    """Not by its file: a cache may be moved."""
    other = np.where(BLOCKS.tokens == 7, 8, BLOCKS.tokens).astype(np.uint16)
    changed = [
        dataclasses.replace(BLOCKS, tokens=other),
        dataclasses.replace(BLOCKS, second_starts=np.full(100, 4)),
        TokenBlocks(BLOCKS.tokens, BLOCKS.offsets[:-1], BLOCKS.second_starts[:-1], 800),
    ]
    assert len({BLOCKS.checksum(), *(blocks.checksum() for blocks in changed)}) == 4
    wider = dataclasses.replace(BLOCKS, tokens=BLOCKS.tokens.astype(np.uint32))
    assert wider.checksum() == BLOCKS.checksum()
    empty = TokenBlocks(np.zeros(0, np.uint16), np.zeros(1, np.int64), np.zeros(0, np.int64), 1)
    assert empty.checksum() != BLOCKS.checksum()


def test_settings_that_differ_are_named_as_users_name_them(tmp_path: Path) -> None:
    last = configured(tmp_path)
    now = configured(tmp_path, BATCH_SIZE=64, DTYPE="bfloat16")
    now = dataclasses.replace(now, objective=dataclasses.replace(OBJECTIVE, disc_weight=25.0), num_passages=3)
    assert differences(last, now, gin_files.macro_names()) == {
        "BATCH_SIZE": ("128", "64"),
        "DTYPE": ("'float32'", "'bfloat16'"),
        "ReplacedTokenDetection.disc_weight": ("50.0", "25.0"),
        "PretrainingRun.num_passages": ("12", "3"),
    }
    assert differences(last, configured(tmp_path), {}) == {}


def test_the_last_start_is_read_from_its_record(tmp_path: Path) -> None:
    configured(tmp_path / "before it was moved")
    (tmp_path / "config.gin").write_text(gin_files.resolved())
    assert changes_since_the_last_start(configured(tmp_path), 100) == []
    # Warm-up has 10,000 steps.
    assert changes_since_the_last_start(configured(tmp_path, LEARNING_RATE=1e-3), 1000) == [
        "changed since the last start: LEARNING_RATE 0.0005 -> 0.001",
        "the learning rate of the next update goes from 4.995e-05 to 9.99e-05",
    ]
    (tmp_path / "config.gin").write_text("from mine import task\n")
    (line,) = changes_since_the_last_start(configured(tmp_path), 100)
    assert line.startswith("the settings of the last start cannot be compared: ")

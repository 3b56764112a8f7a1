"""A comparison of two objectives on two tasks, with a model of nothing: what tests of `electra compare` share."""

from pathlib import Path
from typing import Any

import pytest

from electra_jax.cli import main
from electra_jax.compare.plan import Plan, make_plan
from electra_jax.config import gin_files
from electra_jax.config.comparison import ComparisonRun

SIZES = (
    "VOCAB_SIZE = 100",
    "BATCH_SIZE = 8",
    "SEQUENCE_LENGTH = 32",
    *(
        f"encoder.EncoderConfig.{name} = {value}"
        for name, value in {
            "hidden_size": 16,
            "embedding_size": 16,
            "num_hidden_layers": 2,
            "intermediate_size": 32,
            "max_position_embeddings": 32,
        }.items()
    ),
)
# Of one step on 8 x 32 tokens, of which 32 are masked: three times the forward pass, worked out by hand.
ENCODER = 2 * 8 * 32 * 2 * (4 * 16 * 16 + 2 * 16 * 32 + 2 * 32 * 16)
MLM_STEP = 3 * (ENCODER + 2 * 32 * 16 * (16 + 100))
# The generator is of width 4, feed-forward 16; its embeddings of 16 are projected.
GENERATOR = 2 * 8 * 32 * (2 * (4 * 4 * 4 + 2 * 4 * 16 + 2 * 32 * 4) + 16 * 4) + 2 * 32 * 16 * (4 + 100)
ELECTRA_STEP = 3 * (ENCODER + 2 * 8 * 32 * (16 * 16 + 16) + GENERATOR)
MACROS = {
    "CORPUS": "text.txt",
    "VOCAB_FILE": "vocab.txt",
    "FLOPS": 1e9,
    "FRACTIONS": (0.2, 0.5, 1.0),
    "VARIANTS": [("electra", "gin/objectives/electra.gin"), ("mlm", "gin/objectives/mlm.gin", "LEARNING_RATE = 2e-3")],
    "TASKS": [("rte", "EPOCHS = 2"), ("mine", "TASK = 'sst2'")],
    "WARMUP_FRACTION": 0.1,
    "PRETRAINING": ("gin/models/tiny.gin", "gin/runs/pretrain.gin", *SIZES),
}


def arguments(folder: Path, **macros: Any) -> list[str]:
    """Of `electra compare`."""
    given = {"MODEL_DIR": str(folder)} | MACROS | macros
    return ["compare", *(f"--gin.{name}={value!r}" for name, value in given.items())]


def configured(folder: Path, **macros: Any) -> ComparisonRun:
    bindings = [argument.removeprefix("--gin.") for argument in arguments(folder, **macros)[1:]]
    return gin_files.build(ComparisonRun, ["gin/runs/compare.gin"], bindings, search_paths=[])


def plan_of_macros() -> tuple[ComparisonRun, Plan]:
    """Of `MACROS`, in a folder that is not there."""
    run = configured(Path("runs/it"))
    return run, make_plan(run, {})


def refusal(capsys: pytest.CaptureFixture[str], folder: Path, **macros: Any) -> str:
    """The one sentence that the command line ends with; nothing was begun."""
    assert main(arguments(folder, **macros)) == 2
    said = capsys.readouterr()
    assert "begun" not in said.out
    (sentence,) = said.err.splitlines()
    return sentence.removeprefix("electra: ")

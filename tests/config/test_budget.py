"""The FLOPs of runs whose batches grow, in hand-worked numbers of steps."""

import dataclasses
from pathlib import Path

import pytest

from electra_jax.config import gin_files
from electra_jax.config.budget import flops_of, mean_step_flops, steps_within
from electra_jax.config.pretraining import PretrainingRun
from electra_jax.data.batch_shapes import BatchShape
from electra_jax.errors import UserError

FILES = ["gin/models/tiny.gin", "gin/runs/pretrain.gin", "gin/objectives/mlm.gin"]
WARMUPS = ["BATCH_SIZE_WARMUP=((0.1, 64), (0.2, 96))", "SEQUENCE_LENGTH_WARMUP=((0.2, 32),)"]


def run(*bindings: str) -> PretrainingRun:
    bindings = ("MODEL_DIR='run'", "VOCAB_FILE=''", "TRAIN_STEPS=1000", *bindings)
    return gin_files.build(PretrainingRun, FILES, list(bindings), search_paths=[])


def test_a_run_of_three_stages() -> None:
    growing = run(*WARMUPS)
    small, middle, full = (growing.step_flops(BatchShape(*sizes)) for sizes in ((64, 32), (96, 32), (128, 128)))
    assert 2 * middle == 3 * small
    assert full > 5 * middle
    assert flops_of(growing, 50) == 50 * small
    assert flops_of(growing, 150) == 100 * small + 50 * middle
    whole = 100 * small + 100 * middle + 800 * full
    assert flops_of(growing, 1000) == whole
    assert flops_of(growing, 1003) == whole + 3 * full
    assert mean_step_flops(growing) == pytest.approx(whole / 1000)
    for steps in (1, 99, 100, 101, 150, 200, 201, 999, 1000):
        assert steps_within(growing, flops_of(growing, steps)) == steps
    assert steps_within(growing, flops_of(growing, 300) + 0.4 * full) == 300


def test_steps_of_one_shape_all_cost_the_same() -> None:
    plain = run()
    cost = plain.step_flops(BatchShape(128, 128))
    assert (mean_step_flops(plain), flops_of(plain, 7), steps_within(plain, 7.6 * cost)) == (cost, 7 * cost, 8)


def test_a_mask_rate_that_falls_is_counted_with_its_most_positions() -> None:
    """The program computes the logits of all slots, used or not."""
    falling, constant = run("MASK_PROB=((0.0, 0.3), (1.0, 0.15))"), run("MASK_PROB=0.3")
    assert falling.max_predictions(128) == constant.max_predictions(128) == 39
    assert mean_step_flops(falling) == mean_step_flops(constant)


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("MASK_PROB=((0.0, 0.3), (1.0, 1.5))", "MASK_PROB has the value 1.5: it must be above 0 and under 1"),
        ("MASK_PROB=((0.0, 0.3), (500, 0.15))", "MASK_PROB has points at the shares"),
        ("BATCH_SIZE_WARMUP=((0.1, 256),)", "the sizes up to BATCH_SIZE must increase"),
        ("SEQUENCE_LENGTH_WARMUP=((100, 32),)", "the shares of the steps must increase"),
    ],
)
def test_schedules_that_make_no_sense(binding: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(binding)


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        ([WARMUPS[0]], "BATCH_SIZE_WARMUP and SEQUENCE_LENGTH_WARMUP are for a CORPUS"),
        (["MASKING='task'", "MASK_PROB=((0.0, 0.3), (1.0, 0.15))"], "the masks of a task have one rate"),
    ],
)
def test_a_stream_has_batches_of_one_shape_and_masks_of_one_rate(bindings: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run("MIXTURE_OR_TASK_NAME='mine'", *bindings)


def test_a_branch_keeps_the_stages_of_its_trunk() -> None:
    """With SCHEDULE_STEPS of the trunk, other TRAIN_STEPS move the learning rate's decay and nothing else."""
    trunk = run(*WARMUPS)
    branch = run(*WARMUPS, "TRAIN_STEPS=400", "SCHEDULE_STEPS=1000", "LR_DECAY_SHARE=0.25")
    assert branch.batch_shapes == trunk.batch_shapes
    assert branch.loop == dataclasses.replace(trunk.loop, num_train_steps=400)


def test_shipped_runs_have_one_shape() -> None:
    for path in sorted((Path(__file__).parents[2] / "gin" / "runs").glob("*.gin")):
        if path.stem in ("small", "base", "large", "demo"):
            built = gin_files.build(
                PretrainingRun,
                [f"gin/runs/{path.name}"],
                ["MODEL_DIR='run'", "VOCAB_FILE=''"],
                search_paths=[],
            )
            assert not built.batch_shapes.changes

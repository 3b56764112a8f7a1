"""Several steps launched as one program: bit for bit what they are one by one, also after a resume."""

import functools
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from electra_jax.checkpoints.orbax_store import Checkpoints
from electra_jax.pretraining import metrics, steps
from electra_jax.pretraining.steps import TrainState
from electra_jax.training import sharding
from electra_jax.training.loop import LoopConfig, train
from electra_jax.training.optimizer import make_optimizer
from electra_jax.training.stop import Stop
from support.recorder import TIMED, Recorder
from support.tiny_model import MASKING, OBJECTIVE, ONE_AXIS, optimizer_config, random_batch, small_model

MODEL, OPTIMIZER = small_model(dropout=0.1), make_optimizer(optimizer_config())
MESH = sharding.make_mesh(ONE_AXIS, len(jax.devices()))
INIT = functools.partial(steps.init_state, model=MODEL, optimizer=OPTIMIZER, sequence_length=16)
UPDATE = functools.partial(
    steps.pretrain_step,
    model=MODEL,
    objective=OBJECTIVE,
    masking=MASKING,
    optimizer=OPTIMIZER,
    accumulation_steps=1,
)


@functools.cache
def jitted() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """One step, and several; compiled once for all tests."""
    abstract = sharding.abstract(INIT, jax.random.key(0), MESH, ONE_AXIS)
    return tuple(make(UPDATE, abstract, MESH, ONE_AXIS) for make in (sharding.jit_update, sharding.jit_updates))


class After(Stop):
    """Asks to stop after so many dispatches."""

    def __init__(self, dispatches: float) -> None:
        super().__init__()
        self._left = dispatches

    def after_step(self) -> bool:
        self._left -= 1
        return self._left <= 0


def run(model_dir: Path, *, together: int, dispatches: float = float("inf")) -> tuple[TrainState, Recorder, int]:
    """Trains up to step 6, from the last checkpoint if there is one."""
    checkpoints, recorder = Checkpoints(model_dir, keep=3), Recorder()
    key = jax.random.key(0)
    restored = checkpoints.restore(sharding.abstract(INIT, key, MESH, ONE_AXIS))
    start = 0 if restored is None else restored.step
    state = sharding.initialise(INIT, key, MESH, ONE_AXIS) if restored is None else restored.state

    def batches() -> Iterator[dict[str, np.ndarray]]:
        for number in itertools.count(start):
            yield random_batch(8, 16, seed=number)

    step, several = jitted()
    state, reached = train(
        state,
        start_step=start,
        step=step,
        several=several,
        batches=batches(),
        batch_sharding=sharding.batch_sharding(MESH),
        batch_size=8,
        checkpoints=checkpoints,
        data_state=dict,
        reporter=recorder,
        finish=functools.partial(metrics.finish, loss_weights=OBJECTIVE.loss_weights),
        learning_rate=float,
        evaluate=lambda params: {},
        config=LoopConfig(6, log_every=3, evaluate_every=6, save_every=3, keep=3, steps_per_dispatch=together),
        stop=After(dispatches),
    )
    checkpoints.close()
    return jax.device_get(state), recorder, reached


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainState, Recorder, int]:
    return run(tmp_path_factory.mktemp("one"), together=1)


def same(one: TrainState, other: TrainState) -> None:
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def without_times(recorder: Recorder) -> list[tuple[int, str, dict[str, float]]]:
    return [(step, split, {**values, **dict.fromkeys(TIMED, 0.0)}) for step, split, values in recorder.lines]


def test_two_dispatches_of_three_steps_are_six_steps(
    one_by_one: tuple[TrainState, Recorder, int], tmp_path: Path
) -> None:
    state, recorder, reached = run(tmp_path, together=3)
    assert reached == int(state.step) == 6
    same(state, one_by_one[0])
    # In words, where what is not a number is equal to itself.
    assert str(without_times(recorder)) == str(without_times(one_by_one[1]))


@pytest.mark.parametrize(("before", "dispatches", "after"), [(3, 1, 3), (1, 2, 3)])
def test_a_run_goes_on_from_any_step_with_any_number(
    one_by_one: tuple[TrainState, Recorder, int], tmp_path: Path, before: int, dispatches: int, after: int
) -> None:
    """Stopped after step 3, where three go together again, and after step 2, where one goes alone first."""
    _, _, reached = run(tmp_path, together=before, dispatches=dispatches)
    assert reached == before * dispatches
    state, _, _ = run(tmp_path, together=after)
    same(state, one_by_one[0])

"""Several steps launched as one program: bit for bit what they are one by one, also after a resume."""

import functools
import itertools
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.checkpoints.orbax_store import Checkpoints
from electra_jax.pretraining import metrics, steps
from electra_jax.training import sharding
from electra_jax.training.loop import LoopConfig, train
from electra_jax.training.optimizer import make_optimizer
from electra_jax.training.state import TrainState
from electra_jax.training.stop import Stop
from support.job import Job
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
def job() -> Job:
    """Compiled once for all tests."""
    abstract = sharding.abstract(INIT, jax.random.key(0), MESH, ONE_AXIS)
    return Job(
        MESH,
        update=sharding.jit_updates(UPDATE, abstract, MESH, ONE_AXIS),
        finish=functools.partial(metrics.finish, loss_weights=OBJECTIVE.loss_weights),
    )


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

    state, reached = train(
        job(),
        batches(),
        state,
        loop=LoopConfig(6, log_every=3, evaluate_every=6, save_every=3, keep=3, steps_per_dispatch=together),
        reporter=recorder,
        stop=After(dispatches),
        checkpoints=checkpoints,
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


def test_a_stack_of_one_batch_is_an_update_by_that_batch() -> None:
    batch = random_batch(8, 16, seed=1)
    state = sharding.initialise(INIT, jax.random.key(0), MESH, ONE_AXIS)
    expected, expected_sums = sharding.jit_update(UPDATE, state, MESH, ONE_AXIS)(
        jax.tree.map(jnp.copy, state), sharding.to_device(batch, sharding.batch_sharding(MESH))
    )
    found, sums = job().update(state, sharding.stack_to_device([batch], MESH))
    same(jax.device_get(found), jax.device_get(expected))
    for name, value in expected_sums.items():
        np.testing.assert_array_equal(sums[name], value[None])


def test_the_steps_of_a_dispatch_have_batches_of_one_shape() -> None:
    """A change after 4 steps lies inside the dispatch from 3 to 6, whose steps go one by one."""
    loop = LoopConfig(12, log_every=3, evaluate_every=6, save_every=3, keep=3, steps_per_dispatch=3)
    assert [loop.steps_in_dispatch(step, (4, 9)) for step in (0, 3, 4, 5, 6, 9)] == [3, 1, 1, 1, 3, 3]


@pytest.mark.parametrize(("before", "dispatches", "after"), [(3, 1, 3), (1, 2, 3)])
def test_a_run_goes_on_from_any_step_with_any_number(
    one_by_one: tuple[TrainState, Recorder, int], tmp_path: Path, before: int, dispatches: int, after: int
) -> None:
    """Stopped after step 3, where three go together again, and after step 2, where one goes alone first."""
    _, _, reached = run(tmp_path, together=before, dispatches=dispatches)
    assert reached == before * dispatches
    state, _, _ = run(tmp_path, together=after)
    same(state, one_by_one[0])

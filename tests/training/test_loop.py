"""When the loop steps, reports, evaluates and saves, with a state that counts."""

import errno
import functools
import itertools
import math
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from electra_jax.checkpoints.orbax_store import Checkpoints, complete_steps, restore_latest
from electra_jax.distributed.stop_signals import end_early, stop_signals
from electra_jax.errors import Preempted, UserError
from electra_jax.model.types import PyTree
from electra_jax.monitoring.reporter import RunReporter
from electra_jax.training import sharding
from electra_jax.training.loop import LoopConfig, train
from electra_jax.training.meter import Meter, Reporter
from electra_jax.training.stop import Stop
from support.disks import fill
from support.job import Job
from support.recorder import TIMED, Recorder
from support.tiny_model import ONE_AXIS

BATCH = 8
EACH_STEP = {
    "num_train_steps": 1,
    "log_every": 1,
    "evaluate_every": 1,
    "save_every": 1,
    "keep": 1,
    "steps_per_dispatch": 1,
}


class Counter(NamedTuple):
    """The least that the loop asks of a state."""

    step: jax.Array
    params: jax.Array


def _step(state: Counter, batch: PyTree) -> tuple[Counter, PyTree]:
    """Adds the batch's mean to the one parameter; the loss is infinite once that is over 100."""
    total = state.params + jnp.mean(batch["x"])
    loss = jnp.where(total > 100.0, jnp.inf, total)
    return Counter(state.step + 1, total), {"loss": loss, "real": jnp.float32(BATCH), "grad_norm": jnp.float32(2.0)}


def _run(
    model_dir: Path,
    *,
    steps: int = 10,
    log_every: int = 4,
    evaluate_every: int = 5,
    save_every: int = 3,
    increment: float = 1.0,
    together: int = 1,
    start: int = 0,
    stop: Stop | None = None,
    on_batch: dict[int, object] | None = None,
    reporter: Reporter | None = None,
    evaluate: Callable[[Counter], dict[str, float]] = lambda state: {"params": float(state.params)},
    change: Callable[[PyTree], PyTree] = lambda stack: stack,
) -> tuple[Recorder, int]:
    mesh = sharding.make_mesh(ONE_AXIS, len(jax.devices()))
    recorder, checkpoints = Recorder(), Checkpoints(model_dir, keep=10)
    given = itertools.count(start + 1)
    update = jax.jit(functools.partial(jax.lax.scan, _step), donate_argnums=0)

    def batches() -> Iterator[dict[str, np.ndarray]]:
        for number in given:
            if on_batch and number in on_batch:
                on_batch[number]()
            yield {"x": np.full((BATCH, 1), increment, np.float32)}

    state = Counter(jnp.int32(start), jnp.float32(start))
    _, reached = train(
        Job(
            mesh,
            update=lambda state, stack: update(state, change(stack)),
            finish=lambda sums: {"loss": float(sums["loss"])},
            evaluate=evaluate,
            learning_rate=lambda step: 0.1 * step,
        ),
        batches(),
        jax.device_put(state, NamedSharding(mesh, PartitionSpec())),
        loop=LoopConfig(steps, log_every, evaluate_every, save_every, keep=10, steps_per_dispatch=together),
        reporter=reporter or recorder,
        stop=stop or Stop(),
        checkpoints=checkpoints,
    )
    checkpoints.close()
    return recorder, reached


def test_what_happens_when(tmp_path: Path) -> None:
    recorder, reached = _run(tmp_path)
    assert reached == 10
    assert recorder.steps("train") == [4, 8, 10]
    assert recorder.steps("validation") == [5, 10]
    assert sorted(complete_steps(tmp_path / "checkpoints")) == [3, 6, 9, 10]
    # Each interval sums its own steps; an evaluation sees the parameters after its step.
    assert [values["loss"] for _, split, values in recorder.lines if split == "train"] == [10.0, 26.0, 19.0]
    assert [values["params"] for _, split, values in recorder.lines if split == "validation"] == [5.0, 10.0]
    # The rate is that of the last update, the norm is a mean.
    assert recorder.lines[0][2]["learning_rate"] == pytest.approx(0.3)
    assert recorder.lines[0][2]["grad_norm"] == 2.0


def test_several_steps_a_dispatch_change_nothing_that_is_reported_or_saved(tmp_path: Path) -> None:
    """The last step, and those up to the first that is a multiple of the number, go alone."""
    found = {}
    for together in (1, 3):
        for start in (0, 4):
            model_dir = tmp_path / f"{together}-{start}"
            recorder, reached = _run(
                model_dir, together=together, start=start, log_every=3, evaluate_every=6, save_every=3
            )
            lines = [(step, split, {**values, **dict.fromkeys(TIMED, 0.0)}) for step, split, values in recorder.lines]
            found[together, start] = lines, reached, complete_steps(model_dir / "checkpoints")
    assert found[3, 0] == found[1, 0]
    assert found[3, 4] == found[1, 4]
    assert found[3, 4][0][0][:2] == (6, "train")


def test_a_step_within_a_dispatch_that_is_not_finite_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not finite at step 5: loss; .* the last good checkpoint is step 4"):
        _run(tmp_path, together=4, increment=24.0, save_every=4, evaluate_every=4)


def test_the_share_of_time_spent_waiting_for_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that only the test moves; what an evaluation takes belongs to neither."""
    now = [100.0]
    monkeypatch.setattr("electra_jax.training.meter.time.monotonic", lambda: now[0])
    recorder = Recorder()
    meter = Meter(recorder, range(4), finish=lambda sums: {}, learning_rate=float, log_every=2)
    sums = {"real": np.float32([64.0]), "grad_norm": np.float32([1.0])}
    for step, waited in enumerate((1.0, 0.0, 3.0, 3.0), start=1):
        with meter.waiting():
            now[0] += waited
        now[0] += 2.0
        meter.record_dispatch(sums, BATCH)
        if step == 3:
            with meter.paused():
                now[0] += 50.0
    meter.flush()
    shares = [values["data_wait_share"] for _, _, values in recorder.lines]
    # The second step is settled once the third is launched, after its wait; the fourth at once.
    assert shares == [pytest.approx((1 + 0 + 3) / (4 + 6)), pytest.approx(3 / 5)]


def test_an_update_takes_nothing_from_the_host_but_what_was_placed(tmp_path: Path) -> None:
    """The guard holds on a CPU as on an accelerator, and so each test that trains has it."""
    with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device transfer"):
        _run(tmp_path, change=lambda stack: {name: np.ones(rows.shape, rows.dtype) for name, rows in stack.items()})


def test_stopping_saves_what_was_done(tmp_path: Path) -> None:
    with stop_signals() as stop:
        recorder, reached = _run(tmp_path, stop=stop, on_batch={5: lambda: signal.raise_signal(signal.SIGTERM)})
    assert stop.requested == "SIGTERM"
    assert reached == 5
    assert sorted(complete_steps(tmp_path / "checkpoints")) == [3, 5]
    again, reached = _run(tmp_path, start=5)
    assert reached == 10
    assert recorder.steps("train") + again.steps("train") == [4, 8, 10]


class _Satisfied(Stop):
    def after_evaluation(self) -> bool:
        return True


@pytest.mark.parametrize(("save_every", "saved"), [(3, [3, 5]), (5, [5])])
def test_an_evaluation_may_end_a_run_which_saves_what_was_evaluated(
    tmp_path: Path, save_every: int, saved: list[int]
) -> None:
    recorder, reached = _run(tmp_path, save_every=save_every, stop=_Satisfied())
    assert reached == 5
    assert recorder.steps("validation") == [5]
    assert sorted(complete_steps(tmp_path / "checkpoints")) == saved


def test_a_second_interrupt_does_not_wait(tmp_path: Path) -> None:
    def interrupt() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    # A process in the background ignores the signal to begin with.
    before = signal.getsignal(signal.SIGINT)
    with stop_signals() as stop, pytest.raises(KeyboardInterrupt):
        _run(tmp_path, stop=stop, on_batch={2: interrupt})
    assert signal.getsignal(signal.SIGINT) is before


def test_a_loss_that_is_not_finite_is_never_saved(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not finite at step 6: loss; .* the last good checkpoint is step 3"):
        _run(tmp_path, increment=20.0)
    assert complete_steps(tmp_path / "checkpoints") == [3]
    abstract = Counter(
        *(jax.ShapeDtypeStruct((), kind, sharding=jnp.float32(0).sharding) for kind in (jnp.int32, jnp.float32))
    )
    held = restore_latest(tmp_path, abstract)
    assert math.isfinite(held.state.params)
    assert held.step == 3


# TensorBoard's own thread finds it full too.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_metrics_that_find_the_disk_full_lose_no_checkpoint(tmp_path: Path, small_disk: Path) -> None:
    reporter = RunReporter(small_disk, start_step=0, num_train_steps=100)
    with pytest.raises(UserError, match=r"No space left on device") as caught:
        _run(tmp_path / "run", steps=100, log_every=1, reporter=reporter, on_batch={5: lambda: fill(small_disk)})
    last = max(complete_steps(tmp_path / "run" / "checkpoints"))
    assert last >= 3
    assert f"the last good checkpoint is step {last};" in str(caught.value)
    assert "\n" not in str(caught.value)
    (small_disk / "filling").unlink()
    reporter.close()


class _Breaks(Recorder):
    """A reporter that breaks at a step."""

    def __init__(self, step: int, error: Exception) -> None:
        super().__init__()
        self._step, self._error = step, error

    def report(self, step: int, split: str, values: dict[str, float]) -> None:
        if step == self._step:
            raise self._error
        super().report(step, split, values)


@pytest.mark.parametrize(
    ("step", "saved", "error", "raised"),
    [
        # A report is a dispatch late.
        (
            4,
            5,
            BrokenPipeError(errno.EPIPE, "Broken pipe"),
            r"closed by what read it: the last good checkpoint is step",
        ),
        (
            4,
            5,
            OSError(errno.EIO, "Input/output error"),
            r"closed by what read it: the last good checkpoint is step 5;",
        ),
        (4, 5, OSError(errno.ENOSPC, "No space left on device"), r"the last good checkpoint is step 5; free the disk"),
        (5, 5, RuntimeError("out of memory"), r"out of memory"),
        (10, 10, RuntimeError("out of memory"), r"out of memory"),
    ],
)
def test_what_was_done_is_saved_when_a_report_fails(
    tmp_path: Path, step: int, saved: int, error: Exception, raised: str
) -> None:
    with pytest.raises((UserError, RuntimeError), match=raised):
        _run(tmp_path, save_every=7, reporter=_Breaks(step, error))
    assert max(complete_steps(tmp_path / "checkpoints")) == saved
    # What comes next is what would have come.
    again, reached = _run(tmp_path, start=saved, save_every=7)
    assert reached == 10
    assert again.lines[-1][2] == {"params": 10.0}


def test_a_state_that_is_not_finite_is_not_saved_when_a_report_fails(tmp_path: Path) -> None:
    """The third update makes it infinite, which is noticed only with the report of the second."""
    with pytest.raises(UserError, match="there is no checkpoint yet"):
        _run(
            tmp_path,
            log_every=1,
            increment=math.inf,
            on_batch={},
            reporter=_Breaks(1, BrokenPipeError(errno.EPIPE, "")),
        )
    assert complete_steps(tmp_path / "checkpoints") == []


def test_a_checkpoint_that_is_due_comes_before_the_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[tuple[str, int]] = []
    save = Checkpoints.save

    def saved(self: Checkpoints, step: int, *rest: object) -> None:
        order.append(("save", step))
        save(self, step, *rest)

    def evaluate(state: Counter) -> dict[str, float]:
        order.append(("evaluate", int(state.step)))
        return {}

    monkeypatch.setattr(Checkpoints, "save", saved)
    _run(tmp_path, save_every=5, evaluate=evaluate)
    assert order == [("save", 5), ("evaluate", 5), ("save", 10), ("evaluate", 10)]


def test_a_failed_evaluation_ends_no_run_that_can_train(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    failing = [True]

    def evaluate(state: Counter) -> dict[str, float]:
        if failing.pop():
            raise RuntimeError("RESOURCE_EXHAUSTED:\n out of memory")
        return {"params": float(state.params)}

    failing[:] = [False, True]
    recorder, reached = _run(tmp_path / "middle", evaluate=evaluate)
    assert (reached, recorder.steps("validation")) == (10, [10])
    expected = "evaluation after step 5 failed and training continues (RuntimeError: RESOURCE_EXHAUSTED: out of memory)"
    assert expected in caplog.text
    # After the last step there is nothing left to train: all of it is saved, and the error is told.
    failing[:] = [True, False]
    with pytest.raises(RuntimeError, match="out of memory"):
        _run(tmp_path / "end", save_every=7, evaluate=evaluate)
    assert complete_steps(tmp_path / "end" / "checkpoints") == [7, 10]
    failing[:] = [False]
    recorder, reached = _run(tmp_path / "end", start=10, evaluate=evaluate)
    assert recorder.lines == [(10, "validation", {"params": 10.0})]


def test_a_full_disk_that_an_evaluation_finds_ends_a_run(tmp_path: Path) -> None:
    def evaluate(state: Counter) -> dict[str, float]:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match="the last good checkpoint is step 5; free the disk"):
        _run(tmp_path, evaluate=evaluate)


def test_an_evaluation_that_a_run_did_not_come_to_is_made_when_it_resumes(tmp_path: Path) -> None:
    with stop_signals() as stop:
        recorder, reached = _run(tmp_path, stop=stop, on_batch={5: lambda: signal.raise_signal(signal.SIGTERM)})
    assert (reached, recorder.steps("validation")) == (5, [])
    again, reached = _run(tmp_path, start=5)
    assert (reached, again.steps("validation")) == (10, [5, 10])
    assert again.lines[0] == (5, "validation", {"params": 5.0})
    with stop_signals() as stop:
        last, reached = _run(tmp_path / "last", stop=stop, on_batch={10: lambda: signal.raise_signal(signal.SIGTERM)})
    assert (reached, last.steps("validation")) == (10, [5, 10])


def test_a_run_without_held_out_text_reports_no_validation(tmp_path: Path) -> None:
    recorder, reached = _run(tmp_path, evaluate=lambda state: {})
    assert (reached, recorder.steps("validation"), recorder.steps("train")) == (10, [], [4, 8, 10])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_closed_terminal_stops_a_run_unless_it_ignores_that(tmp_path: Path, number: signal.Signals) -> None:
    # The tests themselves may have been started to outlive their terminal.
    at_first = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with stop_signals() as stop:
        _, reached = _run(tmp_path, stop=stop, on_batch={5: lambda: signal.raise_signal(number)})
    assert (stop.requested, reached) == (number.name, 5)
    with pytest.raises(Preempted):
        end_early(stop, "")
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stop_signals():
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    signal.signal(signal.SIGHUP, at_first)


@pytest.mark.parametrize(
    "name", ["num_train_steps", "log_every", "evaluate_every", "save_every", "keep", "steps_per_dispatch"]
)
def test_intervals_are_positive(name: str) -> None:
    with pytest.raises(UserError, match=name):
        LoopConfig(**(EACH_STEP | {name: 0}))


@pytest.mark.parametrize("name", ["log_every", "evaluate_every", "save_every"])
def test_a_dispatch_that_passes_what_is_due_is_refused(name: str) -> None:
    settings = EACH_STEP | {"log_every": 12, "evaluate_every": 12, "save_every": 12, "steps_per_dispatch": 4}
    with pytest.raises(UserError, match=f"steps_per_dispatch 4 does not divide {name} 6"):
        LoopConfig(**(settings | {name: 6}))

"""What is restored is what was saved, and no damage or full disk costs more than the newest checkpoint."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.checkpoints.orbax_store import Checkpoints, complete_steps, restore_latest
from electra_jax.errors import UserError

State = dict[str, Any]


def _state(step: int, *, size: int = 1000) -> State:
    values = jax.random.normal(jax.random.key(step), (size,))
    return {"step": jnp.int32(step), "params": {"encoder": {"kernel": values}}, "opt_state": [values + 1.0, None]}


def _abstract(state: State) -> State:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)


def _save(model_dir: Path, steps: list[int], *, keep: int = 5) -> None:
    checkpoints = Checkpoints(model_dir, keep=keep)
    for step in steps:
        checkpoints.save(step, _state(step), {"examples": step})
    checkpoints.close()


def _assert_holds(restored: Any, step: int) -> None:
    assert restored.step == step
    assert restored.data_state == {"examples": step}
    jax.tree.map(np.testing.assert_array_equal, restored.state, _state(step))


def test_the_newest_stay(tmp_path: Path) -> None:
    _save(tmp_path, [1, 2, 5, 9], keep=2)
    assert sorted(complete_steps(tmp_path / "checkpoints")) == [5, 9]
    _assert_holds(restore_latest(tmp_path, _abstract(_state(0))), 9)


@pytest.mark.parametrize("name", ["run[1]", "run*", "run?"])
def test_a_directory_whose_name_is_a_pattern_is_read_and_not_written(tmp_path: Path, name: str) -> None:
    """Orbax would leave a checkpoint there without its arrays."""
    with pytest.raises(UserError, match=r"holds one of \* \? \[, which Orbax takes for a pattern: name another"):
        Checkpoints(tmp_path / name, keep=1)
    assert list(tmp_path.iterdir()) == []
    _save(tmp_path / "run", [1])
    (tmp_path / "run").rename(tmp_path / name)
    _assert_holds(restore_latest(tmp_path / name, _abstract(_state(0))), 1)


def test_a_directory_with_a_backslash_is_neither_written_nor_read(tmp_path: Path) -> None:
    """Orbax would look for its arrays in another folder."""
    said = r"a\\b.* holds a backslash, which Orbax takes for a /: rename the directory"
    with pytest.raises(UserError, match=said):
        Checkpoints(tmp_path / "a\\b", keep=1)
    assert list(tmp_path.iterdir()) == []
    _save(tmp_path / "run", [1])
    (tmp_path / "run").rename(tmp_path / "a\\b")
    with pytest.raises(UserError, match=said):
        restore_latest(tmp_path / "a\\b", _abstract(_state(0)))


def test_a_directory_that_cannot_be_written_is_not_called_full(small_disk: Path) -> None:
    checkpoints = Checkpoints(small_disk / "run", keep=1)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(UserError, match=r"Read-only file system.*; make the directory writable and run the same"):
        _save_now(checkpoints, 1)


def _save_now(checkpoints: Checkpoints, step: int) -> None:
    checkpoints.save(step, _state(step), {})
    checkpoints.wait()


def _truncate(checkpoint: Path) -> None:
    path = _largest(checkpoint)
    path.write_bytes(path.read_bytes()[:-7])


def _flip(checkpoint: Path) -> None:
    path = _largest(checkpoint)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _largest(checkpoint: Path) -> Path:
    return max((path for path in checkpoint.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "truncated": _truncate,
    "a bit flipped": _flip,
    "missing": lambda checkpoint: _largest(checkpoint).unlink(),
    "without metadata": lambda checkpoint: (checkpoint / "_CHECKPOINT_METADATA").unlink(),
    "without seal": lambda checkpoint: (checkpoint / "integrity.json").unlink(),
    "torn seal": lambda checkpoint: (checkpoint / "integrity.json").write_text('{"state/'),
    "empty": lambda checkpoint: [path.unlink() for path in checkpoint.rglob("*") if path.is_file()],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_corrupt_newest_checkpoint(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    _save(tmp_path, [1, 2, 3])
    DAMAGES[damage](tmp_path / "checkpoints" / "3")
    abstract = _abstract(_state(0))
    before = sorted(tmp_path.rglob("*"))
    _assert_holds(restore_latest(tmp_path, abstract), 2)
    assert sorted(tmp_path.rglob("*")) == before  # reading writes nothing

    checkpoints = Checkpoints(tmp_path, keep=5)
    _assert_holds(checkpoints.restore(abstract), 2)
    assert "checkpoint 3" in caplog.text
    assert "corrupt" in caplog.text
    assert (tmp_path / "corrupt_checkpoints" / "3").is_dir()
    # The step can be written again.
    checkpoints.save(3, _state(3), {"examples": 3})
    checkpoints.close()
    _assert_holds(restore_latest(tmp_path, abstract), 3)


def test_nothing_sound_is_left(tmp_path: Path) -> None:
    _save(tmp_path, [1, 2])
    for step in ("1", "2"):
        _flip(tmp_path / "checkpoints" / step)
    checkpoints = Checkpoints(tmp_path, keep=5)
    with pytest.raises(UserError, match=r"every checkpoint in .* is corrupt"):
        checkpoints.restore(_abstract(_state(0)))
    # Nobody is led to believe, at the next start, that there never was one.
    assert sorted(complete_steps(tmp_path / "checkpoints")) == [1, 2]


def test_no_checkpoint(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path, keep=1).restore(_abstract(_state(0))) is None
    with pytest.raises(UserError, match="no checkpoint in"):
        restore_latest(tmp_path, _abstract(_state(0)))


def test_another_model(tmp_path: Path) -> None:
    _save(tmp_path, [1])
    other = _state(0, size=8)
    other["params"]["head"] = jnp.zeros((2, 3))
    with pytest.raises(UserError) as caught:
        Checkpoints(tmp_path, keep=5).restore(_abstract(other))
    message = str(caught.value)
    assert "params/encoder/kernel (1000,) there, (8,) here" in message
    assert "params/head missing there, (2, 3) here" in message
    assert complete_steps(tmp_path / "checkpoints") == [1]


def test_a_state_that_is_donated_while_it_is_written(tmp_path: Path) -> None:
    def advance(state: State) -> State:
        return jax.tree.map(lambda leaf: leaf + jnp.ones_like(leaf), state)

    step = jax.jit(advance, donate_argnums=0)
    state = {"params": jnp.zeros(4_000_000)}
    checkpoints = Checkpoints(tmp_path, keep=5)
    for number in (1, 2):
        for _ in range(10):
            state = step(state)
        checkpoints.save(number, state, {})
    for _ in range(10):
        state = step(state)
    checkpoints.close()
    for number in (2, 1):
        held = restore_latest(tmp_path, _abstract(state))
        assert set(np.unique(held.state["params"]).tolist()) == {10.0 * number}
        shutil.rmtree(tmp_path / "checkpoints" / str(number))


def test_a_full_disk(small_disk: Path) -> None:
    checkpoints = Checkpoints(small_disk, keep=5)
    states = {step: _state(step, size=100_000) for step in range(1, 5)}
    written: list[int] = []

    def fill() -> None:
        for step, state in states.items():
            checkpoints.save(step, state, {"examples": step})
            checkpoints.wait()
            written.append(step)

    with pytest.raises(UserError, match=r"could not be written .*No space left on device") as caught:
        fill()
    assert written
    assert f"the last good checkpoint is step {written[-1]}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(complete_steps(small_disk / "checkpoints")) == written

    # Room is made, and the run goes on from there.
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    again = Checkpoints(small_disk, keep=5)
    restored = again.restore(_abstract(states[1]))
    assert restored.step == written[-1]
    jax.tree.map(np.testing.assert_array_equal, restored.state, states[written[-1]])
    again.save(restored.step + 1, states[restored.step + 1], {})
    again.close()
    assert again.latest_step() == restored.step + 1

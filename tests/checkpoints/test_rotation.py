"""A model directory is read while the run that writes there removes the checkpoint that is being read."""

import shutil
import threading
from pathlib import Path

import jax
import pytest

from electra_jax.checkpoints import model_dir, orbax_store, stored_arrays
from electra_jax.checkpoints.model_record import write_model_record
from electra_jax.checkpoints.orbax_store import Checkpoints, restore_latest
from support.finetuned_model import write_tuned


class Rotating:
    """A run directory with a checkpoint of step 3, which gets one of step 9 and loses that of step 3."""

    def __init__(self, folder: Path) -> None:
        self.run = write_tuned(folder / "run", "discriminator", labels=(), task=None)
        self._newer = folder / "newer"
        shutil.copytree(self.run / "checkpoints" / "3", self._newer)

    def rotate(self, *, wholly: bool) -> None:
        """As Orbax does it: the newer one first; a checkpoint that is being removed has lost some of its files."""
        if not self._newer.exists():
            return
        self._newer.rename(self.run / "checkpoints" / "9")
        old = self.run / "checkpoints" / "3"
        shutil.rmtree(old if wholly else old / "state")


@pytest.mark.parametrize("wholly", [True, False])
@pytest.mark.parametrize("moment", ["check_seal", "metadata_of", "read_item_of", "is_of_run"])
def test_loading_takes_the_newer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, moment: str, wholly: bool
) -> None:
    rotating, before = Rotating(tmp_path), getattr(orbax_store, moment)

    def rotated(*arguments: object) -> object:
        rotating.rotate(wholly=wholly)
        return before(*arguments)

    monkeypatch.setattr(orbax_store, moment, rotated)
    if moment == "is_of_run" and not wholly:
        # Read already; what is left of the checkpoint says whose it is.
        assert model_dir.load(rotating.run).step == 3
    else:
        assert model_dir.load(rotating.run).step == 9
    assert "corrupt" not in caplog.text


@pytest.mark.parametrize("wholly", [True, False])
def test_loading_takes_the_newer_as_the_files_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, wholly: bool
) -> None:
    rotating, before = Rotating(tmp_path), stored_arrays.size_and_time

    def rotated(path: Path) -> tuple[int, int]:
        rotating.rotate(wholly=wholly)
        return before(path)

    monkeypatch.setattr(stored_arrays, "size_and_time", rotated)
    assert model_dir.load(rotating.run).step == 9
    assert "corrupt" not in caplog.text


def test_evaluating_takes_the_newer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rotating, before = Rotating(tmp_path), orbax_store.check_seal_everywhere
    abstract = {"params": jax.tree.map(as_shape, model_dir.load(rotating.run).params)}

    def rotated(*arguments: Path) -> None:
        rotating.rotate(wholly=False)
        before(*arguments)

    monkeypatch.setattr(orbax_store, "check_seal_everywhere", rotated)
    assert restore_latest(rotating.run, abstract).step == 9
    assert "corrupt" not in caplog.text


def as_shape(leaf: jax.Array) -> jax.ShapeDtypeStruct:
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device)


@pytest.mark.parametrize("many", [False, pytest.param(True, marks=pytest.mark.long)])
def test_loading_beside_a_run_that_saves_all_the_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, many: bool
) -> None:
    """It keeps one checkpoint, so that each save removes what is being read."""
    run = write_tuned(tmp_path / "run", "discriminator", labels=(), task=None)
    params, ended = model_dir.load(run).params, threading.Event()
    write_model_record(run, model_dir.load(run).description)

    def save() -> None:
        checkpoints, step = Checkpoints(run, keep=1), 3
        while not ended.is_set():
            step += 1
            checkpoints.save(step, {"params": params}, {})
            checkpoints.wait()
        checkpoints.close()

    saving = threading.Thread(target=save)
    saving.start()
    try:
        steps = [model_dir.load(run).step for _ in range(300 if many else 10)]
        # On a busy machine ten loads may meet two checkpoints alone.
        while len(set(steps)) < 3 and saving.is_alive():
            steps.append(model_dir.load(run).step)
    finally:
        ended.set()
        saving.join()
    assert steps == sorted(steps)
    assert len(set(steps)) > 2
    assert "corrupt" not in caplog.text

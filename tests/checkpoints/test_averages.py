"""The mean of the last checkpoints: by hand, without those that are damaged, and never of fewer than asked."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.checkpoints.averages import read_average
from electra_jax.checkpoints.orbax_store import Checkpoints
from electra_jax.cli import main
from electra_jax.errors import UserError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Four checkpoints of which three are kept; the weight at step n is n, and n / 3 in a layer of its own."""
    checkpoints = Checkpoints(tmp_path, keep=3)
    for step in (1, 2, 4, 9):
        params = {"head": {"bias": jnp.full(2, step, jnp.float32)}, "scale": jnp.float32(step) / 3}
        checkpoints.save(step, {"params": params, "step": jnp.int32(step)}, {"examples": step})
    checkpoints.close()
    return tmp_path


@pytest.mark.parametrize(("count", "steps", "mean"), [(1, (9,), 9.0), (2, (9, 4), 6.5), (3, (9, 4, 2), 5.0)])
def test_the_mean_by_hand(run: Path, count: int, steps: tuple[int, ...], mean: float) -> None:
    found = read_average(run, count)
    assert found.steps == steps
    np.testing.assert_array_equal(found.tree["head"]["bias"], np.full(2, mean, np.float32))
    assert found.tree["scale"] == pytest.approx(mean / 3)
    assert found.tree["scale"].dtype == np.float32


def test_a_damaged_checkpoint_is_left_out(run: Path) -> None:
    largest = max(
        (path for path in (run / "checkpoints" / "4").rglob("*") if path.is_file()), key=lambda p: p.stat().st_size
    )
    largest.write_bytes(largest.read_bytes()[:-3])
    assert read_average(run, 2).steps == (9, 2)


@pytest.mark.parametrize(
    ("count", "message"),
    [(4, r"holds 3 sound checkpoint\(s\), of step\(s\) 9, 4, 2: average fewer, or train with"), (0, "at least 1")],
)
def test_there_must_be_as_many(run: Path, count: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_average(run, count)


def test_formats_with_an_optimizer_have_no_place_for_a_mean(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for form in ("tf1", "t5x"):
        assert main(["export", str(run), str(run / "out"), "--format", form, "--average", "2"]) == 2
        assert (
            f"--average 2 is for --format transformers and onnx: {form} takes an optimizer along"
            in capsys.readouterr().err
        )


def test_a_fine_tuned_model_has_one_checkpoint(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--gin.TASK='rte'", f"--gin.MODEL_DIR={str(run)!r}", "--average=2"]) == 2
    assert "--average 2 is for a pre-training run" in capsys.readouterr().err

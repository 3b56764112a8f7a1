"""Checkpoints that somebody edited and sealed again: read, or refused in one sentence, in little memory."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
import tensorstore as ts
from etils import epath

from electra_jax.checkpoints import orbax_store
from electra_jax.checkpoints.rotation import complete_steps
from electra_jax.checkpoints.seal import SEAL, seal
from electra_jax.errors import UserError
from electra_jax.inference.api import load
from support.attacks import FEW_AND_MANY, attack
from support.edits import edited_bytes
from support.finetuned_model import text_facts, write_tuned

# Orbax reads arrays side by side: after the first that fails, the others find its event loop closed.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

LABELS = ("bad", "good")
ARRAY = b"params.discriminator.encoder.embeddings_project.bias/.zarray"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory whose arrays are JAX's, as those of a training run, so that their shardings are recorded."""
    directory = tmp_path_factory.mktemp("checkpoints") / "model"
    facts = text_facts("own", LABELS, pair=False)
    write_tuned(directory, "sequence_classification", labels=LABELS, task=facts)
    params = orbax_store.read_item(epath.Path(directory), "params").tree
    shutil.rmtree(directory / "checkpoints")
    writer = orbax_store.Checkpoints(directory, keep=1)
    writer.save(3, {"params": jax.tree.map(jnp.asarray, params)}, {})
    writer.close()
    return directory


def sealed(directory: Path) -> Path:
    """Seal the checkpoint again, as whoever edits it can."""
    (directory / "checkpoints/3" / SEAL).unlink()
    seal(epath.Path(directory / "checkpoints/3"))
    return directory


def with_array(model: Path, copy: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Path:
    """Copy a model, and change what its checkpoint says of one array."""
    shutil.copytree(model, copy)
    store = ts.KvStore.open({"driver": "ocdbt", "base": f"file://{copy}/checkpoints/3/state/"}).result()
    stated = json.loads(store.read(ARRAY).result().value)
    store.write(ARRAY, json.dumps(change(stated)).encode()).result()
    return sealed(copy)


@pytest.mark.parametrize("many", FEW_AND_MANY)
def test_an_edited_file_of_a_checkpoint(many: bool, model: Path, tmp_path: Path) -> None:
    files = sorted(path.relative_to(model) for path in (model / "checkpoints/3").rglob("*") if path.is_file())
    files = [file for file in files if file.name != SEAL]
    assert {"_METADATA", "_sharding", "manifest.ocdbt"} <= {file.name for file in files}

    def case(draw: random.Random, place: Path) -> list[str]:
        copy = Path(shutil.copytree(model, place / "model"))
        file = copy / files[int(place.name.rpartition(" ")[2]) % len(files)]
        file.write_bytes(edited_bytes(file.read_bytes(), draw))
        sealed(copy)
        return ["predict", str(copy), "the cat sat on the mat"]

    ends = attack(case, name="sealed again", count=len(files) * (30 if many else 2), folder=tmp_path)
    assert sum(end.code == 2 for end in ends) > len(ends) / 5


@pytest.mark.parametrize("shape", [[10**12], [10**6, 10**6], [2**62], [2**40, 2**40]])
def test_an_array_larger_than_any_memory(
    shape: list[int], model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = with_array(model, tmp_path / "model", lambda stated: stated | {"shape": shape, "chunks": [1] * len(shape)})
    with pytest.raises(UserError, match="no checkpoint in"):
        load(copy)
    assert "its arrays would take" in caplog.text


@pytest.mark.parametrize("dtype", ["|S1000000", "|V8", "|b1", "<c16"])
def test_an_array_that_holds_no_numbers(dtype: str, model: Path, tmp_path: Path) -> None:
    copy = with_array(model, tmp_path / "model", lambda stated: stated | {"dtype": dtype, "fill_value": None})
    with pytest.raises(UserError, match=r"no checkpoint in|cannot be read"):
        load(copy)


def test_names_that_are_no_step(tmp_path: Path) -> None:
    for name in ("7", "0", "²", "٣", "007", "9" * 200, "-1", "1.5"):
        (tmp_path / name).mkdir()
    assert sorted(complete_steps(epath.Path(tmp_path))) == [0, 7]

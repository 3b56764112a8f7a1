"""What the end-to-end tests share: a text, compiled programs, and one run that nothing disturbed."""

from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from support.command_line import STEPS, electra, small_run, write_small_text
from support.tuned_runs import DRAW


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `text.txt`, `vocab.txt`, and `cache`, where processes keep compiled programs."""
    folder = tmp_path_factory.mktemp("end_to_end")
    write_small_text(folder)
    return folder


@pytest.fixture(scope="session")
def whole(place: Path) -> Path:
    """The MODEL_DIR of a run from beginning to end; only to be read."""
    done = electra(small_run(place, place / "whole", **STEPS), place / "cache")
    assert done.returncode == 0, done
    return place / "whole"


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """What a test draws does not depend on the tests before it."""
    DRAW.seed(3)


@pytest.fixture
def compilations(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compiled programs are kept where the tests keep theirs, and only while a test lasts."""
    monkeypatch.setenv("ELECTRA_CACHE_DIR", str(place / "cache"))
    kept = jax.config.jax_compilation_cache_dir
    yield
    jax.config.update("jax_compilation_cache_dir", kept)

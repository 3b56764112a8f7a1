"""Every shipped Gin file parses, builds what its verb needs, and shape-evaluates."""

import math
import re
from collections.abc import Iterator
from pathlib import Path

import gin
import jax
import pytest

from electra_jax import gin_config
from electra_jax.errors import UserError
from electra_jax.run_config import CacheConfig, PretrainingRun, VocabularyRun
from electra_jax.steps import init_params

ROOT = Path(__file__).parent.parent
SHIPPED = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("gin/**/*.gin"))
MODELS = ["tiny", "small", "base", "large"]
# Parameters of google-research/electra's own graphs: ../shared/oracle/tf_pretrain/config_tables.json, "param_counts".
PUBLISHED = {"small": 14_196_219, "base": 119_386_427, "large": 354_655_291}
REQUIRED = ["MODEL_DIR='runs/x'", "VOCAB_FILE='vocab.txt'"]


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    yield
    gin.clear_config(clear_constants=True)


def _run(files: list[str], bindings: list[str]) -> PretrainingRun:
    return gin_config.build("PretrainingRun", files, bindings, search_paths=[])


def _num_parameters(run: PretrainingRun) -> int:
    length = run.cache.sequence_length
    shapes = jax.eval_shape(lambda key: init_params(key, run.model, length), jax.random.key(0))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize("file", SHIPPED)
def test_it_parses(file: str) -> None:
    assert gin_config.parse([file], [], [])


@pytest.mark.parametrize("model", MODELS)
def test_a_model_builds_with_the_general_run(model: str) -> None:
    run = _run([f"gin/models/{model}.gin", "gin/runs/pretrain.gin"], [*REQUIRED, "CORPUS='embedded'"])
    assert run.encoder.scan_unroll in (1, run.encoder.num_hidden_layers)
    if model in PUBLISHED:
        assert _num_parameters(run) == PUBLISHED[model]


@pytest.mark.parametrize(
    ("name", "length", "batch_size", "steps", "mask_prob"),
    [("small", 128, 128, 1_000_000, 0.15), ("base", 512, 256, 766_000, 0.15), ("large", 512, 2048, 400_000, 0.25)],
)
def test_published_runs(name: str, length: int, batch_size: int, steps: int, mask_prob: float) -> None:
    run = _run([f"gin/runs/{name}.gin"], REQUIRED)
    assert _num_parameters(run) == PUBLISHED[name]
    assert (run.cache.sequence_length, run.batch_size, run.loop.num_train_steps) == (length, batch_size, steps)
    assert (run.mask_prob, run.mask_token_prob, run.masking) == (mask_prob, 0.85, "device")
    assert (run.objective.gen_weight, run.objective.disc_weight) == (1.0, 50.0)
    assert run.optimizer.learning_rate == {"small": 5e-4}.get(name, 2e-4)
    assert (run.optimizer.num_warmup_steps, run.optimizer.weight_decay_rate) == (10_000, 0.01)


def test_the_demo_builds() -> None:
    assert _num_parameters(_run(["gin/runs/demo.gin"], REQUIRED)) < 10_000_000


def test_text_runs_build() -> None:
    bindings = ["CORPUS='text/*.txt'", "VOCAB_FILE='vocab.txt'"]
    vocabulary = gin_config.build("VocabularyRun", ["gin/runs/vocab.gin"], bindings, search_paths=[])
    assert isinstance(vocabulary, VocabularyRun)
    cache = gin_config.build("CacheConfig", ["gin/runs/cache.gin"], bindings, search_paths=[])
    assert isinstance(cache, CacheConfig)
    assert vocabulary.source == cache.source


@pytest.mark.parametrize("file", [file for file in SHIPPED if file.startswith("gin/runs/")])
def test_a_run_file_opens_with_its_macros(file: str) -> None:
    """Every macro that must be set stands in the comment; what the comment names, some file uses."""
    text = (ROOT / file).read_text()
    comment = text.partition("from __gin__")[0]
    assert all(line.startswith("#") for line in comment.splitlines())
    assert "Set these:" in comment
    assert "Often overridden:" in comment
    required = re.findall(r"^(\w+) = %gin.REQUIRED", text, flags=re.MULTILINE)
    assert all(name in comment for name in required)
    used = gin_config.references(list((ROOT / "gin").rglob("*.gin")))
    assert set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", comment)) <= used.keys() | gin_config.macros().keys()


def test_the_resolved_configuration_builds_an_equal_object(tmp_path: Path) -> None:
    path = tmp_path / "config.gin"
    long = "'" + "/".join(["a" * 60] * 4) + "'"
    changes = [*REQUIRED, f"CORPUS={long}", "run_config.PretrainingRun.batch_size=24", "DROPOUT=0.0", "LOWERCASE=True"]
    run = _run(["gin/runs/base.gin"], changes)
    path.write_text(gin_config.resolved())
    assert run.batch_size == 24
    assert _run([str(path)], []) == run
    # Macros stay, so that the recorded run is changed as the first was.
    assert _run([str(path)], ["TRAIN_STEPS=7"]).loop.num_train_steps == 7
    with pytest.raises(UserError, match="no macro BATCH_SIZE is used"):
        _run([str(path)], ["BATCH_SIZE=7"])

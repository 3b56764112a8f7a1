"""A checkpoint is continued on another number of devices: the same numbers in other shards, and the next examples."""

import functools
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest

from electra_jax.checkpoints import model_dir as loading
from electra_jax.checkpoints import run_start
from electra_jax.checkpoints.orbax_store import Checkpoints
from electra_jax.config import gin_files
from electra_jax.config.data import PretrainingData
from electra_jax.config.pretraining import PretrainingRun
from electra_jax.config.resuming import data_state
from electra_jax.data.batches import BlockBatches
from electra_jax.data.blocks import TokenBlocks
from electra_jax.finetuning import steps as finetuning
from electra_jax.finetuning.start import take_weights
from electra_jax.model.finetuned import FinetunedModel
from electra_jax.model.types import PyTree
from electra_jax.pretraining import steps
from electra_jax.tasks.vocabulary import Vocabulary, load_vocabulary
from electra_jax.training import sharding
from electra_jax.training.optimizer import make_optimizer
from electra_jax.training.sharding import MeshConfig
from electra_jax.training.state import TrainState
from support.finetuned_model import TOKENS
from support.tiny_model import RULES, head_config

LENGTH, ROWS, EXAMPLES = 8, 8, 50
EIGHT = MeshConfig(2, 2, 2, rules=RULES, deterministic=False)
FEWER = {
    4: MeshConfig(-1, 2, 2, rules=RULES, deterministic=False),
    2: MeshConfig(-1, 2, 1, rules=RULES, deterministic=False),
    1: MeshConfig(-1, 1, 1, rules=RULES, deterministic=False),
}


class Run(NamedTuple):
    """A run directory, what `electra pretrain` builds of its configuration, and an uninterrupted reader."""

    model_dir: Path
    configuration: PretrainingRun
    vocabulary: Vocabulary
    reference: BlockBatches

    def init(self, key: jax.Array) -> TrainState:
        optimizer = make_optimizer(self.configuration.optimizer)
        return steps.init_state(key, self.configuration.model, optimizer, LENGTH)

    def abstract(self, config: MeshConfig, num_devices: int) -> TrainState:
        mesh = sharding.make_mesh(config, num_devices)
        return sharding.abstract(self.init, jax.random.key(0), mesh, config)

    def go_on(self, config: MeshConfig, num_devices: int, *, step: int, expected: TrainState) -> None:
        """As a new process: restores, reads the next batch, and saves what it restored as the next step."""
        batches = reader()
        data = PretrainingData("text", "blocks", "", batches, lambda: iter(()), self.vocabulary, None)
        mesh = sharding.make_mesh(config, num_devices)
        setup = self.configuration.setup(self.vocabulary)
        checkpoints, state, _ = run_start.begin(self.configuration, setup, mesh, data)
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), expected)
        wanted = self.abstract(config, num_devices)
        assert [leaf.sharding for leaf in jax.tree.leaves(state)] == [leaf.sharding for leaf in jax.tree.leaves(wanted)]
        assert checkpoints.latest_step() == step
        np.testing.assert_array_equal(next(batches)["input_ids"], next(self.reference)["input_ids"])
        self.save(checkpoints, step + 1, state, batches)

    def save(self, checkpoints: Checkpoints, step: int, state: TrainState, batches: BlockBatches) -> None:
        data = PretrainingData("text", "blocks", "", batches, lambda: iter(()), self.vocabulary, None)
        checkpoints.save(step, state, data_state(self.configuration, batches.state(), data))
        checkpoints.close()


def reader() -> BlockBatches:
    """Of examples that all differ."""
    tokens = np.arange(EXAMPLES * LENGTH, dtype=np.uint32)
    blocks = TokenBlocks(tokens, np.arange(EXAMPLES + 1) * LENGTH, np.full(EXAMPLES, 3), len(tokens))
    return BlockBatches(blocks, batch_size=ROWS, sequence_length=LENGTH, seed=0, process_index=0, process_count=1)


def drawn(abstract: TrainState) -> TrainState:
    """A state of random numbers, on the host."""
    draw = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: (9 * draw.random(leaf.shape)).astype(leaf.dtype), abstract)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Of a model that every mesh divides, with `config.gin` as a run records it."""
    (tmp_path / "vocab.txt").write_text("".join(f"{token}\n" for token in TOKENS))
    model_dir = tmp_path / "run"
    settings = {
        "MODEL_DIR": str(model_dir),
        "VOCAB_FILE": str(tmp_path / "vocab.txt"),
        "CORPUS": "embedded",
        "VOCAB_SIZE": len(TOKENS),
        "SEQUENCE_LENGTH": LENGTH,
        "encoder.EncoderConfig.hidden_size": 128,
        "encoder.EncoderConfig.num_attention_heads": 2,
        "encoder.EncoderConfig.num_hidden_layers": 1,
        "encoder.EncoderConfig.scan_unroll": 1,
        "run_config.PretrainingRun.generator_width_fraction": 1.0,
    }
    files = ["gin/models/tiny.gin", "gin/runs/pretrain.gin"]
    bindings = [f"{name}={value!r}" for name, value in settings.items()]
    configuration = gin_files.build(PretrainingRun, files, bindings, search_paths=[])
    model_dir.mkdir()
    (model_dir / "config.gin").write_text(gin_files.resolved())
    vocabulary = load_vocabulary(settings["VOCAB_FILE"], lowercase=True)
    return Run(model_dir, configuration, vocabulary, reader())


def test_written_on_eight_devices_and_gone_on_with_on_fewer_and_back(run: Run) -> None:
    batches, abstract = reader(), run.abstract(EIGHT, 8)
    state = drawn(abstract)
    np.testing.assert_array_equal(next(batches)["input_ids"], next(run.reference)["input_ids"])
    run.save(Checkpoints(run.model_dir, keep=9), 1, sharding.shard_like(state, abstract), batches)
    moves = [move for devices, config in FEWER.items() for move in ((config, devices), (EIGHT, 8))]
    for step, (config, devices) in enumerate(moves, start=1):
        run.go_on(config, devices, step=step, expected=state)


@pytest.mark.parametrize("devices", [8, *FEWER])
def test_fine_tuning_takes_the_parameters_alone_onto_any_mesh(run: Run, devices: int) -> None:
    abstract = run.abstract(EIGHT, 8)
    state = drawn(abstract)
    run.save(Checkpoints(run.model_dir, keep=1), 1, sharding.shard_like(state, abstract), reader())
    encoder = loading.load(run.model_dir).description.discriminator
    model, config = FinetunedModel(encoder, head_config()), FEWER.get(devices, EIGHT)
    init = functools.partial(finetuning.init_state, model=model, optimizer=make_optimizer(run.configuration.optimizer))
    places = sharding.abstract(init, jax.random.key(0), sharding.make_mesh(config, devices), config).params
    fresh = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), places)
    taken = take_weights(str(run.model_dir), sharding.shard_like(fresh, places), quiet=True)
    expected = {
        "embeddings": state.params["embeddings"],
        "discriminator": {"encoder": state.params["discriminator"]["encoder"]},
        "head": fresh["head"],
    }
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(taken), expected)
    assert shardings_of(taken) == shardings_of(places)


def shardings_of(tree: PyTree) -> list[jax.sharding.Sharding]:
    return [leaf.sharding for leaf in jax.tree.leaves(tree)]

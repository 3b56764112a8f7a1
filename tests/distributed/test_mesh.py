"""Eight virtual devices give what one device gives, for every objective that Gin knows."""

import dataclasses
import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import pytest
from flax import linen as nn

from electra_jax.config import gin_files
from electra_jax.config.pretraining import PretrainingRun
from electra_jax.errors import UserError
from electra_jax.model.types import PyTree
from electra_jax.pretraining import steps
from electra_jax.training import sharding
from electra_jax.training.optimizer import make_optimizer
from electra_jax.training.sharding import MeshConfig, to_device
from electra_jax.training.state import TrainState
from support.command_line import MODERN
from support.tiny_model import CLS, MASK, ONE_AXIS, RULES, SEP, VOCAB_SIZE, random_batch

MESHES = [(8, 1, 1), (1, 8, 1), (2, 2, 2), (4, 1, 2)]
OBJECTIVES = sorted(path.stem for path in (Path(__file__).parents[2] / "gin" / "objectives").glob("*.gin"))
# The published objective's program, with other constants.
ALIKE = ("generator_size", "loss_weights", "temperature")
# Enough to see that the mesh knows the parameters of ModernBERT's layers.
QUICK = ("electra", "gdes")
# No other array begins with these two sizes.
ROWS, LENGTH = 24, 12
SMALL = {
    "MODEL_DIR": "run",
    "VOCAB_FILE": "",
    "VOCAB_SIZE": VOCAB_SIZE,
    "SEQUENCE_LENGTH": LENGTH,
    "BATCH_SIZE": ROWS,
    "MASK_PROB": 0.25,
    "LEARNING_RATE": 1.0,
    "WARMUP_STEPS": 0,
    # With the published 1e-6, the update of a gradient that is zero but for rounding is anything.
    "optimizer.OptimizerConfig.epsilon": 1.0,
    "encoder.EncoderConfig.hidden_size": 16,
    "encoder.EncoderConfig.embedding_size": 8,
    "encoder.EncoderConfig.num_hidden_layers": 1,
    "encoder.EncoderConfig.num_attention_heads": 2,
    "encoder.EncoderConfig.intermediate_size": 32,
    "encoder.EncoderConfig.max_position_embeddings": LENGTH,
    "encoder.EncoderConfig.scan_unroll": 1,
    "run_config.PretrainingRun.generator_width_fraction": 0.5,
    "run_config.PretrainingRun.generator_depth_fraction": 1.0,
}


# Two layers, of which one sees a window; rows are four blocks of it.
MODERN_SMALL = MODERN | {
    "encoder.EncoderConfig.num_hidden_layers": 2,
    "encoder.EncoderConfig.local_attention": LENGTH // 2,
    "run_config.PretrainingRun.generator_width_fraction": 0.5,
}


class Result(NamedTuple):
    """Of one update: the state after it as it is on the mesh, metric sums on the host, and the compiled program."""

    state: TrainState
    sums: dict[str, np.ndarray]
    program: str


class Case(NamedTuple):
    """An objective's run, and the optimizer of its step."""

    run: PretrainingRun
    optimizer: optax.GradientTransformation

    def init(self, key: jax.Array) -> TrainState:
        return steps.init_state(key, self.run.model, self.optimizer, LENGTH)

    def update(
        self, config: MeshConfig, num_devices: int, *, accumulation_steps: int = 1, packed: bool = False
    ) -> Result:
        mesh = sharding.make_mesh(config, num_devices)
        abstract = sharding.abstract(self.init, jax.random.key(0), mesh, config)
        step = functools.partial(
            steps.pretrain_step,
            model=self.run.model,
            objective=self.run.objective,
            masking=self.run.masking_config(cls_id=CLS, sep_id=SEP, mask_id=MASK),
            optimizer=self.optimizer,
            accumulation_steps=accumulation_steps,
        )
        state = sharding.shard_like(host_state(abstract, self.optimizer), abstract)
        rows = random_batch(ROWS, LENGTH)
        if packed:  # each segment an example
            rows["example_ids"] = rows["attention_mask"] * (1 + rows["token_type_ids"])
        batch = to_device(rows, sharding.batch_sharding(mesh))
        compiled = sharding.jit_update(step, state, mesh, config).lower(state, batch).compile()
        after, sums = compiled(state, batch)
        return Result(after, jax.device_get(sums), compiled.as_text())


def host_state(abstract: TrainState, optimizer: optax.GradientTransformation) -> TrainState:
    """As `init_state` makes it, but drawn by numpy, which need not be compiled; no gradient vanishes by rounding."""
    draw = np.random.default_rng(0)

    def filled(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        middle = float(path[-1].key == "scale")
        return draw.normal(middle, 0.1, leaf.shape).astype(np.float32)

    params = jax.tree_util.tree_map_with_path(filled, abstract.params)
    key_data = np.asarray(jax.random.key_data(jax.random.key(3)))
    return TrainState(np.zeros((), np.int32), params, jax.device_get(optimizer.init(params)), key_data)


@functools.cache
def case(objective: str, *, dropout: float = 0.0, rule: str | None = None, modern: bool = False) -> Case:
    """The shipped objective, its generator with as many heads as `tensor` divides.

    Rules of the optimizer know no objective, and are compiled with one of them alone; without one the optimizer's state
    after a step is the gradient.
    """
    files = ["gin/models/tiny.gin", "gin/runs/pretrain.gin", f"gin/objectives/{objective}.gin"]
    blocks = MODERN_SMALL if modern else {}
    bindings = [f"{name}={value!r}" for name, value in (SMALL | blocks | {"DROPOUT": dropout}).items()]
    with gin_files.isolated():
        run = gin_files.build(PretrainingRun, files, bindings, search_paths=[])
    run = dataclasses.replace(run, generator_encoder=dataclasses.replace(run.generator, num_attention_heads=2))
    if rule is None:
        return Case(run, optax.sgd(1.0, momentum=0.0))
    return Case(run, make_optimizer(dataclasses.replace(run.optimizer, rule=rule)))


@functools.cache
def on_one_device(**which: Any) -> Result:
    return case(**which).update(ONE_AXIS, 1)


def assert_same(found: Result, expected: Result, *, tolerance: float = 2e-5) -> None:
    """Up to rounding, relative to the largest number of each array, or of the gradient where that is zero by nature."""
    for name, value in expected.sums.items():
        np.testing.assert_allclose(found.sums[name], value, rtol=2e-5, atol=1e-5, err_msg=name)
    for part in ("opt_state", "params"):
        ours, theirs = (jax.tree_util.tree_leaves_with_path(getattr(r.state, part)) for r in (found, expected))
        largest = max(float(np.abs(leaf).max()) for _, leaf in theirs)
        for (path, leaf), (_, other) in zip(ours, theirs, strict=True):
            other = np.asarray(other)
            atol = tolerance * float(np.abs(other).max()) + 1e-7 * largest
            np.testing.assert_allclose(leaf, other, rtol=0, atol=atol, err_msg=part + jax.tree_util.keystr(path))


def assert_shards(result: Result, axes: tuple[int, int, int]) -> None:
    """Parameters and what the optimizer keeps of them are cut alike, and no device has a whole batch of activations."""
    data, fsdp, tensor = axes
    table = result.state.params["embeddings"]["word_embeddings"]
    assert table.sharding.shard_shape(table.shape) == (VOCAB_SIZE // tensor, 8 // fsdp)
    kernel = result.state.params["discriminator"]["encoder"]["layers"]["attention"]["query_kernel"]
    assert kernel.sharding.shard_shape(kernel.shape) == (1, 16 // fsdp, 2 // tensor, 8)
    places = {leaf.shape: leaf.sharding.spec for leaf in (table, kernel)}
    kept = [leaf for leaf in jax.tree.leaves(result.state.opt_state) if leaf.shape in places]
    assert kept
    assert all(leaf.sharding.spec == places[leaf.shape] for leaf in kept)
    assert f"[{ROWS // (data * fsdp)},{LENGTH}," in result.program
    assert f"[{ROWS},{LENGTH}," not in result.program


@pytest.mark.parametrize("axes", MESHES)
def test_electra_as_published(axes: tuple[int, int, int]) -> None:
    """With dropout, clipping and Adam: whose moments after one update are the gradient's, linear and squared."""
    which = {"objective": "electra", "dropout": 0.1, "rule": "bert_adam"}
    result = case(**which).update(MeshConfig(*axes, rules=RULES, deterministic=False), 8)
    assert_same(result, on_one_device(**which))
    assert_shards(result, axes)


def test_muon() -> None:
    """Matrices are cut by two axes of the mesh, and their products are those of one device.

    A direction in which a gradient is small gets as large an update as the others, and so does its rounding.
    """
    which = {"objective": "electra", "rule": "muon"}
    result = case(**which).update(MeshConfig(2, 2, 2, rules=RULES, deterministic=False), 8)
    assert_same(result, on_one_device(**which), tolerance=1e-4)
    assert_shards(result, (2, 2, 2))


@pytest.mark.parametrize(
    "objective", [pytest.param(name, marks=pytest.mark.long if name in ALIKE else ()) for name in OBJECTIVES]
)
def test_every_objective(objective: str) -> None:
    """On the mesh that has all three axes."""
    result = case(objective=objective).update(MeshConfig(2, 2, 2, rules=RULES, deterministic=False), 8)
    assert_same(result, on_one_device(objective=objective))
    assert_shards(result, (2, 2, 2))


@pytest.mark.parametrize(
    "objective",
    [pytest.param(name, marks=() if name in ("electra", "gdes") else pytest.mark.long) for name in OBJECTIVES],
)
def test_modern_blocks(objective: str) -> None:
    """With dropout, whose keys the loop over rounds of layers draws itself."""
    which = {"objective": objective, "dropout": 0.1, "modern": True}
    result = case(**which).update(MeshConfig(2, 2, 2, rules=RULES, deterministic=False), 8)
    assert_same(result, on_one_device(**which))
    kernel = result.state.params["discriminator"]["encoder"]["layers"]["gate"]["kernel"]
    assert kernel.sharding.shard_shape(kernel.shape) == (2, 8, 16)
    assert f"[{ROWS},{LENGTH}," not in result.program


@pytest.mark.long
@pytest.mark.parametrize("axes", [axes for axes in MESHES if axes != (2, 2, 2)])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_on_every_other_mesh(objective: str, axes: tuple[int, int, int]) -> None:
    result = case(objective=objective).update(MeshConfig(*axes, rules=RULES, deterministic=False), 8)
    assert_same(result, on_one_device(objective=objective))
    assert_shards(result, axes)


def test_micro_batches_on_a_mesh_equal_the_full_batch_on_one_device() -> None:
    result = case(objective="electra").update(
        MeshConfig(2, 2, 2, rules=RULES, deterministic=False), 8, accumulation_steps=2
    )
    assert_same(result, on_one_device(objective="electra"))


def test_packed_rows() -> None:
    result = case(objective="electra").update(MeshConfig(2, 2, 2, rules=RULES, deterministic=False), 8, packed=True)
    assert_same(result, case(objective="electra").update(ONE_AXIS, 1, packed=True))
    assert_shards(result, (2, 2, 2))
    unpacked = on_one_device(objective="electra").sums["discriminator_loss"]
    assert abs(float(result.sums["discriminator_loss"] - unpacked)) > 1e-3


@functools.cache
def made_on_one_device() -> PyTree:
    made = jax.jit(case(objective="electra").init)(jax.random.key(0))
    return jax.device_get(nn.unbox(made))


@pytest.mark.parametrize("axes", [(1, 8, 1), (2, 2, 2)])
def test_a_state_is_made_in_its_shards_and_is_that_of_one_device(axes: tuple[int, int, int]) -> None:
    config = MeshConfig(*axes, rules=RULES, deterministic=False)
    made = sharding.initialise(case(objective="electra").init, jax.random.key(0), sharding.make_mesh(config, 8), config)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(made), made_on_one_device())
    table = made.params["embeddings"]["word_embeddings"]
    assert {shard.data.shape for shard in table.addressable_shards} == {(VOCAB_SIZE // axes[2], 8 // axes[1])}


@pytest.mark.parametrize(
    ("axes", "sentence"),
    [
        ((-1, 3, 1), "do not multiply to the 8 devices: fsdp 1, 2, 4 or 8 would fit"),
        ((-1, 4, 4), "to the 8 devices: fsdp 1 or 2; or tensor 1 or 2 would fit"),
        ((2, 2, 1), "to the 8 devices: data 4; or fsdp 4; or tensor 2 would fit"),
        ((3, 3, 3), "to the 8 devices: no axis alone would fit"),
        ((-1, -1, 1), "only one of them can be -1"),
        ((-1, 0, 1), "each must be at least 1, or -1 for what is left"),
    ],
)
def test_a_mesh_that_does_not_fit_the_devices_is_refused(axes: tuple[int, int, int], sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        sharding.make_mesh(MeshConfig(*axes, rules=RULES, deterministic=False), 8)
    assert sentence in str(refused.value)


def test_a_rule_for_an_axis_that_there_is_not_is_refused() -> None:
    with pytest.raises(UserError, match=r"\('mlp', 'tensr'\): a mesh axis is one of data, fsdp, tensor"):
        MeshConfig(-1, 1, 1, rules=(("mlp", "tensr"),), deterministic=False)


def test_what_is_left_goes_to_the_axis_that_asks_for_it() -> None:
    assert dict(sharding.make_mesh(MeshConfig(2, -1, 2, rules=RULES, deterministic=False), 8).shape) == {
        "data": 2,
        "fsdp": 2,
        "tensor": 2,
    }


def refusal(rules: tuple[tuple[str, str | None], ...], axes: tuple[int, int, int], **sizes: int) -> str | None:
    """What is said of a model and a mesh; None where the one divides the other."""
    run = case(objective="electra").run
    towers = {"encoder": run.encoder, "generator_encoder": run.generator_encoder}
    run = dataclasses.replace(run, **{name: dataclasses.replace(tower, **sizes) for name, tower in towers.items()})
    init = functools.partial(steps.init_state, model=run.model, optimizer=optax.sgd(1.0), sequence_length=LENGTH)
    config = MeshConfig(*axes, rules=rules, deterministic=False)
    try:
        sharding.check_model(jax.eval_shape(init, jax.random.key(0)), sharding.planned_mesh(config, 1), config)
    except UserError as error:
        return str(error)
    return None


def test_a_mesh_that_does_not_divide_the_model_is_refused() -> None:
    """With the dimension and the sizes that divide all that the axis cuts; a dimension that is left whole is none."""
    said = refusal(RULES, (1, 1, 4))
    assert said == (
        "mesh axis tensor 4 does not divide heads 2 (discriminator/encoder/layers/attention/key_bias): on 4 devices "
        "tensor can be 1 or 2; or leave such a dimension whole, mapped to None in MeshConfig.rules"
    )
    whole_heads = (*(rule for rule in RULES if rule[0] != "heads"), ("heads", None))
    assert refusal(whole_heads, (1, 1, 4)) is None
    # As the published vocabulary.
    assert "vocab 65 (embeddings/word_embeddings)" in str(refusal(RULES, (3, 1, 2), vocab_size=65))
    assert "tensor can be 1;" in str(refusal(RULES, (3, 1, 2), vocab_size=65))
    assert "embed 16 (discriminator/" in str(refusal(RULES, (1, 3, 1)))
    assert refusal(RULES, (3, 1, 2)) is None


def test_a_batch_that_does_not_divide_is_refused_with_one_that_does() -> None:
    mesh = sharding.make_mesh(ONE_AXIS, 8)
    with pytest.raises(UserError, match=r"batch size 12 .* nearest that fits is 16"):
        sharding.check_batch(12, 2, mesh)
    sharding.check_batch(16, 2, mesh)

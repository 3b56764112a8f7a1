"""A generator that learns alone first, or never: what each update trains, what it costs, and what is refused."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict

from electra_jax.errors import UserError
from electra_jax.model.types import PyTree
from electra_jax.pretraining import flops, metrics, phases, registry, steps
from electra_jax.pretraining.masked_lm import MaskedLanguageModel, ReplaceMlm
from electra_jax.pretraining.objective import CONSTANT_WEIGHTS, Objective
from electra_jax.pretraining.phases import Phases, PhasesConfig
from electra_jax.pretraining.steps import PretrainingSetup
from electra_jax.training import sharding
from electra_jax.training.optimizer import make_optimizer
from electra_jax.training.sharding import MeshConfig
from electra_jax.training.state import Sums, TrainState
from support.objectives import COMPILE_FAST
from support.tiny_model import MASKING, OBJECTIVE, RULES, optimizer_config, random_batch, small_encoder

ENCODER = dataclasses.replace(small_encoder(dropout=0.1), num_hidden_layers=1, scan_unroll=1)
FIRST = PhasesConfig(generator_first=0.5, copy_generator=False, freeze_generator=False)
COPIED = dataclasses.replace(FIRST, copy_generator=True)
READY = PhasesConfig(generator_first=0.0, copy_generator=False, freeze_generator=True)


@functools.cache
def setup_of(
    config: PhasesConfig, *, sharing: str = "es", generator_steps: int = 0, objective: Objective = OBJECTIVE
) -> PretrainingSetup:
    """Both towers have one size; clipping is out of reach, so that gradients of one tower do not change the other's."""
    rule = make_optimizer(optimizer_config(clip_norm=1e9))
    return PretrainingSetup(
        model=registry.make_model(
            objective, generator_kind="small", embedding_sharing=sharing, generator=ENCODER, discriminator=ENCODER
        ),
        objective=objective,
        masking=MASKING,
        optimizer=phases.for_main(rule, sharing) if config.ready else rule,
        sequence_length=32,
        accumulation_steps=1,
        weight_schedule=CONSTANT_WEIGHTS,
        schedule_steps=10,
        phases=Phases(config, generator_steps=generator_steps, warmup_steps=4, embedding_sharing=sharing),
    )


@functools.cache
def begun(setup: PretrainingSetup) -> TrainState:
    return jax.jit(lambda key: nn.unbox(setup.init(key)), compiler_options=COMPILE_FAST)(jax.random.key(0))


@functools.cache
def compiled(setup: PretrainingSetup) -> Any:
    return jax.jit(setup.update, compiler_options=COMPILE_FAST)


def updated(setup: PretrainingSetup, state: TrainState, count: int = 1) -> tuple[TrainState, Sums]:
    for _ in range(count):
        state, sums = compiled(setup)(state, random_batch(8, 32))
    return state, sums


def named(tree: PyTree) -> dict[str, np.ndarray]:
    return {path: np.asarray(leaf) for path, leaf in flatten_dict(tree, sep="/").items()}


def changed(before: PyTree, after: PyTree) -> set[str]:
    """The trees of parameters of which anything changed."""
    old, new = named(before), named(after)
    return {path.split("/")[0] for path in old if not np.array_equal(old[path], new[path])}


def assert_same_gradients(first: TrainState, second: TrainState, trained: set[str]) -> None:
    """By the first moments, which after one update are a tenth of them."""
    for name in trained:
        ours, theirs = (named(state.opt_state[1].mu[name]) for state in (first, second))
        largest = max(float(np.abs(leaf).max()) for leaf in theirs.values())
        for path, leaf in ours.items():
            np.testing.assert_allclose(leaf, theirs[path], rtol=1e-4, atol=1e-6 * largest, err_msg=path)


@pytest.mark.parametrize(
    ("sharing", "trained"),
    [("es", {"embeddings", "generator"}), ("gdes", {"embeddings", "generator"}), ("nes", {"generator"})],
)
def test_alone_the_generator_learns_as_it_does_beside_a_discriminator_without_weight(
    sharing: str, trained: set[str]
) -> None:
    """Nothing of the discriminator moves meanwhile, not even by weight decay, and nothing of it is counted."""
    setup = setup_of(FIRST, sharing=sharing, generator_steps=3)
    state = begun(setup)
    after, sums = updated(setup, state)
    assert changed(state.params, after.params) == trained
    weightless = dataclasses.replace(OBJECTIVE, disc_weight=0.0)
    beside, both = updated(setup_of(phases.PUBLISHED, sharing=sharing, objective=weightless), state)
    assert_same_gradients(after, beside, trained)
    assert float(sums["generator_loss"]) == pytest.approx(float(both["generator_loss"]), rel=1e-6)
    assert float(sums["grad_norm"]) == pytest.approx(float(both["grad_norm"]), rel=1e-5)
    moments = named(after.opt_state[1].mu["discriminator"])
    assert not any(leaf.any() for leaf in moments.values())
    values = metrics.finish(jax.device_get(sums), OBJECTIVE.loss_weights)
    assert values.keys() == {"loss", "generator_loss", "generator_accuracy", "generator_repetition"}
    assert values["loss"] == values["generator_loss"]


def test_a_line_over_both_kinds_of_steps_counts_the_discriminator_where_it_ran() -> None:
    setup = setup_of(FIRST, generator_steps=1)
    first, alone = updated(setup, begun(setup))
    _, both = updated(setup, first)
    total = {name: np.asarray(alone[name], np.float64) + np.asarray(both[name]) for name in both}
    line, last = (metrics.finish(jax.device_get(sums), OBJECTIVE.loss_weights) for sums in (total, both))
    for name in ("discriminator_accuracy", "discriminator_auc", "discriminator_loss", "unreplaced_share"):
        assert line[name] == pytest.approx(last[name], rel=1e-6), name
    assert line["generator_loss"] != pytest.approx(last["generator_loss"], rel=1e-6)


def test_after_its_own_steps_both_learn_as_published_but_for_the_discriminators_warm_up() -> None:
    setup = setup_of(FIRST, generator_steps=2)
    state = begun(setup)._replace(step=jnp.int32(3))
    after, sums = updated(setup, state)
    published, same = updated(setup_of(phases.PUBLISHED), state)
    np.testing.assert_array_equal(sums["replaced_histogram"], same["replaced_histogram"])
    for name, rate in (("generator", 1.0), ("embeddings", 1.0), ("discriminator", 0.25)):
        for path, before in named(state.params[name]).items():
            moved, whole = (named(tree.params[name])[path] - before for tree in (after, published))
            np.testing.assert_allclose(moved, rate * whole, atol=1e-6, err_msg=path)


@pytest.mark.parametrize("sharing", ["es", "gdes", "nes"])
def test_the_discriminator_starts_from_the_generator(sharing: str) -> None:
    """After the last step of the generator alone, and not before."""
    setup = setup_of(COPIED, sharing=sharing, generator_steps=2)
    state = begun(setup)
    first, _ = updated(setup, state)
    assert "discriminator" not in changed(state.params, first.params)
    second, _ = updated(setup, first)
    generator, main = second.params["generator"], second.params["discriminator"]
    for path, leaf in named(generator["encoder"]).items():
        np.testing.assert_array_equal(named(main["encoder"])[path], leaf, err_msg=path)
    assert changed(first.params["discriminator"]["head"], main["head"]) == set()
    if sharing == "gdes":
        np.testing.assert_array_equal(
            main["embeddings"]["layer_norm"]["bias"], second.params["embeddings"]["layer_norm"]["bias"]
        )
        assert np.any(main["embeddings"]["layer_norm"]["bias"])
        assert not np.any(main["embeddings"]["word_embeddings"])
    if sharing == "nes":
        np.testing.assert_array_equal(
            second.params["embeddings"]["word_embeddings"], generator["embeddings"]["word_embeddings"]
        )


@pytest.mark.parametrize(
    ("sharing", "trained"), [("gdes", {"discriminator"}), ("nes", {"discriminator", "embeddings"})]
)
def test_a_ready_generator_writes_and_nothing_else(sharing: str, trained: set[str]) -> None:
    """It has no state of the optimizer, and the discriminator learns what it learns beside one that is trained."""
    setup = setup_of(READY, sharing=sharing)
    state = begun(setup)
    assert {path.split("/")[0] for path in named(state.opt_state[1].mu)} == trained
    after, sums = updated(setup, state, 2)
    assert changed(state.params, after.params) == trained
    assert float(sums["generator_loss"]) > 0
    # It has no dropout, and its embeddings are the discriminator's own where they are disentangled.
    calm = dataclasses.replace(ENCODER, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    main = calm if sharing == "gdes" else ENCODER
    models = [
        registry.make_model(
            OBJECTIVE, generator_kind="small", embedding_sharing=sharing, generator=generator, discriminator=main
        )
        for generator in (ENCODER, calm)
    ]
    once, _ = updated(dataclasses.replace(setup, model=models[0]), state)
    trains = dataclasses.replace(setup_of(phases.PUBLISHED, sharing=sharing), model=models[1])
    beside, _ = updated(trains, begun(trains)._replace(params=state.params))
    assert_same_gradients(once, beside, trained)


def test_a_generator_that_learned_first_may_be_frozen_then() -> None:
    """ELECTRA's two-stage training."""
    setup = setup_of(dataclasses.replace(COPIED, freeze_generator=True), sharing="nes", generator_steps=1)
    first, _ = updated(setup, begun(setup))
    later, _ = updated(setup, first, 3)
    assert changed(first.params, later.params) == {"discriminator", "embeddings"}


def test_the_compiler_counts_what_is_counted_here() -> None:
    """Of each kind of step, within what it adds for everything that is no matrix product."""
    big = dataclasses.replace(
        small_encoder(), hidden_size=128, embedding_size=128, intermediate_size=512, num_hidden_layers=2, scan_unroll=2
    )
    model = registry.make_model(
        OBJECTIVE, generator_kind="small", embedding_sharing="gdes", generator=big, discriminator=big
    )
    rule = optax.sgd(1.0)
    sizes = {"batch_size": 8, "sequence_length": 32, "max_predictions": MASKING.max_predictions(32)}
    towers = {"generator_kind": "small", "generator": big, "discriminator": big}
    state = jax.eval_shape(lambda key: nn.unbox(steps.init_state(key, model, rule, 32)), jax.random.key(0))
    for kind, objective, trained in (
        ("both", OBJECTIVE, None),
        ("generator", phases.GeneratorAlone(OBJECTIVE), phases.GENERATOR["gdes"]),
        ("main", OBJECTIVE, phases.MAIN["gdes"]),
    ):
        step = functools.partial(
            steps.pretrain_step,
            model=model,
            objective=objective,
            masking=MASKING,
            optimizer=rule,
            accumulation_steps=1,
            trained=trained,
        )
        compiled = jax.jit(step).lower(state, random_batch(8, 32)).compile()
        counted = flops.step_flops(OBJECTIVE, **towers, **sizes, trained=kind)
        assert compiled.cost_analysis()["flops"] == pytest.approx(counted, rel=0.12), kind


def test_eight_devices_change_phase_as_one_does() -> None:
    """The last step of the generator alone, after which it is copied, and the first of both."""
    setup, config = setup_of(COPIED, sharing="gdes", generator_steps=2), MeshConfig(2, 2, 2, RULES, deterministic=False)
    mesh = sharding.make_mesh(config, 8)
    one = begun(setup)._replace(step=jnp.int32(1))
    shapes = sharding.abstract(setup.init, jax.random.key(0), mesh, config)
    several = sharding.shard_like(jax.device_get(one), shapes)
    update = sharding.jit_update(setup.update, several, mesh, config)
    for kind in ("alone", "both"):
        one, expected = updated(setup, one)
        several, sums = update(several, sharding.to_device(random_batch(8, 32), sharding.batch_sharding(mesh)))
        for name in ("generator_loss", "discriminator_loss", "discriminator_loss_weight", "grad_norm"):
            np.testing.assert_allclose(sums[name], expected[name], rtol=1e-4, err_msg=f"{kind}, {name}")
    kernel = several.params["discriminator"]["encoder"]["layers"]["intermediate"]["kernel"]
    assert kernel.sharding.shard_shape(kernel.shape) == (1, 8, 16)


SMALLER = dataclasses.replace(ENCODER, hidden_size=8, num_attention_heads=1)
WORDS = {"temperature": 1.0, "disallow_correct": False, "sampler": "inverse_cdf"}
REFUSED: dict[str, tuple[PhasesConfig, dict[str, Any], str]] = {
    "nothing to train first": (FIRST, {"generator_kind": "uniform"}, "GENERATOR_FIRST needs a generator with an enc"),
    "nothing to freeze": (READY, {"generator_kind": "tied"}, "FREEZE_GENERATOR needs a generator with an encoder"),
    "no generator": (
        FIRST,
        {"objective": MaskedLanguageModel(1.0), "generator_kind": "none"},
        "generator_kind is 'none'",
    ),
    "a generator without weight": (
        FIRST,
        {"objective": ReplaceMlm(gen_weight=0.0, prediction_weight=1.0, **WORDS)},
        "its weight is 0",
    ),
    "shared embeddings": (READY, {}, "set embedding_sharing to 'gdes' or 'nes'"),
    "other sizes": (
        COPIED,
        {"generator": SMALLER},
        r"\(hidden_size 8 there, 16 here; num_attention_heads 1 there, 2 he",
    ),
    "no ready one": (READY, {"init_from": None}, "needs a generator that is ready, and INIT_FROM is None"),
    "a rate of a frozen one": (READY, {"own_rate": True}, "this run's FREEZE_GENERATOR is True: set both to None"),
    "a rate of none": (FIRST, {"own_rate": True, "generator_kind": "uniform"}, "generator_kind is 'uniform': set both"),
    "two encoders": (COPIED, {"generator_kind": "two_tower"}, r"\(this one has two\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_phases_that_make_no_sense_are_refused(name: str) -> None:
    config, changes, sentence = REFUSED[name]
    arguments = {
        "objective": OBJECTIVE,
        "generator_kind": "small",
        "embedding_sharing": "es",
        "generator": ENCODER,
        "discriminator": ENCODER,
        "own_rate": False,
        "init_from": "runs/x",
    }
    with pytest.raises(UserError, match=sentence):
        phases.check(config, **arguments | changes)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ((1.0, False, False), "generator_first is 1.0: it must be at least 0 and under 1"),
        ((-0.1, False, False), "generator_first is -0.1"),
        ((0.0, True, False), "GENERATOR_FIRST is 0: set it to the share"),
    ],
)
def test_shares_that_are_none(fields: tuple[float, bool, bool], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        PhasesConfig(*fields)

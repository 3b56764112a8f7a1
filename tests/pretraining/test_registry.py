"""Shipped objectives, and combinations that are refused by name."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from gin import config as gin_internals

from electra_jax.config import gin_files
from electra_jax.config.data import packing_of
from electra_jax.config.finetuning import FinetuningRun
from electra_jax.config.pretraining import PretrainingRun
from electra_jax.errors import UserError
from electra_jax.model.electra import EMBEDDING_SHARING, generator_config
from electra_jax.pretraining import flops, original, registry, steps
from electra_jax.pretraining.correction import CorrectedDetection
from electra_jax.pretraining.electric import Electric, TwoTowerDetection
from electra_jax.pretraining.language_model import LanguageModel
from electra_jax.pretraining.masked_lm import AllTokensMlm, MaskedLanguageModel, ReplaceMlm
from electra_jax.pretraining.objective import Objective
from electra_jax.pretraining.replaced_token import ReplacedTokenDetection
from electra_jax.pretraining.rules import STANDARD_RULES
from electra_jax.training.optimizer import make_optimizer
from electra_jax.training.state import TrainState
from support.tiny_model import MASKING, OBJECTIVE, optimizer_config, small_encoder

ROOT = Path(__file__).parents[2]
TWO = {"gen_weight": 1.0, "disc_weight": 50.0, "temperature": 1.0, "disallow_correct": False, "sampler": "inverse_cdf"}
WORDS = {
    "gen_weight": 1.0,
    "prediction_weight": 1.0,
    "temperature": 1.0,
    "disallow_correct": False,
    "sampler": "inverse_cdf",
}
OBJECTIVES = sorted(path.name for path in (ROOT / "gin" / "objectives").glob("*.gin"))


def run_of(*files: str, bindings: tuple[str, ...] = ()) -> PretrainingRun:
    settings = ['MODEL_DIR="/nowhere"', 'CORPUS="embedded"', 'VOCAB_FILE="vocab.txt"', *bindings]
    names = ["gin/models/tiny.gin", "gin/runs/pretrain.gin", *files]
    return gin_files.build(PretrainingRun, names, settings, search_paths=[str(ROOT)])


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_shipped_objective_builds_a_model(name: str) -> None:
    run = run_of(f"gin/objectives/{name}")
    shapes = jax.eval_shape(lambda key: steps.init_params(key, run.model, 128), jax.random.key(0))
    assert "encoder" in shapes["discriminator"]  # what fine-tuning takes
    assert run.objective.loss_weights
    assert run.pretraining_rules == STANDARD_RULES
    full = run.batch_shapes.full
    assert run.step_flops(full) > 3 * flops.encoder_flops(run.encoder, *full)


def test_settings_with_a_file_of_their_own() -> None:
    sized = run_of("gin/objectives/generator_size.gin", bindings=("GENERATOR_WIDTH=1.0",)).model.generator_config
    assert (sized.hidden_size, sized.num_hidden_layers) == (128, 1)  # of 128 and 2
    weighted = run_of("gin/objectives/loss_weights.gin", bindings=("GEN_WEIGHT=2.0",)).objective
    assert weighted.loss_weights == {"generator": 2.0, "discriminator": 20.0}
    assert run_of("gin/objectives/temperature.gin", bindings=("TEMPERATURE=0.5",)).objective.temperature == 0.5
    falling = run_of("gin/objectives/temperature.gin", bindings=("TEMPERATURE=((0.0, 2.0), (1.0, 1.0))",))
    assert (falling.objective.at(0.25).temperature, falling.objective.at(1.0).temperature) == (1.75, 1.0)
    assert falling.schedule_steps == falling.loop.num_train_steps == 1_000_000


def test_the_reference_switches_every_named_behaviour_on() -> None:
    run = run_of("gin/reference.gin")
    assert run.pretraining_rules == original.RULES
    assert run.optimizer.top_layer_exponent == 2
    assert packing_of(run.cache).builder.name == "original"
    assert run.masking_config(cls_id=1, sep_id=2, mask_id=3).positions == original.RULES.positions


def bound() -> dict[tuple[str, str], object]:
    """What Gin has for each field, macros replaced by their values."""
    macros = gin_files.macros()
    return {
        (selector, name): macros.get(str(value).removeprefix("%"), value)
        for (_, selector), fields in gin_internals._CONFIG.items()
        for name, value in fields.items()
        if selector != "gin.macro"
    }


def test_every_switch_of_the_reference_differs_from_the_default() -> None:
    """A binding that repeats the default switches nothing; one of a field that is not there, Gin refuses."""
    gin_files.parse(["gin/models/tiny.gin", "gin/runs/pretrain.gin", "gin/runs/finetune.gin"], [], [str(ROOT)])
    ours = bound()
    gin_files.parse(["gin/reference.gin"], [], [str(ROOT)])
    theirs = bound()
    assert len(theirs) == 11
    assert {field for field, value in theirs.items() if ours[field] == value} == set()


def test_the_reference_goes_with_fine_tuning() -> None:
    settings = ["MODEL_DIR='/nowhere'", "INIT_FROM='/nowhere'", "TASK='naturalqs'"]
    files = ["gin/runs/finetune.gin", "gin/reference.gin"]
    run = gin_files.build(FinetuningRun, files, settings, search_paths=[str(ROOT)])
    assert (run.loss_reduction, run.heads.classification, run.num_epochs) == ("sum", "reference", 3)
    assert run.pool_batches == 1
    assert (run.task.row_length, run.task.null_threshold) == (128, -2.75)
    assert run.optimizer(num_train_steps=9, num_warmup_steps=1).top_layer_exponent == 2


REFUSED = {
    "electric with a uniform generator": (Electric(**TWO), "uniform", "es", "Electric.*uniform"),
    "electric with a tied generator": (Electric(**TWO), "tied", "es", "Electric.*tied"),
    "electric with a masked generator": (Electric(**TWO), "small", "es", "Electric.*small"),
    "two towers for BERT": (MaskedLanguageModel(1.0), "two_tower", "es", "MaskedLanguageModel.*two_tower"),
    "a uniform generator for BERT": (MaskedLanguageModel(1.0), "uniform", "es", "MaskedLanguageModel.*uniform"),
    "detection without a generator": (OBJECTIVE, "none", "es", "ReplacedTokenDetection.*none"),
    "words of a tied generator": (ReplaceMlm(**WORDS), "tied", "es", "ReplaceMlm.*tied"),
    "all tokens of two towers": (AllTokensMlm(**WORDS), "two_tower", "es", "AllTokensMlm.*two_tower"),
    "disentangling one tower": (OBJECTIVE, "tied", "gdes", "embedding_sharing 'gdes'.*tied"),
    "separating one tower": (OBJECTIVE, "uniform", "nes", "embedding_sharing 'nes'.*uniform"),
    "an unknown generator": (OBJECTIVE, "huge", "es", "generator_kind is 'huge'"),
    "an unknown sharing": (OBJECTIVE, "small", "some", "embedding_sharing is 'some'"),
    "an unknown place": (
        dataclasses.replace(OBJECTIVE, discriminate_at="odd"),
        "small",
        "es",
        "discriminate_at is 'odd'",
    ),
    "electric at a temperature": (Electric(**TWO | {"temperature": 2.0}), "two_tower", "es", "temperature must be 1"),
    "electric never correct": (Electric(**TWO | {"disallow_correct": True}), "two_tower", "es", "disallow_correct"),
    "a uniform temperature": (dataclasses.replace(OBJECTIVE, temperature=2.0), "uniform", "es", "temperature 2.0"),
    "zero temperature": (dataclasses.replace(OBJECTIVE, temperature=0.0), "small", "es", "above 0"),
    "a temperature that reaches zero": (
        dataclasses.replace(OBJECTIVE, temperature=((0.0, 2.0), (1.0, 0.0))),
        "small",
        "es",
        "temperature has the value 0.0: it must be above 0",
    ),
    "electric at a falling temperature": (
        Electric(**TWO | {"temperature": ((0.0, 2.0), (1.0, 1.0))}),
        "two_tower",
        "es",
        "temperature must be 1",
    ),
    "one label only": (
        dataclasses.replace(OBJECTIVE, disallow_correct=True, discriminate_at="masked"),
        "small",
        "es",
        "discriminate_at 'masked' with disallow_correct",
    ),
    "nothing to minimise": (
        dataclasses.replace(OBJECTIVE, gen_weight=0.0, disc_weight=0.0),
        "small",
        "es",
        "loss weights",
    ),
    "a negative weight": (dataclasses.replace(OBJECTIVE, gen_weight=-1.0), "small", "es", "loss weights"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_senseless_combinations_are_refused_by_name(name: str) -> None:
    objective, kind, sharing, message = REFUSED[name]
    encoder = small_encoder()
    generator = generator_config(encoder, width_fraction=0.5, depth_fraction=1.0, embedding_size=encoder.embedding_size)
    with pytest.raises(UserError, match=message):
        registry.check(
            objective, generator_kind=kind, embedding_sharing=sharing, generator=generator, discriminator=encoder
        )


ALL_OBJECTIVES = (
    OBJECTIVE,
    dataclasses.replace(OBJECTIVE, discriminate_at="masked"),
    CorrectedDetection(**TWO, discriminate_at="all", correction_weight=20.0, num_candidates=5),
    TwoTowerDetection(**TWO),
    Electric(**TWO),
    MaskedLanguageModel(1.0),
    LanguageModel(1.0),
    ReplaceMlm(**WORDS),
    AllTokensMlm(**WORDS),
)
# A generator without an encoder of its own has no embeddings whose size could differ.
COMBINATIONS = [
    combination
    for combination in itertools.product(
        ALL_OBJECTIVES, registry.GENERATOR_KINDS, EMBEDDING_SHARING, ("embedding_size", "hidden_size")
    )
    if combination[1] in ("small", "two_tower") or combination[3] == "embedding_size"
]


def name_of(combination: tuple[Objective, str, str, str]) -> str:
    objective, *settings = combination
    return "-".join([type(objective).__name__, getattr(objective, "discriminate_at", ""), *settings])


def settings_of(combination: tuple[Objective, str, str, str]) -> dict[str, Any]:
    _, kind, sharing, embeddings = combination
    encoder = small_encoder()
    shared = embeddings == "embedding_size"
    generator = generator_config(
        encoder, width_fraction=0.25, depth_fraction=0.5, embedding_size=encoder.embedding_size if shared else 0
    )
    assert (generator.embedding_size == encoder.embedding_size) == shared
    return {
        "generator_kind": kind,
        "embedding_sharing": sharing,
        "generator": generator if kind in ("small", "two_tower") else None,
        "discriminator": encoder,
    }


def refusal(combination: tuple[Objective, str, str, str]) -> str:
    """The sentence, empty where the combination is taken."""
    try:
        registry.check(combination[0], **settings_of(combination))
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("combination", COMBINATIONS, ids=name_of)
def test_every_combination_is_refused_in_a_sentence_or_takes_a_step(
    combination: tuple[Objective, str, str, str],
) -> None:
    objective, kind, sharing, _ = combination
    if sentence := refusal(combination):
        assert "\n" not in sentence
        # It names what to change: the kind of generator, or how embeddings are shared.
        assert f"generator_kind {kind!r}" in sentence or f"embedding_sharing {sharing!r}" in sentence
        return
    model = registry.make_model(objective, **settings_of(combination))
    rule = make_optimizer(optimizer_config())
    batch = {name: jnp.zeros((2, 16), jnp.int32) for name in ("input_ids", "token_type_ids", "attention_mask")}

    def step(key: jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
        state = nn.unbox(steps.init_state(key, model, rule, 16))
        return steps.pretrain_step(
            state, batch, model=model, objective=objective, masking=MASKING, optimizer=rule, accumulation_steps=1
        )

    # Traced, not compiled: tests/pretraining/test_objectives.py takes real steps of each objective.
    state, sums = jax.eval_shape(step, jax.random.key(0))
    assert set(objective.loss_weights) == {name.removesuffix("_loss") for name in sums if name.endswith("_loss")}
    assert jax.tree.structure(state.params) == jax.tree.structure(state.opt_state[1].mu)


def test_what_is_taken_is_what_makes_sense() -> None:
    """By objective and generator; embeddings of the generator's own size go with "nes" alone."""
    taken = [each for each in COMBINATIONS if not refusal(each)]
    pairs = {(type(objective), kind) for objective, kind, *_ in taken}
    assert pairs == {
        *((ReplacedTokenDetection, kind) for kind in ("small", "tied", "uniform")),
        (CorrectedDetection, "small"),
        *((objective, "two_tower") for objective in (TwoTowerDetection, Electric)),
        *((objective, "small") for objective in (ReplaceMlm, AllTokensMlm)),
        *((objective, "none") for objective in (MaskedLanguageModel, LanguageModel)),
    }
    with_encoder = {(sharing, size) for _, kind, sharing, size in taken if kind in ("small", "two_tower")}
    assert with_encoder == {(sharing, "embedding_size") for sharing in ("es", "gdes", "nes")} | {("nes", "hidden_size")}
    assert {sharing for _, kind, sharing, _ in taken if kind in ("tied", "uniform", "none")} == {"es"}


def test_shared_embeddings_of_two_sizes_are_refused() -> None:
    with pytest.raises(UserError, match="generator_embeddings to 'embedding_size'"):
        run_of(bindings=('run_config.PretrainingRun.generator_embeddings="hidden_size"',))
    with pytest.raises(UserError, match="MASKING to 'device'"):
        run_of("gin/reference.gin", bindings=('MASKING="task"',))
    with pytest.raises(UserError, match="example_building is 'tight': it must be one of 'complete', 'original'"):
        packing_of(run_of(bindings=('run_config.CacheConfig.example_building="tight"',)).cache)
    with pytest.raises(UserError, match="rules is 'mine': it must be one of 'standard', 'original'"):
        run_of(bindings=('run_config.PretrainingRun.rules="mine"',))
    with pytest.raises(UserError, match="MIXTURE_OR_TASK_NAME 'mine' is a stream: set PACKING to False"):
        run_of(bindings=('MIXTURE_OR_TASK_NAME="mine"', "CORPUS=None", "PACKING=True"))


def test_the_count_of_a_published_step_is_the_plain_one() -> None:
    run = run_of()
    sizes = {"batch_size": 8, "sequence_length": 128, "max_predictions": 19}
    arguments = {key: value for key, value in run.variant.items() if key != "embedding_sharing"}
    electra = flops.step_flops(**arguments, **sizes)
    both_towers = sum(flops.encoder_flops(config, 8, 128) for config in (run.encoder, run.generator))
    heads = flops.word_head_flops(run.generator, 8 * 19, width=run.generator.hidden_size)
    heads += flops.replaced_token_head_flops(run.encoder, 8 * 128)
    assert electra == 3 * (both_towers + heads)
    two_tower = TwoTowerDetection(**TWO)
    more = flops.step_flops(**arguments | {"objective": two_tower, "generator_kind": "two_tower"}, **sizes)
    less = flops.step_flops(**arguments | {"generator_kind": "uniform", "generator": None}, **sizes)
    assert less < electra < more

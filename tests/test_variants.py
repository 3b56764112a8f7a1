"""Shipped objectives, and combinations that are refused by name."""

import dataclasses
from pathlib import Path

import jax
import pytest
from gin import config as gin_internals

from electra_jax import flops, gin_config, pretraining, steps, variants
from electra_jax.electric import Electric, TwoTowerDetection
from electra_jax.errors import UserError
from electra_jax.pretraining_data import packing_of
from electra_jax.run_config import PretrainingRun
from electra_jax.word_objectives import AllTokensMlm, MaskedLanguageModel, ReplaceMlm
from small import OBJECTIVE, small_encoder

ROOT = Path(__file__).parent.parent
TWO = {"gen_weight": 1.0, "disc_weight": 50.0, "temperature": 1.0, "disallow_correct": False}
WORDS = {"gen_weight": 1.0, "prediction_weight": 1.0, "temperature": 1.0, "disallow_correct": False}
OBJECTIVES = sorted(path.name for path in (ROOT / "gin" / "objectives").glob("*.gin"))


def run_of(*files: str, bindings: tuple[str, ...] = ()) -> PretrainingRun:
    settings = ['MODEL_DIR="/nowhere"', 'CORPUS="embedded"', 'VOCAB_FILE="vocab.txt"', *bindings]
    names = ["gin/models/tiny.gin", "gin/runs/pretrain.gin", *files]
    return gin_config.build("PretrainingRun", names, settings, search_paths=[str(ROOT)])


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_shipped_objective_builds_a_model(name: str) -> None:
    run = run_of(f"gin/objectives/{name}")
    shapes = jax.eval_shape(lambda key: steps.init_params(key, run.model, 128), jax.random.key(0))
    assert "encoder" in shapes["discriminator"]  # what fine-tuning takes
    assert run.objective.loss_weights
    assert not run.mask_with_replacement
    assert run.step_flops(19) > 3 * flops.encoder_flops(run.encoder, run.batch_size, run.cache.sequence_length)


def test_the_reference_switches_every_named_behaviour_on() -> None:
    run = run_of("gin/reference.gin")
    assert run.mask_with_replacement
    assert run.average_duplicates
    assert run.reference_metrics
    assert run.optimizer.layerwise_exponents == "reference"
    assert packing_of(run.cache).method == "reference"
    masking = run.masking_config(cls_id=1, sep_id=2, mask_id=3)
    assert masking.with_replacement
    assert masking.average_duplicates


def test_every_switch_of_the_reference_differs_from_the_default() -> None:
    """A binding that repeats the default switches nothing; one of a field that is not there, Gin refuses."""
    files = ["gin/models/tiny.gin", "gin/runs/pretrain.gin", "gin/tasks/downstream.gin"]
    gin_config.parse(files, [], [str(ROOT)])
    ours = {selector: dict(fields) for (_, selector), fields in gin_internals._CONFIG.items()}
    gin_config.parse(["gin/reference.gin"], [], [str(ROOT)])
    theirs = {selector: dict(fields) for (_, selector), fields in gin_internals._CONFIG.items()}
    assert sum(map(len, theirs.values())) >= 20
    for selector, fields in theirs.items():
        for name, value in fields.items():
            assert ours[selector][name] != value, (selector, name)


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
    generator = pretraining.generator_config(
        encoder, width_fraction=0.5, depth_fraction=1.0, embedding_size=encoder.embedding_size
    )
    with pytest.raises(UserError, match=message):
        variants.check(
            objective, generator_kind=kind, embedding_sharing=sharing, generator=generator, discriminator=encoder
        )


def test_shared_embeddings_of_two_sizes_are_refused() -> None:
    with pytest.raises(UserError, match="generator_embeddings to 'embedding_size'"):
        run_of(bindings=('run_config.PretrainingRun.generator_embeddings="hidden_size"',))
    with pytest.raises(UserError, match="MASKING to 'device'"):
        run_of("gin/reference.gin", bindings=('MASKING="task"',))
    with pytest.raises(UserError, match="packing is 'tight': it must be one of 'complete', 'reference'"):
        packing_of(run_of(bindings=('run_config.CacheConfig.packing="tight"',)).cache)
    with pytest.raises(UserError, match="average_duplicates"):
        run_of(bindings=("run_config.PretrainingRun.average_duplicates=True",))


def test_the_count_of_a_published_step_is_the_plain_one() -> None:
    run = run_of()
    sizes = {"batch_size": 8, "sequence_length": 128, "max_predictions": 19}
    arguments = {key: value for key, value in run.variant.items() if key != "embedding_sharing"}
    electra = variants.step_flops(**arguments, **sizes)
    assert electra == flops.pretrain_step_flops(run.encoder, run.generator, **sizes)
    two_tower = TwoTowerDetection(**TWO)
    more = variants.step_flops(**arguments | {"objective": two_tower, "generator_kind": "two_tower"}, **sizes)
    less = variants.step_flops(**arguments | {"generator_kind": "uniform", "generator": None}, **sizes)
    assert less < electra < more

"""Every shipped Gin file parses, builds what its command needs, and shape-evaluates."""

import dataclasses
import functools
import math
import re
from pathlib import Path

import jax
import pytest

from electra_jax.config import gin_files
from electra_jax.config.budget import flops_of
from electra_jax.config.finetuning import FinetuningRun
from electra_jax.config.pretraining import CacheRun, PretrainingRun, VocabularyRun
from electra_jax.errors import UserError
from electra_jax.finetuning import steps as finetuning
from electra_jax.model.finetuned import FinetunedModel
from electra_jax.pretraining.objective import WeightSchedule
from electra_jax.pretraining.steps import init_params
from electra_jax.tasks import catalog
from electra_jax.tasks.qa.sources import QA_TASKS
from electra_jax.training.optimizer import make_optimizer

ROOT = Path(__file__).parents[2]
# Those of gin/t5x need T5X; tests/test_t5x.py has them.
SHIPPED = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("gin/**/*.gin") if path.parent.name != "t5x")
MODELS = ["tiny", "small", "base", "large", "modern_tiny", "modern_small", "modern_base"]
# Parameters of google-research/electra's own graphs: ../shared/oracle/tf_pretrain/config_tables.json, "param_counts".
PUBLISHED = {"small": 14_196_219, "base": 119_386_427, "large": 354_655_291}
REQUIRED = ["MODEL_DIR='runs/x'", "VOCAB_FILE='vocab.txt'"]


def _run(files: list[str], bindings: list[str]) -> PretrainingRun:
    return gin_files.build(PretrainingRun, files, bindings, search_paths=[])


def _num_parameters(run: PretrainingRun) -> int:
    length = run.cache.sequence_length
    shapes = jax.eval_shape(lambda key: init_params(key, run.model, length), jax.random.key(0))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize("file", SHIPPED)
def test_it_parses(file: str) -> None:
    assert gin_files.parse([file], [], [])


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


def test_modern_base_is_modernbert_base() -> None:
    """Its encoder without a head has 149,014,272 parameters; the generator is one of its first six layers."""
    run = _run(["gin/models/modern_base.gin", "gin/runs/pretrain.gin"], [*REQUIRED, "CORPUS='embedded'"])
    shapes = jax.eval_shape(lambda key: init_params(key, run.model, 128), jax.random.key(0))
    encoder = (shapes["embeddings"], shapes["discriminator"]["encoder"])
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(encoder)) == 149_014_272
    assert run.generator == dataclasses.replace(run.encoder, num_hidden_layers=6, scan_unroll=6)
    thetas = (run.encoder.global_rope_theta, run.encoder.local_rope_theta, run.encoder.local_attention)
    assert thetas == (160_000.0, 10_000.0, 128)


def test_modern_small_is_near_electra_small() -> None:
    """In parameters of the discriminator, and in FLOPs of a step."""
    ours, theirs = (_run([f"gin/runs/{name}small.gin"], [*REQUIRED, "CORPUS='x'"]) for name in ("modern_", ""))
    costs = [run.step_flops(run.batch_shapes.full) for run in (ours, theirs)]
    assert costs[0] == pytest.approx(costs[1], rel=0.05)
    assert _num_parameters(ours) == pytest.approx(_num_parameters(theirs), rel=0.3)
    assert ours.cache.sequence_length == theirs.cache.sequence_length
    assert ours.encoder.embedding_size == ours.encoder.hidden_size  # ModernBERT has no projection


def test_long_context_changes_the_length_and_the_angles_alone() -> None:
    first = _run(["gin/runs/modern_base.gin"], [*REQUIRED, "CORPUS='x'"])
    second = _run(
        ["gin/runs/modern_base.gin", "gin/recipes/long_context.gin"], [*REQUIRED, "CORPUS='x'", "INIT_FROM='runs/base'"]
    )
    assert (first.cache.sequence_length, second.cache.sequence_length) == (1024, 8192)
    assert first.cache.sequence_length * first.batch_size == second.cache.sequence_length * second.batch_size
    changed = {"attention": "fused", "remat_policy": "full", "scan_unroll": 1, "global_rope_theta": 160_000.0}
    assert second.encoder == dataclasses.replace(first.encoder, **changed)
    assert first.encoder.global_rope_theta == 10_000.0
    init = functools.partial(init_params, jax.random.key(0), second.model, second.cache.sequence_length)
    assert jax.eval_shape(init)["discriminator"]["encoder"]["layers"]["gate"]["kernel"].unbox().shape == (22, 768, 1152)


def test_the_demo_builds() -> None:
    assert _num_parameters(_run(["gin/runs/demo.gin"], REQUIRED)) < 10_000_000


@pytest.mark.parametrize(
    ("file", "rate", "decay"),
    [("finetune", 1e-4, 0.8), ("finetune_large", 5e-5, 0.9)],
)
def test_published_fine_tuning(file: str, rate: float, decay: float) -> None:
    bindings = ["MODEL_DIR='runs/y'", "INIT_FROM='runs/x'", "TASK='rte'"]
    run = gin_files.build(FinetuningRun, [f"gin/runs/{file}.gin"], bindings, search_paths=[])
    assert (run.batch_size, run.num_epochs, run.warmup_fraction, run.dropout_prob) == (32, 10, 0.1, 0.1)
    optimizer = run.optimizer(num_train_steps=10, num_warmup_steps=1.0)
    assert (optimizer.learning_rate, optimizer.layerwise_lr_decay) == (rate, decay)
    assert (optimizer.num_train_steps, optimizer.weight_decay_rate, optimizer.clip_norm) == (10, 0.01, 1.0)
    assert (run.answerable_weight, run.temperature) == (0.5, 0.05)
    assert (run.heads.layer, run.heads.pooling) == (None, None)
    assert (run.heads.question_answering, run.heads.beam_size) == ("joint", 20)
    epochs = {name: run.epochs_by_task.get(name, run.epochs_by_task["default"]) for name in catalog.NAMES}
    assert {name for name, value in epochs.items() if value == 2} == set(QA_TASKS)
    assert {name for name, value in epochs.items() if value == 10} == {"rte", "stsb", "similarity"}
    assert set(epochs.values()) == {2, 3, 10}


def test_fine_tuning_takes_its_sizes_from_a_model_file() -> None:
    files = ["gin/models/tiny.gin", "gin/runs/demo_finetune.gin"]
    bindings = ["MODEL_DIR='runs/y'", "INIT_FROM=None", "VOCAB_FILE='vocab.txt'"]
    run = gin_files.build(FinetuningRun, files, bindings, search_paths=[])
    encoder = run.encoder()
    assert encoder.hidden_size == 128
    head = run.heads.head_for("classification", encoder=encoder, num_labels=10, final_sep_answers=False)
    optimizer = make_optimizer(run.optimizer(num_train_steps=10, num_warmup_steps=1.0))
    init = functools.partial(finetuning.init_state, model=FinetunedModel(encoder, head), optimizer=optimizer)
    assert jax.eval_shape(init, jax.random.key(0)).params["head"]["prediction"]["kernel"].unbox().shape == (128, 10)


def test_pre_layer_norm_is_fine_tuned_under_the_heads_of_modernbert() -> None:
    files = ["gin/models/modern_tiny.gin", "gin/runs/finetune.gin"]
    names = {"classification": "sequence_classification", "regression": "sequence_classification"}
    names |= {"tagging": "token_classification"}

    def heads(*bindings: str) -> dict[str, str]:
        run = gin_files.build(
            FinetuningRun, files, ["MODEL_DIR='y'", "INIT_FROM=None", "TASK='rte'", *bindings], search_paths=[]
        )
        sizes = {"encoder": run.encoder(), "num_labels": 2, "final_sep_answers": False}
        return {kind: run.heads.head_for(kind, **sizes).kind for kind in [*names, "question_answering"]}

    modern = {kind: f"modernbert_{name}" for kind, name in names.items()}
    assert heads() == modern | {"question_answering": "joint_question_answering"}
    assert heads("QA_HEAD='transformers'")["question_answering"] == "modernbert_question_answering"
    assert heads("CLASSIFICATION_HEAD='reference'")["classification"] == "sequence_classification_reference"
    assert heads("finetune_run.HeadOptions.classifier_pooling='mean'") == heads()
    bert = "encoder.EncoderConfig.norm_placement='post'"
    assert heads(bert)["tagging"] == "token_classification"
    with pytest.raises(UserError, match="classifier_pooling is 'mean', and the head sequence_classification reads"):
        heads("finetune_run.HeadOptions.classifier_pooling='mean'", bert)


@pytest.mark.parametrize(
    ("bindings", "sentence"),
    [
        (["SEQUENCE_LENGTH=100"], "local_attention 128 is a longer window than SEQUENCE_LENGTH 100: set it to 100 or"),
        (["SEQUENCE_LENGTH=8193"], "SEQUENCE_LENGTH 8193 is longer than the model's 8192 positions"),
        (["encoder.EncoderConfig.hidden_size=252"], "num_attention_heads 4 leaves each head 63: choose an even head"),
    ],
)
def test_what_modern_blocks_refuse(bindings: list[str], sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        _run(["gin/runs/modern_small.gin"], [*REQUIRED, "CORPUS='x'", *bindings])
    assert sentence in str(refused.value)


def test_text_runs_build() -> None:
    bindings = ["CORPUS='text/*.txt'", "VOCAB_FILE='vocab.txt'"]
    vocabulary = gin_files.build(VocabularyRun, ["gin/runs/vocab.gin"], bindings, search_paths=[])
    assert isinstance(vocabulary, VocabularyRun)
    run = gin_files.build(CacheRun, ["gin/runs/cache.gin"], bindings, search_paths=[])
    assert isinstance(run, CacheRun)
    assert not run.tfrecords
    assert vocabulary.source == run.cache.source


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
    used = gin_files.references(list((ROOT / "gin").rglob("*.gin")))
    assert set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", comment)) <= used.keys() | gin_files.macros().keys()


def test_the_efficient_recipe_is_the_published_one_with_rotary_positions() -> None:
    published, efficient = (
        _run(["gin/runs/small.gin", *recipe], REQUIRED) for recipe in ([], ["gin/recipes/efficient.gin"])
    )
    assert published.encoder.position_embedding_type == "absolute"
    encoder = dataclasses.replace(published.encoder, position_embedding_type="rotary")
    assert efficient == dataclasses.replace(published, encoder=encoder)


def test_recipes_of_a_generator_that_learns_first_or_is_ready() -> None:
    ready = [*REQUIRED, "INIT_FROM='runs/y'"]
    first, two_stage, fast = (
        _run(["gin/runs/base.gin", f"gin/recipes/{name}.gin"], bindings)
        for name, bindings in (("generator_first", REQUIRED), ("two_stage", REQUIRED), ("ready_generator", ready))
    )
    assert [run.objective.at(0.85).temperature for run in (first, fast)] == pytest.approx([1.5, 1.15])
    assert (first.generator_first, first.copy_generator, first.freeze_generator) == (0.25, False, False)
    assert two_stage.generator == two_stage.encoder
    published = _run(["gin/runs/base.gin"], REQUIRED)
    shape = published.batch_shapes.full
    saved = published.step_flops(shape) - fast.step_flops(shape)
    assert saved == 2 / 3 * first.generator_step_flops(shape)
    # The discriminator begins where the temperature begins to fall.
    assert first.generator_steps / first.schedule_steps == pytest.approx(0.7, abs=0.02)
    assert flops_of(first, first.generator_steps) == pytest.approx(0.25 * flops_of(first, 766_000), rel=1e-5)
    grown = _run(
        ["gin/runs/base.gin", "gin/recipes/generator_first.gin"], [*REQUIRED, "BATCH_SIZE_WARMUP=((0.8, 64),)"]
    )
    assert grown.generator_steps > 0.8 * 766_000
    assert flops_of(grown, grown.generator_steps) == pytest.approx(0.25 * flops_of(grown, 766_000), rel=1e-5)
    assert first.step_flops(shape) == published.step_flops(shape)
    with pytest.raises(UserError, match="FREEZE_GENERATOR needs a generator that is ready, and INIT_FROM is None"):
        _run(["gin/runs/base.gin", "gin/recipes/ready_generator.gin"], REQUIRED)
    with pytest.raises(UserError, match="for a generator that is trained, and this run's FREEZE_GENERATOR is True"):
        _run(["gin/runs/base.gin", "gin/recipes/ready_generator.gin"], [*ready, "GENERATOR_LEARNING_RATE=1e-4"])


def test_schedules_are_the_published_ones_unless_asked_otherwise() -> None:
    published = _run(["gin/runs/small.gin"], REQUIRED)
    assert (published.optimizer.lr_decay_share, published.weight_schedule.disc_weight_end) == (1.0, 1.0)
    run = _run(["gin/runs/small.gin"], [*REQUIRED, "LR_DECAY_SHARE=0.2", "DISC_WEIGHT_END=0.1", "TRAIN_STEPS=500"])
    assert run.optimizer.lr_decay_share == 0.2
    assert run.weight_schedule == WeightSchedule(disc_weight_end=0.1, num_train_steps=500)
    with pytest.raises(UserError, match=r"DISC_WEIGHT_END is 0\.1, and MaskedLanguageModel has no discriminator"):
        _run(["gin/runs/small.gin", "gin/objectives/mlm.gin"], [*REQUIRED, "DISC_WEIGHT_END=0.1"])


def test_every_field_of_the_optimizer_tells_two_fine_tunings_apart() -> None:
    bindings = ["MODEL_DIR='runs/x'", "TASK='rte'", "INIT_FROM='runs/y'"]
    run = gin_files.build(FinetuningRun, ["gin/runs/finetune.gin"], bindings, search_paths=[])
    rule = run.optimizer(num_train_steps=10, num_warmup_steps=1)
    names = {f"optimizer.{field.name}" for field in dataclasses.fields(rule)}
    assert names <= run.identity(rule).keys()


def test_rows_are_packed_when_asked() -> None:
    assert not _run(["gin/runs/small.gin"], REQUIRED).packing
    assert _run(["gin/runs/small.gin"], [*REQUIRED, "PACKING=True"]).packing


def test_the_resolved_configuration_builds_an_equal_object(tmp_path: Path) -> None:
    path = tmp_path / "config.gin"
    long = "'" + "/".join(["a" * 60] * 4) + "'"
    changes = [*REQUIRED, f"CORPUS={long}", "run_config.PretrainingRun.batch_size=24", "DROPOUT=0.0", "LOWERCASE=True"]
    run = _run(["gin/runs/base.gin"], changes)
    path.write_text(gin_files.resolved())
    assert run.batch_size == 24
    assert _run([str(path)], []) == run
    # Macros stay, so that the recorded run is changed as the first was.
    assert _run([str(path)], ["TRAIN_STEPS=7"]).loop.num_train_steps == 7
    with pytest.raises(UserError, match="no macro BATCH_SIZE is used"):
        _run([str(path)], ["BATCH_SIZE=7"])


def test_fused_attention_and_its_conditions_are_bound_by_name() -> None:
    fused = [*REQUIRED, "ATTENTION='fused'", "PRNG='rbg'", "STEPS_PER_DISPATCH=10"]
    with pytest.raises(UserError, match=r"fused attention has no dropout, .* is 0\.1: set ATTENTION_DROPOUT to 0\.0"):
        _run(["gin/runs/small.gin"], fused)
    run = _run(["gin/runs/small.gin"], [*fused, "ATTENTION_DROPOUT=0.0"])
    for tower in (run.model.generator_config, run.model.discriminator_config):
        assert (tower.attention, tower.dropout_prng) == ("fused", "rbg")
        assert (tower.attention_probs_dropout_prob, tower.hidden_dropout_prob) == (0.0, 0.1)
    assert run.loop.steps_per_dispatch == 10

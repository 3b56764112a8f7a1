"""A number or a name that no run can use is refused before anything is built, wherever it comes from."""

import dataclasses
import math
from pathlib import Path

import pytest

from electra_jax import ranges
from electra_jax.config import gin_files
from electra_jax.config.finetuning import FinetuningRun
from electra_jax.config.pretraining import PretrainingRun
from electra_jax.errors import UserError
from electra_jax.monitoring.watch import warn_of_warmup

PRETRAINING = ["MODEL_DIR='run'", "VOCAB_FILE='vocab.txt'", "CORPUS='text'"]
FINETUNING = ["MODEL_DIR='run'", "INIT_FROM='other'", "TASK='rte'"]
RUN, ENCODER, OPTIMIZER = "run_config.PretrainingRun", "encoder.EncoderConfig", "optimizer.OptimizerConfig"


@pytest.mark.parametrize(
    ("binding", "sentence"),
    [
        ("ACCUMULATION_STEPS=0", f"ACCUMULATION_STEPS ({RUN}.accumulation_steps) is 0: it must be at least 1"),
        ("SEQUENCE_LENGTH=0", "SEQUENCE_LENGTH (run_config.CacheConfig.sequence_length) is 0: it must be at least 5"),
        ("BATCH_SIZE=0", f"BATCH_SIZE ({RUN}.batch_size) is 0: it must be at least 1"),
        ("SEED=-1", "is -1: it must be from 0 to 4611686018427387904"),
        ("SEED=9223372036854775808", "is 9223372036854775808: it must be from 0 to 4611686018427387904"),
        ("DROPOUT=1.0", "is 1.0: it must be at least 0 and under 1"),
        ("VOCAB_SIZE=0", f"VOCAB_SIZE ({ENCODER}.vocab_size) is 0: it must be from 1 to 2147483647"),
        (
            "encoder.EncoderConfig.num_attention_heads=0",
            f"{ENCODER}.num_attention_heads is 0: it must be from 1 to 2147483647",
        ),
        ("encoder.EncoderConfig.num_hidden_layers=1000000000", "is 1000000000: it must be from 1 to 10000"),
        ("LEARNING_RATE=-1.0", f"LEARNING_RATE ({OPTIMIZER}.learning_rate) is -1.0: it must be at least 0"),
        ("LEARNING_RATE=1e999", f"LEARNING_RATE ({OPTIMIZER}.learning_rate) is inf: it must be finite and at least 0"),
        ("optimizer.OptimizerConfig.clip_norm=0", f"{OPTIMIZER}.clip_norm is 0: it must be positive"),
        ("optimizer.OptimizerConfig.beta_1=2", f"{OPTIMIZER}.beta_1 is 2: it must be at least 0 and under 1"),
        ("MODEL_DIR=''", f"MODEL_DIR ({RUN}.model_dir) is '': it must be a name that is not empty"),
        ("encoder.EncoderConfig.layer_types=0.1", f"{ENCODER}.layer_types is 0.1: it must be list of str"),
        (f"{RUN}.generator_encoder=0.1", f"{RUN}.generator_encoder is 0.1: it must be EncoderConfig | None"),
        (f"{OPTIMIZER}.no_decay='*'", "no_decay is '*', which is no regular expression"),
        ("INIT_FROM=%NO_SUCH", "the macro NO_SUCH has no value (the command line's --gin bindings): set it with"),
        ("BATCH_SIZE_WARMUP=((0.5, %NO_SUCH),)", "the macro NO_SUCH has no value (the command line's --gin bindings)"),
        (
            "sharding.MeshConfig.rules=[None]",
            "MeshConfig.rules holds None: a rule is (logical axis, mesh axis or None)",
        ),
        ("sharding.MeshConfig.rules=%gin.REQUIRED", "rules has no value: set it with --gin.sharding.MeshConfig.rules="),
        (f"{RUN}.generator_width_fraction=1e308", "_fraction is 1e+308: it must be above 0 and at most 1000"),
        (
            f"{ENCODER}.layer_norm_eps=2147483648",
            "_eps is 2147483648: a whole number for a float must be within 2147483647",
        ),
        ("SCHEDULE_STEPS=0", f"SCHEDULE_STEPS ({RUN}.schedule_steps) is 0: it must be at least 1"),
    ],
)
def test_a_pre_training_out_of_range_is_refused(binding: str, sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        gin_files.build(PretrainingRun, ["gin/runs/small.gin"], [*PRETRAINING, binding], search_paths=[])
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("binding", "sentence"),
    [
        ("EPOCHS=1e999", "EPOCHS (finetune_run.FinetuningRun.epochs) is inf: it must be finite and positive"),
        (
            "finetune_run.FinetuningRun.epochs_by_task={'default': 3, 'rte': 0}",
            "epochs_by_task is {'default': 3, 'rte': 0} and holds 0: it must be positive",
        ),
        ("MAX_SEQ_LENGTH=1", "MAX_SEQ_LENGTH (task_options.TaskOptions.length) is 1: it must be at least 3"),
        ("MAX_SEQ_LENGTH=-5", "MAX_SEQ_LENGTH (task_options.TaskOptions.length) is -5: it must be at least 3"),
        ("NUM_SEEDS=9223372036854775808", "num_seeds) is 9223372036854775808: it must be from 1 to 10000"),
        ("NUM_SEEDS=0", "NUM_SEEDS (finetune_run.FinetuningRun.num_seeds) is 0: it must be from 1 to 10000"),
        (
            "WARMUP_FRACTION=1.5",
            "WARMUP_FRACTION (finetune_run.FinetuningRun.warmup_fraction) is 1.5: it must be",
        ),
        (
            "WARMUP_FRACTION=-9999999999",
            "is -9999999999: a whole number for a float must be within 2147483647: write it as in 1e10",
        ),
        (
            "LABEL_COLUMN=[1]",
            "LABEL_COLUMN (task_options.TaskOptions.label_column) is [1]: it must be str | list of str | None",
        ),
        ("LABEL_COLUMN=[[]]", "label_column) is [[]]: it must be str | list of str | None"),
        ("MODEL_DIR=''", "MODEL_DIR (finetune_run.FinetuningRun.model_dir) is '': it must be a name that is not empty"),
    ],
)
def test_a_fine_tuning_out_of_range_is_refused(binding: str, sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        gin_files.build(FinetuningRun, ["gin/runs/finetune.gin"], [*FINETUNING, binding], search_paths=[])
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("encoder", "num_attention_heads", 0),
        ("encoder", "hidden_size", "wide"),
        ("encoder", "vocab_size", True),
        ("encoder", "layer_norm_eps", math.nan),
        ("optimizer", "epsilon", math.nan),
        ("optimizer", "layerwise_lr_decay", 0.0),
        ("loop", "keep", 0),
        ("cache", "seed", -1),
    ],
)
def test_a_dataclass_that_gin_does_not_make_is_checked_too(part: str, field: str, value: object) -> None:
    run = gin_files.build(PretrainingRun, ["gin/runs/small.gin"], PRETRAINING, search_paths=[])
    config = getattr(run, part)
    with pytest.raises(UserError, match=rf"^{type(config).__name__}\.{field} is .*: it must be "):
        dataclasses.replace(config, **{field: value})


@pytest.mark.parametrize(("warmup", "told"), [(20, False), (21, True)])
def test_a_warmup_beyond_the_end_is_told(warmup: int, told: bool, caplog: pytest.LogCaptureFixture) -> None:
    """It is no mistake in a trial of a few steps, and no run of ten thousand."""
    steps = [f"WARMUP_STEPS={warmup}", "TRAIN_STEPS=20"]
    warn_of_warmup(gin_files.build(PretrainingRun, ["gin/runs/small.gin"], [*PRETRAINING, *steps], search_paths=[]))
    sentence = "the learning rate rises for 21 steps, and the run has 20: it never reaches LEARNING_RATE"
    assert [message.startswith(sentence) for message in caplog.messages] == [True] * told


def test_what_is_unusual_is_no_mistake() -> None:
    """The largest seeds that people take are times; a weight of two doubles a loss."""
    run = gin_files.build(
        PretrainingRun, ["gin/runs/small.gin"], [*PRETRAINING, "SEED=20261126093512"], search_paths=[]
    )
    assert (run.seed, run.cache.seed) == (20261126093512,) * 2
    weight = "finetune_run.FinetuningRun.answerable_weight=2"
    assert gin_files.build(FinetuningRun, ["gin/runs/finetune.gin"], [*FINETUNING, weight], search_paths=[])


@pytest.mark.parametrize("in_file", [False, True])
def test_a_value_that_nests_too_deeply_is_refused(in_file: bool, tmp_path: Path) -> None:
    binding = "SEED = " + "[" * 3000 + "]" * 3000
    (tmp_path / "deep.gin").write_text(f"{binding}\n")
    files, bindings = ([str(tmp_path / "deep.gin")], []) if in_file else ([], [binding])
    with pytest.raises(UserError, match="nests too deeply to be read"):
        gin_files.build(PretrainingRun, ["gin/runs/small.gin", *files], [*PRETRAINING, *bindings], search_paths=[])


def test_macros_that_stand_for_each_other_are_refused() -> None:
    with pytest.raises(UserError, match="the macros VOCAB_FILE and TOKENIZER refer to each other"):
        gin_files.build(
            PretrainingRun, ["gin/runs/small.gin"], [*PRETRAINING[:1], "TOKENIZER=%VOCAB_FILE"], search_paths=[]
        )


@pytest.mark.parametrize(
    ("allowed", "inside", "outside"),
    [
        (ranges.FINITE, (-1e30, 0), (math.inf, -math.inf, math.nan, "1", True, 10**400)),
        (ranges.SHARE, (0, 1), (-1e-9, 1.0001)),
        (ranges.UNDER_1, (0, 0.999), (1,)),
        (ranges.POSITIVE_SHARE, (1e-9, 1), (0, 1.5)),
        (ranges.NAMED, ("run",), ("", "\t", 3)),
    ],
)
def test_borders(allowed: ranges.Range, inside: tuple[object, ...], outside: tuple[object, ...]) -> None:
    assert all(map(allowed.holds, inside))
    assert not any(map(allowed.holds, outside))

"""From a comparison's settings to its pieces of work: Gin says what a step of each variant costs."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from electra_jax import gin_config
from electra_jax.comparison import RANDOM, ComparisonRun, Named, Piece, check_tasks, named, steps_of
from electra_jax.encoder import EncoderConfig
from electra_jax.errors import UserError
from electra_jax.run_config import PretrainingRun
from electra_jax.tasks.catalog import NAMES

FINETUNING_FILE = "gin/runs/finetune.gin"
# Settings that say where, how often or how fast, and those that differ from piece to piece by design.
_NOT_OF_THE_RESULT = (
    "model_dir",
    "init_from",
    "cache_dir",
    "num_processes",
    "max_auto_cache_bytes",
    "log_every",
    "save_every",
    "keep",
    "num_seeds",
    "num_passages",
)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        pieces: in the order in which they are begun: all of a fraction before the next, so that a comparison that is
            stopped has compared everything there is.
        step_flops: of a step of each variant.
        total_steps: of each variant's whole budget, over which its learning rate runs.
    """

    pieces: tuple[Piece, ...]
    step_flops: Mapping[str, int]
    total_steps: Mapping[str, int]


def make_plan(run: ComparisonRun) -> Plan:
    """Every piece of a comparison, checked by building its configuration; the caller's own Gin is left alone.

    Raises:
        UserError: a file, binding or value that Gin refuses, in whose words; an unknown task; too small a budget.
    """
    with gin_config.isolated():
        tasks = finetunings(run)
        variants = named("VARIANTS", run.variants)
        folders = {fraction: f"{fraction:.10g}" for fraction in run.fractions}
        pretrainings = {variant.name: pretraining(run, variant, folders) for variant in variants}
        pieces = list(baseline(run, tasks)) if run.random_baseline else []
        for number in range(len(run.fractions)):
            for variant in variants:
                stage = pretrainings[variant.name].stages[number]
                pieces += [stage, *(finetuning(run, stage, task) for task in tasks.values())]
    return Plan(
        tuple(pieces),
        {name: found.step_flops for name, found in pretrainings.items()},
        {name: found.total_steps for name, found in pretrainings.items()},
    )


@dataclasses.dataclass(frozen=True)
class _Pretraining:
    """Of one variant: a piece for each fraction."""

    stages: tuple[Piece, ...]
    step_flops: int
    total_steps: int


@dataclasses.dataclass(frozen=True)
class _Finetuning:
    """Of one task: what is the same for every checkpoint."""

    name: str
    task: str
    arguments: tuple[str, ...]
    settings: Mapping[str, str]


def pretraining(run: ComparisonRun, variant: Named, folders: Mapping[float, str]) -> _Pretraining:
    """A variant's pre-training, up to each fraction of the budget."""
    shared = run.shared_by("PRETRAINING")
    files = [*shared.files, *variant.files]
    what = f"the variant {variant.name!r}"

    def bindings(total: int, steps: int, model_dir: str) -> list[str]:
        return [
            f"CORPUS={run.corpus!r}",
            f"VOCAB_FILE={run.vocab_file!r}",
            f"SEED={run.seed}",
            f"WARMUP_STEPS={round(run.warmup_fraction * total)}",
            *shared.bindings,
            *variant.bindings,
            f"TRAIN_STEPS={total}",
            # The schedule runs over the whole budget, also where this piece ends before.
            f"training.LoopConfig.num_train_steps={steps}",
            f"MODEL_DIR={model_dir!r}",
        ]

    cost = step_flops(_built(what, "PretrainingRun", files, bindings(1, 1, "")))
    total = round(run.flops / cost)
    stages: list[Piece] = []
    for fraction, steps in zip(
        run.fractions,
        steps_of(variant.name, flops=run.flops, fractions=run.fractions, step_flops=cost),
        strict=True,
    ):
        name = f"{variant.name}/{folders[fraction]}/pretrain"
        given = bindings(total, steps, str(Path(run.model_dir) / name))
        _built(what, "PretrainingRun", files, given)
        stages.append(
            Piece(
                name=name,
                variant=variant.name,
                fraction=fraction,
                task=None,
                arguments=_arguments("pretrain", files, given),
                settings=_of_the_result(gin_config.settings()),
                steps=steps,
                flops=float(steps * cost),
                needs=stages[-1].name if stages else None,
            )
        )
    return _Pretraining(tuple(stages), cost, total)


def step_flops(configuration: PretrainingRun) -> int:
    """Matrix FLOPs of a step of a pre-training, generator included."""
    masking = configuration.masking_config(cls_id=-1, sep_id=-1, mask_id=-1)
    return configuration.step_flops(masking.max_predictions(configuration.cache.sequence_length))


def finetunings(run: ComparisonRun) -> dict[str, _Finetuning]:
    """What is the same of a task's fine-tuning for every checkpoint, by the names of TASKS."""
    shared = run.shared_by("FINETUNING")
    found, tasks = {}, {}
    for entry in named("TASKS", run.tasks):
        files = [FINETUNING_FILE, *shared.files, *entry.files]
        given = [
            f"TASK={entry.name!r}",
            f"NUM_SEEDS={run.num_seeds}",
            f"SEED={run.seed}",
            *shared.bindings,
            *entry.bindings,
        ]
        places = ["INIT_FROM=None", "MODEL_DIR=''"]
        built = _built(f"the task {entry.name!r}", "finetune_run.FinetuningRun", files, [*given, *places])
        if (built.num_seeds, built.seed) != (run.num_seeds, run.seed):
            raise UserError(f"the task {entry.name!r} binds its seeds itself: set NUM_SEEDS and SEED for all tasks")
        tasks[entry.name] = built.task.task
        found[entry.name] = _Finetuning(
            entry.name,
            built.task.task,
            _arguments("finetune", files, given),
            _of_the_result(gin_config.settings()),
        )
    check_tasks(tasks, NAMES, () if set(tasks.values()) <= set(NAMES) else _registered())
    return found


def finetuning(run: ComparisonRun, stage: Piece, task: _Finetuning) -> Piece:
    """The fine-tuning of a checkpoint on a task."""
    name = f"{stage.name.rpartition('/')[0]}/{task.name}"
    places = [f"INIT_FROM={str(Path(run.model_dir) / stage.name)!r}", f"MODEL_DIR={str(Path(run.model_dir) / name)!r}"]
    return Piece(
        name=name,
        variant=stage.variant,
        fraction=stage.fraction,
        task=task.name,
        arguments=(*task.arguments, *_flags(places)),
        settings=task.settings,
        steps=stage.steps,
        flops=stage.flops,
        needs=stage.name,
    )


def baseline(run: ComparisonRun, tasks: Mapping[str, _Finetuning]) -> list[Piece]:
    """The fine-tunings of random weights."""
    encoder = _baseline_encoder(run)
    sizes = [
        f"encoder.EncoderConfig.{field.name}={getattr(encoder, field.name)!r}" for field in dataclasses.fields(encoder)
    ]
    pieces = []
    for task in tasks.values():
        name = f"{RANDOM}/{task.name}"
        given = [*sizes, f"VOCAB_FILE={run.vocab_file!r}", "INIT_FROM=None"]
        pieces.append(
            Piece(
                name=name,
                variant=RANDOM,
                fraction=0.0,
                task=task.name,
                arguments=(*task.arguments, *_flags([*given, f"MODEL_DIR={str(Path(run.model_dir) / name)!r}"])),
                settings={**task.settings, "EncoderConfig": repr(encoder), "VOCAB_FILE": repr(run.vocab_file)},
                steps=0,
                flops=0.0,
                needs=None,
            )
        )
    return pieces


def _baseline_encoder(run: ComparisonRun) -> EncoderConfig:
    shared = run.shared_by("PRETRAINING")
    own = [f"VOCAB_FILE={run.vocab_file!r}", "MODEL_DIR=''", *shared.bindings]
    return _built("PRETRAINING", "PretrainingRun", list(shared.files), own).encoder


def _built(what: str, kind: str, files: Sequence[str], bindings: Sequence[str]) -> Any:
    """The configuration that the process will build, so that what is wrong with it is said now."""
    try:
        return gin_config.build(kind, list(files), list(bindings), search_paths=[])
    except UserError as error:
        raise UserError(f"{what}: {error}") from error


def _of_the_result(settings: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in settings.items() if name.rpartition(".")[2] not in _NOT_OF_THE_RESULT}


def _arguments(verb: str, files: Sequence[str], bindings: Sequence[str]) -> tuple[str, ...]:
    return (verb, *(f"--gin_file={file}" for file in files), *_flags(bindings))


def _flags(bindings: Sequence[str]) -> list[str]:
    return [f"--gin.{binding}" for binding in bindings]


def _registered() -> Sequence[str]:
    """SeqIO's tasks; TensorFlow is loaded only for a name that is none of ours."""
    import seqio

    return seqio.TaskRegistry.names()

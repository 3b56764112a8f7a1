"""From a comparison's settings to its pieces of work: Gin says what a step of each variant costs."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from electra_jax.compare.pieces import Piece
from electra_jax.config import gin_files
from electra_jax.config.comparison import PRETRAIN, RANDOM, ComparisonRun, Named
from electra_jax.config.pretraining import PretrainingRun
from electra_jax.errors import UserError
from electra_jax.tasks.catalog import check_name

FINETUNING_FILE = "gin/runs/finetune.gin"
# Settings that say where, how often or how fast, and those that differ from piece to piece by design.
_RESUME_IGNORES = (
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
    folders = gin_files.search_paths()
    with gin_files.isolated():
        tasks = [_task(run, entry, folders) for entry in run.named_tasks]
        step_flops = {entry.name: _step_flops(run, entry, folders) for entry in run.named_variants}
        stages = {entry.name: _stages(run, entry, step_flops[entry.name], folders) for entry in run.named_variants}
        pieces = _random_weights(run, tasks, folders) if run.random_baseline else []
        for of_fraction in zip(*stages.values(), strict=True):
            for stage in of_fraction:
                pieces += [stage, *(_finetuning(run, stage, task) for task in tasks)]
    total_steps = {name: round(run.flops / flops) for name, flops in step_flops.items()}
    return Plan(tuple(pieces), step_flops, total_steps)


def steps_of(variant: str, *, flops: float, fractions: Sequence[float], step_flops: int) -> list[int]:
    """Steps at each fraction of a budget, each the nearest whole number; the budget's own are those of fraction 1.

    Raises:
        UserError: a fraction is less than a step, or no more steps than the one before.
    """
    total = round(flops / step_flops)
    steps = [round(fraction * total) for fraction in fractions]
    if steps[0] < 1:
        raise UserError(
            f"FLOPS {flops:.4g} makes less than one step of {variant!r} at the fraction {fractions[0]:g} (a step is "
            f"{step_flops:.4g} FLOPs): set FLOPS to {step_flops / fractions[0]:.4g} at least, or leave the fraction out"
        )
    for (low, first), (high, second) in itertools.pairwise(zip(fractions, steps, strict=True)):
        if first == second:
            raise UserError(
                f"the fractions {low:g} and {high:g} of FLOPS {flops:.4g} are both step {first} of {variant!r}: leave "
                "one out, or raise FLOPS"
            )
    return steps


@dataclasses.dataclass(frozen=True)
class _Configured:
    """What Gin made of files and bindings: the configuration, the command that gives them, and what decides results."""

    name: str
    built: Any
    arguments: tuple[str, ...]
    settings: Mapping[str, str]


def _step_flops(run: ComparisonRun, variant: Named, folders: Sequence[str]) -> int:
    """Matrix FLOPs of a step of a variant, generator included."""
    built: PretrainingRun = _pretraining(run, variant, folders, total=1, steps=1, model_dir="").built
    masking = built.masking_config(cls_id=-1, sep_id=-1, mask_id=-1)
    return built.step_flops(masking.max_predictions(built.cache.sequence_length))


def _stages(run: ComparisonRun, variant: Named, step_flops: int, folders: Sequence[str]) -> list[Piece]:
    """A variant's pre-training, up to each fraction of the budget."""
    total = round(run.flops / step_flops)
    every = steps_of(variant.name, flops=run.flops, fractions=run.fractions, step_flops=step_flops)
    stages: list[Piece] = []
    for fraction, steps in zip(run.fractions, every, strict=True):
        name = f"{variant.name}/{fraction:.10g}/{PRETRAIN}"
        made = _pretraining(run, variant, folders, total=total, steps=steps, model_dir=_place(run, name))
        stages.append(
            Piece(
                name=name,
                variant=variant.name,
                fraction=fraction,
                task=None,
                arguments=made.arguments,
                settings=made.settings,
                steps=steps,
                flops=float(steps * step_flops),
                needs=stages[-1].name if stages else None,
            )
        )
    return stages


def _pretraining(
    run: ComparisonRun, variant: Named, folders: Sequence[str], *, total: int, steps: int, model_dir: str
) -> _Configured:
    """A variant's pre-training of so many steps, of a schedule over `total`."""
    shared = run.shared_pretraining
    bindings = [
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
    return _configured(variant.name, "pretrain", [*shared.files, *variant.files], bindings, folders)


def _task(run: ComparisonRun, entry: Named, folders: Sequence[str]) -> _Configured:
    """What is the same of a task's fine-tuning for every checkpoint."""
    shared = run.shared_finetuning
    seeds = [f"NUM_SEEDS={run.num_seeds}", f"SEED={run.seed}"]
    files = [FINETUNING_FILE, *shared.files, *entry.files]
    bindings = [f"TASK={entry.name!r}", *seeds, *shared.bindings, *entry.bindings]
    places = ["INIT_FROM=None", "MODEL_DIR=''"]
    task = _configured(entry.name, "finetune", files, [*bindings, *places], folders)
    check_name(task.built.task.task)
    # Each checkpoint has its own places.
    return dataclasses.replace(task, arguments=task.arguments[: -len(places)])


def _finetuning(run: ComparisonRun, stage: Piece, task: _Configured) -> Piece:
    """The fine-tuning of a checkpoint on a task."""
    name = f"{stage.name.removesuffix(PRETRAIN)}{task.name}"
    places = [f"INIT_FROM={_place(run, stage.name)!r}", f"MODEL_DIR={_place(run, name)!r}"]
    arguments = (*task.arguments, *_flags(places))
    return dataclasses.replace(
        stage, name=name, task=task.name, arguments=arguments, settings=task.settings, needs=stage.name
    )


def _random_weights(run: ComparisonRun, tasks: Sequence[_Configured], folders: Sequence[str]) -> list[Piece]:
    """The fine-tunings of random weights, of the size that PRETRAINING says."""
    shared = run.shared_pretraining
    own = [f"VOCAB_FILE={run.vocab_file!r}", "MODEL_DIR=''", *shared.bindings]
    encoder = _configured("PRETRAINING", "pretrain", shared.files, own, folders).built.encoder
    sizes = {f"EncoderConfig.{field.name}": repr(getattr(encoder, field.name)) for field in dataclasses.fields(encoder)}
    given = [f"encoder.{name}={value}" for name, value in sizes.items()]
    given += [f"VOCAB_FILE={run.vocab_file!r}", "INIT_FROM=None"]
    return [
        Piece(
            name=(name := f"{RANDOM}/{task.name}"),
            variant=RANDOM,
            fraction=0.0,
            task=task.name,
            arguments=(*task.arguments, *_flags([*given, f"MODEL_DIR={_place(run, name)!r}"])),
            settings={**task.settings, **sizes, "VOCAB_FILE": repr(run.vocab_file)},
            steps=0,
            flops=0.0,
            needs=None,
        )
        for task in tasks
    ]


def _place(run: ComparisonRun, name: str) -> str:
    """The MODEL_DIR of a piece."""
    return str(Path(run.model_dir) / name)


def _configured(
    name: str, verb: str, files: Sequence[str], bindings: Sequence[str], folders: Sequence[str]
) -> _Configured:
    """The configuration that the process will build, so that what is wrong with it is said now."""
    kind = {"pretrain": "PretrainingRun", "finetune": "finetune_run.FinetuningRun"}[verb]
    try:
        built = gin_files.build(kind, list(files), list(bindings), search_paths=list(folders))
    except UserError as error:
        raise UserError(f"{name!r}: {error}") from error
    found = [f"--gin_search_paths={','.join(folders)}"] if folders else []
    settings = {
        setting: value
        for setting, value in gin_files.settings().items()
        if setting.rpartition(".")[2] not in _RESUME_IGNORES
    }
    return _Configured(
        name, built, (verb, *(f"--gin_file={file}" for file in files), *found, *_flags(bindings)), settings
    )


def _flags(bindings: Sequence[str]) -> list[str]:
    return [f"--gin.{binding}" for binding in bindings]

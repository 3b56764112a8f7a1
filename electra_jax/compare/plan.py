"""Plan a comparison: the pre-trainings and fine-tunings that it needs, their order, and how long the rest takes."""

import dataclasses
import itertools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from electra_jax.config import gin_files
from electra_jax.config.budget import flops_of, mean_step_flops, steps_within
from electra_jax.config.comparison import PRETRAIN, PROBE, RANDOM, ComparisonRun, Overrides
from electra_jax.config.finetuning import FinetuningRun
from electra_jax.config.pretraining import PretrainingRun
from electra_jax.config.probing import ProbeRun
from electra_jax.errors import UserError
from electra_jax.tasks.catalog import check_name
from electra_jax.tasks.tagging.probing import check_probe

_TASK_FILES = {"finetune": "gin/runs/finetune.gin", "probe": "gin/runs/probe.gin"}
# Settings that decide where, how often or how fast, and those that differ between items by design.
_NOT_COMPARED = (
    "model_dir",
    "FinetuningRun.init_from",
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
class WorkItem:
    """One process: a pre-training up to a fraction of the budget, or the fine-tuning of a checkpoint on a task.

    Attributes:
        name: its directory below the comparison's; its record is beside that as .json, its output as .log.
        variant: the pre-training variant, or `RANDOM`.
        fraction: share of the budget that its weights have had; 0 for random weights.
        task: the task that is fine-tuned on; None for a pre-training.
        arguments: the command line of `electra`, command first.
        settings: the values that Gin binds, as text, without those that cannot change the result.
        steps: updates that its weights have had in all.
        flops: FLOPs of those updates.
        needs: name of the item that must be done before; None if there is none.
    """

    name: str
    variant: str
    fraction: float
    task: str | None
    arguments: tuple[str, ...]
    settings: Mapping[str, str]
    steps: int
    flops: float
    needs: str | None


@dataclasses.dataclass(frozen=True)
class Plan:
    """All work of a comparison.

    Attributes:
        items: in the order in which they are started: all items of a fraction before those of the next, so that a
            comparison that is stopped has compared what there is.
        step_flops: FLOPs of a step of each variant, the mean where they differ.
        total_steps: steps of each variant's whole budget, over which its learning-rate schedule runs.
    """

    items: tuple[WorkItem, ...]
    step_flops: Mapping[str, int]
    total_steps: Mapping[str, int]


class Timing(NamedTuple):
    """The seconds that one process took, the share of its item that it did, and the share that is left.

    A process that resumes an item after a kill does only a part of it.
    """

    seconds: float
    share: float
    left: float


def make_plan(run: ComparisonRun) -> Plan:
    """Return every item of a comparison, checked by building its configuration; the caller's own Gin is kept.

    Raises:
        UserError: if Gin refuses a file, binding or value, a task is unknown, or the budget is too small.
    """
    folders = gin_files.search_paths()
    with gin_files.isolated():
        tasks = [_task(run, entry, folders) for entry in run.named_tasks]
        step_flops = {entry.name: _step_flops(run, entry, folders) for entry in run.named_variants}
        stages = {entry.name: _stages(run, entry, step_flops[entry.name], folders) for entry in run.named_variants}
        items = _random_weights(run, tasks, folders) if run.random_baseline else []
        for of_fraction in zip(*stages.values(), strict=True):
            for stage in of_fraction:
                items += [stage, *(_finetuning(run, stage, task) for task in tasks)]
    total_steps = {name: round(run.flops / flops) for name, flops in step_flops.items()}
    return Plan(tuple(items), step_flops, total_steps)


def ready(items: Sequence[WorkItem], *, done: Collection[str], begun: Collection[str]) -> list[WorkItem]:
    """Return the items that can be started, in order: not begun or done, and what they need is done."""
    return [
        item
        for item in items
        if item.name not in done and item.name not in begun and (item.needs is None or item.needs in done)
    ]


def seconds_left(
    items: Sequence[WorkItem], timings: Mapping[str, Timing], *, processes: int
) -> tuple[float, Sequence[str]]:
    """Estimate how long the rest takes side by side, and return it with the items that nothing is known of.

    A FLOP of pre-training takes as long as one of the same variant did, or of the others if that has not run; a
    fine-tuning takes as long as others on its task did, or on any task.

    Args:
        items: all items.
        timings: of the items that are done or running.
        processes: number of processes side by side.
    """
    work = _own_work(items)
    timed = [item for item in items if item.name in timings and timings[item.name].share > 0]
    left, unknown = [0.0], []
    for item in items:
        share = timings[item.name].left if item.name in timings else 1.0
        same_command = [one for one in timed if (one.task is None) == (item.task is None)]
        like = "variant" if item.task is None else "task"
        alike = [one for one in same_command if getattr(one, like) == getattr(item, like)] or same_command
        if alike:
            seconds = sum(timings[one.name].seconds for one in alike)
            done = sum(timings[one.name].share * work[one.name] for one in alike)
            left.append(seconds / done * work[item.name] * share)
        elif share > 0:
            unknown.append(item.name)
    return max(sum(left) / processes, *left), unknown


def _own_work(items: Sequence[WorkItem]) -> dict[str, float]:
    """Return the FLOPs that each pre-training adds to the one that it continues; every fine-tuning counts as 1."""
    flops = {item.name: item.flops for item in items}
    return {
        item.name: 1.0 if item.task is not None else item.flops - (flops[item.needs] if item.needs else 0)
        for item in items
    }


def steps_of(variant: str, *, whole: PretrainingRun, flops: float, fractions: Sequence[float]) -> list[int]:
    """Return the steps at each fraction of a budget, to the nearest whole number of the budget's own steps.

    Args:
        variant: its name.
        whole: the pre-training for the whole budget.
        flops: the budget.
        fractions: increasing shares of it.

    Raises:
        UserError: if a fraction makes less than one step, or no more steps than the fraction before.
    """
    step_flops = mean_step_flops(whole)
    spent = flops_of(whole, round(flops / step_flops))
    steps = [steps_within(whole, fraction * spent) for fraction in fractions]
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
    """A configuration that Gin built, the command line that builds it, and the settings that decide its result."""

    name: str
    built: Any
    arguments: tuple[str, ...]
    settings: Mapping[str, str]


def _step_flops(run: ComparisonRun, variant: Overrides, folders: Sequence[str]) -> int:
    """Return the matrix FLOPs of a step of a variant, generator included: the mean where they differ."""
    built: PretrainingRun = _pretraining(run, variant, folders, total=1, steps=1, model_dir=run.model_dir).built
    return round(mean_step_flops(built))


def _stages(run: ComparisonRun, variant: Overrides, step_flops: int, folders: Sequence[str]) -> list[WorkItem]:
    """Return a variant's pre-trainings, one for each fraction of the budget."""
    total = round(run.flops / step_flops)
    whole: PretrainingRun = _pretraining(
        run, variant, folders, total=max(1, total), steps=1, model_dir=run.model_dir
    ).built
    every = steps_of(variant.name, whole=whole, flops=run.flops, fractions=run.fractions)
    stages: list[WorkItem] = []
    for fraction, steps in zip(run.fractions, every, strict=True):
        name = f"{variant.name}/{fraction:.10g}/{PRETRAIN}"
        made = _pretraining(run, variant, folders, total=total, steps=steps, model_dir=_directory(run, name))
        stages.append(
            WorkItem(
                name=name,
                variant=variant.name,
                fraction=fraction,
                task=None,
                arguments=made.arguments,
                settings=made.settings,
                steps=steps,
                flops=float(flops_of(whole, steps)),
                needs=stages[-1].name if stages else None,
            )
        )
    return stages


def _pretraining(
    run: ComparisonRun, variant: Overrides, folders: Sequence[str], *, total: int, steps: int, model_dir: str
) -> _Configured:
    """Configure a variant's pre-training of `steps` steps, with a learning-rate schedule over `total`."""
    shared = run.shared_pretraining
    bindings = [
        f"CORPUS={run.corpus!r}",
        f"VOCAB_FILE={run.vocab_file!r}",
        f"SEED={run.seed}",
        f"WARMUP_STEPS={round(run.warmup_fraction * total)}",
        *shared.bindings,
        *variant.bindings,
        f"TRAIN_STEPS={total}",
        f"training.LoopConfig.num_train_steps={steps}",
        f"MODEL_DIR={model_dir!r}",
    ]
    return _configured(variant.name, "pretrain", [*shared.files, *variant.files], bindings, folders)


def _task(run: ComparisonRun, entry: Overrides, folders: Sequence[str]) -> _Configured:
    """Configure a task's fine-tuning, or a probe, as far as it is the same for every checkpoint."""
    command = "probe" if entry.name.startswith(PROBE) else "finetune"
    shared = Overrides(entry.name, (), ()) if command == "probe" else run.shared_finetuning
    seeds = [f"NUM_SEEDS={run.num_seeds}", f"SEED={run.seed}"]
    files = [_TASK_FILES[command], *shared.files, *entry.files]
    bindings = [f"TASK={entry.name.removeprefix(PROBE)!r}", *seeds, *shared.bindings, *entry.bindings]
    directories = ["INIT_FROM=None", f"MODEL_DIR={run.model_dir!r}"]
    task = _configured(entry.name, command, files, [*bindings, *directories], folders)
    (check_probe if command == "probe" else check_name)(task.built.task.task)
    # Each checkpoint has its own directories.
    return dataclasses.replace(task, arguments=task.arguments[: -len(directories)])


def _finetuning(run: ComparisonRun, stage: WorkItem, task: _Configured) -> WorkItem:
    """Return the fine-tuning of a checkpoint on a task."""
    name = f"{stage.name.removesuffix(PRETRAIN)}{task.name}"
    directories = [f"INIT_FROM={_directory(run, stage.name)!r}", f"MODEL_DIR={_directory(run, name)!r}"]
    arguments = (*task.arguments, *_flags(directories))
    return dataclasses.replace(
        stage, name=name, task=task.name, arguments=arguments, settings=task.settings, needs=stage.name
    )


def _random_weights(run: ComparisonRun, tasks: Sequence[_Configured], folders: Sequence[str]) -> list[WorkItem]:
    """Return the fine-tunings of random weights, with the sizes that PRETRAINING binds."""
    shared = run.shared_pretraining
    own = [f"VOCAB_FILE={run.vocab_file!r}", f"MODEL_DIR={run.model_dir!r}", *shared.bindings]
    encoder = _configured("PRETRAINING", "pretrain", shared.files, own, folders).built.encoder
    sizes = {f"EncoderConfig.{field.name}": repr(getattr(encoder, field.name)) for field in dataclasses.fields(encoder)}
    given = [f"encoder.{name}={value}" for name, value in sizes.items()]
    given += [f"VOCAB_FILE={run.vocab_file!r}", "INIT_FROM=None"]
    return [
        WorkItem(
            name=(name := f"{RANDOM}/{task.name}"),
            variant=RANDOM,
            fraction=0.0,
            task=task.name,
            arguments=(*task.arguments, *_flags([*given, f"MODEL_DIR={_directory(run, name)!r}"])),
            settings={**task.settings, **sizes, "VOCAB_FILE": repr(run.vocab_file)},
            steps=0,
            flops=0.0,
            needs=None,
        )
        for task in tasks
    ]


def _directory(run: ComparisonRun, name: str) -> str:
    """Return the MODEL_DIR of an item."""
    return str(Path(run.model_dir) / name)


def _configured(
    name: str, command: str, files: Sequence[str], bindings: Sequence[str], folders: Sequence[str]
) -> _Configured:
    """Build the configuration that the process will build, so that mistakes in it are reported before anything runs."""
    kind = {"pretrain": PretrainingRun, "finetune": FinetuningRun, "probe": ProbeRun}[command]
    try:
        built = gin_files.build(kind, list(files), list(bindings), search_paths=list(folders))
    except UserError as error:
        raise UserError(f"{name!r}: {error}") from error
    paths = [f"--gin_search_paths={','.join(folders)}"] if folders else []
    settings = {
        setting: value
        for setting, value in gin_files.settings().items()
        if {setting, setting.rpartition(".")[2]}.isdisjoint(_NOT_COMPARED)
    }
    arguments = (command, *(f"--gin_file={file}" for file in files), *paths, *_flags(bindings))
    return _Configured(name, built, arguments, settings)


def _flags(bindings: Sequence[str]) -> list[str]:
    return [f"--gin.{binding}" for binding in bindings]

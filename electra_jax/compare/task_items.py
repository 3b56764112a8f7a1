"""Make the items of a comparison that evaluate its checkpoints: fine-tunings, probes and minimal pairs."""

import dataclasses
from collections.abc import Sequence

from electra_jax.compare.compared_item import Configured, WorkItem, configured, directory_of, flags_of
from electra_jax.config.comparison import PAIRS, PRETRAIN, PROBE, ComparisonRun, Overrides
from electra_jax.errors import UserError
from electra_jax.run_directory import PAIRS as SCORED_PAIRS
from electra_jax.tasks.catalog import check_name
from electra_jax.tasks.tagging.probing import check_probe
from electra_jax.tasks.text.minimal_pairs import MINIMAL_PAIRS

_TASK_FILES = {
    "finetune": "gin/runs/finetune.gin",
    "probe": "gin/runs/probe.gin",
    "evaluate": "gin/runs/evaluate.gin",
}


def task_of(run: ComparisonRun, entry: Overrides, folders: Sequence[str]) -> Configured:
    """Configure the part of a fine-tuning, a probe or minimal pairs that is the same for every checkpoint.

    Raises:
        UserError: if Gin refuses it, there is no such task or probe, or no folder of pairs is named.
    """
    if entry.name.startswith(PAIRS):
        return pairs_of(run, entry, folders)
    command = "probe" if entry.name.startswith(PROBE) else "finetune"
    shared = Overrides(entry.name, (), ()) if command == "probe" else run.shared_finetuning
    seeds = [f"NUM_SEEDS={run.num_seeds}", f"SEED={run.seed}"]
    files = [_TASK_FILES[command], *shared.files, *entry.files]
    bindings = [f"TASK={entry.name.removeprefix(PROBE)!r}", *seeds, *shared.bindings, *entry.bindings]
    directories = ["INIT_FROM=None", f"MODEL_DIR={run.model_dir!r}"]
    task = configured(entry.name, command, files, [*bindings, *directories], folders)
    (check_probe if command == "probe" else check_name)(task.built.task.task)
    # Each checkpoint has its own directories.
    return dataclasses.replace(task, arguments=task.arguments[: -len(directories)])


def pairs_of(run: ComparisonRun, entry: Overrides, folders: Sequence[str]) -> Configured:
    """Configure the scoring of minimal pairs: `electra evaluate` on a checkpoint, without further training.

    Raises:
        UserError: if Gin refuses it, or no folder is named.
    """
    bindings = [f"TASK={MINIMAL_PAIRS!r}", *entry.bindings]
    directories = [f"MODEL_DIR={run.model_dir!r}", "OUTPUT=None"]
    files = [_TASK_FILES["evaluate"], *entry.files]
    task = configured(entry.name, "evaluate", files, [*bindings, *directories], folders)
    if task.built.task.data_dir is None:
        raise UserError(f"{entry.name!r} names no pairs: bind DATA_DIR to their folder, such as BLiMP's data/")
    return dataclasses.replace(task, arguments=task.arguments[: -len(directories)])


def finetuning_of(run: ComparisonRun, stage: WorkItem, task: Configured) -> WorkItem:
    """Return the fine-tuning of a checkpoint on a task, or the item that scores it without fine-tuning."""
    name = f"{stage.name.removesuffix(PRETRAIN)}{task.name}"
    directories = [f"INIT_FROM={directory_of(run, stage.name)!r}", f"MODEL_DIR={directory_of(run, name)!r}"]
    if task.name.startswith(PAIRS):
        output = f"{directory_of(run, name)}/{SCORED_PAIRS}"
        directories = [f"MODEL_DIR={directory_of(run, stage.name)!r}", f"OUTPUT={output!r}"]
    arguments = (*task.arguments, *flags_of(directories))
    return dataclasses.replace(
        stage,
        name=name,
        task=task.name,
        folds=folds_of(task),
        arguments=arguments,
        settings=task.settings,
        needs=stage.name,
    )


def folds_of(task: Configured) -> int:
    """Return the number of folds of a task's cross-validation; 1 without cross-validation."""
    options = task.built.task
    return options.folds if options.folds is not None and options.fold is None else 1

"""Plan a comparison: the pre-trainings and fine-tunings that it needs, their order, and how long the rest takes."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from electra_jax.compare.baselines import random_weights, trigram_model
from electra_jax.compare.compared_item import WorkItem
from electra_jax.compare.item import Item
from electra_jax.compare.pretraining_items import budget_of, stages_of, trials_of
from electra_jax.compare.task_items import finetuning_of, task_of
from electra_jax.config import gin_files
from electra_jax.config.comparison import ComparisonRun, GridPoint


@dataclasses.dataclass(frozen=True)
class Plan:
    """All work of a comparison.

    Attributes:
        items: in the order in which they are started: tuning first, then all items of a fraction before those of the
            next, so that a comparison that is stopped early is complete up to a fraction.
        pending: the items of variants that are not tuned yet, with the grid's first settings as placeholders.
        step_flops: FLOPs of a step of each variant; the mean if steps differ.
        total_steps: steps of each variant's whole budget, over which its schedules run.
    """

    items: tuple[WorkItem, ...]
    pending: tuple[WorkItem, ...]
    step_flops: Mapping[str, int]
    total_steps: Mapping[str, int]


class Timing(NamedTuple):
    """The seconds that one process took, the share of its item that it did, and the share that is left.

    A process that resumes an item after a kill does only a part of it.
    """

    seconds: float
    share: float
    left: float


def make_plan(run: ComparisonRun, tuned: Mapping[str, GridPoint]) -> Plan:
    """Return every item of a comparison, checked by building its configuration; the caller's own Gin is restored.

    Args:
        run: the comparison's settings.
        tuned: the best pair of the grid for each variant that is tuned; empty without a grid.

    Raises:
        UserError: if Gin refuses a file, binding or value, a task is unknown, or the budget is too small.
    """
    folders = gin_files.search_paths()
    with gin_files.isolated():
        tasks = [task_of(run, entry, folders) for entry in run.named_tasks]
        budgets = {entry.name: budget_of(run, entry, folders) for entry in run.named_variants}
        items = trials_of(run, list(budgets.values()), tasks[0], folders) if run.grid else []
        items += random_weights(run, tasks, folders) if run.random_baseline else []
        items += trigram_model(run, tasks, folders)
        stages = [
            stages_of(run, budget, tuned.get(name), seed, folders)
            for seed in run.seeds_of_pretraining
            for name, budget in budgets.items()
        ]
        pending = []
        for of_fraction in zip(*stages, strict=True):
            for parts in of_fraction:
                found = [*parts, *(finetuning_of(run, parts[-1], task) for task in tasks)]
                (pending if run.grid and parts[-1].variant not in tuned else items).extend(found)
    step_flops = {name: budget.step_flops for name, budget in budgets.items()}
    total_steps = {name: budget.total for name, budget in budgets.items()}
    return Plan(tuple(items), tuple(pending), step_flops, total_steps)


def ready(items: Sequence[Item], *, done: Collection[str], begun: Collection[str]) -> list[Item]:
    """Return the items that can be started, in order: neither begun nor done, and the item that they need is done."""
    return [
        item
        for item in items
        if item.name not in done and item.name not in begun and (item.needs is None or item.needs in done)
    ]


def seconds_left(
    items: Sequence[Item], timings: Mapping[str, Timing], *, processes: int
) -> tuple[float, Sequence[str]]:
    """Estimate how long the rest takes side by side; return the estimate and the items for which there is none.

    A FLOP of pre-training is assumed to take as long as for the same variant, or for the others if it has not run; a
    fine-tuning as long as others on its task, or on any task.

    Args:
        items: all items.
        timings: the timings of the items that are done or running.
        processes: number of processes side by side.
    """
    work = own_work(items)
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


def own_work(items: Sequence[Item]) -> dict[str, float]:
    """Return the FLOPs that each pre-training adds to the one that it continues; every fine-tuning counts as 1."""
    flops = {item.name: item.flops for item in items if item.task is None}
    return {
        item.name: 1.0 if item.task is not None else item.flops - (flops[item.needs] if item.needs else 0)
        for item in items
    }

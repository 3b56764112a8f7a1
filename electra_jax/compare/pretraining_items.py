"""Make the items of a comparison that pre-train: each fraction of the budget, its trunk, and the trials of a grid."""

import dataclasses
import itertools
from collections.abc import Sequence

from electra_jax.compare.compared_item import (
    COMPARED,
    TRUNK,
    TUNING,
    Configured,
    WorkItem,
    configured,
    directory_of,
)
from electra_jax.compare.task_items import finetuning_of
from electra_jax.config.budget import flops_of, mean_step_flops, steps_within
from electra_jax.config.comparison import PRETRAIN, ComparisonRun, GridPoint, Overrides
from electra_jax.config.pretraining import PretrainingRun
from electra_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Budget:
    """The steps of a variant that a comparison's FLOPs pay for: a step's mean cost, their number, and the whole run."""

    variant: Overrides
    step_flops: int
    total: int
    whole: PretrainingRun


@dataclasses.dataclass(frozen=True)
class _Course:
    """The course of one pre-training.

    Attributes:
        seed: its seed.
        total: steps over which its schedules run, except the learning rate's.
        end: the step at which the learning rate reaches zero.
        steps: its last step.
        warmup: steps over which the learning rate rises.
        cool_down: steps over which it falls; None for the variant's settings.
        point: the pair of the grid; None for the variant's settings.
    """

    seed: int
    total: int
    end: int
    steps: int
    warmup: int
    cool_down: int | None
    point: GridPoint | None

    @property
    def bindings(self) -> list[str]:
        """Return the bindings that follow those of the variant."""
        found = [f"TRAIN_STEPS={self.end}", f"training.LoopConfig.num_train_steps={self.steps}"]
        if self.point is not None:
            found += [f"LEARNING_RATE={self.point.learning_rate!r}", f"WARMUP_STEPS={self.warmup}"]
        if self.cool_down is not None:
            found += [f"LR_DECAY_SHARE={self.cool_down / self.end!r}", f"SCHEDULE_STEPS={self.total}"]
            found += [f"pretraining.WeightSchedule.num_train_steps={self.total}"]
        return found


def steps_of(variant: str, *, whole: PretrainingRun, flops: float, fractions: Sequence[float]) -> list[int]:
    """Return the steps at each fraction of a budget, rounded to whole steps.

    Args:
        variant: its name.
        whole: the pre-training for the whole budget.
        flops: the budget.
        fractions: increasing shares of it.

    Raises:
        UserError: if a fraction pays for less than one step, or for no more steps than the fraction before.
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


def budget_of(run: ComparisonRun, variant: Overrides, folders: Sequence[str]) -> Budget:
    """Return the steps that the budget pays for, in matrix FLOPs with the generator included."""
    course = _Course(run.seed, total=1, end=1, steps=1, warmup=0, cool_down=None, point=None)
    step: PretrainingRun = _pretraining(run, variant, course, run.model_dir, folders).built
    step_flops = round(mean_step_flops(step))
    total = round(run.flops / step_flops)
    course = dataclasses.replace(course, total=max(1, total), end=max(1, total))
    return Budget(variant, step_flops, total, _pretraining(run, variant, course, run.model_dir, folders).built)


def stages_of(
    run: ComparisonRun, budget: Budget, tuned: GridPoint | None, seed: int, folders: Sequence[str]
) -> list[list[WorkItem]]:
    """Return a variant's pre-trainings with a seed: for each fraction of the budget, its trunk if any, and its run."""
    name, total = budget.variant.name, budget.total
    every = steps_of(name, whole=budget.whole, flops=run.flops, fractions=run.fractions)
    point = tuned or (run.grid[0] if run.grid else None)
    share = run.warmup_fraction if point is None else point.warmup
    warmup = round(share * (total if run.cool_down is None else every[0]))
    stages: list[list[WorkItem]] = []
    before, suffix = None, "" if seed == run.seed else f"-seed{seed}"
    for fraction, steps in zip(run.fractions, every, strict=True):
        folder = f"{name}/{fraction:.10g}{suffix}"
        course = _Course(seed, total, total, steps, warmup, None, point)
        parts: list[WorkItem] = []
        if run.cool_down is not None:
            fall = max(1, round(run.cool_down * steps))
            begun = 0 if before is None else before.steps
            check_trunk(name, fraction, steps=steps, fall=fall, warmup=warmup, before=begun)
            # The trunk stops before the rate would fall, so the end of its schedule does not matter.
            last = max(1, round(run.cool_down * every[-1]))
            along = dataclasses.replace(course, end=every[-1], steps=steps - fall, cool_down=last)
            before = _pretraining_item(run, budget, along, f"{folder}/{TRUNK}", TRUNK, fraction, before, folders)
            parts.append(before)
            course = dataclasses.replace(course, end=steps, cool_down=fall)
        done = _pretraining_item(run, budget, course, f"{folder}/{PRETRAIN}", COMPARED, fraction, before, folders)
        before = before if run.cool_down is not None else done
        stages.append([*parts, done])
    return stages


def check_trunk(name: str, fraction: float, *, steps: int, fall: int, warmup: int, before: int) -> None:
    """Refuse a finished run whose learning rate would begin to fall in its warm-up, or before the last branch.

    Args:
        name: the variant.
        fraction: the fraction of the budget.
        steps: steps of the finished run.
        fall: number of its last steps, in which the rate falls.
        warmup: number of its first steps, in which it rises.
        before: the step at which the run of the previous fraction branches off.

    Raises:
        UserError: if there is no step between them.
    """
    if steps - fall <= max(warmup, before):
        raise UserError(
            f"the run of {name!r} at the fraction {fraction:g} has {steps} steps: its learning rate would fall over "
            f"the last {fall}, and the warm-up, or the branch before, ends at step {max(warmup, before)}: lower "
            "COOL_DOWN or the warm-up, raise FLOPS, or leave a fraction out"
        )


def trials_of(
    run: ComparisonRun, budgets: Sequence[Budget], primary: Configured, folders: Sequence[str]
) -> list[WorkItem]:
    """Return the trials of every variant with every pair of the grid, each fine-tuned on the primary task."""
    items = []
    for budget in budgets:
        name = budget.variant.name
        # A trial is a run of its own, whose schedules end with it.
        steps = round(run.tune_share * run.flops / budget.step_flops)
        if steps < 1:
            raise UserError(
                f"TUNE_SHARE {run.tune_share:g} of FLOPS {run.flops:.4g} makes less than one step of {name!r} (a step "
                f"is {budget.step_flops:.4g} FLOPs): raise FLOPS or TUNE_SHARE"
            )
        fall = None if run.cool_down is None else max(1, round(run.cool_down * steps))
        for point in run.grid:
            course = _Course(run.tuning_seed, steps, steps, steps, round(point.warmup * steps), fall, point)
            trial = f"{name}/{TUNING}/{point.learning_rate:.10g}-{point.warmup:.10g}/{PRETRAIN}"
            stage = _pretraining_item(run, budget, course, trial, TUNING, run.tune_share, None, folders)
            items += [stage, finetuning_of(run, stage, primary)]
    return items


def _pretraining_item(
    run: ComparisonRun,
    budget: Budget,
    course: _Course,
    name: str,
    role: str,
    fraction: float,
    needs: WorkItem | None,
    folders: Sequence[str],
) -> WorkItem:
    """Return a pre-training that continues another one if `needs` is given."""
    made = _pretraining(run, budget.variant, course, directory_of(run, name), folders)
    return WorkItem(
        name=name,
        variant=budget.variant.name,
        role=role,
        seed=course.seed,
        fraction=fraction,
        task=None,
        folds=1,
        arguments=made.arguments,
        settings=made.settings,
        steps=course.steps,
        flops=float(flops_of(dataclasses.replace(budget.whole, schedule_steps=course.total), course.steps)),
        needs=None if needs is None else needs.name,
        point=course.point,
    )


def _pretraining(
    run: ComparisonRun, variant: Overrides, course: _Course, model_dir: str, folders: Sequence[str]
) -> Configured:
    """Configure a variant's pre-training."""
    shared = run.shared_pretraining
    bindings = [
        f"CORPUS={run.corpus!r}",
        f"VOCAB_FILE={run.vocab_file!r}",
        f"SEED={course.seed}",
        f"WARMUP_STEPS={course.warmup}",
        *shared.bindings,
        *variant.bindings,
        *course.bindings,
        f"MODEL_DIR={model_dir!r}",
    ]
    return configured(variant.name, "pretrain", [*shared.files, *variant.files], bindings, folders)

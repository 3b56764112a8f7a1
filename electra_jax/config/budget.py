"""Compute the FLOPs of a pre-training whose steps differ in cost, and the number of steps that a budget pays for."""

import dataclasses
from typing import NamedTuple

from electra_jax.config.pretraining import PretrainingRun


class Priced(NamedTuple):
    """A number of updates of the same cost, and the matrix FLOPs of each."""

    num_steps: int
    step_flops: int


def prices(run: PretrainingRun) -> tuple[Priced, ...]:
    """Return the stages of a run, in order, with the cost of a step of each; generator-only stages come first."""
    priced, alone = [], run.generator_steps
    for stage in run.batch_shapes.stages:
        border = min(max(alone, stage.start), stage.end)
        if border > stage.start:
            priced.append(Priced(border - stage.start, run.generator_step_flops(stage.shape)))
        if border < stage.end:
            priced.append(Priced(stage.end - border, run.step_flops(stage.shape)))
    return tuple(priced)


# A number of steps of which every share that people write is a whole number.
MANY_STEPS = 10**6


def mean_step_flops(run: PretrainingRun) -> float:
    """Return the mean matrix FLOPs of a step over a whole run, independent of its number of steps."""
    priced = prices(dataclasses.replace(run, schedule_steps=MANY_STEPS))
    return sum(stage.num_steps * stage.step_flops for stage in priced) / MANY_STEPS


def flops_of(run: PretrainingRun, num_steps: int) -> int:
    """Return the matrix FLOPs of the first updates of a run."""
    total, left = 0, num_steps
    for stage in prices(run):
        taken = min(left, stage.num_steps)
        total, left = total + taken * stage.step_flops, left - taken
    return total + left * run.step_flops(run.batch_shapes.full)


def steps_within(run: PretrainingRun, flops: float) -> int:
    """Return the number of a run's first updates whose FLOPs are nearest to a budget."""
    steps, left = 0, flops
    for stage in prices(run):
        taken = min(stage.num_steps, round(left / stage.step_flops))
        steps, left = steps + taken, left - taken * stage.step_flops
    return steps

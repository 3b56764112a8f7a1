"""The FLOPs of a pre-training whose steps do not all cost the same, and the steps that a budget pays for."""

import dataclasses
from typing import NamedTuple

from electra_jax.config.pretraining import PretrainingRun


class Priced(NamedTuple):
    """Updates of one cost: their number, and the matrix FLOPs of each."""

    num_steps: int
    step_flops: int


def prices(run: PretrainingRun) -> tuple[Priced, ...]:
    """Return the stages of a run with the cost of a step of each, in order; first those of a generator alone."""
    priced, alone = [], run.generator_steps
    for stage in run.batch_shapes.stages:
        border = min(max(alone, stage.start), stage.end)
        if border > stage.start:
            priced.append(Priced(border - stage.start, run.generator_step_flops(stage.shape)))
        if border < stage.end:
            priced.append(Priced(stage.end - border, run.step_flops(stage.shape)))
    return tuple(priced)


# So many that every share of them is a whole number, as far as people write shares.
MANY_STEPS = 10**6


def mean_step_flops(run: PretrainingRun) -> float:
    """Return the mean matrix FLOPs of a step over a whole run, however many steps it has."""
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
    """Return the number of updates, of those of a run, whose FLOPs are nearest to a budget."""
    steps, left = 0, flops
    for stage in prices(run):
        taken = min(stage.num_steps, round(left / stage.step_flops))
        steps, left = steps + taken, left - taken * stage.step_flops
    return steps

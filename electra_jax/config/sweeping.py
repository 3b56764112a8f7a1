"""Configure `electra sweep`: the settings of a fine-tuning that are tried, and how many trials run side by side."""

import dataclasses
import itertools
import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from electra_jax import ranges
from electra_jax.config.finetuning import FinetuningRun
from electra_jax.errors import UserError
from electra_jax.ranges import NAMED, RUNS, SEED

# Settings that have one value in all trials: seeds are not settings to choose among, and scores on other examples or
# by other rules cannot be compared.
_SHARED = {
    "MODEL_DIR": "each trial has its own below that of the sweep",
    "SEED": "a seed is nothing to choose, and NUM_SEEDS gives each trial several",
    "NUM_SEEDS": "all trials have the same seeds",
    **dict.fromkeys(
        (
            *("TASK", "SOURCE", "DATA_DIR", "TFDS_DATA_DIR", "DEV_FILE", "TEST_FILE", "DEV_FRACTION"),
            *("FOLDS", "FOLD", "FOLD_SEED", "SELECTION", "MAIN_METRIC", "QA_METRIC"),
        ),
        "scores of other examples or by other rules do not compare",
    ),
}
# Names as in SciPy and Ray Tune.
_RANGE = re.compile(r"(uniform|loguniform)\(([^,()]+),([^,()]+)\)")
_EXAMPLE = '{"LEARNING_RATE": (1e-4, 3e-4), "EPOCHS": (3, 10)}'
# Draws for each trial before the different combinations are taken to be exhausted.
_MOST_DRAWS = 1000


class Interval(NamedTuple):
    """The values between two limits, or those whose logarithms are between the logarithms of two limits."""

    low: float
    high: float
    logarithmic: bool

    def at(self, share: float) -> float:
        """Return the value at a fraction of the way from the lowest to the highest, to four digits."""
        if self.logarithmic:
            value = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + share * (self.high - self.low)
        return float(f"{value:.4g}")


@dataclasses.dataclass(frozen=True)
class SweepRun:
    """Everything that determines a sweep.

    Attributes:
        model_dir: the directory of the sweep; an existing one is resumed.
        space: the values to try, by the names of settings of `electra finetune`; or, with `trials`, a range to draw
            them from: "uniform(0.0, 0.2)", or "loguniform(1e-5, 1e-3)", uniform in the logarithm.
        trials: number of random samples; None for all combinations of the values.
        trials_seed: seed of the random samples; with more trials the first ones stay the same.
        processes: number of trials that run side by side.
        finetuning: returns the configuration that all trials have in common.
    """

    model_dir: Annotated[str, NAMED]
    space: Mapping[str, Any]
    trials: Annotated[int | None, RUNS]
    trials_seed: Annotated[int, SEED]
    processes: Annotated[int, RUNS]
    finetuning: Callable[[], FinetuningRun]

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            UserError: if there is nothing to try, or a setting or its values cannot be tried.
        """
        ranges.check(self)
        if not self.space:
            raise UserError(f"SPACE is empty: name settings and the values to try, as in {_EXAMPLE}")
        for name, values in self.space.items():
            if name in _SHARED:
                raise UserError(f"SPACE names {name}, which all trials share ({_SHARED[name]}): leave it out of SPACE")
            if isinstance(_read(name, values), Interval) and self.trials is None:
                raise UserError(
                    f"SPACE has the range {values!r} for {name}, which has infinitely many values: set TRIALS to the "
                    "number of random samples, or list values"
                )
        count = math.prod(len(values) for values in self.space.values())
        if self.trials is None and not RUNS.holds(count):
            raise UserError(f"SPACE has {count} combinations: set TRIALS to the number of random samples")

    @property
    def combinations(self) -> list[dict[str, Any]]:
        """The values of each trial, by setting name.

        Raises:
            UserError: if there are fewer different combinations than `trials`.
        """
        read = {name: _read(name, values) for name, values in self.space.items()}
        if self.trials is None:
            return [dict(zip(read, values, strict=True)) for values in itertools.product(*read.values())]
        # `random.random` gives the same sequence in all versions of Python.
        draw = random.Random(self.trials_seed).random
        found: dict[str, dict[str, Any]] = {}
        for _ in range(_MOST_DRAWS * self.trials):
            sample = {name: _sample(values, draw()) for name, values in read.items()}
            found.setdefault(repr(sample), sample)
            if len(found) == self.trials:
                return list(found.values())
        raise UserError(
            f"TRIALS is {self.trials}, and SPACE has only {len(found)} different combinations: set TRIALS to "
            f"{len(found)} or less, or to None for all combinations of listed values"
        )


def _read(name: str, values: Any) -> Interval | Sequence[Any]:
    """Return the values of a setting in SPACE, or the range to draw them from.

    Raises:
        UserError: if they are neither.
    """
    if isinstance(values, list | tuple) and values:
        twice = [value for value in values if sum(repr(value) == repr(one) for one in values) > 1]
        if twice:
            raise UserError(f"SPACE has {twice[0]!r} twice for {name}: list each value once")
        return values
    written = _RANGE.fullmatch(values.replace(" ", "")) if isinstance(values, str) else None
    try:
        interval = Interval(float(written[2]), float(written[3]), written[1] == "loguniform") if written else None
    except ValueError:
        interval = None
    if interval is None:
        raise UserError(
            f"SPACE has {values!r} for {name}: it must be a list of values, as in (1e-4, 3e-4), or, with TRIALS, a "
            "range, as in 'loguniform(1e-5, 1e-3)' or 'uniform(0.0, 0.2)'"
        )
    if not -math.inf < interval.low < interval.high < math.inf or (interval.logarithmic and interval.low <= 0):
        raise UserError(
            f"SPACE has {values!r} for {name}: a range is from a lower to a higher number, and that of loguniform is "
            "above 0"
        )
    return interval


def _sample(values: Interval | Sequence[Any], share: float) -> Any:
    """Return the value at a fraction, from 0 to under 1, of a range or a list."""
    return values.at(share) if isinstance(values, Interval) else values[int(share * len(values))]

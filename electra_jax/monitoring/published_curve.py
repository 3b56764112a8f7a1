"""Read the published pre-training curve of ELECTRA-Small, to compare runs of the published size with."""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

CURVES = "reference_curves.json"


@dataclass(frozen=True)
class Curve:
    """A published curve: `points` holds the (step, value) of each metric, in steps of `batch_size` examples."""

    name: str
    source: str
    reading: str
    batch_size: int
    points: Mapping[str, Sequence[tuple[int, float]]]

    def at(self, name: str, step: float) -> float:
        """Interpolate a metric at a step, linearly in log step; NaN before the first point and after the last."""
        points = self.points[name]
        for (left, low), (right, high) in itertools.pairwise(points):
            if left <= step <= right:
                return low + (high - low) * math.log(step / left) / math.log(right / left)
        return math.nan


def published_curve() -> Curve:
    """Return the published curve of ELECTRA-Small, which ships with this package."""
    shipped = shipped_curve()
    steps, *_ = columns = list(zip(*shipped["rows"], strict=True))
    points = {
        name: [(step, value) for step, value in zip(steps, values, strict=True) if value is not None]
        for name, values in zip(shipped["columns"], columns, strict=True)
    }
    return Curve(shipped["name"], shipped["source"], shipped["reading"], shipped["setting"]["batch_size"], points)


def shipped_curve() -> dict[str, Any]:
    """Return the contents of `reference_curves.json`."""
    return json.loads(resources.files("electra_jax.monitoring").joinpath(CURVES).read_text("utf-8"))

"""Record the result of a seed: the checkpoint that counts, its scores, and the curve on the part that was watched."""

import math
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from electra_jax.checkpoints.model_record import read_model_record
from electra_jax.monitoring.metrics_file import read_rows
from electra_jax.run_directory import KEPT, METRICS


class SeedResult(TypedDict):
    """Declare the entries of SEED_DIR/result.json, see `result_of`; earlier versions wrote fewer."""

    seed: int
    steps: int
    best_step: int
    metrics: dict[str, float | None]
    failed: str | None
    curve: list[dict[str, Any]]
    stopped_early: NotRequired[bool]
    selection: NotRequired[str]
    chosen_by: NotRequired[dict[str, float | None]]
    scores_by_split: NotRequired[dict[str, dict[str, float | None]]]


def scores_of(directory: Path, metric: str) -> list[float]:
    """Return the scores of the dev split that a seed has reported so far, in order."""
    found = [row[metric] for row in read_rows(directory / METRICS) if row["split"] == "validation"]
    # A score that is not finite is written as null.
    return [math.nan if score is None else score for score in found]


def result_of(directory: Path, steps: int, main_metric: str) -> dict[str, Any]:
    """Return the report of a seed: the checkpoint that counts, and the curve on the part that was watched."""
    facts = read_model_record(directory / KEPT).facts
    curve = [
        {name: value for name, value in line.items() if name != "split"}
        for line in read_rows(directory / METRICS)
        if line["split"] == "validation"
    ]
    return {
        "seed": facts["seed"],
        "steps": steps,
        "best_step": facts["step"],
        "metrics": facts["scores"],
        "failed": facts["failed"],
        # A checkpoint that an earlier version kept, and saved as the run's last, names none of these.
        **{
            name.replace(" ", "_"): facts[name]
            for name in ("selection", "chosen by", "scores by split")
            if name in facts
        },
        "curve": [{"step": point["step"], main_metric: point[main_metric]} for point in curve],
    }

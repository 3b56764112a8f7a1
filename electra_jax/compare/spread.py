"""Work out the spread of a comparison's scores over its pre-trainings, and which variants are ahead of which."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from electra_jax.config.comparison import RANDOM, TRIGRAM

# A variant is ahead by more than this many pooled standard deviations.
DEVIATIONS = 2.0


def main_scores(results: Mapping[str, Any], seeds: Iterable[int]) -> dict[str, float]:
    """Return the main score of each requested fine-tuning seed from a results.json."""
    return scores_by(results["main_metric"], results, seeds)


def tuning_scores(results: Mapping[str, Any], seeds: Iterable[int]) -> dict[str, float]:
    """Return the scores by which settings are chosen: a probe's dev scores, otherwise `main_scores`."""
    return scores_by(results.get("tuning_metric", results["main_metric"]), results, seeds)


def scores_by(metric: str, results: Mapping[str, Any], seeds: Iterable[int]) -> dict[str, float]:
    """Return a metric's score for each requested seed from a results.json."""
    asked = set(seeds)
    return {str(seed["seed"]): seed["metrics"][metric] for seed in results["seeds"] if seed["seed"] in asked}


def deviation(values: Sequence[float]) -> float:
    """Return the sample standard deviation: 0 for one value, and NaN if a value is not finite."""
    if len(values) < 2:
        return 0.0
    # `stdev` accepts only finite values.
    return statistics.stdev(values) if all(map(math.isfinite, values)) else math.nan


def statistics_of(by_seed: Mapping[str, float]) -> dict[str, float]:
    """Return median, mean, sample standard deviation (0 for one value), lowest and highest; NaN if a score is NaN."""
    values = list(by_seed.values())
    if not all(map(math.isfinite, values)):
        return {**dict.fromkeys(("median", "mean", "sd", "lowest", "highest"), math.nan), "n": len(values)}
    return {
        "median": statistics.median(values),
        "mean": statistics.fmean(values),
        "sd": deviation(values),
        "lowest": min(values),
        "highest": max(values),
        "n": len(values),
    }


def cells_of(scores: Sequence[Mapping[str, Any]], num_pretrainings: int) -> list[dict[str, Any]]:
    """Return the cells that tables and the figure show: one for each variant, fraction and task.

    Args:
        scores: the scores of each pre-training's fine-tunings on a task, or of their means over the tasks.
        num_pretrainings: requested pre-trainings of each variant.

    Returns:
        With one pre-training of each variant, the `scores` themselves: their spread is over fine-tunings. With several,
        `by_seed` of a cell holds the mean score of the fine-tunings of each pre-training seed, and the statistics are
        over these; random weights, which every fine-tuning draws again, and the trigram model, which is not trained,
        keep the spread over fine-tunings. `center`, `low` and `high` are drawn: the median and the range, or the mean
        and one standard deviation on either side.
    """
    if num_pretrainings == 1:
        return [
            {**score, "center": score["median"], "low": score["lowest"], "high": score["highest"]} for score in scores
        ]
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for score in scores:
        groups.setdefault((score["variant"], score["fraction"], score["task"]), []).append(score)
    return [_over_pretrainings(own) for own in groups.values()]


def _over_pretrainings(own: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the cell of a variant's pre-trainings at one fraction on one task."""
    by_seed = own[0]["by_seed"]
    if own[0]["variant"] not in (RANDOM, TRIGRAM):
        by_seed = {str(one["pretraining_seed"]): statistics.fmean(one["by_seed"].values()) for one in own}
    found = statistics_of(by_seed)
    return {
        **{name: own[0][name] for name in ("variant", "fraction", "steps", "flops", "task", "metric")},
        **found,
        "by_seed": by_seed,
        "failed_seeds": [seed for one in own for seed in one["failed_seeds"]],
        "center": found["mean"],
        "low": found["mean"] - found["sd"],
        "high": found["mean"] + found["sd"],
    }


def pooled_deviation(first: Mapping[str, Any], second: Mapping[str, Any]) -> float:
    """Return the pooled standard deviation of two samples: their variances are weighted by n - 1."""
    freedom = first["n"] + second["n"] - 2
    squares = sum((one["n"] - 1) * one["sd"] ** 2 for one in (first, second))
    return math.sqrt(squares / freedom)


def is_ahead(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Return whether one cell's mean is above another's by more than `DEVIATIONS` pooled standard deviations.

    With fewer than two pre-trainings the answer is always False.
    """
    if min(first["n"], second["n"]) < 2:
        return False
    return first["mean"] - second["mean"] > DEVIATIONS * pooled_deviation(first, second)


def void_at(cells: Sequence[Mapping[str, Any]], *, words: str, fraction: float, num_scores: int) -> dict[str, bool]:
    """Return, by variant, whether it is void at a fraction: it predicts masked words less often than the trigram model.

    Means are compared. A variant with a missing score is left out; without the trigram model's score, all are.

    Args:
        cells: see `cells_of`.
        words: the task that scores the prediction of masked words.
        fraction: the fraction of the budget.
        num_scores: scores of a whole cell: its pre-trainings, or, with one pre-training, its fine-tunings.
    """
    of_words = [cell for cell in cells if cell["task"] == words]
    model = next((cell for cell in of_words if cell["variant"] == TRIGRAM), None)
    if model is None:
        return {}
    return {
        cell["variant"]: cell["mean"] < model["mean"]
        for cell in of_words
        if cell["fraction"] == fraction and cell["n"] == num_scores
    }


def ahead_of(
    cells: Sequence[Mapping[str, Any]],
    *,
    primary: str,
    fraction: float,
    num_pretrainings: int,
    void: Mapping[str, bool] | None,
) -> dict[str, list[str]]:
    """Return, by variant, the others that it is ahead of on the primary task at a fraction of the budget.

    A variant with a missing pre-training is left out, and so is one that is void or may be: it is neither ahead nor
    behind. `void` is None if there is no trigram model, see `void_at`.
    """
    found = {
        cell["variant"]: cell
        for cell in cells
        if (cell["task"], cell["fraction"]) == (primary, fraction)
        and cell["n"] == num_pretrainings
        and (void is None or void.get(cell["variant"]) is False)
    }
    return {
        name: [other for other, theirs in found.items() if other != name and is_ahead(cell, theirs)]
        for name, cell in found.items()
    }

"""Summarize a cross-validation: the scores of each fold, on examples unseen in its training, and their spread."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from electra_jax.finetuning.results import best_seed, on_split, summary


def results_of_folds(found: Sequence[Mapping[str, Any]], directories: Sequence[str]) -> dict[str, Any]:
    """Return the results.json of a cross-validation.

    Its `summary` is over the folds, whose scores are means over the seeds that did not fail. The scores of `seeds` are
    means over all folds; a seed that failed in one of them has failed.

    Args:
        found: the results.json of each fold.
        directories: the folds' directories below MODEL_DIR.
    """
    first = found[0]
    every = [seed["metrics"] for results in found for seed in results["seeds"]]
    # A fold whose questions all have answers has no score for questions without answers.
    names = [name for name in every[0] if all(name in scores for scores in every)]
    folds = [_of_fold(number, *one, names) for number, one in enumerate(zip(found, directories, strict=True))]
    seeds = [_of_seed([results["seeds"][place] for results in found], names) for place in range(len(first["seeds"]))]
    # Every example is in the dev split of one fold; a test split is the same for all.
    num_examples = {
        split: first["num_examples"][split] if split == "test" else sum(one["num_examples"][split] for one in found)
        for split in first["num_examples"]
        if split != "train"
    }
    return {
        **{name: first[name] for name in ("task", "kind", "main_metric", "split", "selection", "init_from")},
        "num_examples": num_examples,
        "folds": folds,
        "seeds": seeds,
        "summary": summary(folds),
        "other_splits": {split: summary(on_split(folds, split)) for split in first["other_splits"]},
        "num_failed": sum(seed["failed"] is not None for seed in seeds),
        "best_seed": best_seed(seeds, first["main_metric"]),
    }


def _of_fold(number: int, results: Mapping[str, Any], directory: str, names: Sequence[str]) -> dict[str, Any]:
    worked = [seed for seed in results["seeds"] if seed["failed"] is None]
    return {
        "fold": number,
        "directory": directory,
        "num_examples": results["num_examples"],
        **_means(worked or results["seeds"], names),
        "failed": None if worked else results["seeds"][0]["failed"],
    }


def _of_seed(by_fold: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    failed = [f"fold {number}: {one['failed']}" for number, one in enumerate(by_fold) if one["failed"] is not None]
    return {
        "seed": by_fold[0]["seed"],
        "steps": max(one["steps"] for one in by_fold),
        **_means(by_fold, names),
        "failed": "; ".join(failed) or None,
    }


def _means(entries: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """Return the means of several trainings' scores: reported, choosing the checkpoint, and on each split."""
    return {
        "metrics": _mean([entry["metrics"] for entry in entries], names),
        "chosen_by": _mean([entry["chosen_by"] for entry in entries], entries[0]["chosen_by"]),
        "scores_by_split": {
            split: _mean([entry["scores_by_split"][split] for entry in entries], names)
            for split in entries[0]["scores_by_split"]
        },
    }


def _mean(scores: Sequence[Mapping[str, float]], names: Iterable[str]) -> dict[str, float]:
    return {name: statistics.fmean(one[name] for one in scores) for name in names}

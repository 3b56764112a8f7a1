"""Collect the results of a sweep: the scores of every trial, the chosen trial, and its scores on other examples."""

import json
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from electra_jax.compare.records import Records
from electra_jax.compare.results import published
from electra_jax.compare.spread import deviation
from electra_jax.compare.trials import Trial
from electra_jax.config.sweeping import SweepRun
from electra_jax.finetuning.results import rank
from electra_jax.monitoring.console import PlainConsole
from electra_jax.reports.page import counted


def sweep_of(run: SweepRun, trials: Sequence[Trial], records: Records, failures: Mapping[str, str]) -> dict[str, Any]:
    """Return the contents of trials.json: all that is known so far, without any path of this machine or any times.

    Trials are chosen by the examples that also choose checkpoints: the dev split or a part of it. Scores on other
    examples are read only for the chosen trial.

    Args:
        run: the sweep's settings.
        trials: all trials.
        records: the records of the trials that are done.
        failures: how the trials that failed since the start ended, by trial name.
    """
    results = {trial.name: records.results(trial) for trial in trials if trial.name in records.done}
    found = [_entry(trial, results.get(trial.name), failures.get(trial.name)) for trial in trials]
    scored = [entry for entry in found if "score" in entry]
    first = next(iter(results.values()), None)
    sweep = {
        "task": trials[0].task,
        "metric": first and first["main_metric"],
        "chosen_on": first and next(iter(first["seeds"][0]["chosen_by"])),
        "over": "folds" if trials[0].folds > 1 else "seeds",
        "space": dict(run.space),
        "trials_seed": None if run.trials is None else run.trials_seed,
        "trials": found,
        "chosen": None,
    }
    if scored:
        best = max(scored, key=lambda entry: rank(entry["score"], sweep["metric"]))
        sweep["chosen"] = {**best, "reported": _reported(results[best["directory"]], sweep["chosen_on"])}
    # JSON turns tuples into lists, as the file has them.
    return published(json.loads(json.dumps(sweep)), os.path.abspath(run.model_dir))


def _entry(trial: Trial, results: Mapping[str, Any] | None, failure: str | None) -> dict[str, Any]:
    """Return what is known of a trial: its `score` if it is done, or `error`, how it ended."""
    entry = {"values": dict(trial.values), "directory": trial.name}
    if results is None:
        return entry if failure is None else {**entry, "error": failure}
    over = "fold" if "folds" in results else "seed"
    scores = {str(one[over]): next(iter(one["chosen_by"].values())) for one in results[f"{over}s"]}
    mean = statistics.fmean(scores.values())
    return {
        **entry,
        "scores": scores,
        "score": mean,
        "sd": deviation(list(scores.values())),
        "failed": [str(one[over]) for one in results[f"{over}s"] if one["failed"] is not None],
    }


def _reported(results: Mapping[str, Any], chosen_on: str) -> dict[str, Any]:
    """Return, by split, the statistics of the scores on examples that were not used for choosing."""
    splits = {results["split"]: results["summary"], **results["other_splits"]}
    return {split: found for split, found in splits.items() if split != chosen_on and found}


def show(sweep: Mapping[str, Any]) -> None:
    """Print all trials, the best first, and the chosen trial's scores on other examples."""
    metric, names = sweep["metric"], list(sweep["space"])
    number = max((len(entry.get("scores", ())) for entry in sweep["trials"]), default=1)
    spread = f", mean ± standard deviation over {counted(number, sweep['over'].rstrip('s'))}" if number > 1 else ""
    table = Table(title=f"{sweep['task']}: {metric} on {sweep['chosen_on']}{spread}")
    for name in names:
        table.add_column(name)
    table.add_column(metric, justify="right")
    entries = sorted(sweep["trials"], key=lambda entry: -rank(entry.get("score", math.nan), metric))
    for entry in entries:
        best = entry["directory"] == sweep["chosen"]["directory"]
        table.add_row(*(repr(entry["values"][name]) for name in names), text_of(entry), style="bold" if best else "")
    console = PlainConsole()
    needed = console.measure(table, options=console.options.update(width=1000)).maximum
    (console if needed <= console.width else PlainConsole(width=needed)).print(table)
    reported = [f"{split} {metric} {found[metric]['mean']:.2f}" for split, found in sweep["chosen"]["reported"].items()]
    chosen = ", ".join(f"{name} = {value!r}" for name, value in sweep["chosen"]["values"].items())
    own = "; ".join(reported) or f"the best of {len(entries)} scores is a little too high: score it on a TEST_FILE"
    console.print(f"best: {chosen}; {own}", soft_wrap=True, highlight=False)


def text_of(entry: Mapping[str, Any]) -> str:
    """Return the score of a trial and its spread, or a note that it has none."""
    if "score" not in entry:
        return "failed" if "error" in entry else ""
    spread = f" ± {entry['sd']:.2f}" if len(entry["scores"]) > 1 else ""
    failed = f" ({len(entry['failed'])} failed)" if entry["failed"] else ""
    return f"{entry['score']:.2f}{spread}{failed}"

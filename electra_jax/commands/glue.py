"""`electra glue RUN...`: the GLUE average of fine-tuned models, as the ELECTRA paper takes it."""

import argparse
import sys
from pathlib import Path
from typing import Any

from rich.table import Table

from electra_jax.config.selection import selection_of
from electra_jax.errors import UserError
from electra_jax.monitoring.console import PlainConsole
from electra_jax.reports.finetuning import read_results
from electra_jax.run_directory import RESULTS
from electra_jax.tasks.text.glue_metrics import AVERAGED, glue_average


def run(options: argparse.Namespace) -> None:
    """Print each task's median score over its seeds, the checkpoint that it scores, and the average of all eight tasks.

    Raises:
        UserError: if a directory holds no results, or two directories hold results of the same task.
    """
    found: dict[str, dict[str, Any]] = {}
    for directory in options.runs:
        results = read_results(Path(directory) / RESULTS)
        if results["task"] in found:
            raise UserError(f"two of the runs are of {results['task']}: {directory} is the second; name one of them")
        found[results["task"]] = results
    table = Table("task", "score", "median", "seeds", "failed", "checkpoint", title="GLUE, development sets")
    scores = {}
    for task, metric in AVERAGED.items():
        if task not in found:
            continue
        summary = found[task]["summary"].get(metric)
        if summary is not None:
            scores[task] = {metric: summary["median"]}
        cells = ("-", "0") if summary is None else (f"{summary['median']:.2f}", str(summary["n"]))
        table.add_row(task, metric, *cells, str(found[task]["num_failed"]), selection_of(found[task]))
    PlainConsole().print(table)
    others = sorted(found.keys() - AVERAGED.keys())
    if others:
        print(f"not averaged by the paper: {', '.join(others)}", file=sys.stderr)
    print(f"average of {len(AVERAGED)} tasks: {glue_average(scores):.2f}")

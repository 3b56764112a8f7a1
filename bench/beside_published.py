"""Print fine-tuned scores next to those of the published ELECTRA-Small: python -m bench.beside_published RUN..."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from electra_jax.config.selection import selection_of
from electra_jax.run_directory import RESULTS

# ELECTRA-Small-OWT after 1M steps (google-research/electra, README): the GLUE development sets, and the F1 of chunking.
PUBLISHED = {"cola": 56.8, "sst2": 88.3, "mrpc": 87.4, "stsb": 86.8, "rte": 68.5, "chunk": 96.5}


def main(arguments: list[str] | None = None) -> int:
    """Print a table in Markdown and return the exit code."""
    parser = argparse.ArgumentParser(description="Fine-tuned scores beside the published ones.")
    parser.add_argument("runs", nargs="+", type=Path, help="model directories of `electra finetune`")
    options = parser.parse_args(arguments)
    missing = [str(run) for run in options.runs if not (run / RESULTS).exists()]
    if missing:
        print(f"beside_published: {', '.join(missing)} has no {RESULTS}: fine-tune to the end first", file=sys.stderr)
        return 2
    print("| task | score | median | deviation | seeds | checkpoint | published |\n|---|---|---|---|---|---|---|")
    for run in options.runs:
        print(row_of(json.loads((run / RESULTS).read_text(encoding="utf-8"))))
    return 0


def row_of(results: dict[str, Any]) -> str:
    """Return the table row of a task, without scores if every seed failed."""
    metric = results["main_metric"]
    summary = results["summary"].get(metric)
    scores = f"{summary['median']:.1f} | {summary['std']:.1f} | {summary['n']}" if summary else "- | - | 0"
    return (
        f"| {results['task']} | {metric} | {scores} | {selection_of(results)} | {PUBLISHED.get(results['task'], '-')} |"
    )


if __name__ == "__main__":
    sys.exit(main())

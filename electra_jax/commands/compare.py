"""`electra compare`: pre-trains variants for the same FLOPs, fine-tunes them, and draws score against FLOPs."""

import json
from collections.abc import Mapping
from typing import Any

import jax

from electra_jax.compare import report
from electra_jax.compare.pieces import seconds_left
from electra_jax.compare.plan import make_plan
from electra_jax.compare.records import Records
from electra_jax.compare.results import comparison_of
from electra_jax.compare.work import Work, readable, sole_owner
from electra_jax.config import gin_files
from electra_jax.config.comparison import ComparisonRun
from electra_jax.distributed.stop_signals import end_early, stop_signals
from electra_jax.errors import UserError
from electra_jax.files import absolute, local, replace_file
from electra_jax.monitoring.reporter import say

JSON = "comparison.json"


def run(configuration: ComparisonRun) -> None:
    """Does what is left of the comparison; its report is there from the first piece on.

    Raises:
        UserError: what is asked for cannot be compared, or is not what MODEL_DIR holds, or a process failed.
        Preempted: asked to stop by the platform; all processes have saved.
    """
    config = gin_files.resolved()
    model_dir = local(configuration.model_dir, "the MODEL_DIR of a comparison")
    # This process only reads and writes files: the accelerator is for those that it starts.
    jax.config.update("jax_platforms", "cpu")
    plan = make_plan(configuration)
    model_dir.mkdir(parents=True, exist_ok=True)
    with sole_owner(model_dir) as keep_alive:
        records = Records(model_dir, plan.pieces, configuration.seeds)
        replace_file(absolute(model_dir / "config.gin"), config)
        say(f"{len(records.done)} of {len(plan.pieces)} pieces are done in {model_dir}")
        work = Work(records, processes=configuration.processes, keep_alive=keep_alive)

        def write() -> dict[str, Any]:
            comparison = comparison_of(configuration, plan, records, failures=work.failures, config=config)
            replace_file(absolute(model_dir / JSON), json.dumps(comparison, indent=1, ensure_ascii=False) + "\n")
            report.write_report(comparison, model_dir)
            return comparison

        def changed(line: str, ended: bool) -> None:
            if ended:
                write()
            say(f"{line} | {progress(work, configuration.processes)}")

        with stop_signals() as stop:
            work.run(stop, changed)
        comparison = write()
    if stop.requested and len(records.done) < len(plan.pieces):
        end_early(stop, f" with {len(records.done)} of {len(plan.pieces)} pieces done")
        return
    if work.failures:
        raise UserError(failed(work.failures))
    report.show(comparison)
    say(f"comparison: {model_dir / JSON}")
    say(f"figure: {model_dir / 'comparison.png'}")
    say(f"report: {model_dir / 'report.html'}")


def progress(work: Work, processes: int) -> str:
    """How many pieces of how many are done, and how long the rest takes as far as that is known."""
    pieces = work.records.pieces
    seconds, unknown = seconds_left(pieces, work.timings(), processes=processes)
    left = f"left: {readable(seconds)}" if seconds or not unknown else "left: not known yet"
    if seconds and unknown:
        left += f" and {len(unknown)} pieces of a kind that has not been timed yet"
    return f"{len(work.records.done)} of {len(pieces)} pieces done, {left}"


def failed(failures: Mapping[str, str]) -> str:
    """One sentence on what failed."""
    first, *others = failures
    more = f"; {len(others)} more failed: {', '.join(others)}" if others else ""
    return f"{first} {failures[first]}{more}; the same command tries again what is not done"

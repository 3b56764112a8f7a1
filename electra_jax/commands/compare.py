"""`electra compare`: pre-train variants for the same FLOPs, fine-tune them, and draw score against FLOPs."""

import json
from collections.abc import Mapping
from typing import Any

import jax

from electra_jax.compare import report
from electra_jax.compare.plan import make_plan, seconds_left
from electra_jax.compare.records import Records
from electra_jax.compare.results import comparison_of
from electra_jax.compare.work import Work, readable
from electra_jax.config import gin_files
from electra_jax.config.comparison import ComparisonRun
from electra_jax.distributed.owner import owning_model_dir
from electra_jax.distributed.processes import print_on_leader
from electra_jax.distributed.stop_signals import end_early, stop_signals
from electra_jax.errors import UserError
from electra_jax.files import absolute, local, replace_file, sole_builder
from electra_jax.run_directory import COMPARISON, CONFIG, FIGURE, ITEMS_LOCK, REPORT


@owning_model_dir("electra compare")
def run(configuration: ComparisonRun) -> None:
    """Do what is left of the comparison; its report is there from the first item on.

    Raises:
        UserError: if the settings cannot be compared or are not those of MODEL_DIR, or a process failed.
        Preempted: if the platform asked to stop; all processes have saved.
    """
    config = gin_files.resolved()
    model_dir = local(configuration.model_dir, "the MODEL_DIR of a comparison")
    # This process only reads and writes files: the accelerator is for those that it starts.
    jax.config.update("jax_platforms", "cpu")
    plan = make_plan(configuration)
    # The processes that a killed comparison left are waited for.
    with sole_builder(model_dir / ITEMS_LOCK) as lock:
        records = Records(model_dir, plan.items, configuration.seeds)
        replace_file(absolute(model_dir / CONFIG), config)
        print_on_leader(f"{len(records.done)} of {len(plan.items)} pieces are done in {model_dir}")

        def write() -> dict[str, Any]:
            comparison = comparison_of(configuration, plan, records, failures=work.failures, config=config)
            replace_file(absolute(model_dir / COMPARISON), json.dumps(comparison, indent=1, ensure_ascii=False) + "\n")
            report.write_report(comparison, model_dir)
            return comparison

        def tell(line: str, ended: bool) -> None:
            if ended:
                write()
            print_on_leader(f"{line} | {progress(work, configuration.processes)}")

        work = Work(records, processes=configuration.processes, lock=lock, tell=tell)
        with stop_signals() as stop:
            work.run(stop)
        comparison = write()
    if stop.requested and len(records.done) < len(plan.items):
        end_early(stop, f" with {len(records.done)} of {len(plan.items)} pieces done")
        return
    if work.failures:
        raise UserError(failed(work.failures))
    report.show(comparison)
    for what, name in (("comparison", COMPARISON), ("figure", FIGURE), ("report", REPORT)):
        print_on_leader(f"{what}: {model_dir / name}")


def progress(work: Work, processes: int) -> str:
    """Return how many items are done, and how long the rest takes as far as that is known."""
    items = work.records.items
    seconds, unknown = seconds_left(items, work.timings(), processes=processes)
    left = f"left: {readable(seconds)}" if seconds or not unknown else "left: not known yet"
    if seconds and unknown:
        left += f" and {len(unknown)} pieces of a kind that has not been timed yet"
    return f"{len(work.records.done)} of {len(items)} pieces done, {left}"


def failed(failures: Mapping[str, str]) -> str:
    """Return one sentence on what failed."""
    first, *others = failures
    more = f"; {len(others)} more failed: {', '.join(others)}" if others else ""
    return f"{first} {failures[first]}{more}; the same command tries again what is not done"

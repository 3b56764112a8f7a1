"""`electra compare`: pre-train variants for the same FLOPs, fine-tune them, and draw score against FLOPs."""

from pathlib import Path
from typing import Any

import jax

from electra_jax.compare import report
from electra_jax.compare.plan import Plan, make_plan
from electra_jax.compare.records import Records
from electra_jax.compare.results import comparison_of
from electra_jax.compare.tuning import chosen, trials
from electra_jax.compare.work import Work, failed, progress
from electra_jax.config import gin_files
from electra_jax.config.comparison import ComparisonRun
from electra_jax.distributed.owner import owning_model_dir
from electra_jax.distributed.processes import print_on_leader
from electra_jax.distributed.stop_signals import end_early, stop_signals
from electra_jax.errors import UserError
from electra_jax.files import absolute, local, replace_file
from electra_jax.json_files import json_text
from electra_jax.locks import sole_builder
from electra_jax.run_directory import COMPARISON, CONFIG, FIGURE, ITEMS_LOCK, REPORT
from electra_jax.training.stop import Stop


@owning_model_dir("electra compare")
def run(configuration: ComparisonRun) -> None:
    """Do the remaining work of the comparison; its report exists from the first finished item on.

    Raises:
        UserError: if the settings cannot be compared or are not those of MODEL_DIR, or a process failed.
        Preempted: if the platform asked to stop; all processes have saved.
    """
    config = gin_files.resolved()
    model_dir = local(configuration.model_dir, "the MODEL_DIR of a comparison")
    # This process only reads and writes files: the accelerator is for the processes that it starts.
    jax.config.update("jax_platforms", "cpu")
    untuned = make_plan(configuration, {})
    failures: dict[str, str] = {}
    # Processes that a killed comparison left running are waited for.
    with sole_builder(model_dir / ITEMS_LOCK) as lock, stop_signals() as stop:
        # Variants are tuned first, and only then is it known what is compared.
        plan, records = known_so_far(configuration, model_dir, untuned)
        while True:
            replace_file(absolute(model_dir / CONFIG), config)
            pieces = len(plan.items) + len(plan.pending)
            print_on_leader(f"{len(records.done)} of {pieces} pieces are done in {model_dir}")
            comparison = work_on(configuration, plan, records, failures, lock=lock, stop=stop, config=config)
            pending = len(plan.pending)
            if stop.requested or not pending:
                break
            plan, records = known_so_far(configuration, model_dir, untuned)
            if len(plan.pending) == pending:
                break
    if stop.requested and len(records.done) < pieces:
        end_early(stop, f" with {len(records.done)} of {pieces} pieces done")
        return
    if failures:
        raise UserError(failed(failures))
    report.show(comparison)
    for what, name in (("comparison", COMPARISON), ("figure", FIGURE), ("report", REPORT)):
        print_on_leader(f"{what}: {model_dir / name}")


def known_so_far(configuration: ComparisonRun, model_dir: Path, untuned: Plan) -> tuple[Plan, Records]:
    """Return the plan as far as finished trials have tuned its variants, and the records of its items.

    Args:
        configuration: the comparison's settings.
        model_dir: its directory.
        untuned: the plan before any trial is finished.
    """
    records = Records(model_dir, untuned.items, configuration.seeds)
    tuned = chosen(configuration, trials(configuration, records))
    if not tuned:
        return untuned, records
    plan = make_plan(configuration, tuned)
    return plan, Records(model_dir, plan.items, configuration.seeds)


def work_on(
    configuration: ComparisonRun,
    plan: Plan,
    records: Records,
    failures: dict[str, str],
    *,
    lock: int,
    stop: Stop,
    config: str,
) -> dict[str, Any]:
    """Run the items of a plan, write the report after each, and return the comparison.

    Args:
        configuration: the comparison's settings.
        plan: its items.
        records: the records of the items that are done.
        failures: how the items that failed since the start ended, by item name; these are not tried again, and new
            failures are added.
        lock: see `Work`.
        stop: checked between items.
        config: the comparison's Gin.
    """

    def write() -> dict[str, Any]:
        comparison = comparison_of(configuration, plan, records, failures=failures, config=config)
        replace_file(absolute(records.model_dir / COMPARISON), json_text(comparison, ensure_ascii=False))
        report.write_report(comparison, records.model_dir)
        return comparison

    def tell(line: str, ended: bool) -> None:
        if ended:
            write()
        print_on_leader(f"{line} | {progress(work, [*plan.items, *plan.pending], configuration.processes)}")

    work = Work(records, failures, processes=configuration.processes, lock=lock, tell=tell)
    work.run(stop)
    return write()

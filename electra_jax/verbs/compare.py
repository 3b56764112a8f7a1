"""`electra compare`: pre-trains variants for the same FLOPs, fine-tunes them, and draws score against FLOPs."""

import json
import shlex
import sys
from typing import Any

import jax

from electra_jax import comparison_report, gin_config
from electra_jax.comparison import ComparisonRun, named, seconds_left
from electra_jax.comparison_pieces import Plan, make_plan
from electra_jax.comparison_results import checkpoints_of, means_of, score_of
from electra_jax.comparison_work import Places, Work, readable, sole_owner
from electra_jax.errors import UserError
from electra_jax.paths import absolute, local
from electra_jax.reporting import say
from electra_jax.run_record import replace_text, versions
from electra_jax.stopping import end_early, stop_signals

JSON = "comparison.json"


def run(configuration: ComparisonRun) -> None:
    """Does what is left of the comparison; its report is there from the first piece on.

    Raises:
        UserError: what is asked for cannot be compared, or is not what MODEL_DIR holds, or a process failed.
        Preempted: asked to stop by the platform; all processes have saved.
    """
    config = gin_config.resolved()
    model_dir = local(configuration.model_dir, "the MODEL_DIR of a comparison")
    # This process only reads and writes files: the accelerator is for those that it starts.
    jax.config.update("jax_platforms", "cpu")
    plan = make_plan(configuration)
    model_dir.mkdir(parents=True, exist_ok=True)
    with sole_owner(model_dir) as keep_alive:
        places = Places(model_dir, configuration.seeds)
        work = Work(places, plan.pieces, processes=configuration.processes, keep_alive=keep_alive)
        replace_text(absolute(model_dir / "config.gin"), config)
        say(f"{len(work.records)} of {len(plan.pieces)} pieces are done in {model_dir}")

        def changed(work: Work, line: str) -> None:
            if not line.startswith("begun"):
                write(configuration, plan, places, work, config)
            say(f"{line} | {progress(plan, work, configuration.processes)}")

        with stop_signals() as stop:
            work.run(stop, changed)
        comparison = write(configuration, plan, places, work, config)
    if work.failures:
        raise UserError(failed(work))
    if len(work.records) < len(plan.pieces):
        end_early(stop, f" with {len(work.records)} of {len(plan.pieces)} pieces done")
        return
    comparison_report.show(comparison)
    say(f"comparison: {model_dir / JSON}")
    say(f"figure: {model_dir / 'comparison.png'}")
    say(f"report: {model_dir / 'report.html'}")


def progress(plan: Plan, work: Work, processes: int) -> str:
    """How many pieces of how many are done, and how long the rest takes."""
    seconds = {name: record["seconds"] for name, record in work.records.items()}
    left = seconds_left(plan.pieces, seconds, work.running, processes=processes)
    time_left = "not known before one of each kind is done" if left is None else readable(left)
    return f"{len(work.records)} of {len(plan.pieces)} pieces done, left: {time_left}"


def failed(work: Work) -> str:
    """One sentence on what failed."""
    first, *others = work.failures
    more = f"; {len(others)} more failed: {', '.join(others)}" if others else ""
    return f"{first} {work.failures[first]}{more}; the same command tries again what is not done"


def write(configuration: ComparisonRun, plan: Plan, places: Places, work: Work, config: str) -> dict[str, Any]:
    """Writes comparison.json, comparison.png and report.html of what is done so far."""
    comparison = comparison_of(configuration, plan, places, work)
    replace_text(absolute(places.model_dir / JSON), json.dumps(comparison, indent=1, ensure_ascii=False) + "\n")
    comparison_report.write_report(comparison, places.model_dir, config)
    return comparison


def comparison_of(configuration: ComparisonRun, plan: Plan, places: Places, work: Work) -> dict[str, Any]:
    """All that comparison.json holds."""
    scores, machine = [], {}
    for piece in plan.pieces:
        if piece.name not in work.records:
            continue
        record = work.records[piece.name]
        made = json.loads((places.directory(piece) / "run.json").read_text(encoding="utf-8"))
        machine = made["machine"]
        if piece.task is not None:
            scores.append(score_of(piece, record, places.results(piece), configuration.seeds))
    tasks = {entry.name: [*entry.files, *entry.bindings] for entry in named("TASKS", configuration.tasks)}
    return {
        "command": shlex.join(["electra", *sys.argv[1:]]),
        "date": max((record["date"] for record in work.records.values()), default=""),
        "flops": configuration.flops,
        "fractions": list(configuration.fractions),
        "seeds": list(configuration.seeds),
        "random_baseline": configuration.random_baseline,
        "tasks": tasks,
        "variants": {
            entry.name: {
                "overrides": [*entry.files, *entry.bindings],
                "step_flops": plan.step_flops[entry.name],
                "total_steps": plan.total_steps[entry.name],
            }
            for entry in named("VARIANTS", configuration.variants)
        },
        "pieces": {"done": len(work.records), "all": len(plan.pieces), "failed": work.failures},
        "scores": scores,
        "means": means_of(scores, list(tasks)) if len(tasks) > 1 else [],
        "checkpoints": checkpoints_of(plan.pieces, work.records),
        "machine": machine,
        "versions": versions(),
    }

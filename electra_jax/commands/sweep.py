"""`electra sweep`: fine-tunes with several values of a few settings, and chooses the best by the dev split."""

from typing import Any

import jax

from electra_jax.compare.records import Records, SweptSeeds
from electra_jax.compare.sweep_results import show, sweep_of, text_of
from electra_jax.compare.trials import check_data, make_trials
from electra_jax.compare.work import Work, failed, progress
from electra_jax.config import gin_files
from electra_jax.config.sweeping import SweepRun
from electra_jax.distributed.owner import owning_model_dir
from electra_jax.distributed.processes import print_on_leader
from electra_jax.distributed.stop_signals import end_early, stop_signals
from electra_jax.errors import UserError
from electra_jax.files import absolute, local, replace_file
from electra_jax.json_files import json_text
from electra_jax.locks import sole_builder
from electra_jax.run_directory import BEST_CONFIG, CONFIG, ITEMS_LOCK, TRIALS, TRIALS_RECORD


@owning_model_dir("electra sweep")
def run(configuration: SweepRun) -> None:
    """Run the remaining trials, and write the configuration of the best one.

    Raises:
        UserError: if the settings cannot be tried or are not those of MODEL_DIR, or a trial failed.
        Preempted: if the platform asked to stop; all trials have saved.
    """
    model_dir = local(configuration.model_dir, "the MODEL_DIR of a sweep")
    # This process only reads and writes files: the accelerator is for the processes that it starts.
    jax.config.update("jax_platforms", "cpu")
    trials = make_trials(configuration)
    failures: dict[str, str] = {}
    # Processes that a killed sweep left running are waited for.
    with sole_builder(model_dir / ITEMS_LOCK) as lock, stop_signals() as stop:
        if (model_dir / CONFIG).exists() and not (model_dir / TRIALS).exists():
            raise UserError(f"{model_dir} holds a run that is no sweep: use another MODEL_DIR")
        records = Records(model_dir, trials, configuration.finetuning().seeds, SweptSeeds)
        check_data(records, trials)
        (model_dir / TRIALS).mkdir(exist_ok=True)
        replace_file(absolute(model_dir / CONFIG), gin_files.resolved())
        for trial in trials:
            replace_file(absolute(model_dir / f"{trial.name}.gin"), trial.config)
        print_on_leader(f"{len(records.done)} of {len(trials)} trials are done in {model_dir}")

        def write() -> dict[str, Any]:
            sweep = sweep_of(configuration, trials, records, failures)
            replace_file(absolute(model_dir / TRIALS_RECORD), json_text(sweep, ensure_ascii=False))
            return sweep

        def tell(line: str, ended: bool) -> None:
            if ended:
                write()
            print_on_leader(f"{line} | {progress(work, trials, configuration.processes)}")

        work = Work(records, failures, processes=configuration.processes, lock=lock, tell=tell)
        work.run(stop)
        sweep = write()
    if stop.requested and len(records.done) < len(trials):
        end_early(stop, f" with {len(records.done)} of {len(trials)} trials done")
        return
    if sweep["chosen"] is not None:
        finish(sweep, configuration, {trial.name: trial.config for trial in trials})
    if failures:
        raise UserError(failed(failures))


def finish(sweep: dict[str, Any], configuration: SweepRun, configs: dict[str, str]) -> None:
    """Print the trials, and write the configuration of the chosen one.

    Args:
        sweep: the contents of trials.json.
        configuration: the sweep's settings.
        configs: the configurations of the trials, by their directories.
    """
    model_dir, chosen = local(configuration.model_dir, "the MODEL_DIR of a sweep"), sweep["chosen"]
    values = ", ".join(f"{name} = {value!r}" for name, value in chosen["values"].items())
    heading = (
        f"# The best of {len(sweep['trials'])} trials, {chosen['directory']}, by {sweep['metric']} on "
        f"{sweep['chosen_on']}: {text_of(chosen)}\n# {values}\n\n"
    )
    path = model_dir / BEST_CONFIG
    replace_file(absolute(path), heading + configs[chosen["directory"]])
    show(sweep)
    print_on_leader(f"trials: {model_dir / TRIALS_RECORD}")
    print_on_leader(f"to train with the best: electra finetune --gin_file={path} --gin.MODEL_DIR=...")
    print_on_leader(f"its model: {model_dir / chosen['directory']}")

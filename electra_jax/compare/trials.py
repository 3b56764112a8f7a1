"""Make the trials of a sweep: fine-tunings that differ in the values of a few settings, each with its Gin file."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from electra_jax.compare.item import Item, deciding_settings
from electra_jax.compare.records import Records
from electra_jax.config import gin_files
from electra_jax.config.finetuning import FinetuningRun
from electra_jax.config.gin_errors import nearest
from electra_jax.config.sweeping import SweepRun
from electra_jax.errors import UserError
from electra_jax.finetuning.identity import hash_of
from electra_jax.finetuning.start import resolve_init
from electra_jax.run_directory import TRIALS
from electra_jax.tasks.catalog import make_task

# Longer directory names are cut.
_LONGEST_NAME = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial(Item):
    """A fine-tuning, or a cross-validation, with some values of the settings that are tried.

    Attributes:
        values: the values, by setting name.
        config: the whole configuration as the text of a Gin file, except its MODEL_DIR.
        data: hashes of its training and scoring data.
    """

    values: Mapping[str, Any]
    config: str
    data: Mapping[str, str]

    def facts(self) -> dict[str, Any]:
        """Return the further fields of its record."""
        return {"values": dict(self.values), "data": dict(self.data)}


def make_trials(run: SweepRun) -> list[Trial]:
    """Return every trial of a sweep, checked by building its configuration.

    Args:
        run: the sweep's settings, which must be the last that Gin built.

    Raises:
        UserError: if SPACE names an unknown setting, Gin refuses a value, or there is no data for the task.
    """
    with gin_files.varied([], without=SweepRun):
        known = gin_files.macros_written_in(gin_files.resolved())
    for name in run.space:
        # For a dotted name, Gin itself knows the fields.
        if "." not in name and name not in known:
            raise UserError(f"SPACE names {name}, which is not a setting of electra finetune{nearest(name, known)}")
    data = data_of(run.finetuning())
    return [_trial(run, values, data) for values in run.combinations]


def _trial(run: SweepRun, values: Mapping[str, Any], data: Mapping[str, str]) -> Trial:
    bindings = [f"{name}={value!r}" for name, value in values.items()]
    name = f"{TRIALS}/{folder_of(bindings)}"
    directory = Path(run.model_dir) / name
    try:
        with gin_files.varied([*bindings, f"MODEL_DIR={str(directory)!r}"], without=SweepRun):
            built = gin_files.built(FinetuningRun, "gin/runs/sweep.gin")
            settings = deciding_settings()
            with gin_files.varied(["MODEL_DIR=%gin.REQUIRED"]):
                config = gin_files.resolved()
    except UserError as error:
        raise UserError(f"SPACE has {', '.join(bindings)}: {error}") from error
    return Trial(
        name=name,
        task=built.task.task,
        folds=built.task.folds if built.task.folds is not None and built.task.fold is None else 1,
        arguments=("finetune", f"--gin_file={directory}.gin", f"--gin.MODEL_DIR={str(directory)!r}"),
        settings=settings,
        needs=None,
        values=values,
        config=config,
        data=data,
    )


def folder_of(bindings: Sequence[str]) -> str:
    """Return a name for the directory of a trial that shows its values, and differs for different values."""
    text = ",".join(bindings)
    plain = re.sub(r"[^\w.=,+-]+", "_", text)
    if plain == text and len(text) <= _LONGEST_NAME:
        return text
    return f"{plain[: _LONGEST_NAME - 9]}-{hash_of(bindings)[:8]}"


def data_of(run: FinetuningRun) -> dict[str, str]:
    """Return a hash of each split of a fine-tuning's data, labels included, of the vocabulary and of initial weights.

    Raises:
        UserError: if the data cannot be read, or cannot be divided as FOLDS says.
    """
    origin = resolve_init(run)
    options = run.task
    if options.folds is not None and options.fold is None:
        options = dataclasses.replace(options, fold=0)
    task = make_task(options, origin.vocabulary)
    hashes = {"weights": origin.weights_hash, "vocabulary": origin.vocabulary.fingerprint}
    for split in ("train", "dev", "test"):
        if split != "test" or any(name.startswith(split) for name in task.splits):
            hashes[split] = hash_of([task.labels, *task.examples(split).examples])
    return hashes


def check_data(records: Records, trials: Sequence[Trial]) -> None:
    """Check that finished trials had today's data: scores on different data cannot be compared.

    Raises:
        UserError: if one had other data.
    """
    for trial in trials:
        held = records.done.get(trial.name, {}).get("data", {})
        changed = [name for name, value in trial.data.items() if held.get(name, value) != value]
        if changed:
            raise UserError(
                f"{records.directory(trial)} was made from other data (changed since: {', '.join(changed)}): use "
                f"another MODEL_DIR, or remove {records.model_dir / TRIALS} to try everything again"
            )

"""Resume a run at its place in the data, and report how its settings differ from those of its last start."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from etils import epath

from electra_jax.config import gin_files
from electra_jax.config.data import PretrainingData
from electra_jax.config.pretraining import PretrainingRun
from electra_jax.config.recorded import RecordedFile
from electra_jax.data.batches import State, whole_state
from electra_jax.distributed import processes
from electra_jax.distributed.processes import print_on_leader
from electra_jax.errors import UserError
from electra_jax.files import path_of
from electra_jax.run_directory import CONFIG
from electra_jax.training.optimizer import learning_rate


def data_state(run: PretrainingRun, batches: State, data: PretrainingData) -> dict[str, Any]:
    """Return the place of all processes in the data, and the data that it belongs to, for a checkpoint."""
    return {
        "batches": whole_state(processes.gather(batches)),
        "kind": data.kind,
        "vocabulary": data.vocabulary.fingerprint,
        "order": order_of(run, data),
    }


def order_of(run: PretrainingRun, data: PretrainingData) -> dict[str, Any]:
    """Return the settings that decide the order in which a run reads rows, by their user-facing names; JSON values."""
    return {
        "the text of CORPUS": data.fingerprint,
        "SEQUENCE_LENGTH": run.cache.sequence_length,
        "BATCH_SIZE": run.batch_size,
        "SEED": run.seed,
    }


def resume_data(run: PretrainingRun, data: PretrainingData, held: Mapping[str, Any], *, step: int) -> None:
    """Move the training batches to the place in the data that a checkpoint holds, and print which settings differ.

    Args:
        run: the run that resumes.
        data: the data that it reads.
        held: the checkpoint's `data_state`; that of an earlier version has no "order".
        step: the checkpoint's step.

    Raises:
        UserError: if the checkpoint was trained with another vocabulary, or its place means nothing in this data.
    """
    checkpoint = f"the checkpoint of step {step} in {run.model_dir}"
    if held["vocabulary"] != data.vocabulary.fingerprint:
        raise UserError(
            f"{checkpoint} was trained with another vocabulary than {run.cache.vocab_file}: name the one it was "
            "trained with, or use another MODEL_DIR"
        )
    if held["kind"] != data.kind:
        raise UserError(
            f"{checkpoint} read {held['kind']} and this run reads {data.kind}, where its place means nothing: use the "
            "same CORPUS, MASKING and PACKING, or another MODEL_DIR"
        )
    order = order_of(run, data)
    different = [
        f"{name} {value} there, {order[name]} here"
        for name, value in held.get("order", {}).items()
        if value != order[name]
    ]
    if different:
        raise UserError(
            f"{checkpoint} read its data in another order ({'; '.join(different)}), and its place means nothing in "
            "this one: give what it was started with, or start again in another MODEL_DIR, with "
            f"--gin.INIT_FROM='\"{run.model_dir}\"' to take its weights along"
        )
    # Each step takes one batch, so checkpoints of version 0.1 do not store their number separately.
    data.train.restore({"step": step, **held["batches"]})
    for line in changes_since_the_last_start(run, step):
        print_on_leader(line)


def changes_since_the_last_start(run: PretrainingRun, step: int) -> list[str]:
    """Return lines about the settings in which a run differs from the record in its MODEL_DIR; none if all agree.

    Args:
        run: the run that resumes.
        step: number of updates so far.
    """
    try:
        last = recorded_run(path_of(run.model_dir))
    except UserError as error:
        return [f"the settings of the last start cannot be compared: {error}"]
    different = differences(last, dataclasses.replace(run, model_dir=last.model_dir), gin_files.macro_names())
    if not different:
        return []
    words = "; ".join(f"{name} {before} -> {now}" for name, (before, now) in different.items())
    lines = [f"changed since the last start: {words}"]
    before, now = (float(learning_rate(one.optimizer, step)) for one in (last, run))
    if before != now:
        lines.append(f"the learning rate of the next update goes from {before:.4g} to {now:.4g}")
    return lines


def differences(last: Any, now: Any, names: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return the values in which two configurations differ, as text, by their user-facing names.

    Args:
        last: a dataclass, whose fields may be dataclasses.
        now: another one of the same class.
        names: the macros of fields that have one, by `Class.field`.
    """
    found: dict[str, tuple[str, str]] = {}
    for field in dataclasses.fields(now):
        before, after = getattr(last, field.name), getattr(now, field.name)
        if dataclasses.is_dataclass(after) and type(before) is type(after):
            found |= differences(before, after, names)
        elif before != after:
            name = f"{type(now).__name__}.{field.name}"
            found[names.get(name, name)] = _written(before), _written(after)
    return found


def _written(value: Any) -> str:
    return type(value).__name__ if dataclasses.is_dataclass(value) else repr(value)


def recorded_run(directory: epath.Path) -> PretrainingRun:
    """Return the configuration that a run of `electra pretrain` recorded in its MODEL_DIR.

    Raises:
        UserError: if the record cannot be read, or refers to anything but this package's dataclasses.
    """
    # The caller may be a run itself, whose own configuration is still needed.
    with gin_files.isolated():
        recorded = RecordedFile(str(directory / CONFIG), needs_imports=False)
        return gin_files.build(PretrainingRun, [recorded], [], search_paths=[])

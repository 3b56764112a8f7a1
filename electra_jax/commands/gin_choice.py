"""Choose the Gin files of a command line: the given ones, the package's, and those of model directories."""

import os
from collections.abc import Callable, Sequence
from typing import Any

from electra_jax.config.recorded import RecordedFile
from electra_jax.errors import UserError
from electra_jax.files import path_of
from electra_jax.json_files import read_json
from electra_jax.run_directory import CHECKPOINTS, CONFIG, CONTINUED, MODEL

# A file that the user names, or one that is read because it lies in a model directory.
GinFile = str | RecordedFile


def bound(bindings: Sequence[str], name: str) -> str | None:
    """Return the text that the command line binds to a macro, without its quotes; None if the macro is not bound."""
    values = [value.strip("\"' ") for key, _, value in (one.partition("=") for one in bindings) if key.strip() == name]
    return values[-1] if values and values[-1] != "None" else None


def given_or_recorded(given: Sequence[str], bindings: Sequence[str]) -> list[GinFile]:
    """Return the given Gin files, or else the configuration recorded in MODEL_DIR or, failing that, in INIT_FROM.

    Raises:
        UserError: if no file was given and neither directory records how it was pre-trained.
    """
    if given:
        return list(given)
    directory = bound(bindings, "MODEL_DIR")
    if directory is None:
        raise UserError("no --gin_file was given: give --gin_file=PATH, or --gin.MODEL_DIR of a run that exists")
    source = bound(bindings, "INIT_FROM")
    paths = [path_of(directory) / CONFIG]
    if source is not None:
        paths.append(path_of(source) / (CONTINUED if is_fine_tuned(source) else CONFIG))
    found = next((path for path in paths if path.exists()), None)
    if found is None:
        wanted = " and ".join(map(str, paths))
        raise UserError(
            f"no --gin_file was given and {wanted} {'does' if source is None else 'do'} not exist: give a run "
            "file, as in --gin_file=gin/runs/small.gin, or the MODEL_DIR of a run"
        )
    return [RecordedFile(str(found), needs_imports=True)]


def given_or(default: str) -> Callable[[Sequence[str], Sequence[str]], list[GinFile]]:
    """Return a function that chooses the given Gin files, or else a default."""
    return lambda given, bindings: list(given) or [default]


def default_first(default: str) -> Callable[[Sequence[str], Sequence[str]], list[GinFile]]:
    """Return a function that chooses a default, then the given Gin files, such as model sizes or a module of tasks."""
    return lambda given, bindings: [default, *(file for file in given if file != default)]


def recorded_after(default: str) -> Callable[[Sequence[str], Sequence[str]], list[GinFile]]:
    """Return a function that chooses a default, MODEL_DIR's record of its fine-tuning, then the given Gin files."""

    def choose(given: Sequence[str], bindings: Sequence[str]) -> list[GinFile]:
        directory = bound(bindings, "MODEL_DIR")
        recorded = []
        # T5X records Gin for its own scripts next to its own checkpoints, which are not in a folder CHECKPOINTS.
        if directory is not None and is_fine_tuned(directory):
            folder = path_of(directory)
            if all((folder / name).exists() for name in (CHECKPOINTS, CONFIG)):
                path = str(folder / CONFIG)
                # If the user names this file, it is run as code like any other.
                if all(os.path.realpath(file) != os.path.realpath(path) for file in given):
                    recorded = [RecordedFile(path, needs_imports=True)]
        return [default, *recorded, *(file for file in given if file != default)]

    return choose


def is_fine_tuned(directory: str) -> bool:
    """Return whether a model directory records a fine-tuning head, or the task of a fine-tuning without a head."""
    try:
        record = read_json(path_of(directory) / MODEL, dict[str, Any])
    except UserError:
        return False
    return record.get("head") is not None or isinstance(record.get("facts", {}).get("task"), dict)


def evaluates_task(bindings: Sequence[str]) -> bool:
    """Return whether bindings ask for a downstream task rather than a pre-training run."""
    directory = bound(bindings, "MODEL_DIR")
    asked = any(bound(bindings, name) is not None for name in ("TASK", "PREDICTIONS"))
    return asked or (directory is not None and is_fine_tuned(directory))

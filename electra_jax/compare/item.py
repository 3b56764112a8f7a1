"""Define the items of a comparison or a sweep: an item is one process, which leaves a directory and a record."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from electra_jax.config import gin_files

# Settings that decide only where, how often or how fast.
_NOT_COMPARED = (
    "model_dir",
    "cache_dir",
    "num_processes",
    "max_auto_cache_bytes",
    "log_every",
    "save_every",
    "keep",
    "num_seeds",
    "num_passages",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
    """One process of `electra`.

    Attributes:
        name: its directory, relative to that of the whole; its record is next to it as .json, its output as .log.
        task: the task that is fine-tuned on; None for a pre-training.
        folds: number of folds of a fine-tuning that is a cross-validation; otherwise 1.
        arguments: the command line of `electra`, command first.
        settings: the values that Gin binds, as text, without those that cannot change the result.
        needs: name of the item that must be done first; None if there is none.
    """

    name: str
    task: str | None
    folds: int
    arguments: tuple[str, ...]
    settings: Mapping[str, str]
    needs: str | None

    def facts(self) -> dict[str, Any]:
        """Return the further fields of its record, as JSON values."""
        return {}


def deciding_settings(*, but: Collection[str] = ()) -> dict[str, str]:
    """Return the settings in force, as text, that decide an item's result.

    Args:
        but: further settings to leave out, as `Class.field`.
    """
    return {
        setting: value
        for setting, value in gin_files.settings().items()
        if {setting, setting.rpartition(".")[2]}.isdisjoint({*_NOT_COMPARED, *but})
    }

"""Define an item of a comparison, and build the configuration of its process."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from electra_jax.compare.item import Item, deciding_settings
from electra_jax.config import gin_files
from electra_jax.config.comparison import ComparisonRun, GridPoint
from electra_jax.config.finetuning import FinetuningRun
from electra_jax.config.prediction import EvaluationRun
from electra_jax.config.pretraining import PretrainingRun
from electra_jax.config.probing import ProbeRun, TrigramRun
from electra_jax.errors import UserError

# Why an item is done: to be compared; to have others branch off it; or to choose the settings of a variant.
COMPARED, TRUNK, TUNING = "compared", "trunk", "tune"
# Settings that differ between items by design.
_BY_ITEM = ("FinetuningRun.init_from", "EvaluationRun.output")


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkItem(Item):
    """A pre-training up to some step, or the fine-tuning of a checkpoint on a task.

    Attributes:
        variant: the pre-training variant, or `RANDOM`, or `TRIGRAM`.
        role: `COMPARED`; `TRUNK`, a part of a pre-training that later ones branch off; or `TUNING`.
        seed: the seed of the pre-training.
        fraction: share of the budget spent on its weights, for a trunk the share of its branch; 0 for random weights.
        steps: total number of updates of its weights.
        flops: FLOPs of those updates.
        point: the pair of the grid that it is trained with; None without a grid.
    """

    variant: str
    role: str
    seed: int
    fraction: float
    steps: int
    flops: float
    point: GridPoint | None

    def facts(self) -> dict[str, Any]:
        """Return the further fields of its record: the cost of its weights."""
        return {"steps": self.steps, "flops": self.flops}


@dataclasses.dataclass(frozen=True)
class Configured:
    """A configuration that Gin built, the command line that builds it, and the settings that decide its result."""

    name: str
    built: Any
    arguments: tuple[str, ...]
    settings: Mapping[str, str]


def directory_of(run: ComparisonRun, name: str) -> str:
    """Return the MODEL_DIR of an item."""
    return str(Path(run.model_dir) / name)


def configured(
    name: str, command: str, files: Sequence[str], bindings: Sequence[str], folders: Sequence[str]
) -> Configured:
    """Build the configuration that the process will build, so that mistakes in it are reported before anything runs."""
    kind = {
        "pretrain": PretrainingRun,
        "finetune": FinetuningRun,
        "probe": ProbeRun,
        "evaluate": EvaluationRun,
        "trigram": TrigramRun,
    }[command]
    try:
        built = gin_files.build(kind, list(files), list(bindings), search_paths=list(folders))
    except UserError as error:
        raise UserError(f"{name!r}: {error}") from error
    paths = [f"--gin_search_paths={','.join(folders)}"] if folders else []
    arguments = (command, *(f"--gin_file={file}" for file in files), *paths, *flags_of(bindings))
    return Configured(name, built, arguments, deciding_settings(but=_BY_ITEM))


def flags_of(bindings: Sequence[str]) -> list[str]:
    """Return bindings as the command line gives them."""
    return [f"--gin.{binding}" for binding in bindings]

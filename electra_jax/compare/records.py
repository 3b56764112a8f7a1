"""Keep the records of a comparison's or sweep's items on disk: which are done, with which settings and weights."""

import datetime
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from electra_jax.checkpoints import orbax_store
from electra_jax.checkpoints.checksum import params_sha256
from electra_jax.compare.item import Item
from electra_jax.compare.plan import Timing
from electra_jax.config.comparison import PAIRS
from electra_jax.errors import UserError
from electra_jax.files import absolute, replace_file
from electra_jax.json_files import read_json, with_nan
from electra_jax.monitoring.metrics_file import read_rows
from electra_jax.ranges import AT_LEAST_0, SHARE
from electra_jax.run_directory import FOLDS, METRICS, RESULTS, RUN, SEED_RESULT, SEEDS
from electra_jax.run_directory import PAIRS as SCORED_PAIRS

Record = dict[str, Any]


class ScoredSeed(TypedDict):
    """Declare the fields that are read from a seed of a fine-tuning."""

    seed: int
    metrics: dict[str, float | None]
    failed: str | None


class ScoredSeeds(TypedDict):
    """Declare the fields that are read from the results.json of a fine-tuning."""

    main_metric: str
    tuning_metric: NotRequired[str]
    num_examples: dict[str, int]
    seeds: list[ScoredSeed]
    split: NotRequired[str]
    selection: NotRequired[str | None]
    kind: NotRequired[str]


class SweptFold(TypedDict):
    """Declare the fields that a sweep reads from a fold of a cross-validation."""

    fold: int
    failed: str | None
    chosen_by: dict[str, float | None]


class SweptSeed(ScoredSeed):
    """Declare the fields that a sweep reads from a seed of a fine-tuning: also the score that chose its checkpoint."""

    chosen_by: dict[str, float | None]


class SweptSeeds(TypedDict):
    """Declare the fields that a sweep reads from the results.json of a fine-tuning."""

    main_metric: str
    seeds: list[SweptSeed]
    split: str
    folds: NotRequired[list[SweptFold]]
    summary: dict[str, dict[str, float | None]]
    other_splits: dict[str, dict[str, dict[str, float | None]]]


class ScoredPairs(TypedDict):
    """Declare the fields that are read from the scores of minimal pairs, which also hold a percentage for each way."""

    step: int
    num_pairs: int


class ItemRecord(TypedDict):
    """Declare the fields that are read from the record of an item that is done."""

    command: str
    date: str
    seconds: float
    share: float
    sha256: NotRequired[str]
    source_sha256: str | None
    settings: dict[str, str]
    data: NotRequired[dict[str, str]]


class MadeOn(TypedDict):
    """Declare the fields that are read from the run.json of an item."""

    machine: dict[str, str | int | None]
    versions: dict[str, str]


class Records:
    """The files of the items of a comparison or a sweep; `done` holds the records of those that are done, by name."""

    def __init__(self, model_dir: Path, items: Sequence[Item], seeds: Sequence[int], kind: Any = ScoredSeeds) -> None:
        """Read the existing records.

        Args:
            model_dir: the directory of the comparison or sweep.
            items: all items, each after the one that it needs.
            seeds: the seeds that every fine-tuning must have.
            kind: the type of what is read from their results, see `parse_json`.

        Raises:
            UserError: if a record is damaged, or an item was done with other settings, or from weights that have been
                replaced since.
        """
        self.model_dir, self.items, self._seeds, self._kind = model_dir, items, seeds, kind
        self.done: dict[str, Record] = {}
        for item in items:
            if (record := self._read(item)) is not None:
                self.done[item.name] = record

    def directory(self, item: Item) -> Path:
        """Return the MODEL_DIR of an item's process."""
        return self.model_dir / item.name

    def log(self, item: Item) -> Path:
        """Return the file that holds the output of an item's processes."""
        return self.model_dir / f"{item.name}.log"

    def results(self, item: Item) -> Record | None:
        """Return a fine-tuning's results; None if there are none, or if a seed is missing."""
        if item.task is not None and item.task.startswith(PAIRS):
            return self._pairs(item)
        path = self.directory(item) / RESULTS
        if not path.exists():
            return None
        remedy = f"remove {path.parent} and its .json to fine-tune again"
        results = with_nan(read_json(path, self._kind, remedy=remedy))
        asked = {results["main_metric"], results.get("tuning_metric", results["main_metric"])}
        for one in [*results["seeds"], *results.get("folds", ())]:
            # The scores of a fold are means, with a `chosen_by` of their own.
            found = {name: one["metrics"].get(name) for name in asked} if "seed" in one else {}
            _check_scores(found, path, remedy)
            if self._kind is SweptSeeds:
                _check_scores(one["chosen_by"] or {"chosen_by": None}, path, remedy)
        return results if set(self._seeds) <= {seed["seed"] for seed in results["seeds"]} else None

    def _pairs(self, item: Item) -> Record | None:
        """Return the scores of minimal pairs in the form of a fine-tuning's results; None if there are none.

        The main score is the model's main tower's sum over the tokens, which comes first in the file.
        """
        path = self.directory(item) / SCORED_PAIRS
        if not path.exists():
            return None
        remedy = f"remove {path.parent} and its .json to score again"
        found = read_json(path, ScoredPairs, remedy=remedy)
        ways = {way: scores for way, scores in found.items() if isinstance(scores, dict) and way != "files"}
        metrics = {f"{way}, {by}": value for way, scores in ways.items() for by, value in scores.items()}
        _check_scores(metrics or {"score": None}, path, remedy)
        return {
            "kind": "pairs",
            "main_metric": next(iter(metrics)),
            "num_examples": {"pairs": found["num_pairs"]},
            "split": "pairs",
            "seeds": [{"seed": self._seeds[0], "metrics": metrics, "failed": None}],
        }

    def run_record(self, item: Item) -> Record:
        """Return the run.json of an item."""
        return read_json(self.directory(item) / RUN, MadeOn)

    def held_out(self, item: Item) -> Record:
        """Return the last metrics on held-out text that a pre-training reported; empty if it reported none."""
        rows = [row for row in self._metrics(item) if row["split"] == "validation"]
        return {name: value for name, value in rows[-1].items() if isinstance(value, int | float)} if rows else {}

    def share(self, item: Item) -> float:
        """Return the share of an item that is finished: of its own steps, or of its seeds."""
        if item.task is not None:
            # In a cross-validation, each fold has its own seeds.
            places = [f"{folder}{SEEDS}/{seed}/{SEED_RESULT}" for folder in ("", f"{FOLDS}/*/") for seed in self._seeds]
            found = sum(len(list(self.directory(item).glob(place))) for place in places)
            return found / (item.folds * len(self._seeds))
        rows = self._metrics(item)
        before = next((one.steps for one in self.items if one.name == item.needs), 0)
        own = item.steps - before
        return min(own, max(0, rows[-1]["step"] - before)) / own if rows else 0.0

    def timings(self) -> dict[str, Timing]:
        """Return the timings of the items that are done."""
        return {name: Timing(record["seconds"], record["share"], 0.0) for name, record in self.done.items()}

    def add(self, item: Item, *, seconds: float, share: float) -> None:
        """Write the record of an item that is done.

        Args:
            item: the item.
            seconds: how long the process that finished it took.
            share: the share of the item that this process did.
        """
        record = {
            "command": command_of(item),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds, 1),
            "share": round(share, 4),
            **item.facts(),
            **({"sha256": parameters_sha256(self.directory(item))} if item.task is None else {}),
            "source_sha256": self.done[item.needs]["sha256"] if item.needs else None,
            "settings": dict(item.settings),
        }
        replace_file(absolute(self._path(item)), json.dumps(record, indent=1) + "\n")
        self.done[item.name] = record

    def _metrics(self, item: Item) -> list[Record]:
        """Return the lines that a pre-training has reported so far."""
        path = self.directory(item) / METRICS
        return read_rows(path)

    def _path(self, item: Item) -> Path:
        return self.model_dir / f"{item.name}.json"

    def _read(self, item: Item) -> Record | None:
        path, directory = self._path(item), self.directory(item)
        if not path.exists():
            return None
        remedy = f"remove it and {directory}"
        record = read_json(path, ItemRecord, remedy=remedy)
        if not (AT_LEAST_0.holds(record["seconds"]) and SHARE.holds(record["share"])):
            raise UserError(f"{path} has seconds or a share that no item can have: {remedy}")
        if item.task is None and "sha256" not in record:
            raise UserError(f"{path} has no sha256 of the weights: {remedy}")
        different = different_settings(record["settings"], item.settings)
        if different:
            raise UserError(
                f"{directory} was made by other settings ({'; '.join(different[:5])}): use another MODEL_DIR, or "
                "remove that folder and its .json to make it again"
            )
        if item.task is None:
            return record
        if item.needs is not None and self.done.get(item.needs, {}).get("sha256") != record["source_sha256"]:
            raise UserError(
                f"{directory} was fine-tuned from other weights than {self.model_dir / item.needs} holds: remove that "
                "folder and its .json to fine-tune again"
            )
        return record if self.results(item) is not None else None


def _check_scores(scores: Mapping[str, Any], path: Path, remedy: str) -> None:
    """Check that scores are numbers, or NaN.

    Raises:
        UserError: if one is missing, or is not a number.
    """
    for name, score in scores.items():
        # An integer can be too large for a float.
        if not isinstance(score, int | float) or abs(score) > sys.float_info.max:
            raise UserError(f"{path} has no number for {name}: {remedy}")


def different_settings(held: Mapping[str, str], asked: Mapping[str, str]) -> list[str]:
    """Describe in words the settings that two records both have and that differ.

    A setting that only one of them has was added or removed by a version of the code: every setting is bound and none
    has a hidden default, so a different choice shows in a setting that both have.
    """
    return [
        f"{name} {held[name]} there, {asked[name]} here"
        for name in sorted(held.keys() & asked.keys())
        if held[name] != asked[name]
    ]


def command_of(item: Item) -> str:
    """Return the command that runs an item, for pasting into a shell."""
    return shlex.join(["electra", *item.arguments])


def parameters_sha256(model_dir: Path) -> str:
    """Return the checksum of the newest checkpoint's parameters."""
    return params_sha256(orbax_store.read_item(absolute(model_dir), "params").tree)

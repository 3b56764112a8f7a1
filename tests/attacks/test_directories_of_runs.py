"""Directories of comparisons and sweeps, and their locks: what is damaged in them is told in one sentence."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from electra_jax.commands.finetune import promote
from electra_jax.compare.item import Item
from electra_jax.compare.records import Records, SweptSeeds
from electra_jax.compare.spread import cells_of, statistics_of
from electra_jax.distributed.owner import owned
from electra_jax.errors import UserError
from electra_jax.files import replace_file, replacing
from electra_jax.inference.output_files import record_writer
from electra_jax.json_files import json_text, with_nan
from electra_jax.locks import sole_builder
from support.finetuned_model import write_tuned

ITEM = Item(name="tuned", task="cola", folds=1, arguments=("finetune",), settings={"EPOCHS": "2"}, needs=None)
STATED = {"mean": 50.0}
RESULTS: dict[str, Any] = {
    "main_metric": "mcc",
    "num_examples": {"dev": 4},
    "seeds": [{"seed": 0, "metrics": {"mcc": 50.0}, "failed": None, "chosen_by": {"dev": 50.0}}],
    "split": "dev",
    "summary": {"mcc": STATED},
    "other_splits": {"test": {"mcc": STATED}},
}
RECORD: dict[str, Any] = {
    "command": "electra finetune",
    "date": "2026-11-27",
    "seconds": 1.0,
    "share": 1.0,
    "source_sha256": None,
    "settings": {"EPOCHS": "2"},
    "data": {"train": "0"},
}


def read(folder: Path, results: Any = RESULTS, record: Any = RECORD, kind: Any = SweptSeeds) -> Records:
    """The records of a directory with one item."""
    (folder / "tuned").mkdir()
    (folder / "tuned/results.json").write_text(json.dumps(results))
    (folder / "tuned.json").write_text(json.dumps(record))
    return Records(folder, [ITEM], [0], kind)


def test_what_is_sound_is_done(tmp_path: Path) -> None:
    records = read(tmp_path)
    assert list(records.done) == ["tuned"]
    assert records.results(ITEM) == RESULTS


def seed_with(**values: Any) -> dict[str, Any]:
    return {"seeds": [RESULTS["seeds"][0] | values]}


@pytest.mark.parametrize(
    "change",
    [
        {"main_metric": "f1"},
        {"tuning_metric": "dev_mcc"},
        {"other_splits": [1]},
        {"summary": {"mcc": 3}},
        seed_with(metrics={}),
        seed_with(metrics={"mcc": 10**400}),
        seed_with(metrics={"mcc": math.inf}),
        seed_with(chosen_by={}),
        seed_with(chosen_by={"dev": "x"}),
        seed_with(chosen_by={"dev": 10**400}),
        {"folds": [{"fold": 0, "failed": None, "chosen_by": {}}]},
    ],
)
def test_results_without_the_scores_that_are_asked_for(change: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"results\.json.*remove .*tuned and its \.json to fine-tune again"):
        read(tmp_path, RESULTS | change)


@pytest.mark.parametrize(
    "change", [{"seconds": math.inf}, {"seconds": math.nan}, {"seconds": -1}, {"share": 2.0}, {"data": [1]}]
)
def test_records_of_what_no_item_can_have(change: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tuned\.json.*remove it and .*tuned"):
        read(tmp_path, record=RECORD | change)


@pytest.mark.parametrize("score", [math.nan, None])
def test_a_score_that_is_nan_has_no_statistics_and_is_null_in_the_file(score: float | None, tmp_path: Path) -> None:
    both = {"seeds": [*RESULTS["seeds"], RESULTS["seeds"][0] | {"seed": 1, "metrics": {"mcc": score}}]}
    records = read(tmp_path, RESULTS | both)
    found = records.results(ITEM)
    assert found is not None
    scores = {str(seed["seed"]): seed["metrics"]["mcc"] for seed in found["seeds"]}
    assert math.isnan(scores["1"])
    statistics = statistics_of(scores)
    assert statistics["n"] == 2
    assert all(math.isnan(value) for name, value in statistics.items() if name != "n")
    (cell,) = cells_of([statistics], 1)
    text = json_text({"summary": cell, "metrics": scores})
    written = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert written["metrics"] == {"0": 50.0, "1": None}
    assert math.isnan(with_nan(written)["metrics"]["1"])


def lock(path: Path) -> None:
    with sole_builder(path):
        pass


def own(path: Path) -> None:
    with owned(path.parent, "electra finetune"):
        pass


@pytest.mark.parametrize(("take", "name"), [(lock, "items.lock"), (own, "run.lock")])
def test_a_lock_that_is_a_link_leaves_alone_what_it_leads_to(
    take: Callable[[Path], None], name: str, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to(mine)
    with pytest.raises(OSError, match="a symbolic link") as refused:
        take(tmp_path / "run" / name)
    assert refused.value.filename is not None
    assert mine.read_text() == "mine"


@pytest.mark.parametrize(("take", "name"), [(lock, "items.lock"), (own, "run.lock")])
def test_a_lock_that_is_a_pipe_is_not_waited_for(take: Callable[[Path], None], name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(OSError, match="a pipe or a device"):
        take(tmp_path / name)


def test_a_file_is_not_written_through_a_link_or_a_pipe_beside_it(tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    (tmp_path / "results.json.part").symlink_to(mine)
    replace_file(tmp_path / "results.json", "{}")
    assert (mine.read_text(), (tmp_path / "results.json").read_text()) == ("mine", "{}")
    os.mkfifo(tmp_path / "run.json.part")
    replace_file(tmp_path / "run.json", "{}")
    assert (tmp_path / "run.json").read_text() == "{}"


def test_a_table_and_a_model_are_not_written_through_a_link(tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    (tmp_path / "out.csv.part.csv").symlink_to(mine)
    with record_writer(str(tmp_path / "out.csv")) as output:
        output.write({"index": 0})
    assert (mine.read_text(), (tmp_path / "out.csv").read_text()) == ("mine", "index\n0\n")
    write_tuned(tmp_path / "seed", "discriminator", labels=(), task=None)
    (tmp_path / "run").mkdir()
    for name in ("model.json", "model.json.part"):
        (tmp_path / "run" / name).symlink_to(mine)
    promote(tmp_path / "seed", tmp_path / "run")
    assert mine.read_text() == "mine"
    assert (tmp_path / "run/model.json").read_text() == (tmp_path / "seed/model.json").read_text()


def test_a_file_does_not_take_the_place_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "comparison.json").mkdir()
    with pytest.raises(UserError, match=r"comparison\.json is a directory"), replacing(tmp_path / "comparison.json"):
        pytest.fail("the body ran")

"""The record of how a run was made."""

import json
from pathlib import Path

import pytest

from electra_jax.checkpoints.run_record import write_run_record
from electra_jax.errors import UserError


def test_earlier_starts_stay_and_a_damaged_record_is_named(tmp_path: Path) -> None:
    for number, weights in ((1, {"source": "there"}), (2, None)):
        write_run_record(tmp_path, f"A = {number}\n", {"corpus": "mine"}, weights=weights)
    record = json.loads((tmp_path / "run.json").read_text())
    assert [start.get("weights") for start in record["starts"]] == [{"source": "there"}, None]
    assert record["corpus"] == "mine"
    assert (tmp_path / "config.gin").read_text() == "A = 2\n"
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run\.json is damaged .*: remove it"):
        write_run_record(tmp_path, "A = 3\n", {})
    assert (tmp_path / "config.gin").read_text() == "A = 2\n"


def test_the_configuration_of_every_start_that_differs_stays(tmp_path: Path) -> None:
    for number in (1, 2, 2, 3):
        write_run_record(tmp_path, f"A = {number}\n", {})
    kept = {path.name: path.read_text() for path in tmp_path.glob("config*")}
    assert kept == {"config.1.gin": "A = 1\n", "config.2.gin": "A = 2\n", "config.gin": "A = 3\n"}
    # A start that was killed before it wrote its own leaves the copy, which is not made twice.
    (tmp_path / "config.3.gin").write_text("A = 3\n")
    write_run_record(tmp_path, "A = 4\n", {})
    assert sorted(path.name for path in tmp_path.glob("config*")) == [
        *(f"config.{n}.gin" for n in (1, 2, 3)),
        "config.gin",
    ]

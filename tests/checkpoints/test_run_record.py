"""The record of how a run was made."""

import json
from pathlib import Path

import pytest

from electra_jax.checkpoints.run_record import write_run_record


def test_earlier_starts_stay(tmp_path: Path) -> None:
    for number, weights in ((1, {"source": "there"}), (2, None)):
        write_run_record(tmp_path, f"A = {number}\n", {"corpus": "mine"}, weights=weights)
    record = json.loads((tmp_path / "run.json").read_text())
    assert [start.get("weights") for start in record["starts"]] == [{"source": "there"}, None]
    assert record["corpus"] == "mine"
    assert (tmp_path / "config.gin").read_text() == "A = 2\n"


@pytest.mark.parametrize("content", [b"", b'{"starts": [', b"\xff\xfe", b"[1]", b'{"starts": 5}', b"[" * 100_000])
def test_a_damaged_record_is_set_aside(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "run.json").write_bytes(content)
    (tmp_path / "run.json.damaged1").write_text("an earlier one")
    write_run_record(tmp_path, "A = 3\n", {})
    assert (tmp_path / "run.json.damaged2").read_bytes() == content
    assert (tmp_path / "run.json.damaged1").read_text() == "an earlier one"
    assert len(json.loads((tmp_path / "run.json").read_text())["starts"]) == 1
    assert f"{tmp_path / 'run.json'} is damaged (" in caplog.text
    assert "): it is set aside as run.json.damaged2" in caplog.text


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

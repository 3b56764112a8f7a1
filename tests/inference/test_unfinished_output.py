"""A job of `electra predict` or `embed` that was ended continues, and what it writes is what it would have written."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from electra_jax.cli import main
from electra_jax.inference import item_records
from electra_jax.inference.output_files import record_writer
from support.finetuned_model import text_facts, write_tuned

LABELS = ("bad", "good")
# Two lists of inputs and a part of a third: 32 batches of two each.
LINES = [f'{{"id": "{number}", "text": "the {"cat " * (number % 5)}ran"}}' for number in range(150)]
LINES[10], LINES[140] = "{", "{"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tuned(
        tmp_path / "model", "sequence_classification", labels=LABELS, task=text_facts("own", LABELS, pair=False)
    )
    (tmp_path / "in.jsonl").write_text("\n".join([*LINES, ""]))
    return tmp_path


def predicting(folder: Path, name: str, *more: str) -> list[str]:
    places = [str(folder / part) for part in ("model", "in.jsonl")]
    return ["predict", *places, "--output", str(folder / name), "--gin.BATCH_SIZE=2", *more]


def embedding(folder: Path, name: str, *more: str) -> list[str]:
    places = [str(folder / part) for part in ("model", "in.jsonl")]
    return ["embed", *places, "--output", str(folder / name), "--batch_size=2", *more]


def end_after(monkeypatch: pytest.MonkeyPatch, lists: int, *, error: BaseException) -> list[int]:
    """Let the answer to a list raise an error; returns the sizes of the lists that are answered, as they come."""
    sizes: list[int] = []
    records_of = item_records.records_of

    def counted(items: Any, answer: Any) -> Any:
        if len(sizes) == lists:
            raise error
        sizes.append(len(items))
        return records_of(items, answer)

    monkeypatch.setattr(item_records, "records_of", counted)
    return sizes


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
@pytest.mark.parametrize("command", [predicting, embedding])
@pytest.mark.parametrize("cut", [0, 7], ids=["whole lines", "a torn line"])
def test_goes_on(
    name: str,
    command: Callable[..., list[str]],
    cut: int,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert main(command(folder, f"whole-{name}")) == 0
    (warning,) = caplog.messages
    assert "2 of 150 inputs" in warning
    with monkeypatch.context() as patch:
        end_after(patch, 2, error=KeyboardInterrupt())
        assert main(command(folder, name)) == 2
    part = folder / f"{name}.part"
    done = len(part.read_bytes().splitlines())
    assert done == 128
    if cut:
        os.truncate(part, part.stat().st_size - cut)
        done -= 1
    capsys.readouterr()
    caplog.clear()
    with monkeypatch.context() as patch:
        sizes = end_after(patch, 9, error=KeyboardInterrupt())
        assert main(command(folder, name)) == 0
    # What stands there is not answered again, but for a list of which a part is missing.
    assert sizes == ([64, 22] if cut else [22])
    assert capsys.readouterr().out == f"continuing after the {done} records in {part}\n"
    assert caplog.messages == [warning]
    assert (folder / name).read_bytes() == (folder / f"whole-{name}").read_bytes()
    assert sorted(os.listdir(folder)) == ["in.jsonl", "model", name, f"whole-{name}"]


def other_input(folder: Path) -> list[str]:
    (folder / "in.jsonl").write_text("\n".join([*LINES[1:], ""]))
    return []


def other_weights(folder: Path) -> list[str]:
    write_tuned(
        folder / "other", "sequence_classification", labels=LABELS, task=text_facts("own", LABELS, pair=False), seed=1
    )
    (folder / "model").rename(folder / "first")
    (folder / "other").rename(folder / "model")
    return []


def other_settings(folder: Path) -> list[str]:
    del folder
    return ["--gin.ID_COLUMN='number'"]


def damaged_facts(folder: Path) -> list[str]:
    (folder / "out.jsonl.part.json").write_text("[]")
    return []


def other_records(folder: Path) -> list[str]:
    part = folder / "out.jsonl.part"
    part.write_bytes(b"".join(part.read_bytes().splitlines(keepends=True)[1:]))
    return []


@pytest.mark.parametrize("change", [other_input, other_weights, other_settings, damaged_facts, other_records])
def test_another_job_begins_anew(
    change: Callable[[Path], list[str]],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patch:
        end_after(patch, 1, error=KeyboardInterrupt())
        assert main(predicting(folder, "out.jsonl")) == 2
    more = change(folder)
    assert main(predicting(folder, "out.jsonl", *more)) == 0
    assert "continuing" not in capsys.readouterr().out
    assert main(predicting(folder, "whole.jsonl", *more)) == 0
    assert (folder / "out.jsonl").read_bytes() == (folder / "whole.jsonl").read_bytes()
    indices = [json.loads(line)["index"] for line in (folder / "out.jsonl").read_text().splitlines()]
    assert indices == list(range(len(indices)))


def test_a_job_that_fails_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(os.listdir(folder))
    end_after(monkeypatch, 1, error=RuntimeError("lost"))
    with pytest.raises(RuntimeError, match="lost"):
        main(predicting(folder, "out.jsonl"))
    assert sorted(os.listdir(folder)) == before


def test_one_process_writes_an_output(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with record_writer(str(folder / "out.jsonl")) as output:
        output.write({"index": 0})
        assert main(predicting(folder, "out.jsonl")) == 2
        assert "out.jsonl is being written by another process: wait until it ends" in capsys.readouterr().err
    assert (folder / "out.jsonl").read_text() == '{"index": 0}\n'


def test_nothing_is_written_through_a_link(folder: Path) -> None:
    (folder / "kept.txt").write_text("kept")
    (folder / "out.jsonl.part").symlink_to(folder / "kept.txt")
    assert main(predicting(folder, "out.jsonl")) == 0
    assert (folder / "kept.txt").read_text() == "kept"
    assert len((folder / "out.jsonl").read_text().splitlines()) == len(LINES)

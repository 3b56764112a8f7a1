"""Multiple choice from a user's own table to answers and to a directory of transformers, by the command."""

import csv
import json
from pathlib import Path

import pytest

import electra_jax
from electra_jax.cli import main
from support.tuned_runs import DRAW, NOUNS, VERBS, best_of, electra, evaluated, predictions_of, sentence, tune

pytestmark = pytest.mark.usefixtures("compilations")

COLUMNS = {"TEXT_COLUMN": "passage", "CHOICE_COLUMNS": ("a", "b", "c"), "LABEL_COLUMN": "answer"}


def rows(number: int) -> list[list[str]]:
    """Two or three choices of words, of which one has nouns, by its letter or its number."""
    made = []
    for row in range(number):
        count = DRAW.choice([2, 3])
        right = DRAW.randrange(count)
        choices = [sentence(NOUNS if place == right else VERBS, 4) for place in range(count)]
        label = str(right) if row % 2 else "ABC"[right]
        made.append([str(row), sentence(NOUNS + VERBS, 5), *choices, *[""] * (3 - count), label])
    return made


def write(path: Path, header: list[str], lines: list[list[str]]) -> None:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *lines])


def test_multiple_choice(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header = ["id", "passage", "a", "b", "c", "answer"]
    for split, number in (("train", 120), ("dev", 25)):
        write(tmp_path / f"{split}.csv", header, rows(number))
    results = tune(whole, tmp_path, "multiple_choice", **COLUMNS, BATCH_SIZE=8, EVALUATE_EVERY=60)
    assert results["num_examples"] == {"train": 120, "dev": 25}
    assert best_of(results) == {"accuracy": 100.0}
    assert evaluated(tmp_path)["metrics"] == best_of(results)
    record = predictions_of(tmp_path, "predictions.jsonl")[0]
    assert record["gold"] == record["prediction"]["label"]
    assert "a strong\ncolumn is a position" in (tmp_path / "run/report.html").read_text()
    # One record for each row of a table, an error where there is nothing to choose, without the column of labels.
    new = rows(5)
    write(tmp_path / "new.csv", header[:-1], [*(row[:-1] for row in new), ["x", "passage", "one", "", ""]])
    out = tmp_path / "out.jsonl"
    assert main(["predict", str(tmp_path / "run"), str(tmp_path / "new.csv"), "--output", str(out)]) == 0
    *found, bad = [json.loads(line) for line in out.read_text().splitlines()]
    rights = [int(row[-1]) if row[-1].isdigit() else "ABC".index(row[-1]) for row in new]
    assert [each["label"] for each in found] == rights
    assert [each["choice"] for each in found] == [row[2 + right] for row, right in zip(new, rights, strict=True)]
    assert [len(each["probabilities"]) for each in found] == [sum(map(bool, row[2:5])) for row in new]
    assert all(sum(each["probabilities"]) == pytest.approx(1.0) for each in found)
    assert (bad["index"], bad["id"]) == (5, "x")
    assert "1 choice; expected at least 2 choices" in bad["error"]
    capsys.readouterr()
    line = {"passage": new[0][1], "choices": [choice for choice in new[0][2:5] if choice]}
    electra(
        "predict", json.dumps({"text": line["passage"], "choices": line["choices"]}), MODEL_DIR=str(tmp_path / "run")
    )
    said = json.loads(capsys.readouterr().out)
    assert said["probabilities"] == pytest.approx(found[0]["probabilities"], abs=1e-5)
    # To transformers and back.
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "hf"), "--format", "transformers"]) == 0
    assert json.loads((tmp_path / "hf/config.json").read_text())["architectures"] == ["ElectraForMultipleChoice"]
    assert main(["import", str(tmp_path / "hf"), str(tmp_path / "again")]) == 0
    value = {"text": line["passage"], "choices": line["choices"]}
    (again,) = electra_jax.load(tmp_path / "again")(value)
    assert again["probabilities"] == pytest.approx(said["probabilities"], abs=1e-5)

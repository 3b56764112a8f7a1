"""`electra finetune` on a user's own files: texts with several labels, and the settings that decide."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

import electra_jax
from electra_jax.cli import main
from support.tuned_runs import (
    DRAW,
    NOUNS,
    OTHERS,
    SETTINGS,
    VERBS,
    best_of,
    electra,
    evaluated,
    predictions_of,
    sentence,
    settings_of,
    tune,
)

pytestmark = pytest.mark.usefixtures("compilations")


def test_several_labels(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A text has the label of each kind of its words, or none: what is trained, evaluated, predicted and exported."""
    kinds = {"noun": NOUNS, "verb": VERBS}
    for split, number in (("train", 96), ("dev", 30)):
        rows = []
        for row in range(number):
            labels = [name for place, name in enumerate(kinds) if (row + 1) >> place & 1]
            words = [word for name in labels for word in DRAW.choices(kinds[name], k=4)]
            rows.append({"text": " ".join([*words, sentence(OTHERS, 4)]), "labels": labels})
        (tmp_path / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    columns = {"TEXT_COLUMN": "text", "LABEL_COLUMN": "labels"}
    results = tune(whole, tmp_path, "classification", **columns, EPOCHS=20, EVALUATE_EVERY=60)
    assert "labels: a text may have several, or none, of 2: noun, verb" in capsys.readouterr().out
    assert (results["kind"], results["main_metric"]) == ("multi_label_classification", "f1_micro")
    assert best_of(results)["f1_macro"] > 80
    assert results["label_thresholds"].keys() == set(kinds)
    report = (tmp_path / "run/report.html").read_text()
    assert "<h2>Labels</h2>" in report
    assert evaluated(tmp_path)["metrics"] == best_of(results)
    records = predictions_of(tmp_path, "predictions.jsonl")
    alone = electra_jax.load(str(tmp_path / "run"))([record["text_a"] for record in records])
    for record, found in zip(records, alone, strict=True):
        assert found["labels"] == record["prediction"]["labels"]
        assert found["probabilities"] == pytest.approx(record["prediction"]["probabilities"], abs=1e-6)
        given = [name for name, share in found["probabilities"].items() if share >= results["label_thresholds"][name]]
        assert given == found["labels"]
    capsys.readouterr()
    table = tmp_path / "said.csv"
    electra("predict", str(tmp_path / "run"), str(tmp_path / "dev.jsonl"), "--output", str(table))
    header, first, *_ = table.read_text().splitlines()
    assert header == "index,labels,probabilities.noun,probabilities.verb"
    labels = json.dumps(records[0]["prediction"]["labels"]).replace('"', '""')
    assert first.startswith(f'0,"{labels}",')
    settings = SETTINGS | settings_of(whole, tmp_path, "classification") | columns | {"MULTI_LABEL": False}
    assert main(["finetune", *(f"--gin.{name}={value!r}" for name, value in settings.items())]) == 2
    assert "line 1: the label ['noun'] is a list, and here each row has one label" in capsys.readouterr().err


def test_tables_from_a_hub(whole: Path, tmp_path: Path) -> None:
    """Parquet whose labels are numbers with names, and an array of JSON with those names."""
    names = ["noun", "verb"]
    described = {"info": {"features": {"kind": {"names": names, "_type": "ClassLabel"}}}}
    table = pyarrow.Table.from_pylist(
        [{"body": sentence(NOUNS if row % 2 else VERBS, 6), "kind": 1 - row % 2} for row in range(96)]
    ).replace_schema_metadata({"huggingface": json.dumps(described)})
    pyarrow.parquet.write_table(table, tmp_path / "train-00000-of-00001.parquet")
    dev = [{"body": sentence(NOUNS if row % 2 else VERBS, 6), "kind": names[1 - row % 2]} for row in range(40)]
    (tmp_path / "dev.json").write_text(json.dumps(dev, indent=1))
    files = {"TRAIN_FILE": str(tmp_path / "train-00000-of-00001.parquet"), "DEV_FILE": str(tmp_path / "dev.json")}
    columns = {"TEXT_COLUMN": "body", "LABEL_COLUMN": "kind"}
    results = tune(whole, tmp_path, "classification", **files, **columns)
    assert results["num_examples"] == {"train": 96, "dev": 40}
    assert best_of(results)["accuracy"] == 100.0
    electra("predict", str(tmp_path / "run"), files["TRAIN_FILE"], "--output", str(tmp_path / "out.jsonl"))
    electra("predict", str(tmp_path / "run"), files["DEV_FILE"], "--output", str(tmp_path / "dev.jsonl"))
    found = [json.loads(line)["label"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert found == [names[1 - row % 2] for row in range(96)]
    found = [json.loads(line)["label"] for line in (tmp_path / "dev.jsonl").read_text().splitlines()]
    assert found == [row["kind"] for row in dev]


def test_tagged_records_from_a_hub(whole: Path, tmp_path: Path) -> None:
    names = ["O", "B-noun", "I-noun"]
    tags = {"feature": {"names": names, "_type": "ClassLabel"}, "_type": "Sequence"}
    described = {"huggingface": json.dumps({"info": {"features": {"ner_tags": tags}}})}
    for split, number in (("train", 96), ("dev", 24)):
        rows = [
            {"tokens": [*DRAW.choices(NOUNS, k=2), *DRAW.choices(VERBS, k=2)], "ner_tags": [1, 2, 0, 0]}
            for _ in range(number)
        ]
        table = pyarrow.Table.from_pylist(rows).replace_schema_metadata(described)
        pyarrow.parquet.write_table(table, tmp_path / f"{split}.parquet")
    results = tune(whole, tmp_path, "tagging")
    assert results["num_examples"] == {"train": 96, "dev": 24}
    assert best_of(results)["f1"] > 90
    electra("predict", str(tmp_path / "run"), str(tmp_path / "dev.parquet"), "--output", str(tmp_path / "out.jsonl"))
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [record["words"] for record in found] == [row["tokens"] for row in rows]
    right = sum(record["tags"] == ["B-noun", "I-noun", "O", "O"] for record in found)
    assert right >= 20


def test_more_epochs_and_early_stopping(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At a constant rate, one epoch and then another are two epochs; without progress a seed stops."""
    for split, number in (("train", 48), ("dev", 20)):
        rows = [f"{sentence(NOUNS if row % 2 else VERBS, 6)},{row % 2}" for row in range(number)]
        (tmp_path / f"{split}.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    steady = {"WARMUP_FRACTION": 0.0, "optimizer.OptimizerConfig.lr_decay_power": 0.0, "FROZEN_LAYERS": 1}
    settings = SETTINGS | settings_of(whole, tmp_path, "classification") | steady
    settings |= {"TEXT_COLUMN": "text", "LABEL_COLUMN": "label", "EVALUATE_EVERY": 3, "CLASS_WEIGHTS": "balanced"}

    def arguments(name: str, **macros: Any) -> list[str]:
        given = settings | {"MODEL_DIR": str(tmp_path / name)} | macros
        return ["finetune", *(f"--gin.{macro}={value!r}" for macro, value in given.items())]

    assert main(arguments("twice", EPOCHS=1, KEEP_STATE=True)) == 0
    assert main(arguments("twice", EPOCHS=2, KEEP_STATE=True)) == 0
    assert "resuming from step 3" in capsys.readouterr().out
    assert main(arguments("once", EPOCHS=2)) == 0
    twice, once = (json.loads((tmp_path / name / "results.json").read_text())["seeds"] for name in ("twice", "once"))
    assert twice == once
    assert [point["step"] for point in twice[0]["curve"]] == [3, 6]
    predictions = [(tmp_path / name / "predictions.jsonl").read_text() for name in ("twice", "once")]
    assert predictions[0] == predictions[1]
    capsys.readouterr()
    assert main(arguments("once", EPOCHS=3)) == 2
    assert "has finished 2 epochs and kept no state to continue from to 3: use another" in capsys.readouterr().err
    assert main(arguments("twice", EPOCHS=1)) == 2
    assert "(EPOCHS 2 there, 1 here)" in capsys.readouterr().err
    still = {"LEARNING_RATE": 0.0, "EVALUATE_EVERY": 1, "PATIENCE": 2, "MAIN_METRIC": "auc"}
    for _ in range(2):
        assert main(arguments("still", EPOCHS=2, **still)) == 0
        results = json.loads((tmp_path / "still/results.json").read_text())
        assert (results["seeds"][0]["steps"], results["seeds"][0]["stopped_early"]) == (3, True)
    assert results["main_metric"] == "auc"
    assert list(results["seeds"][0]["curve"][0]) == ["step", "auc"]
    for wrong, told in (
        ({"FROZEN_LAYERS": 99}, "FROZEN_LAYERS is 99, and the encoder has 2 layers: set 2 or less"),
        ({"CLASS_WEIGHTS": {"2": 1.0}}, "CLASS_WEIGHTS names '2', and the classes of classification are '0', '1'"),
        ({"CLASS_WEIGHTS": "even"}, "CLASS_WEIGHTS is 'even': it must be 'balanced', or positive weights by the names"),
    ):
        assert main(arguments("wrong", **wrong)) == 2
        assert told in capsys.readouterr().err
    assert not (tmp_path / "wrong").exists()

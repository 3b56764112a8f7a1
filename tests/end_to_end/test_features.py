"""Each kind of fine-tuning by the command that is installed: train, then use what came out, one process a command."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import pytest

from support.command_line import WORDS, electra
from support.tuned_runs import NOUNS, OTHERS, SETTINGS, VERBS, sentence

TEXT = {"TEXT_COLUMN": "text"}


class Feature(NamedTuple):
    """A kind of fine-tuning.

    Attributes:
        header: the columns of its tables.
        row: makes a row of a table, given its number.
        macros: what is set beside the files.
    """

    header: list[str]
    row: Callable[[int], list[str]]
    macros: dict[str, Any]


def text_of(number: int) -> str:
    return sentence(NOUNS if number % 2 else VERBS, 5)


FEATURES = {
    "several labels": Feature(
        ["text", "noun", "verb"],
        lambda number: [text_of(number), *("10" if number % 2 else "01")],
        TEXT | {"TASK": "classification", "LABEL_COLUMN": ("noun", "verb")},
    ),
    "choices": Feature(
        ["text", "a", "b", "label"],
        lambda number: [text_of(number), text_of(0), text_of(1), str(number % 2)],
        TEXT | {"TASK": "multiple_choice", "CHOICE_COLUMNS": ("a", "b"), "LABEL_COLUMN": "label"},
    ),
    "pairs with scores": Feature(
        ["text", "other", "score"],
        lambda number: [text_of(number), text_of(number // 2), str(number % 3)],
        TEXT | {"TASK": "similarity", "TEXT_B_COLUMN": "other", "LABEL_COLUMN": "score"},
    ),
    "pairs that belong together": Feature(
        ["text", "other"],
        lambda number: [text_of(number), text_of(number)],
        TEXT | {"TASK": "retrieval", "TEXT_B_COLUMN": "other"},
    ),
    "a prompt": Feature(
        ["text", "label"],
        lambda number: [text_of(number), "noun" if number % 2 else "verb"],
        TEXT
        | {"TASK": "prompt", "TEMPLATE": f"{WORDS[55]} {{label}} {{text}}", "LABEL_COLUMN": "label"}
        | {"LABEL_WORDS": {"noun": OTHERS[0], "verb": OTHERS[1]}},
    ),
}


class Run:
    """A fine-tuning by the installed command, in a folder of its own."""

    def __init__(self, name: str, whole: Path, cache: Path, folder: Path) -> None:
        self.folder, self._cache = folder, cache
        feature = FEATURES[name]
        for split, number in (("train", 48), ("dev", 40)):
            with open(folder / f"{split}.csv", "w", newline="") as file:
                csv.writer(file).writerows([feature.header, *map(feature.row, range(number))])
        places = {"INIT_FROM": str(whole), "DATA_DIR": str(folder), "MODEL_DIR": str(folder / "run")}
        macros = SETTINGS | {"EPOCHS": 1} | places | feature.macros
        self.said = self.run("finetune", *(f"--gin.{macro}={value!r}" for macro, value in macros.items()))

    def run(self, *arguments: str) -> str:
        done = electra(list(arguments), self._cache)
        assert done.returncode == 0, done
        return done.stdout

    def records(self, verb: str, name: str, value: Any) -> list[dict[str, Any]]:
        """What a verb writes for two equal inputs, from a file of JSON lines to another."""
        (self.folder / "in.jsonl").write_text(f"{json.dumps(value)}\n" * 2)
        self.run(verb, str(self.folder / "run"), str(self.folder / "in.jsonl"), "--output", str(self.folder / name))
        return [json.loads(line) for line in (self.folder / name).read_text().splitlines()]


@pytest.fixture
def run(request: pytest.FixtureRequest, whole: Path, place: Path, tmp_path: Path) -> Run:
    return Run(request.param, whole, place / "cache", tmp_path)


@pytest.mark.parametrize("run", ["several labels"], indirect=True)
def test_several_labels_and_onnx(run: Run) -> None:
    assert "f1" in run.said
    first, second = run.records("predict", "out.jsonl", {"text": text_of(0)})
    assert set(first["probabilities"]) == {"noun", "verb"}
    assert first["probabilities"] == second["probabilities"]
    run.run("export", str(run.folder / "run"), str(run.folder / "onnx"), "--format", "onnx")
    session = onnxruntime.InferenceSession(run.folder / "onnx" / "model.onnx", providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["labels"]) == ["noun", "verb"]


@pytest.mark.parametrize("run", ["choices"], indirect=True)
def test_choices(run: Run) -> None:
    (first, _) = run.records("predict", "out.jsonl", {"text": text_of(0), "choices": [text_of(0), text_of(1), "k"]})
    assert len(first["probabilities"]) == 3
    assert sum(first["probabilities"]) == pytest.approx(1.0)


@pytest.mark.parametrize("run", ["pairs with scores", "pairs that belong together"], indirect=True)
def test_vectors(run: Run) -> None:
    text = text_of(0)
    (first, _) = run.records("embed", "out.jsonl", {"text": text})
    assert np.isfinite(first["vector"]).all()
    # The similarity that predict says is the cosine of the vectors that embed gives.
    (pair, _) = run.records("predict", "pairs.jsonl", {"text": text, "text_pair": text})
    assert pair["similarity"] == pytest.approx(1.0, abs=1e-5)
    run.run("export", str(run.folder / "run"), str(run.folder / "st"), "--format", "sentence-transformers")
    assert (run.folder / "st" / "modules.json").exists()


@pytest.mark.parametrize("run", ["a prompt"], indirect=True)
def test_a_prompt(run: Run) -> None:
    (first, _) = run.records("predict", "out.jsonl", {"text": text_of(0)})
    assert sum(first["probabilities"].values()) == pytest.approx(1.0)
    assert set(first["probabilities"]) == {"noun", "verb"}

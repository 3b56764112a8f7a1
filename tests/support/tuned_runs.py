"""Fine-tune, evaluate and read the results of small runs by the command, for end-to-end tests."""

import json
import random
from pathlib import Path
from typing import Any

from electra_jax.cli import main
from support.command_line import WORDS

DRAW = random.Random(1)
NOUNS, VERBS, OTHERS = WORDS[:25], WORDS[25:50], WORDS[50:60]
SETTINGS = {
    "BUCKETS": (32,),
    "MAX_SEQ_LENGTH": 32,
    "BATCH_SIZE": 16,
    "EVALUATION_BATCH_SIZE": 8,
    "LEARNING_RATE": 3e-3,
    "DROPOUT": 0.0,
    "LAYERWISE_LR_DECAY": 1.0,
    "EPOCHS": 8,
    "EVALUATE_EVERY": 12,
}


def sentence(words: list[str], number: int) -> str:
    return " ".join(DRAW.choices(words, k=number))


def electra(verb: str, *arguments: str, **macros: Any) -> None:
    assert main([verb, *arguments, *(f"--gin.{name}={value!r}" for name, value in macros.items())]) == 0


def settings_of(whole: Path, folder: Path, task: str) -> dict[str, Any]:
    return {"INIT_FROM": str(whole), "DATA_DIR": str(folder), "MODEL_DIR": str(folder / "run"), "TASK": task}


def tune(whole: Path, folder: Path, task: str, **macros: Any) -> dict[str, Any]:
    """Fine-tunes the pre-training run `whole` on `folder`'s files; returns results.json of `folder/run`."""
    electra("finetune", **{**SETTINGS, **settings_of(whole, folder, task), **macros})
    return json.loads((folder / "run/results.json").read_text())


def evaluated(folder: Path, split: str = "dev", *arguments: str, **macros: Any) -> dict[str, Any]:
    places = {"MODEL_DIR": str(folder / "run"), "OUTPUT": str(folder / "scores.json")}
    electra("evaluate", *arguments, SPLIT=split, **places, **macros)
    return json.loads((folder / "scores.json").read_text())


def best_of(results: dict[str, Any]) -> dict[str, float]:
    return next(seed["metrics"] for seed in results["seeds"] if seed["seed"] == results["best_seed"])


def predictions_of(folder: Path, name: str) -> list[dict[str, Any]]:
    """The JSON lines of a file of `folder/run`."""
    return [json.loads(line) for line in (folder / "run" / name).read_text().splitlines()]

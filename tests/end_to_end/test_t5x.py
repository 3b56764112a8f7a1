"""T5X's own scripts on this project's tasks and models, in processes of their own; what they save, and back."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flax import traverse_util

import electra_jax
from electra_jax.checkpoints import orbax_store
from support.command_line import SMALL, WORDS, electra, environment, small_run, write_small_text

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("t5x") is None,
    reason="t5x is not importable: it is on no package index (docs/outgrowing.md tells how to bring a copy)",
)
# Two divide the vocabulary, and eight the generator's width.
DIVISIBLE = {"VOCAB_SIZE": SMALL["VOCAB_SIZE"] + 1, "run_config.PretrainingRun.generator_width_fraction": 0.5}
SIZES = {name: value for name, value in SMALL.items() if name.startswith("encoder.")} | DIVISIBLE
PLAN = {"BATCH_SIZE": 8, "LOG_EVERY": 1, "SAVE_EVERY": 2, "EVALUATE_EVERY": 2}
SHARDS = {"PARAMETER_PARTITIONING_DIMS": 2}


def bindings(macros: dict[str, Any]) -> list[str]:
    """Of a command line."""
    return [f"--gin.{name}={value!r}" for name, value in macros.items()]


def t5x(script: str, gin_files: list[str], cache: Path, *, devices: int = 1, **macros: Any) -> str:
    """Runs one of T5X's scripts to its end and returns what it logged."""
    arguments = [
        *(f"--gin_file={file}" for file in gin_files),
        *(f"--gin.{key}={value!r}" for key, value in macros.items()),
    ]
    result = subprocess.run(
        [sys.executable, "-m", f"t5x.{script}", *arguments],
        env=environment(cache, devices=devices),
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    return result.stderr


def pretrain(folder: Path, model_dir: Path, *, devices: int = 1, steps: int = 4, **macros: Any) -> str:
    texts = {name: str(folder / file) for name, file in (("CORPUS", "text.txt"), ("VOCAB_FILE", "vocab.txt"))}
    settings = {"HELD_OUT_FRACTION": 0.1, "SEQUENCE_LENGTH": 32, "WARMUP_STEPS": 1, "EVALUATION_BATCHES": 1}
    return t5x(
        "train",
        ["gin/t5x/pretrain.gin", "gin/models/tiny.gin"],
        folder / "cache",
        devices=devices,
        **(SIZES | PLAN | settings | texts),
        CACHE_DIR=str(folder / "caches"),
        MODEL_DIR=str(model_dir),
        TRAIN_STEPS=steps,
        **macros,
    )


def task(folder: Path) -> dict[str, Any]:
    """The macros of a classification."""
    files = {f"{split.upper()}_FILE": str(folder / f"{split}.tsv") for split in ("train", "dev", "test")}
    return files | {"TASK": "classification", "TEXT_COLUMN": "text", "LABEL_COLUMN": "label", "MAX_SEQ_LENGTH": 16}


def state(model_dir: Path) -> dict[str, np.ndarray]:
    """Parameters and optimizer of the newest checkpoint."""
    items = {item: orbax_store.read_item(model_dir, item).tree for item in ("params", "opt_state")}
    return traverse_util.flatten_dict(items, sep="/")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("t5x")
    write_small_text(folder)
    with (folder / "vocab.txt").open("a") as vocabulary:
        vocabulary.write("[unused]\n")
    for split, number in (("train", 24), ("dev", 11), ("test", 3)):
        lines = [f"{' '.join(WORDS[n : n + 3])}\t{'yes' if n % 3 else 'no'}" for n in range(number)]
        (folder / f"{split}.tsv").write_text("\n".join(["text\tlabel", *lines]) + "\n")
    return folder


@pytest.fixture(scope="module")
def pretrained(folder: Path) -> Path:
    """What T5X wrote in 4 steps on one device."""
    log = pretrain(folder, folder / "pretrained")
    for name in ("generator_loss", "discriminator_auc", "learning_rate"):
        assert name in log
    return folder / "pretrained"


@pytest.fixture(scope="module")
def classifier(folder: Path, pretrained: Path) -> Path:
    """What T5X made of that, on 8 devices of which two share a model."""
    t5x(
        "train",
        ["gin/t5x/finetune.gin"],
        folder / "cache",
        devices=8,
        **(task(folder) | PLAN),
        INIT_FROM=str(pretrained),
        MODEL_DIR=str(folder / "classifier"),
        TRAIN_STEPS=4,
        EVALUATION_BATCH_SIZE=8,
        NUM_PARTITIONS=2,
        **SHARDS,
    )
    return folder / "classifier"


def test_a_stopped_run_goes_on_bit_exactly(folder: Path, pretrained: Path) -> None:
    again = folder / "again"
    shutil.copytree(pretrained, again)
    shutil.rmtree(again / "checkpoint_4")
    pretrain(folder, again)
    ours, theirs = state(pretrained), state(again)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_array_equal(theirs[name], value, err_msg=name)


def test_eight_devices_give_the_parameters_of_one(folder: Path, pretrained: Path) -> None:
    pretrain(folder, folder / "eight", devices=8, **SHARDS)
    theirs = state(folder / "eight")
    for name, value in state(pretrained).items():
        np.testing.assert_allclose(theirs[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


def test_a_classifier_is_scored_and_predicts(folder: Path, classifier: Path) -> None:
    """`t5x.eval` says what `electra evaluate` says, and `t5x.infer` what the model says."""
    options = {**task(folder), "MODEL_DIR": str(classifier), "EVALUATION_BATCH_SIZE": 8}
    t5x("eval", ["gin/t5x/eval.gin"], folder / "cache", **options, EVAL_OUTPUT_DIR=str(folder / "eval"))
    (line,) = (folder / "eval/inference_eval/classification-metrics.jsonl").read_text().splitlines()
    arguments = bindings(task(folder))
    result = electra(["evaluate", f"--gin.MODEL_DIR={str(classifier)!r}", *arguments], folder / "cache")
    assert result.returncode == 0, result.stderr
    ours = json.loads((classifier / "evaluation.json").read_text())
    assert ours["metrics"]["accuracy"] == pytest.approx(json.loads(line)["accuracy"])
    t5x("infer", ["gin/t5x/infer.gin"], folder / "cache", **options, INFER_OUTPUT_DIR=str(folder / "infer"))
    (path,) = (folder / "infer").glob("classification-predict.jsonl-00000-of-00001")
    written = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["inputs"] for line in written] == [{"row": 0}, {"row": 1}, {"row": 2}]
    model = electra_jax.load(classifier)
    texts = [line.split("\t")[0] for line in (folder / "test.tsv").read_text().splitlines()[1:]]
    labels = [model.description.labels.index(model([text])[0]["label"]) for text in texts]
    assert [line["prediction"] for line in written] == [[label] for label in labels]


def test_what_t5x_wrote_is_fine_tuned_here(folder: Path, pretrained: Path) -> None:
    arguments = bindings(task(folder))
    places = [f"--gin.INIT_FROM={str(pretrained)!r}", f"--gin.MODEL_DIR={str(folder / 'ours')!r}"]
    result = electra(["finetune", *arguments, *places, "--gin.EPOCHS=1", "--gin.BATCH_SIZE=8"], folder / "cache")
    assert result.returncode == 0, result.stderr
    assert "the embeddings and the encoder" in result.stdout
    assert (folder / "ours/results.json").exists()


def test_what_was_written_here_is_gone_on_with_there(folder: Path) -> None:
    """From its step, with its parameters and moments."""
    changes = DIVISIBLE | {"TRAIN_STEPS": 2, "SAVE_EVERY": 2, "EVALUATE_EVERY": 2, "WARMUP_STEPS": 1}
    ran = electra(small_run(folder, folder / "begun", **changes), folder / "cache")
    assert ran.returncode == 0, ran.stderr
    exported = electra(["export", str(folder / "begun"), str(folder / "exported"), "--format", "t5x"], folder / "cache")
    assert exported.returncode == 0, exported.stderr
    pretrain(folder, folder / "gone_on", steps=4, INIT_FROM=str(folder / "exported"), SAVE_PLACE=False)
    steps = sorted(int(path.name.split("_")[1]) for path in (folder / "gone_on").glob("checkpoint_*"))
    assert steps == [2, 4]
    shutil.rmtree(folder / "gone_on/checkpoint_4")
    before, begun = state(folder / "gone_on"), state(folder / "exported")
    assert before.keys() == begun.keys()
    for name, value in begun.items():
        np.testing.assert_array_equal(before[name], value, err_msg=name)

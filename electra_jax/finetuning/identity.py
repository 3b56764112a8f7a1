"""Check whether a MODEL_DIR holds the requested fine-tuning run: the same settings on the same data."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from electra_jax.config import gin_files
from electra_jax.finetuning.seed_run import SeedContext

# What a run is trained and scored on -> the message if it has changed.
DATA = {
    "the weights' hash": "INIT_FROM has other weights by now",
    "the vocabulary's hash": "INIT_FROM has another vocabulary by now",
    "the training data's hash": "the training file has changed",
    "the dev data's hash": "the dev file has changed",
    "the test data's hash": "the test file has changed",
}
# How rows were batched and weighted, which no setting says, and the message for a run of an earlier version.
BATCHES = "the batches"
OVER_THE_RUN = "weighed over the run"
EACH_BY_ITSELF = "each weighed by itself"
_EARLIER_BATCHES = "an earlier version began it, which ordered and weighed the rows of batches in another way"
# Settings that follow from other settings and the number of training examples.
DERIVED = ("optimizer.num_train_steps", "optimizer.num_warmup_steps")
# The dataclasses that hold the groups of `FinetuningRun.identity`.
CLASSES = {"optimizer": "OptimizerConfig", "task": "TaskOptions", "heads": "HeadOptions", "": "FinetuningRun"}


def data_identity(context: SeedContext) -> dict[str, str]:
    """Return hashes of everything that the settings of a run do not say: its weights and data, labels included."""
    labels, parts = context.task.labels, context.parts.by_name
    dev = [example for name, part in parts.items() if name != "test" for example in part.examples]
    hashes = [
        context.origin.weights_hash,
        context.origin.vocabulary_hash,
        hash_of([labels, *context.train.examples]),
        hash_of([labels, *dev]),
    ]
    if "test" in parts:
        hashes.append(hash_of([labels, *parts["test"].examples]))
    return dict(zip(DATA, hashes, strict=False))


def hash_of(values: Iterable[Any]) -> str:
    """Return a hash of values whose `repr` shows all that they hold."""
    checksum = hashlib.sha256()
    for value in values:
        checksum.update(f"{value!r}\n".encode("utf-8", "backslashreplace"))
    return checksum.hexdigest()[:16]


def changes(held: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """Return how a run differs from the one that a MODEL_DIR holds, in the user's terms; empty if it does not.

    Data is compared only under the same settings, which also decide how it is read.

    Args:
        held: the identity that the directory records. A setting that it lacks was added in a later version.
        asked: the identity of the run.
    """
    different = [name for name, value in asked.items() if name in held and held[name] != value]
    earlier = [_EARLIER_BATCHES] if BATCHES in different else []
    different = [name for name in different if name != BATCHES]
    settings = [name for name in different if name not in (*DATA, *DERIVED)]
    if settings:
        macros = gin_files.macro_names()
        return earlier + [f"{_name(name, macros)} {held[name]!r} there, {asked[name]!r} here" for name in settings]
    # Records of earlier versions reveal other data only by its number of steps.
    return earlier + list(dict.fromkeys(DATA.get(name, DATA["the training data's hash"]) for name in different))


def adds_epochs(held: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    """Return whether a run differs from the one that a MODEL_DIR holds in nothing but more epochs."""
    different = {name for name, value in asked.items() if name in held and held[name] != value}
    return "epochs" in different and different <= {"epochs", *DERIVED} and asked["epochs"] > held["epochs"]


def _name(setting: str, macros: Mapping[str, str]) -> str:
    """Return the macro of a setting, or its name if it has none."""
    group, _, field = setting.rpartition(".")
    return macros.get(f"{CLASSES[group]}.{field}", setting)

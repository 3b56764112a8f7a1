"""Model directories: reads one into a `Model`, writes one, and starts a run from one. TensorFlow is not needed."""

import dataclasses
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict

from electra_jax.checkpoints import orbax_store, plain_towers
from electra_jax.checkpoints.model_record import (
    RECORD,
    RUN,
    VOCABULARY,
    Description,
    abstract_params,
    read_record,
    write_record,
)
from electra_jax.config.pretraining import PretrainingRun
from electra_jax.distributed import processes
from electra_jax.errors import UserError
from electra_jax.files import path_of
from electra_jax.inference.network import Model
from electra_jax.model.encoder import EncoderConfig
from electra_jax.model.types import PyTree
from electra_jax.tasks.vocabulary import Vocabulary, read_vocab_file, write_vocab_file
from electra_jax.training import sharding

# What a description says of who made the weights, where it was a run of pre-training.
PRETRAINED = "electra pretrain"


def load(path: str | os.PathLike[str]) -> Model:
    """Loads any model directory: of `electra pretrain`, of fine-tuning, of `electra import`.

    Args:
        path: the directory; see `description` for what it holds.

    Raises:
        UserError: it is no model directory (says what was looked for), or its parts do not fit together.
    """
    directory = path_of(path)
    check_directory(directory)
    step, params = orbax_store.read_item(directory, "params")
    record = read_record(directory) if (directory / RECORD).exists() else None
    if orbax_store.is_of_t5x(directory):
        description, params = record, fold_of_t5x(record, params)
    elif record is None or orbax_store.is_of_run(directory / "checkpoints", step):
        # A run that went on from imported weights is described by its configuration, as any run.
        description, params = describe_run(directory, params, {} if record is None else record.facts)
    else:
        description = record
    check_params(params, description, directory)
    # Inference is in float32, whatever the products of training were in.
    exact = {
        name: dataclasses.replace(config, dtype="float32")
        for name in ("discriminator", "generator")
        if (config := getattr(description, name)) is not None
    }
    vocabulary = read_vocabulary(directory)
    if vocabulary is not None and len(vocabulary.tokens) != description.encoder.vocab_size:
        raise UserError(
            f"the vocabulary of {directory} has {len(vocabulary.tokens)} entries and the model's embedding table "
            f"{description.encoder.vocab_size} rows: this is another model's vocabulary"
        )
    return Model(dataclasses.replace(description, **exact), params, vocabulary, step)


def check_directory(directory: epath.Path) -> None:
    """Refuses what is no model directory.

    Raises:
        UserError: says what was looked for.
    """
    if not directory.is_dir():
        raise UserError(f"{directory} is not a model directory: there is no such directory")
    if (directory / "checkpoints").is_dir():
        if not any((directory / name).exists() for name in (RECORD, RUN)):
            raise UserError(
                f"{directory} is not a model directory: it has checkpoints/, but neither {RECORD} nor {RUN}"
            )
        return
    if orbax_store.is_of_t5x(directory):
        if not (directory / RECORD).exists():
            raise UserError(
                f"{directory} holds checkpoints of T5X without {RECORD}, which a run of gin/t5x/ writes beside them: "
                "copy it there from a run of the same model"
            )
        return
    if (directory / "config.json").exists():
        raise UserError(
            f"{directory} is not a model directory but one of transformers (it holds config.json): "
            f"run `electra import {directory} DEST` and load DEST"
        )
    raise UserError(f"{directory} is not a model directory: looked for checkpoints/ with {RECORD} or {RUN} beside it")


def describe_run(directory: epath.Path, params: PyTree, origin: dict[str, Any]) -> tuple[Description, PyTree]:
    """The description of a run of `electra pretrain`, and its parameters as plain towers.

    Sizes are those of the parameters; the rest is in the configuration that the run recorded.

    Args:
        directory: of the run.
        params: as its objective trains them.
        origin: facts of the weights that `electra import` put there before.
    """
    from electra_jax.config import gin_files

    # The caller may be a run of its own, whose configuration is still to be read from.
    with gin_files.isolated():
        run = gin_files.build(PretrainingRun, [str(directory / RUN)], [], search_paths=[])
    kind, params = plain_towers.fold(params)
    return describe_towers(run, kind, params, origin), params


def describe_towers(run: Any, kind: str, params: PyTree, origin: dict[str, Any]) -> Description:
    """The description of a pre-training run from its configuration, and its folded parameters or their shapes."""
    towers = {
        tower: dataclasses.replace(
            run.encoder, **plain_towers.sizes(params, tower), scan_unroll=1, attention="exact", remat_policy="none"
        )
        for tower in ("discriminator", "generator")
        if tower in params
    }
    return Description(
        kind=kind,
        discriminator=towers.get("discriminator"),
        generator=towers.get("generator"),
        generator_embeddings="embeddings" in params.get("generator", {}),
        head=None,
        labels=(),
        facts=origin | run_facts(run),
    )


def run_facts(run: Any) -> dict[str, Any]:
    """What a model's card says of the run that made it."""
    started = {} if run.init_from is None else {"started from": run.init_from}
    return started | {
        "made by": PRETRAINED,
        "objective": type(run.objective).__name__,
        "corpus": run.mixture_or_task_name or run.cache.source.corpus,
        "sequence length": run.cache.sequence_length,
        "batch size": run.batch_size,
        "learning rate": run.optimizer.learning_rate,
        "masked share": run.mask_prob,
    }


def fold_of_t5x(record: Description, params: PyTree) -> PyTree:
    """The plain towers that the record is of: T5X saves a variant of pre-training as it was trained."""
    plain = record.kind == "encoder" or record.head is not None or "discriminator" not in params
    return params if plain else plain_towers.fold(params)[1]


def check_params(params: PyTree, description: Description, directory: epath.Path) -> None:
    """Refuses parameters that lack what the description needs; more of them are left alone.

    Raises:
        UserError: names what is missing or of another shape.
    """
    found = orbax_store.named_shapes(params)
    differences = [
        f"{name} is {found.get(name, 'missing')} and should be {shape}"
        for name, shape in orbax_store.named_shapes(abstract_params(description)).items()
        if found.get(name) != shape
    ]
    if differences:
        more = f" and {len(differences) - 8} more" if len(differences) > 8 else ""
        raise UserError(
            f"the checkpoint in {directory} is not of the model described: {'; '.join(differences[:8])}{more}"
        )


def read_vocabulary(directory: epath.Path) -> Vocabulary | None:
    """Return the directory's own vocabulary, or the one that its run recorded; None where there is none.

    Raises:
        UserError: if the vocabulary, or the record of its casing, is damaged.
    """
    path = directory / VOCABULARY
    if not path.exists():
        recorded = directory / RUN
        text = recorded.read_text(encoding="utf-8") if recorded.exists() else ""
        match = re.search(r"^VOCAB_FILE = \\?\s*['\"](.*)['\"]", text, re.MULTILINE)
        if match is None or not path_of(match[1]).exists():
            return None
        path = path_of(match[1])
    return read_vocab_file(path)


def kept_tower(model: Model) -> tuple[EncoderConfig | None, PyTree]:
    """The encoder that pre-training keeps, and the parameters with it under the discriminator's name.

    The main tower of an objective that predicts words is loaded as a generator, which it computes as, but it is what
    the run was for.

    Returns:
        None for the sizes of a generator that another model was trained with, such as an imported one.
    """
    description, params = model.description, model.params
    if description.kind != "generator" or description.facts.get("made by") != PRETRAINED:
        return description.discriminator, params
    encoder = {"encoder": params["generator"]["encoder"]}
    return description.generator, {"embeddings": params["embeddings"], "discriminator": encoder}


def check_new(dest: Path) -> None:
    """Refuses to write where something is.

    Raises:
        UserError: `dest` exists.
    """
    if dest.exists() or dest.is_symlink():
        raise UserError(f"{dest} exists: nothing was written; name another destination, or remove it first")


@contextmanager
def new_directory(dest: Path) -> Iterator[Path]:
    """An empty folder beside `dest` to write in; it gets the name `dest` at the end, or goes away after an error.

    Raises:
        UserError: `dest` exists, or its parent cannot be written.
    """
    check_new(dest)
    part = dest.with_name(f"{dest.name}.{os.getpid()}.unfinished")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        yield part
        part.rename(dest)
    except PermissionError as error:
        raise UserError(f"{dest} cannot be written ({error.strerror}: {error.filename})") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_model(
    directory: Path, description: Description, state: PyTree, *, step: int, vocabulary: Vocabulary | None
) -> None:
    """Writes a model directory that `load`, `electra predict` and `electra export` take.

    Args:
        directory: where; it may hold other files.
        description: what `state["params"]` is.
        state: a tree with `params`; a whole `TrainState` where training is to go on from it.
        step: of the checkpoint.
        vocabulary: None where there is none.
    """
    if processes.leader():
        write_record(directory, description)
        if vocabulary is not None:
            write_vocab_file(directory / VOCABULARY, vocabulary)
    writer = orbax_store.Checkpoints(directory, keep=1)
    try:
        writer.save(step, state, {})
    finally:
        writer.close()


def is_variant(directory: epath.Path, params: PyTree) -> bool:
    """Whether a model directory's newest checkpoint has exactly these parameters, by name."""
    return (
        orbax_store.named_shapes(orbax_store.newest_state(directory).items["params"]).keys()
        == orbax_store.named_shapes(params).keys()
    )


class Start(NamedTuple):
    """Parameters to start from, and what was not taken from the directory or not used of it, by path."""

    params: PyTree
    fresh: list[str]
    unused: list[str]


def start_from(path: str | os.PathLike[str], params: PyTree, *, folded: bool) -> Start:
    """Fills parameters by name from a model directory: a warm start of pre-training, or of fine-tuning.

    Args:
        path: the model directory.
        folded: take its plain towers (`folding`), or the parameters as they were trained (to go on pre-training with
            the same variant). Where `params` have no generator, as in fine-tuning, `kept_tower` is what is taken.
        params: freshly initialised, in their shardings; what the directory lacks keeps these values.

    Raises:
        UserError: no model directory, nothing in common, or a parameter of another shape (names them).
    """
    directory = path_of(path)
    check_directory(directory)
    if folded:
        model = load(directory)
        tree = model.params if "generator" in params else kept_tower(model)[1]
    else:
        tree = orbax_store.read_item(directory, "params").tree
    held, wanted = (flatten_dict(params, sep="/") for params in (tree, params))
    shapes = [
        f"{name} {held[name].shape} there, {leaf.shape} here"
        for name, leaf in wanted.items()
        if name in held and held[name].shape != leaf.shape
    ]
    if shapes or not held.keys() & wanted.keys():
        raise UserError(
            f"{directory} is of another model: {'; '.join(shapes[:8]) or 'no parameter has a name in common'}"
        )
    filled = {name: sharding.shard_like(held[name], leaf) if name in held else leaf for name, leaf in wanted.items()}
    return Start(
        unflatten_dict(filled, sep="/"), sorted(wanted.keys() - held.keys()), sorted(held.keys() - wanted.keys())
    )

"""Read, check and write model directories; see `model_record` for what one holds."""

import dataclasses
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict

from electra_jax.checkpoints import orbax_store, plain_towers, roles
from electra_jax.checkpoints.averages import read_average
from electra_jax.checkpoints.model_record import (
    Description,
    abstract_params,
    read_model_record,
    write_model_record,
)
from electra_jax.checkpoints.rotation import despite_rotation
from electra_jax.checkpoints.stored_arrays import named_shapes
from electra_jax.config.data import vocabulary_for
from electra_jax.config.pretraining import PretrainingRun
from electra_jax.config.resuming import recorded_run
from electra_jax.distributed import processes
from electra_jax.errors import UserError
from electra_jax.files import path_of, regular, replacing_directory
from electra_jax.model.types import PyTree
from electra_jax.run_directory import CHECKPOINTS, CONFIG, MODEL, TOKENIZER, VOCABULARY
from electra_jax.tasks.tokenizer_file import read_of_directory, read_tokenizer, write_tokenizer
from electra_jax.tasks.vocabulary import Vocabulary
from electra_jax.training.schedules import last_value

# The value of a description's fact "made by" if a run of pre-training made the weights.
PRETRAINED = "electra pretrain"


class Loaded(NamedTuple):
    """Hold the contents of a model directory.

    Attributes:
        description: the model's kind, sizes, head and labels.
        params: the parameter tree, float32 numpy arrays: the plain towers, or the encoder and its head.
        vocabulary: the vocabulary; None if there is none.
        step: updates that the parameters have had, as the checkpoint counts them.
    """

    description: Description
    params: PyTree
    vocabulary: Vocabulary | None
    step: int


def load(path: str | os.PathLike[str], *, average: int = 1) -> Loaded:
    """Load any model directory: of `electra pretrain` (also while it trains), `finetune` or `import`, or of T5X.

    Args:
        path: the directory; see `model_record` for what it holds.
        average: number of newest checkpoints whose parameters are averaged.

    Raises:
        UserError: if the path is no model directory, or the parts of the directory do not fit together.
    """
    directory = path_of(path)
    check_directory(directory)
    return despite_rotation(directory / CHECKPOINTS, lambda: _load(directory, average))


def _load(directory: epath.Path, average: int) -> Loaded:
    (step, *earlier), params = read_average(directory, average)
    record = read_model_record(directory) if (directory / MODEL).exists() else None
    of_t5x = orbax_store.is_of_t5x(directory)
    of_run = not of_t5x and orbax_store.is_of_run(directory / CHECKPOINTS, step)
    if of_t5x:
        description, params = record, fold_of_t5x(record, params)
    elif of_run and record is not None and record.facts.get("made by") == PRETRAINED:
        description, (_, params) = record, plain_towers.to_plain_towers(params)
    elif record is None or of_run:
        # A run that started from imported weights is described by its configuration, as are runs of earlier versions.
        description, params = describe_run(directory, params, {} if record is None else record.facts)
    else:
        description = record
    if earlier:
        facts = description.facts | {"mean of the checkpoints": [step, *earlier]}
        description = dataclasses.replace(description, facts=facts)
    check_params(params, description, directory)
    description, params = without_padding(description, params)
    vocabulary = read_vocabulary(directory)
    if vocabulary is not None and len(vocabulary.tokens) != description.encoder.vocab_size:
        raise UserError(
            f"the vocabulary of {directory} has {len(vocabulary.tokens)} entries and the model's embedding table "
            f"{description.encoder.vocab_size} rows: this is another model's vocabulary"
        )
    return Loaded(description, params, vocabulary, step)


def without_padding(description: Description, params: PyTree) -> tuple[Description, PyTree]:
    """Return a model without the padding rows of its word tables, which only serve the speed of pre-training."""
    size = description.encoder.vocab_size
    if description.encoder.padded_vocab_size == size:
        return description, params
    towers = {
        name: dataclasses.replace(config, pad_vocab_size_multiple=1)
        for name, config in (("discriminator", description.discriminator), ("generator", description.generator))
        if config is not None
    }
    leaves = flatten_dict(params, sep="/")
    cut = {path: leaf[:size] if roles.VOCABULARY_ROWS.search(path) else leaf for path, leaf in leaves.items()}
    return dataclasses.replace(description, **towers), unflatten_dict(cut, sep="/")


def check_directory(directory: epath.Path) -> None:
    """Check that a directory is a model directory: that of a run, of `electra import` or of T5X.

    Raises:
        UserError: if the directory does not exist or lacks a file that a model directory has.
    """
    if not directory.is_dir():
        raise UserError(f"{directory} is not a model directory: there is no such directory")
    if (directory / CHECKPOINTS).is_dir():
        if not any((directory / name).exists() for name in (MODEL, CONFIG)):
            raise UserError(
                f"{directory} is not a model directory: it has checkpoints/, but neither {MODEL} nor {CONFIG}"
            )
        return
    if orbax_store.is_of_t5x(directory):
        if not (directory / MODEL).exists():
            raise UserError(
                f"{directory} holds checkpoints of T5X without {MODEL}, which a run of gin/t5x/ writes next to them: "
                "copy it there from a run of the same model"
            )
        return
    if (directory / "config.json").exists():
        raise UserError(
            f"{directory} is not a model directory but one of transformers (it holds config.json): "
            f"run `electra import {directory} DEST` and load DEST"
        )
    raise UserError(
        f"{directory} is not a model directory: looked for checkpoints/ with {MODEL} or {CONFIG} next to it"
    )


def describe(directory: epath.Path) -> Description:
    """Return the description of a model directory that `check_directory` accepts, without reading its parameters.

    Raises:
        UserError: if it holds no checkpoint, or its record cannot be read.
    """
    stored = orbax_store.newest_state(directory)
    record = read_model_record(directory) if (directory / MODEL).exists() else None
    if record is not None and (
        orbax_store.is_of_t5x(directory)
        or record.facts.get("made by") == PRETRAINED
        or not orbax_store.is_of_run(directory / CHECKPOINTS, stored.step)
    ):
        return record
    origin = {} if record is None else record.facts
    return describe_towers(recorded_run(directory), *shapes_of_towers(stored.items["params"]), origin)


def shapes_of_towers(params: PyTree) -> tuple[str, PyTree]:
    """Return the kind and the shapes that `to_plain_towers` would give, from arrays or their metadata."""
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params, is_leaf=lambda leaf: hasattr(leaf, "shape")
    )
    return plain_towers.plain_tower_shapes(shapes)


def describe_run(directory: epath.Path, params: PyTree, origin: dict[str, Any]) -> tuple[Description, PyTree]:
    """Return the description of a run of `electra pretrain`, and its parameters as plain towers.

    Sizes are those of the parameters; the rest is in the configuration that the run recorded.

    Args:
        directory: the run's MODEL_DIR.
        params: the parameters as the run's objective trains them.
        origin: facts about the weights that `electra import` put there before the run.
    """
    kind, params = plain_towers.to_plain_towers(params)
    return describe_towers(recorded_run(directory), kind, params, origin), params


def describe_towers(run: Any, kind: str, params: PyTree, origin: dict[str, Any]) -> Description:
    """Return the description of a pre-training run.

    Args:
        run: the run's configuration, a `PretrainingRun`.
        kind: the kind that `plain_towers.to_plain_towers` returned.
        params: the plain towers, or their shapes.
        origin: facts about the weights that the run started from.
    """
    sizes = {tower: plain_towers.sizes(params, tower) for tower in ("discriminator", "generator") if tower in params}
    for shown in sizes.values():
        # The shapes do not tell which rows are padding.
        if shown["vocab_size"] == run.encoder.padded_vocab_size:
            shown["vocab_size"] = run.encoder.vocab_size
    towers = {
        tower: dataclasses.replace(run.encoder, **shown, scan_unroll=1, attention="exact", remat_policy="none")
        for tower, shown in sizes.items()
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
    """Return the facts about a run that a model's card shows."""
    started = {} if run.init_from is None else {"started from": run.init_from}
    return started | {
        "made by": PRETRAINED,
        "objective": type(run.objective).__name__,
        "corpus": run.mixture_or_task_name or run.cache.source.name,
        "sequence length": run.cache.sequence_length,
        "batch size": run.batch_size,
        "learning rate": run.optimizer.learning_rate,
        "masked share": last_value(run.mask_prob),
    }


def fold_of_t5x(record: Description, params: PyTree) -> PyTree:
    """Return the plain towers of a checkpoint of T5X, which saves every variant of pre-training as it was trained."""
    plain = record.kind == "encoder" or record.head is not None or "discriminator" not in params
    return params if plain else plain_towers.to_plain_towers(params)[1]


def check_params(params: PyTree, description: Description, directory: epath.Path) -> None:
    """Check that parameters hold everything that the description needs; they may hold more.

    Raises:
        UserError: if a parameter is missing or of another shape.
    """
    found = named_shapes(params)
    differences = [
        f"{name} is {found.get(name, 'missing')} and should be {shape}"
        for name, shape in named_shapes(abstract_params(description)).items()
        if found.get(name) != shape
    ]
    if differences:
        more = f" and {len(differences) - 8} more" if len(differences) > 8 else ""
        raise UserError(
            f"the checkpoint in {directory} is not of the model described: {'; '.join(differences[:8])}{more}"
        )


def write_run_model(run: PretrainingRun, params: PyTree, vocabulary: Vocabulary) -> None:
    """Write the description and the vocabulary of a run of pre-training into its MODEL_DIR, to make it self-contained.

    Weights that `electra import` put there keep their description, which has to match the checkpoint.

    Args:
        run: the run.
        params: its parameters, or their shapes.
        vocabulary: the vocabulary of its token ids.
    """
    directory = path_of(run.model_dir)
    record = read_model_record(directory) if (directory / MODEL).exists() else None
    if record is None or record.facts.get("made by") == PRETRAINED:
        origin = source_of(run.init_from) if record is None else record.source
        write_model_record(directory, describe_towers(run, *shapes_of_towers(params), origin))
    write_tokenizer(directory, vocabulary)


def source_of(init_from: str | None) -> dict[str, Any]:
    """Return the fact about the imported model that a run starts from, see `Description.source`."""
    directory = None if init_from is None else path_of(init_from)
    return {} if directory is None or not (directory / MODEL).exists() else read_model_record(directory).source


def read_vocabulary(directory: epath.Path) -> Vocabulary | None:
    """Return the directory's own vocabulary, or the one that its run recorded; None if there is neither.

    Raises:
        UserError: if the vocabulary, or the record of its casing, is damaged, or a checkpoint was trained with another.
    """
    found, place = read_of_directory(directory), str(directory)
    if found is None:
        recorded = directory / CONFIG
        text = regular(recorded).read_text(encoding="utf-8") if recorded.exists() else ""
        match = re.search(r"^(?:TOKENIZER|VOCAB_FILE) = \\?\s*['\"](.*)['\"]", text, re.MULTILINE)
        if match is None or not path_of(match[1]).exists():
            return None
        casing = re.search(r"^LOWERCASE = (True|False)$", text, re.MULTILINE)
        found, place = read_tokenizer(match[1], lowercase=None if casing is None else casing[1] == "True"), match[1]
    check_trained_with(directory, found, place)
    return found


def check_trained_with(directory: epath.Path, vocabulary: Vocabulary, place: str) -> None:
    """Check that the newest checkpoint of a model directory was trained with a vocabulary, if it records one.

    Args:
        directory: the model directory.
        vocabulary: the vocabulary.
        place: where the vocabulary is from, for the error.

    Raises:
        UserError: if the checkpoint was trained with another one.
    """
    trained = orbax_store.newest_data_state(directory / CHECKPOINTS).get(
        orbax_store.TRAINED_WITH, vocabulary.fingerprint
    )
    if trained != vocabulary.fingerprint:
        raise UserError(
            f"the vocabulary of {place} is not the one that {directory} was trained with (other entries, another order "
            f"or another casing): bring back the right one, as {directory / VOCABULARY} or {TOKENIZER} next to it"
        )


def vocabulary_of_run(run: PretrainingRun) -> Vocabulary:
    """Return the vocabulary of a run's MODEL_DIR, or the one that TOKENIZER names if the directory has none.

    Raises:
        UserError: as `read_vocabulary`, or if TOKENIZER cannot be read or has another size than the model.
    """
    own = read_vocabulary(path_of(run.model_dir))
    return vocabulary_for(run.cache, run.encoder) if own is None else own


def check_new(dest: Path) -> None:
    """Check that nothing exists at a path that is to be written.

    Raises:
        UserError: if `dest` exists.
    """
    if dest.exists() or dest.is_symlink():
        raise UserError(f"{dest} exists: nothing was written; name another destination, or remove it first")


@contextmanager
def new_directory(dest: Path) -> Iterator[Path]:
    """Yield an empty folder beside `dest` to write in; it is renamed to `dest` at the end, or removed after an error.

    Raises:
        UserError: if `dest` exists or is being written by another process, or its parent cannot be written.
    """
    try:
        with replacing_directory(dest) as part:
            # No other process creates `dest` while this one fills its part.
            check_new(dest)
            yield part
    except PermissionError as error:
        raise UserError(f"{dest} cannot be written ({error.strerror}: {error.filename})") from error


def write_model(
    directory: Path, description: Description, state: PyTree, *, step: int, vocabulary: Vocabulary | None
) -> None:
    """Write a model directory that `load` reads.

    Args:
        directory: an existing directory, which may hold other files.
        description: the description of `state["params"]`.
        state: a tree with `params`; a whole `TrainState` if training is to resume from it.
        step: the step of the checkpoint.
        vocabulary: the vocabulary; None if there is none.
    """
    if processes.leader():
        write_model_record(directory, description)
        if vocabulary is not None:
            write_tokenizer(directory, vocabulary)
    writer = orbax_store.Checkpoints(directory, keep=1)
    try:
        writer.save(step, state, {} if vocabulary is None else {orbax_store.TRAINED_WITH: vocabulary.fingerprint})
    finally:
        writer.close()

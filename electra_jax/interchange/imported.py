"""Write a model that an importer has read as a model directory."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import path_aware_map

from electra_jax.checkpoints import model_dir
from electra_jax.checkpoints.model_record import Description
from electra_jax.config.pretraining import PretrainingRun
from electra_jax.config.recorded import RecordedFile
from electra_jax.errors import UserError
from electra_jax.interchange.run_file import run_file
from electra_jax.model.config import EncoderConfig
from electra_jax.model.types import PyTree
from electra_jax.run_directory import CONFIG, CONTINUED
from electra_jax.tasks.vocabulary import Vocabulary


class Moments(NamedTuple):
    """Hold Adam's moments, trees with the structure of the parameters."""

    mu: PyTree
    nu: PyTree


class Imported(NamedTuple):
    """Hold a model that was read from another implementation's files.

    Attributes:
        description: the kind and sizes of the model.
        params: the parameters, float32 numpy arrays.
        moments: the optimizer's moments; None if the files have none.
        step: the number of updates; 0 if the files do not say, or have no moments to resume from.
        vocabulary: the vocabulary; None if the files have none.
        notes: sentences for the user about what was not used or not found.
    """

    description: Description
    params: PyTree
    moments: Moments | None
    step: int
    vocabulary: Vocabulary | None
    notes: list[str]


def check_vocabulary(vocabulary: Vocabulary | None, rows: int, source: Path) -> None:
    """Check that a vocabulary has no more entries than the embedding table has rows.

    Raises:
        UserError: if it has more entries.
    """
    if vocabulary is not None and len(vocabulary.tokens) > rows:
        raise UserError(
            f"the vocabulary of {source} has {len(vocabulary.tokens)} entries, but the embedding table has {rows} "
            "rows: give the model's own vocabulary"
        )


def without_unused_rows(model: Imported) -> Imported:
    """Cut the rows of a model's word tables that are beyond its vocabulary, and add a note.

    Other libraries pad tables to a round number of rows. The rows beyond the vocabulary belong to no token, and must
    not be predicted.
    """
    description = model.description
    if model.vocabulary is None or len(model.vocabulary.tokens) == description.encoder.vocab_size:
        return model
    size, rows = len(model.vocabulary.tokens), description.encoder.vocab_size

    def cut(tree: PyTree) -> PyTree:
        return path_aware_map(
            lambda path, leaf: leaf[:size] if path[-1] in ("word_embeddings", "output_bias") else leaf, tree
        )

    def resized(config: EncoderConfig | None) -> EncoderConfig | None:
        return None if config is None else dataclasses.replace(config, vocab_size=size)

    return model._replace(
        description=dataclasses.replace(
            description, discriminator=resized(description.discriminator), generator=resized(description.generator)
        ),
        params=cut(model.params),
        moments=None if model.moments is None else Moments(cut(model.moments.mu), cut(model.moments.nu)),
        notes=[
            *model.notes,
            f"the embedding table has {rows} rows and the vocabulary {size} entries: the last {rows - size} rows, "
            "which no token has, were left out",
        ],
    )


def write(model: Imported, dest: Path) -> list[str]:
    """Write a model directory; nothing is left at `dest` if that fails.

    Returns:
        Notes for the user, in addition to the model's.

    Raises:
        UserError: if `dest` exists or cannot be written.
    """
    notes = []
    state: PyTree = {"step": jnp.zeros((), jnp.int32) + model.step, "params": jax.tree.map(jnp.asarray, model.params)}
    text, reason = run_file(model.description, dest, resumes_at=None if model.moments is None else model.step)
    with model_dir.new_directory(dest) as part:
        notes += [reason] if reason else []
        if text is not None:
            name = CONFIG if model.description.head is None else CONTINUED
            (part / name).write_text(text, encoding="utf-8")
            if model.description.kind == "pretraining":
                state = train_state(model, part / name)
        model_dir.write_model(part, model.description, state, step=model.step, vocabulary=model.vocabulary)
    return notes


def train_state(model: Imported, config_gin: Path) -> PyTree:
    """Return the state that `electra pretrain` restores; the moments are zero if the model has none."""
    from electra_jax.config import gin_files
    from electra_jax.training.state import TrainState

    recorded = RecordedFile(str(config_gin), needs_imports=True)
    # Only the optimizer and the seed of the run are used, which depend on none of these.
    unread = ['CORPUS="embedded"', 'MODEL_DIR="unread"', 'TOKENIZER="unread"']
    run = gin_files.build(PretrainingRun, [recorded], unread, search_paths=[])
    params = jax.tree.map(jnp.asarray, model.params)
    opt_state = run.update_rule().init(params)
    if model.moments is not None:
        moments = jax.tree.map(jnp.asarray, model.moments)
        # `count` is that of Adam and that of the schedule.
        opt_state = optax.tree.set(opt_state, mu=moments.mu, nu=moments.nu, count=jnp.asarray(model.step, jnp.int32))
    # As `init_state` derives the base key of a run.
    _, base_key = jax.random.split(jax.random.key(run.seed))
    return TrainState(jnp.asarray(model.step, jnp.int32), params, opt_state, jax.random.key_data(base_key))


def parameter_count(params: PyTree) -> int:
    """Count the numbers in a tree of arrays."""
    return sum(int(np.size(leaf)) for leaf in jax.tree.leaves(params))

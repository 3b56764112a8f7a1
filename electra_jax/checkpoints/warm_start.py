"""Fill new parameters from a model directory, for a run of pre-training or of fine-tuning."""

import os
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict

from electra_jax.checkpoints import model_dir, orbax_store, roles
from electra_jax.checkpoints.orbax_store import named_shapes
from electra_jax.errors import UserError
from electra_jax.files import path_of
from electra_jax.model.config import EncoderConfig
from electra_jax.model.pooling import truncated
from electra_jax.model.types import PyTree
from electra_jax.pretraining import phases
from electra_jax.run_directory import TOKENIZER, VOCABULARY
from electra_jax.tasks.vocabulary import Vocabulary
from electra_jax.training import sharding


class Initialized(NamedTuple):
    """The parameters that a run starts from, and where they come from.

    Attributes:
        params: in the shardings of the new ones.
        source: the model directory.
        taken, new: paths of parameters, or prefixes that cover them.
        left_over: the same of what the directory has and the run does not.
        notes: why a part is new, and how many rows of the vocabulary are, as sentences.
    """

    params: PyTree
    source: str
    taken: list[str]
    new: list[str]
    left_over: list[str]
    notes: list[str]

    @property
    def record(self) -> dict[str, Any]:
        """Return all but the parameters, as JSON values."""
        return {name: value for name, value in self._asdict().items() if name != "params"}

    def check_generator(self, embedding_sharing: str) -> None:
        """Check that a generator which is not to be trained is there as a whole.

        Raises:
            UserError: if a part of it is new.
        """
        parts = phases.GENERATOR[embedding_sharing]
        new = [path for path in self.new if path.split("/")[0] in parts]
        if new:
            raise UserError(
                f"FREEZE_GENERATOR needs a generator that is ready, and {self.source} has no {', '.join(new)} for it"
                f"{''.join(f' ({note})' for note in self.notes)}: name a model directory whose generator, or whose "
                "masked language model, has the sizes of this run's generator"
            )

    def __str__(self) -> str:
        """Return a summary for a log."""
        parts = {"taken": self.taken, "new": self.new, "left over": self.left_over}
        lines = [f"{name}: {', '.join(paths) or 'nothing'}" for name, paths in parts.items()]
        return "\n  ".join([f"weights from {self.source}", *lines, *self.notes, "the optimizer and the step are new"])


def initialize_from(
    params: PyTree, source: epath.Path, vocabulary: Vocabulary, *, encoder: EncoderConfig, map_vocabulary: bool
) -> Initialized:
    """Fill the parameters of a new run of pre-training by role with those of a model directory (see `roles`).

    Args:
        params: freshly initialized, in their shardings; what `source` lacks keeps these values.
        source: the model directory.
        vocabulary: the run's vocabulary.
        encoder: the run's encoder.
        map_vocabulary: take the rows of another vocabulary by token, and leave those of other tokens new.

    Raises:
        UserError: if `source` is not a model directory, or has no tower of these sizes and parts; if it has another
            vocabulary and `map_vocabulary` is False, or no token of it is the same.
    """
    model_dir.check_directory(source)
    theirs, ours = model_dir.describe(source).encoder.norm_placement, encoder.norm_placement
    if theirs != ours:
        # Parameters do not tell it by their names.
        raise UserError(
            f"{source} is of another model: norm_placement {theirs!r} there, {ours!r} here, with which the same "
            "weights compute something else"
        )
    rows_V = rows_by_token(source, vocabulary, map_vocabulary=map_vocabulary)
    held = flatten_dict(orbax_store.read_item(source, "params").tree, sep="/")
    if rows_V is not None:
        held = roles.by_token(held, rows_V)
    wanted = flatten_dict(params, sep="/")
    if rows_V is None and {name: leaf.shape for name, leaf in held.items()} == named_shapes(params):
        # The same variant: also the sums that it trains are taken bit for bit.
        filled = roles.Filled(held, set(held), [])
    else:
        try:
            filled = roles.fill(params, unflatten_dict(held, sep="/"))
        except ValueError as error:
            raise UserError(f"{source} is of another model: {error}") from error
    values = {name: sharding.shard_like(filled.values[name], wanted[name]) for name in filled.values}
    notes = list(filled.notes)
    if rows_V is not None:
        known = int(np.sum(rows_V >= 0))
        notes.append(f"rows of the vocabulary: {known} of {len(rows_V)} by token, {len(rows_V) - known} new")
        values = {name: keep_new_rows(name, leaf, wanted[name], rows_V >= 0) for name, leaf in values.items()}
    new = sorted(wanted.keys() - values.keys())
    left = [name for name in held if not any(name == place or name.startswith(f"{place}/") for place in filled.used)]
    return Initialized(
        unflatten_dict(wanted | values, sep="/"),
        str(source),
        taken=shortest_prefixes(values, wanted),
        new=shortest_prefixes(new, wanted),
        left_over=shortest_prefixes(left, held),
        notes=notes,
    )


def rows_by_token(source: epath.Path, vocabulary: Vocabulary, *, map_vocabulary: bool) -> np.ndarray | None:
    """Return for each token the row that it has in a model directory, -1 for none; int [V].

    Tokens are the same if they have the same text, or the same special role.

    Returns:
        None if the directory has the same vocabulary, or does not say which it has.

    Raises:
        UserError: if the directory has another vocabulary and `map_vocabulary` is False, or no token is the same.
    """
    found = model_dir.read_vocabulary(source)
    if found is None or found.tokens == vocabulary.tokens:
        return None
    row_of = {token: row for row, token in enumerate(found.tokens)}
    rows_V = np.array([row_of.get(token, -1) for token in vocabulary.tokens])
    # A mask is a mask, however it is spelled.
    for role, row in vocabulary.special_ids.items():
        rows_V[row] = found.special_ids.get(role, rows_V[row])
    known = int(np.sum(rows_V >= 0))
    own = next((str(source / name) for name in (VOCABULARY, TOKENIZER) if (source / name).exists()), "its own")
    if not map_vocabulary:
        raise UserError(
            f"{source} was trained with another vocabulary than TOKENIZER: name {own}; or set "
            f"--gin.MAP_VOCABULARY=True to take the rows of the {known} of {len(rows_V)} tokens that it has, and leave "
            "the others new"
        )
    if not known:
        raise UserError(f"{source} has no token of TOKENIZER: name {own}")
    return rows_V


def keep_new_rows(name: str, taken: jax.Array, new: jax.Array, known_V: np.ndarray) -> jax.Array:
    """Return a parameter with the rows of the tokens that are known, and the new ones of the others."""
    if not roles.VOCABULARY_ROWS.search(name):
        return taken
    known = known_V.reshape(-1, *(1,) * (new.ndim - 1))
    return jax.jit(lambda taken, new: jnp.where(known, taken, new), out_shardings=new.sharding)(taken, new)


def shortest_prefixes(names: Iterable[str], every: Iterable[str]) -> list[str]:
    """Return the shortest path prefixes that cover `names` and no other path of `every`, sorted.

    A prefix may be a whole tower or a single kernel.
    """
    chosen = set(names)
    others = [f"{name}/" for name in every if name not in chosen]
    paths = set()
    for name in chosen:
        parts = name.split("/")
        prefixes = ("/".join(parts[:count]) for count in range(1, len(parts) + 1))
        paths.add(next(prefix for prefix in prefixes if not any(other.startswith(f"{prefix}/") for other in others)))
    return sorted(paths)


class WarmStart(NamedTuple):
    """Parameters to start from; the paths of those that the directory lacked, and of those in it that were not used."""

    params: PyTree
    fresh: list[str]
    unused: list[str]


def start_from(path: str | os.PathLike[str], params: PyTree, *, layers: int | None = None) -> WarmStart:
    """Fill parameters by name from a model directory, for fine-tuning (see `encoder_for_finetuning`).

    Args:
        path: the model directory.
        params: freshly initialized, in their shardings; what the directory lacks keeps these values.
        layers: take the first layers of the encoder alone; None for all.

    Raises:
        UserError: if the path is no model directory, no parameter has a name in common, or one has another shape.
    """
    directory = path_of(path)
    config, tree = encoder_for_finetuning(model_dir.load(directory))
    if layers is not None and config is not None:
        _, encoder = truncated(config, tree["discriminator"]["encoder"], layers)
        tree = {**tree, "discriminator": {**tree["discriminator"], "encoder": encoder}}
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
    return WarmStart(
        unflatten_dict(filled, sep="/"), sorted(wanted.keys() - held.keys()), sorted(held.keys() - wanted.keys())
    )


def encoder_for_finetuning(model: model_dir.Loaded) -> tuple[EncoderConfig | None, PyTree]:
    """Return the encoder to fine-tune, and the parameters with that encoder under the discriminator's name.

    The main tower of an objective that predicts words is loaded as a generator, since it computes as one, but it is
    the tower to fine-tune.

    Returns:
        The encoder's sizes, and the parameters. None for the sizes of a generator that was trained to serve another
        model, such as an imported one.
    """
    description, params = model.description, model.params
    if description.kind != "generator" or description.facts.get("made by") != model_dir.PRETRAINED:
        return description.discriminator, params
    encoder = {"encoder": params["generator"]["encoder"]}
    return description.generator, {"embeddings": params["embeddings"], "discriminator": encoder}

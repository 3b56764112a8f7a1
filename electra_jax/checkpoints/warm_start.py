"""Fill new parameters from a model directory, for a run of pre-training or of fine-tuning."""

import os
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict

from electra_jax.checkpoints import model_dir, orbax_store, roles
from electra_jax.checkpoints.stored_arrays import named_shapes
from electra_jax.checkpoints.vocabulary_rows import by_token, counted, keep_new_rows, pieces_by_token
from electra_jax.errors import UserError
from electra_jax.files import path_of
from electra_jax.model.config import EncoderConfig
from electra_jax.model.pooling import truncated
from electra_jax.model.types import PyTree
from electra_jax.pretraining import phases
from electra_jax.tasks.vocabulary import Vocabulary
from electra_jax.training import sharding


class Initialized(NamedTuple):
    """The parameters that a run starts from, and where they come from.

    Attributes:
        params: the parameters, in the shardings of the new ones.
        source: the model directory.
        taken, new: paths of parameters, or prefixes that cover them.
        left_over: the same for the parameters of the directory that are not used.
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
        """Check that a generator that is not to be trained was taken completely.

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
    params: PyTree,
    source: epath.Path,
    vocabulary: Vocabulary,
    *,
    encoder: EncoderConfig,
    map_vocabulary: bool,
    extend_positions: str | None,
) -> Initialized:
    """Fill the parameters of a new run of pre-training by role with those of a model directory (see `roles`).

    Args:
        params: newly initialized, in their shardings; what `source` lacks keeps these values.
        source: the model directory.
        vocabulary: the run's vocabulary.
        encoder: the run's encoder.
        map_vocabulary: whether to take the rows of another vocabulary by token; a token that it lacks starts from the
            mean of the pieces into which it is split there.
        extend_positions: how a shorter table of positions is made longer, see `longer_positions`; None to refuse it.

    Raises:
        UserError: if `source` is not a model directory, or has no tower of these sizes and parts; if it has another
            vocabulary and `map_vocabulary` is False, or no token of it is the same; or if it has fewer positions and
            `extend_positions` is None.
    """
    model_dir.check_directory(source)
    held = read_adapted(source, vocabulary, encoder, map_vocabulary=map_vocabulary, extend_positions=extend_positions)
    wanted = flatten_dict(params, sep="/")
    if held.known_V is None and {name: leaf.shape for name, leaf in held.leaves.items()} == named_shapes(params):
        # The same variant: even embeddings that are trained as a sum are taken bit for bit.
        filled = roles.Filled(held.leaves, set(held.leaves), [])
    else:
        try:
            filled = roles.fill(params, unflatten_dict(held.leaves, sep="/"))
        except ValueError as error:
            raise UserError(f"{source} is of another model: {error}") from error
    values = {name: sharding.shard_like(filled.values[name], wanted[name]) for name in filled.values}
    if held.known_V is not None:
        values = {name: keep_new_rows(name, leaf, wanted[name], held.known_V) for name, leaf in values.items()}
    new = sorted(wanted.keys() - values.keys())
    used = filled.used
    left = [name for name in held.leaves if not any(name == place or name.startswith(f"{place}/") for place in used)]
    return Initialized(
        unflatten_dict(wanted | values, sep="/"),
        str(source),
        taken=shortest_prefixes(values, wanted),
        new=shortest_prefixes(new, wanted),
        left_over=shortest_prefixes(left, held.leaves),
        notes=[*filled.notes, *held.notes],
    )


class Adapted(NamedTuple):
    """The parameters of a model directory, with the rows of tokens and positions that a run has.

    Attributes:
        leaves: arrays by path.
        known_V: whether each row of the run's word table has values; None if both word tables have the same rows.
        notes: what was done to rows, as sentences.
    """

    leaves: roles.Arrays
    known_V: np.ndarray | None
    notes: list[str]


def read_adapted(
    source: epath.Path,
    vocabulary: Vocabulary,
    encoder: EncoderConfig,
    *,
    map_vocabulary: bool,
    extend_positions: str | None,
) -> Adapted:
    """Read the parameters of a model directory, and bring their tables to a run's vocabulary and length.

    The arguments and errors are those of `initialize_from`.
    """
    there = model_dir.describe(source).encoder
    theirs, ours = there.norm_placement, encoder.norm_placement
    if theirs != ours:
        # The names of parameters do not tell the placement.
        raise UserError(
            f"{source} is of another model: norm_placement {theirs!r} there, {ours!r} here, with which the same "
            "weights compute something else"
        )
    extended = check_positions(source, there, encoder, extend_positions)
    pieces_V = pieces_by_token(source, vocabulary, map_vocabulary=map_vocabulary)
    leaves, known_V, notes = flatten_dict(orbax_store.read_item(source, "params").tree, sep="/"), None, []
    if pieces_V is not None:
        notes.append(counted(pieces_V))
    elif there.vocab_size == encoder.vocab_size and there.padded_vocab_size != encoder.padded_vocab_size:
        pieces_V = [[row] for row in range(encoder.vocab_size)]
    if pieces_V is not None:
        # The rows that pad the table belong to no token.
        pieces_V += [[]] * (encoder.padded_vocab_size - encoder.vocab_size)
        leaves, known_V = by_token(leaves, pieces_V), np.array([bool(pieces) for pieces in pieces_V])
    if extended:
        leaves = roles.with_positions(leaves, encoder.max_position_embeddings, extend_positions)
        notes.append(
            f"positions {there.max_position_embeddings} to {encoder.max_position_embeddings} are new rows "
            f"(EXTEND_POSITIONS {extend_positions!r})"
        )
    return Adapted(leaves, known_V, notes)


def check_positions(source: epath.Path, there: EncoderConfig, here: EncoderConfig, extension: str | None) -> bool:
    """Return whether a learned table of positions has to be made longer.

    Raises:
        UserError: if the table has to be made longer, and `extension` is None.
    """
    kinds = {config.position_embedding_type for config in (there, here)}
    longer = kinds == {"absolute"} and there.max_position_embeddings < here.max_position_embeddings
    if longer and extension is None:
        raise UserError(
            f"{source} has learned {there.max_position_embeddings} positions, and this run "
            f"{here.max_position_embeddings}: set --gin.EXTEND_POSITIONS='\"copy\"' or '\"interpolate\"' to make the "
            f"others from them, or --gin.MAX_POSITIONS={there.max_position_embeddings} and no larger SEQUENCE_LENGTH"
        )
    return longer


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
    """Parameters to start from, the paths of those that the directory lacks, and of its own that are not used."""

    params: PyTree
    fresh: list[str]
    unused: list[str]


def start_from(path: str | os.PathLike[str], params: PyTree, *, layers: int | None = None) -> WarmStart:
    """Fill parameters by name from a model directory, for fine-tuning (see `encoder_for_finetuning`).

    Args:
        path: the model directory.
        params: newly initialized, in their shardings; what the directory lacks keeps these values.
        layers: number of the encoder's first layers to take; None for all.

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

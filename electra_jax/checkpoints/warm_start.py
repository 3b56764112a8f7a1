"""Fill new parameters from a model directory, for a run of pre-training or of fine-tuning."""

import os
from collections.abc import Iterable
from typing import NamedTuple

from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict

from electra_jax.checkpoints import model_dir, orbax_store
from electra_jax.checkpoints.orbax_store import named_shapes
from electra_jax.distributed.processes import print_on_leader
from electra_jax.errors import UserError
from electra_jax.files import path_of
from electra_jax.model.config import EncoderConfig
from electra_jax.model.types import PyTree
from electra_jax.run_directory import VOCABULARY
from electra_jax.tasks.vocabulary import Vocabulary
from electra_jax.training import sharding
from electra_jax.training.state import TrainState


def initialize_from(state: TrainState, source: epath.Path, vocabulary: Vocabulary) -> TrainState:
    """Return a new state with the weights that a model directory has for it, and print what was taken.

    Args:
        state: a new run's state; it keeps the weights that `source` lacks, its optimizer state and its step.
        source: the model directory.
        vocabulary: the run's vocabulary.

    Raises:
        UserError: if `source` is not a model directory, has weights of other sizes, or has another vocabulary.
    """
    model_dir.check_directory(source)
    found = model_dir.read_vocabulary(source)
    if found is not None and found.tokens != vocabulary.tokens:
        raise UserError(f"{source} was trained with another vocabulary than VOCAB_FILE: name {source / VOCABULARY}")
    start = start_from(source, state.params, plain=not is_variant(source, state.params))
    taken = named_shapes(state.params).keys() - set(start.fresh)
    every = [*taken, *start.fresh, *start.unused]
    for what, names in (("taken", taken), ("new, not there", start.fresh), ("left, not needed", start.unused)):
        shown = ", ".join(shortest_prefixes(names, every))
        print_on_leader(f"weights of {source}, {what}: {shown or 'nothing'}")
    print_on_leader("the optimizer and the step are new")
    return state._replace(params=start.params)


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


def is_variant(directory: epath.Path, params: PyTree) -> bool:
    """Return whether a model directory's newest checkpoint has exactly these parameters, by name."""
    stored = orbax_store.newest_state(directory).items["params"]
    return named_shapes(stored).keys() == named_shapes(params).keys()


class WarmStart(NamedTuple):
    """Parameters to start from; the paths of those that the directory lacked, and of those in it that were not used."""

    params: PyTree
    fresh: list[str]
    unused: list[str]


def start_from(path: str | os.PathLike[str], params: PyTree, *, plain: bool) -> WarmStart:
    """Fill parameters by name from a model directory, for pre-training or fine-tuning.

    Args:
        path: the model directory.
        params: freshly initialized, in their shardings; what the directory lacks keeps these values.
        plain: whether to take the plain towers (see `plain_towers`) rather than the parameters as they were trained,
            which the same variant of pre-training needs. Where `params` have no generator, as in fine-tuning,
            `encoder_for_finetuning` is what is taken.

    Raises:
        UserError: if the path is no model directory, no parameter has a name in common, or one has another shape.
    """
    directory = path_of(path)
    model_dir.check_directory(directory)
    if plain:
        model = model_dir.load(directory)
        tree = model.params if "generator" in params else encoder_for_finetuning(model)[1]
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

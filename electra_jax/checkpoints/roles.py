"""Match the parameters of two pre-training models by role, whichever variants they are.

Variants of pre-training keep the same part in different places: an encoder that is pre-trained to predict words has its
head at `generator/head`, a generator may own its tables or read the discriminator's, and gradient-disentangled
embeddings are a sum. Here a model is a main tower, which is kept after pre-training, and a generator, and each of their
parts has a role: "main/encoder", "generator/head".
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict

from electra_jax.checkpoints.plain_towers import main_embeddings
from electra_jax.model.embeddings import longer_positions
from electra_jax.model.types import PyTree

# Leaves with a row for each token of the vocabulary; an attention layer has another `output_bias`.
VOCABULARY_ROWS = re.compile(r"(^|/)word_embeddings$|(^|/)head/output_bias$")
# A learned table of positions.
POSITIONS = re.compile(r"(^|/)position_embeddings$")

Arrays = dict[str, np.ndarray]


class Part(NamedTuple):
    """The leaves of a part of a model by their paths in it, and where the model's parameters keep the part."""

    leaves: Arrays
    places: tuple[str, ...]


class Filled(NamedTuple):
    """The values that a source has for the leaves of a model.

    Attributes:
        values: values by the paths of the model's leaves, without those of leaves that stay new.
        used: the places in the source that values were taken from.
        notes: why parts of the model stay new, as sentences.
    """

    values: Arrays
    used: set[str]
    notes: list[str]


def parts_of(params: PyTree) -> dict[str, Part]:
    """Return the parts of a model by role.

    Embeddings that are a sum of two tables are represented by the table that the main tower adds.

    Args:
        params: parameters as any objective trains them, as plain towers, or with a fine-tuning head; arrays or shapes.
    """
    main, helper = params.get("discriminator", {}), params.get("generator", {})
    parts = {}
    if "encoder" in main:
        places = ("embeddings", "discriminator/embeddings")[: 1 + ("embeddings" in main)]
        parts["main/embeddings"] = part(main.get("embeddings", params["embeddings"]), *places)
        parts["main/encoder"] = part(main["encoder"], "discriminator/encoder")
        for name in main.keys() - {"encoder", "embeddings"}:
            # Of the two kinds of head, one detects replaced tokens, the other predicts words.
            role = "detector" if name == "head" and "prediction" in main["head"] else name
            parts[f"main/{role}"] = part(main[name], f"discriminator/{name}")
    if not {"encoder", "ltr"} & helper.keys():
        return parts | ({"main/head": part(helper["head"], "generator/head")} if "head" in helper else {})
    owner, place = (helper, "generator/embeddings") if "embeddings" in helper else (params, "embeddings")
    parts["generator/embeddings"] = part(owner["embeddings"], place)
    for name in helper.keys() - {"embeddings"}:
        parts[f"generator/{name}"] = part(helper[name], f"generator/{name}")
    return parts


def part(tree: PyTree, *places: str) -> Part:
    """Return a tree as a part of a model that keeps it at these places."""
    return Part(flatten_dict(tree, sep="/"), places)


def fill(params: PyTree, source: PyTree) -> Filled:
    """Return the values that a source has for a new model, tower by tower.

    The source's main tower fills the model's, and its generator fills the model's if the sizes are the same. A source
    with one tower, which predicts words, fills the main tower, the generator or both, whichever has its sizes.

    Args:
        params: the new model's parameters, or their shapes.
        source: the source's parameters.

    Raises:
        ValueError: if no tower fits; the message tells how the main tower differs.
    """
    if "embeddings" in source.get("discriminator", {}):
        source = source | {"discriminator": source["discriminator"] | {"embeddings": main_embeddings(source)}}
    model, there = parts_of(params), parts_of(source)
    towers = {role.partition("/")[0] for role in there}
    if not towers:
        raise ValueError("there is neither a discriminator nor a generator")
    for_main, for_generator = ("main", "generator") if len(towers) == 2 else (*towers, *towers)
    # A tower that has learned nothing of words is no generator.
    writes = "generator" in towers or "main/head" in there
    differences = unlike(model, "main", there, for_main)
    generates = any(role.startswith("generator/") for role in model)
    apart = unlike(model, "generator", there, for_generator) if generates and writes else ["no generator there"]
    if differences and (apart or len(towers) == 2):
        raise ValueError("; ".join(differences[:8]))
    filled = Filled({}, set(), [])
    if generates and writes and apart:
        filled.notes.append(f"the generator is new, because it has other sizes ({apart[0]})")
    # In this order: embeddings that both towers share are the main tower's.
    if not differences:
        take(filled, model, "main", there, for_main)
    else:
        filled.notes.append(f"the discriminator is new, because it has other sizes ({differences[0]})")
    if not apart:
        take(filled, model, "generator", there, for_generator)
    disentangle(filled.values, params)
    return filled


def unlike(model: Mapping[str, Part], tower: str, there: Mapping[str, Part], source: str) -> list[str]:
    """Return how the embeddings and the encoder of a tower differ from those of the source's tower, in words."""
    found = []
    for role, wanted in model.items():
        owner, name = role.split("/")
        if owner != tower or name in ("head", "detector", "copy_gate", "correction"):
            continue
        held = there.get(f"{source}/{name}", Part({}, ()))
        theirs, ours = ({path: leaf.shape for path, leaf in part.leaves.items()} for part in (held, wanted))
        # An extra table or bias makes another encoder, just as a missing one does.
        found += [
            f"{wanted.places[-1]}/{path} {theirs.get(path, 'missing')} there, {ours.get(path, 'missing')} here"
            for path in ours | theirs
            if theirs.get(path) != ours.get(path)
        ]
    return found


def take(filled: Filled, model: Mapping[str, Part], tower: str, there: Mapping[str, Part], source: str) -> None:
    """Add the values of a tower's parts that have none yet; a head of another kind or size stays new."""
    for role, wanted in model.items():
        owner, name = role.split("/")
        held = there.get(f"{source}/{name}")
        if owner != tower or held is None:
            continue
        values = {f"{wanted.places[-1]}/{path}": held.leaves.get(path) for path in wanted.leaves}
        same = all(
            value is not None and value.shape == leaf.shape
            for value, leaf in zip(values.values(), wanted.leaves.values(), strict=True)
        )
        if same and not values.keys() & filled.values.keys():
            filled.values.update(values)
            filled.used.update(held.places)


def disentangle(values: Arrays, params: PyTree) -> None:
    """Turn the main tower's own embeddings into what it adds to the common ones, if the model keeps such a sum.

    Common tables that no generator filled are the main tower's, and the other way round: a LayerNorm that was trained
    with the common tables fills the main tower's too.
    """
    own = params.get("discriminator", {}).get("embeddings")
    for path in flatten_dict(own or {}, sep="/"):
        common, mine = f"embeddings/{path}", f"discriminator/embeddings/{path}"
        held = {name: values[name] for name in (common, mine) if name in values}
        if not held:
            continue
        values[common] = held.get(common, held.get(mine))
        total = held.get(mine, values[common])
        values[mine] = total if path.startswith("layer_norm/") else total - values[common]


def with_positions(leaves: Mapping[str, np.ndarray], rows: int, extension: str) -> Arrays:
    """Return leaves with every table of positions that is shorter than `rows` made longer (see `longer_positions`)."""
    return {
        path: longer_positions(leaf, rows, extension) if POSITIONS.search(path) and len(leaf) < rows else leaf
        for path, leaf in leaves.items()
    }

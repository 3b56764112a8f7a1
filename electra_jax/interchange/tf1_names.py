"""Names of variables in the original TensorFlow 1 code <-> paths in our parameter tree.

A path is joined with slashes. Layers are stacked here and apart there: a name of the original maps to a path and a
row of it. The order of a variable's numbers is the same on both sides, so that converting is reshaping: an attention
kernel is [D, H x C] there and [D, H, C] here.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from electra_jax.model.types import PyTree


class Place(NamedTuple):
    """Where a variable of the original stands in our tree.

    Attributes:
        path: such as "discriminator/encoder/layers/attention/query_kernel".
        layer: the row of the stacked parameter; None for a parameter that is not stacked.
    """

    path: str
    layer: int | None


# The first component of a name, and the tower it means; the released discriminator is `electra`.
TOWERS = {
    "electra": "discriminator",
    "bert": "discriminator",
    "generator": "generator",
    "generator_ltr": "generator/ltr",
    "generator_rtl": "generator/rtl",
}

# Of the two, `cloze_predictions` is the two-tower generator's.
HEADS = {
    "generator_predictions/dense": "generator/head/dense",
    "generator_predictions/LayerNorm": "generator/head/layer_norm",
    "generator_predictions/output_bias": "generator/head/output_bias",
    "cls/predictions/transform/dense": "generator/head/dense",
    "cls/predictions/transform/LayerNorm": "generator/head/layer_norm",
    "cls/predictions/output_bias": "generator/head/output_bias",
    "discriminator_predictions/dense": "discriminator/head/dense",
    "discriminator_predictions/dense_1": "discriminator/head/prediction",
}

WITHIN_LAYER = {
    **{
        f"attention/self/{part}/{kind}": f"attention/{part}_{kind}"
        for part in ("query", "key", "value")
        for kind in ("kernel", "bias")
    },
    "attention/output/dense/kernel": "attention/output_kernel",
    "attention/output/dense/bias": "attention/output_bias",
    "attention/output/LayerNorm": "attention_layer_norm",
    "intermediate/dense": "intermediate",
    "output/dense": "output",
    "output/LayerNorm": "output_layer_norm",
}

LEAVES = {"gamma": "scale", "beta": "bias"}


def to_path(name: str, *, heads: Mapping[str, str]) -> Place | None:
    """Where a variable of the original stands in our tree.

    Args:
        name: without the trailing ":0".
        heads: prefixes of names and of paths outside the towers: `HEADS`, or with a fine-tuning head's added.

    Returns:
        None for a name that the model has no place for (a pooler, an Adam slot, the global step).
    """
    scope, _, rest = name.partition("/")
    layer = re.fullmatch(r"encoder/layer_(\d+)/(.+)", rest)
    if scope in TOWERS and layer:
        inside = _renamed(layer[2], WITHIN_LAYER)
        return Place(f"{TOWERS[scope]}/encoder/layers/{inside}", int(layer[1])) if inside else None
    if scope in TOWERS and rest.startswith("embeddings_project/"):
        return Place(f"{TOWERS[scope]}/encoder/{rest}", None)
    if scope in TOWERS and rest.startswith("embeddings/"):
        # The discriminator's tables are those that both towers share.
        tower = "" if TOWERS[scope] == "discriminator" else f"{TOWERS[scope]}/"
        table = _leaf(rest.replace("/LayerNorm/", "/layer_norm/"))
        return Place(f"{tower}{table}", None)
    outside = _renamed(name.replace("cloze_predictions/", "generator_predictions/"), heads)
    return Place(outside, None) if outside else None


def _renamed(name: str, prefixes: Mapping[str, str]) -> str | None:
    """The name with its longest known prefix replaced, and its leaf renamed; None where no prefix is known."""
    for prefix in sorted(prefixes, key=len, reverse=True):
        if name == prefix or name.startswith(f"{prefix}/"):
            return _leaf(prefixes[prefix] + name[len(prefix) :])
    return None


def _leaf(path: str) -> str:
    """TensorFlow's names of a LayerNorm's two parameters become Flax's."""
    parent, _, leaf = path.rpartition("/")
    return f"{parent}/{LEAVES.get(leaf, leaf)}"


def to_tree(variables: Mapping[str, np.ndarray], template: PyTree, *, heads: Mapping[str, str]) -> PyTree:
    """Our tree from the original's variables.

    Args:
        variables: by name; names without a place are left alone.
        template: a tree of arrays or of shapes, as `jax.eval_shape` of the model's initialisation.
        heads: see `to_path`.

    Raises:
        KeyError: a parameter of the template that the variables do not fill; the message names all of them.
        ValueError: a variable of another size.
    """
    pieces: dict[str, dict[int | None, str]] = {}
    for name in variables:
        place = to_path(name, heads=heads)
        if place is not None:
            pieces.setdefault(place.path, {})[place.layer] = name
    missing = []

    def fill(key_path: tuple, leaf: jax.Array) -> np.ndarray:
        path = jax.tree_util.keystr(key_path, simple=True, separator="/")
        rows = pieces.get(path, {})
        wanted = [None] if None in rows else list(range(leaf.shape[0] if leaf.shape else 0))
        if not rows or any(row not in rows for row in wanted):
            missing.append(path)
            return np.zeros(leaf.shape, np.float32)
        stacked = [np.asarray(variables[rows[row]]) for row in wanted]
        whole = stacked[0] if wanted == [None] else np.stack(stacked)
        if whole.size != np.prod(leaf.shape):
            raise ValueError(f"{rows[wanted[0]]} has shape {stacked[0].shape}, {path} has {leaf.shape}")
        return whole.reshape(leaf.shape)

    tree = jax.tree_util.tree_map_with_path(fill, template)
    if missing:
        raise KeyError(f"no variable for {', '.join(missing)}")
    return tree


def from_tree(
    tree: PyTree, shapes: Mapping[str, tuple[int, ...]], *, heads: Mapping[str, str]
) -> dict[str, np.ndarray]:
    """The original's variables from our tree.

    Args:
        tree: parameters, or gradients, or moments.
        shapes: of the variables wanted, by name.
        heads: see `to_path`.

    Raises:
        KeyError: a variable that has no place in the tree.
    """
    leaves = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    variables = {}
    for name, shape in shapes.items():
        place = to_path(name, heads=heads)
        if place is None or place.path not in leaves:
            raise KeyError(f"{name} has no place in the parameter tree")
        leaf = np.asarray(leaves[place.path])
        variables[name] = (leaf if place.layer is None else leaf[place.layer]).reshape(shape)
    return variables

"""A run in one file: `bench.pretrain_small` writes it on a bare machine, `electra import` reads it at home.

An .npz of arrays by their paths in a `TrainState`, or of its parameters alone, and of `facts`: JSON that says what they
are of. NumPy checks the CRC-32 that the format has of every array.
"""

import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from electra_jax.errors import UserError, is_full_disk
from electra_jax.files import replacing
from electra_jax.model.types import PyTree

FORMAT = 1
FACTS = "facts"


class Carried(NamedTuple):
    """What a file holds.

    Attributes:
        arrays: by path, such as `params/embeddings/word_embeddings`.
        facts: JSON values.
    """

    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]


def write(path: Path, tree: PyTree, facts: dict[str, Any]) -> None:
    """Writes a file so that it is whole or, whatever happens, the one that was there before.

    Raises:
        UserError: it cannot be written.
    """
    text = json.dumps({"format": FORMAT, **facts}).encode()
    try:
        with replacing(path, durable=True) as part, part.open("wb") as stream:
            np.savez(stream, **{FACTS: np.frombuffer(text, np.uint8)}, **named(jax.device_get(tree)))
    except OSError as error:
        todo = "free the disk" if is_full_disk(error) else "let it be written"
        raise UserError(
            f"{path} could not be written ({error.strerror or error}), and what was there before is untouched: {todo} "
            "and run the same command again"
        ) from error


def read(path: Path) -> Carried:
    """Reads a file.

    Raises:
        UserError: it is none of `write`, or damaged.
    """
    try:
        with np.load(path) as stored:
            arrays = {name: stored[name] for name in stored.files}
        facts = json.loads(arrays.pop(FACTS).tobytes())
        if facts["format"] != FORMAT:
            raise ValueError(f"format {facts['format']}")
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} is not a whole file of bench.pretrain_small ({str(error) or type(error).__name__}): carry it over "
            "again, or remove it to begin anew"
        ) from error
    return Carried(arrays, facts)


def named(tree: PyTree) -> dict[str, Any]:
    """The leaves by their paths, joined with slashes."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def unnamed(arrays: dict[str, Any]) -> PyTree:
    """Nested dicts from paths: the inverse of `named` where all of a tree's nodes are dicts."""
    tree: dict[str, Any] = {}
    for path, array in arrays.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = array
    return tree


def below(arrays: dict[str, np.ndarray], root: str) -> PyTree:
    """The tree of dicts that stands under a path."""
    above = f"{root}/"
    return unnamed({path.removeprefix(above): array for path, array in arrays.items() if path.startswith(above)})


def filled(abstract: PyTree, arrays: dict[str, np.ndarray], path: Path) -> PyTree:
    """The arrays in the shape of a tree.

    Raises:
        UserError: they are of another; says how they differ.
    """
    wanted = named(abstract)
    differences = [
        f"{name} {arrays[name].shape if name in arrays else 'missing'} there, "
        f"{wanted[name].shape if name in wanted else 'missing'} here"
        for name in sorted(wanted.keys() | arrays.keys())
        if name not in wanted or name not in arrays or arrays[name].shape != wanted[name].shape
    ]
    if differences:
        more = f"; and {len(differences) - 4} more" if len(differences) > 4 else ""
        raise UserError(
            f"{path} is of a model of other sizes ({'; '.join(differences[:4])}{more}): name another OUT, or the "
            "--model that made it"
        )
    return jax.tree.unflatten(jax.tree.structure(abstract), [arrays[name] for name in wanted])

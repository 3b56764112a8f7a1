"""Take rows of a vocabulary's tables from a model with another vocabulary, for a new run."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from electra_jax.checkpoints import model_dir, roles
from electra_jax.errors import UserError
from electra_jax.run_directory import TOKENIZER, VOCABULARY
from electra_jax.tasks.vocabulary import CONTINUES, Vocabulary


def pieces_by_token(source: epath.Path, vocabulary: Vocabulary, *, map_vocabulary: bool) -> list[list[int]] | None:
    """Return the rows in a model directory that each token of a vocabulary is initialized from.

    A token that both vocabularies have, by its text or its special role, has one row. Another token has the rows of the
    pieces into which the directory's tokenizer splits it, or none if one of them is unknown there.

    Returns:
        None if the directory has the same vocabulary, or does not say which it has.

    Raises:
        UserError: if the directory has another vocabulary and `map_vocabulary` is False, or no token is the same.
    """
    found = model_dir.read_vocabulary(source)
    if found is None or found.tokens == vocabulary.tokens:
        return None
    row_of = {token: row for row, token in enumerate(found.tokens)}
    pieces_V = [[row_of[token]] if token in row_of else [] for token in vocabulary.tokens]
    # Special tokens match by role, however they are spelled: a mask is a mask.
    for role, row in vocabulary.special_ids.items():
        pieces_V[row] = [found.special_ids[role]] if role in found.special_ids else pieces_V[row]
    known = sum(map(bool, pieces_V))
    files = (source / name for name in (VOCABULARY, TOKENIZER) if (source / name).exists())
    named = (f"set --gin.TOKENIZER='\"{path}\"' and --gin.VOCAB_SIZE={found.vocab_size}" for path in files)
    own = next(named, "name its own")
    if not map_vocabulary:
        raise UserError(
            f"{source} was trained with another vocabulary than TOKENIZER: {own}; or set "
            f"--gin.MAP_VOCABULARY=True to take the rows of the {known} of {len(pieces_V)} tokens that it has, and "
            "start the others from those of their pieces"
        )
    if not known:
        raise UserError(f"{source} has no token of TOKENIZER: {own}")
    others = [row for row, pieces in enumerate(pieces_V) if not pieces and row not in vocabulary.special_ids.values()]
    texts = [vocabulary.shown_tokens[row].removeprefix(CONTINUES) for row in others]
    for row, pieces in zip(others, found.encode_batch(texts), strict=True):
        pieces_V[row] = [] if found.unk_id in pieces else pieces
    return pieces_V


def by_token(leaves: Mapping[str, np.ndarray], pieces_V: Sequence[Sequence[int]]) -> roles.Arrays:
    """Return leaves with the rows of a vocabulary in the order of another one.

    Args:
        leaves: arrays by path.
        pieces_V: for each token of the other vocabulary, the rows here whose mean becomes its own, a single one if both
            vocabularies have the token; none for a row of zeros.
    """
    return {
        path: _means(leaf, pieces_V) if roles.VOCABULARY_ROWS.search(path) else leaf for path, leaf in leaves.items()
    }


def _means(leaf: np.ndarray, pieces_V: Sequence[Sequence[int]]) -> np.ndarray:
    found = np.zeros((len(pieces_V), *leaf.shape[1:]), leaf.dtype)
    for row, pieces in enumerate(pieces_V):
        if pieces:
            found[row] = leaf[list(pieces)].mean(axis=0) if len(pieces) > 1 else leaf[pieces[0]]
    return found


def counted(pieces_V: Sequence[Sequence[int]]) -> str:
    """Return a sentence on how many rows are taken, are means, or are new."""
    taken, means = (sum(len(pieces) == 1 for pieces in pieces_V), sum(len(pieces) > 1 for pieces in pieces_V))
    new = len(pieces_V) - taken - means
    return (
        f"rows of the vocabulary: {taken} of {len(pieces_V)} by token, {means} as the mean of their pieces, {new} new"
    )


def keep_new_rows(name: str, taken: jax.Array, new: jax.Array, known_V: np.ndarray) -> jax.Array:
    """Return a parameter with the taken rows of known tokens, and the new rows of the others."""
    if not roles.VOCABULARY_ROWS.search(name):
        return taken
    known = known_V.reshape(-1, *(1,) * (new.ndim - 1))
    return jax.jit(lambda taken, new: jnp.where(known, taken, new), out_shardings=new.sharding)(taken, new)

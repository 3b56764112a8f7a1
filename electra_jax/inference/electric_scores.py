"""Score sentences by Electric's pseudo-log-likelihood: `electra_jax.load(path).score(texts)`, `electra score`."""

from collections.abc import Sequence

import numpy as np

from electra_jax.errors import UserError
from electra_jax.inference.inputs import shown
from electra_jax.inference.network import Network, as_integers
from electra_jax.inference.prediction import Record, row_runner
from electra_jax.model.types import Tokens
from electra_jax.pretraining import corruption, electric
from electra_jax.tasks.protocol import Row


def score(model: Network, inputs: str | Sequence[str | Sequence[int]], *, batch_size: int) -> list[Record]:
    """Return a record with the pseudo-log-likelihood of each input; see `Model.score`.

    Raises:
        UserError: if Electric did not train the model, or the model cannot read an input.
    """
    check_electric(model)
    given = [inputs] if isinstance(inputs, str) else list(inputs)
    rows = [read(model, value) for value in given]
    outputs = row_runner(model, batch_size, len(rows))(rows)
    records = []
    for value, row, output in zip(given, rows, outputs, strict=True):
        named = {"sentence": value} if isinstance(value, str) else {"input_ids": row["input_ids"].tolist()}
        records.append(named | describe(model, row, output["logits"]))
    return records


def check_electric(model: Network) -> None:
    """Check that the model's logits are energies.

    Raises:
        UserError: if Electric did not train the model.
    """
    description = model.description
    if description.gives_energies:
        return
    trained = f", trained by {description.facts['objective']}" if "objective" in description.facts else ""
    raise UserError(
        f"a model of kind {description.kind!r}{trained} gives no likelihoods of tokens: score with one that Electric "
        "trained (electra pretrain with gin/objectives/electric.gin)"
    )


def read(model: Network, value: str | Sequence[int]) -> Row:
    """Return a row of the model's input: [CLS] text [SEP], or the ids themselves.

    Raises:
        UserError: if the row is longer than the model reads, or the ids are not integers.
    """
    if isinstance(value, str):
        ids_L = np.array([model.pieces.cls_id, *model.pieces.encode_batch([value])[0], model.pieces.sep_id], np.int32)
    else:
        ids_L = as_integers("input_ids", value)
    most = model.description.encoder.max_position_embeddings
    if ids_L.ndim != 1 or not 1 <= len(ids_L) <= most:
        raise UserError(
            f"{shown(value)} has shape {list(ids_L.shape)} in tokens: a sentence to score has 1 to {most}, the ends "
            "counted; split it"
        )
    return {"input_ids": ids_L, "token_type_ids": np.zeros_like(ids_L)}


def describe(model: Network, row: Row, energies_L: np.ndarray) -> Record:
    """Return the scores of a row as JSON values."""
    ids_L = row["input_ids"]
    tokens = Tokens(ids_L[None], row["token_type_ids"][None], np.ones_like(ids_L)[None])
    total_B, scores_BL = electric.pseudo_log_likelihoods(energies_L[None], tokens, model.pieces)
    scored_L = np.asarray(corruption.candidates(tokens.input_ids, tokens.attention_mask, model.pieces))[0]
    count = int(scored_L.sum())
    return {
        "tokens": [model.pieces.tokens[token] for token in ids_L[scored_L]],
        "scores": np.asarray(scores_BL)[0, scored_L].tolist(),
        "total": float(total_B[0]),
        "mean": float(total_B[0]) / count if count else None,
    }

"""Compute a vector for each text: `electra_jax.load(path).encode(texts)`, `electra embed`."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from electra_jax.checkpoints.model_dir import Loaded
from electra_jax.checkpoints.sentence_encoder import sentence_encoder
from electra_jax.inference.inputs import as_list, texts
from electra_jax.inference.network import Network
from electra_jax.inference.prediction import as_pair, row_runner
from electra_jax.tasks.long_texts import CutCount, count_fields
from electra_jax.tasks.text.tables import text_windows

logger = logging.getLogger(__name__)


def encoder_of(model: Network, *, layer: int | None, pooling: str | None) -> Network:
    """Return the network whose logits are the vectors of texts, float32 [B, D]; see `sentence_encoder`.

    Raises:
        UserError: if the model has no such layer or pooling.
    """
    loaded = Loaded(model.description, model.params, model.vocabulary, model.step)
    return Network(sentence_encoder(loaded, layer=layer, pooling=pooling))


def encode(encoder: Network, inputs: Any, *, batch_size: int) -> np.ndarray:
    """Return the vector of each text or pair of texts, float32 [N, D]; see `Model.encode`.

    Args:
        encoder: the result of `encoder_of`.
        inputs: one text or pair, or a list of them.
        batch_size: rows at a time.

    Raises:
        UserError: if an input has another form, or the model reads no text.
    """
    values = [texts(value, f"input {number}") for number, value in enumerate(as_list(inputs), start=1)]
    count = CutCount(encoder.description.longest_row)
    vectors = encode_texts(encoder, values, batch_size=batch_size, count=count)
    if count.texts:
        logger.warning("%s", count)
    return vectors


def encode_texts(
    encoder: Network, values: Sequence[str | tuple[str, str]], *, batch_size: int, count: CutCount
) -> np.ndarray:
    """Return the vector of each value of `inputs.texts`, float32 [N, D], and add to `count` what was cut off.

    Raises:
        UserError: if the model has no vocabulary, or one that lacks a special token.
    """
    pairs, length = [as_pair(value) for value in values], encoder.description.longest_row
    made = text_windows(pairs, vocabulary=encoder.pieces, length=length, long_texts="cut")
    rows = [
        {name: np.array(ids, np.int32) for name, ids in text.rows[0]._asdict().items()}
        | {"example": np.array(number)}
        | count_fields(text.num_tokens, text.num_cut)
        for number, text in enumerate(made)
    ]
    count.add(rows)
    found = [output["logits"] for output in row_runner(encoder, batch_size, len(rows))(rows)]
    return np.stack(found) if found else np.zeros((0, encoder.description.encoder.hidden_size), np.float32)

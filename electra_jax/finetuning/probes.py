"""Probe an encoder: score what a linear map finds in the hidden states of each layer, with the encoder unchanged.

Fine-tuning changes an encoder, and after short pre-training it shows little of what the encoder has learned. The last
layer of one that detects replaced tokens is known to be its worst, so the layer is chosen on the dev split.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from electra_jax.data.buckets import Row
from electra_jax.data.forward import RowRunner
from electra_jax.model.config import EncoderConfig
from electra_jax.model.embeddings import Embeddings
from electra_jax.model.encoder import Encoder
from electra_jax.model.precision import evaluation_precision
from electra_jax.model.states import layer_states
from electra_jax.model.types import PyTree, Tokens
from electra_jax.tasks.tagging.probing import Asked
from electra_jax.training import softmax_regression

# The default of scikit-learn.
TOLERANCE = 1e-4
# Lengths that rows are padded to, up to that of the longest one.
LENGTHS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
# Rows whose states are held at a time; afterwards only the states that are asked for are kept.
ROWS_HELD = 256


class LayerScore(NamedTuple):
    """Hold what a linear map finds in the states of a layer.

    Attributes:
        layer: the number of the layer; 0 for the input of the first layer.
        dev, test: percentage of the answers that are found.
        iterations: iterations of the fit.
    """

    layer: int
    dev: float
    test: float
    iterations: int


def init_encoder(key: jax.Array, config: EncoderConfig) -> PyTree:
    """Return new weights of embeddings and encoder, at the places of a discriminator's."""
    embeddings_key, encoder_key = jax.random.split(key)
    ids_BL = jnp.zeros((1, 1), jnp.int32)
    embedded_BLE = jnp.zeros((1, 1, config.embedding_size))
    tables = Embeddings(config).init(embeddings_key, ids_BL, ids_BL, deterministic=True)["params"]
    layers = Encoder(config).init(encoder_key, embedded_BLE, ids_BL, deterministic=True)["params"]
    return nn.unbox({"embeddings": tables, "discriminator": {"encoder": layers}})


def hidden_states(params: PyTree, tokens: Tokens, *, config: EncoderConfig, left_to_right: bool) -> jax.Array:
    """Return the hidden states of every layer by token, float32 [B, L, N + 1, D]; see `layer_states`.

    Args:
        params: parameters with embeddings, and the encoder as the discriminator's.
        tokens: the input.
        config: the encoder's configuration.
        left_to_right: whether the encoder reads as `language_model` trained it, no token seeing those after it.
    """
    encoder = params["discriminator"]["encoder"]
    states = layer_states(config, params["embeddings"], encoder, tokens, left_to_right=left_to_right)
    return jnp.moveaxis(states.hidden, 0, 2)


# Compiled once for all splits and seeds of one shape.
_hidden_states = jax.jit(hidden_states, static_argnames=("config", "left_to_right"))
_fit = jax.jit(softmax_regression.fit, static_argnames=("num_classes", "max_iterations"))


def features(
    params: PyTree, config: EncoderConfig, asked: Asked, *, left_to_right: bool, batch_size: int
) -> np.ndarray:
    """Return the states of every layer at the tokens that are asked for, float32 [x, N + 1, D]."""
    longest = max(len(row["input_ids"]) for row in asked.rows)
    placed = jax.device_put(params)

    def launch(batch: Mapping[str, np.ndarray]) -> jax.Array:
        tokens = Tokens(batch["input_ids"], batch["token_type_ids"], batch["attention_mask"])
        return _hidden_states(placed, tokens, config=config, left_to_right=left_to_right)

    buckets = [*(length for length in LENGTHS if length < longest), longest]
    runner = RowRunner(launch, per_token=("logits",), batch_size=batch_size, buckets=buckets)
    kept = []
    for start in range(0, len(asked.rows), ROWS_HELD):
        rows: Sequence[Row] = asked.rows[start : start + ROWS_HELD]
        found = zip(runner(rows), asked.positions[start : start + ROWS_HELD], strict=True)
        kept += [output["logits"][positions] for output, positions in found]
    return np.concatenate(kept)


def probe_layers(
    params: PyTree,
    config: EncoderConfig,
    asked: Mapping[str, Asked],
    *,
    left_to_right: bool,
    penalty: float,
    max_iterations: int,
    batch_size: int,
) -> list[LayerScore]:
    """Fit a linear map to the training split's answers for each layer, and score it on the other two splits.

    An answer that does not occur in training counts as not found.

    Args:
        params, config, left_to_right: see `hidden_states`.
        asked: "train", "dev" and "test".
        penalty, max_iterations: see `softmax_regression.fit`.
        batch_size: rows of a batch.
    """
    states = {
        split: features(params, config, one, left_to_right=left_to_right, batch_size=batch_size)
        for split, one in asked.items()
    }
    number_of = {answer: number for number, answer in enumerate(sorted(set(asked["train"].answers)))}
    labels = {split: np.array([number_of.get(one, -1) for one in each.answers]) for split, each in asked.items()}
    scores = []
    with evaluation_precision():
        for layer in range(config.num_hidden_layers + 1):
            found = _fit(
                states["train"][:, layer],
                labels["train"].astype(np.int32),
                num_classes=len(number_of),
                penalty=penalty,
                max_iterations=max_iterations,
                tolerance=TOLERANCE,
            )
            right = {
                split: 100 * float(np.mean(np.asarray(found(states[split][:, layer])).argmax(-1) == labels[split]))
                for split in ("dev", "test")
            }
            scores.append(LayerScore(layer, **right, iterations=int(found.num_iterations)))
    return scores


def best_layer(scores: Sequence[LayerScore]) -> LayerScore:
    """Return the layer with the best score on the dev split, the lowest if several are equal."""
    return max(scores, key=lambda score: score.dev)

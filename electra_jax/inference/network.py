"""Compute the logits of a loaded model of any kind."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike

from electra_jax.checkpoints.model_dir import Loaded
from electra_jax.checkpoints.model_record import Description, per_token_outputs
from electra_jax.data.buckets import bucket_of
from electra_jax.errors import UserError
from electra_jax.model.config import EncoderConfig
from electra_jax.model.embeddings import Embeddings
from electra_jax.model.encoder import Encoder
from electra_jax.model.finetuned import FinetunedModel, head_outputs
from electra_jax.model.layers import take_positions
from electra_jax.model.precision import evaluation_config, evaluation_precision
from electra_jax.model.states import LayerStates, layer_states
from electra_jax.model.towers import MaskedLmHead, ReplacedTokenHead, visible_before
from electra_jax.model.types import PyTree, Tokens
from electra_jax.tasks.vocabulary import Vocabulary

Logits = np.ndarray | dict[str, np.ndarray]

# Rows are padded to one of these lengths, or to the most that the model takes, so that few programs are compiled.
LENGTHS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048)


class Network:
    """Compute the logits of a loaded model.

    Attributes:
        description: its kind, sizes, head and labels.
        params: the parameter tree, float32 numpy arrays.
        vocabulary: the vocabulary; None if the directory holds none.
        step: number of updates of the parameters, as the checkpoint counts them.
    """

    def __init__(self, loaded: Loaded) -> None:
        """Keep the loaded parts; nothing is computed."""
        self.description, self.params, self.vocabulary, self.step = loaded
        self._functions: dict[Callable[..., Any], Callable[..., Any]] = {}

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the outputs of classification and tagging, in order."""
        return self.description.labels

    @property
    def pieces(self) -> Vocabulary:
        """The vocabulary for reading text.

        Raises:
            UserError: if the model has no vocabulary, or one that lacks a special token.
        """
        if self.vocabulary is None:
            raise UserError("the model has no vocabulary: it reads token ids (input_ids), but no text")
        self.vocabulary.check_special_tokens()
        return self.vocabulary

    @functools.cached_property
    def lengths(self) -> list[int]:
        """The lengths that rows are padded to. A longer row is not padded, and the model refuses it."""
        most = self.description.encoder.max_position_embeddings
        return [*(length for length in LENGTHS if length < most), most]

    @functools.cached_property
    def _placed_params(self) -> PyTree:
        """The parameters on the device."""
        return jax.device_put(self.params)

    def logits(
        self,
        input_ids: ArrayLike,
        attention_mask: ArrayLike | None = None,
        token_type_ids: ArrayLike | None = None,
    ) -> Logits:
        """Return the logits of the model's head, computed in float32 without dropout.

        Rows are padded to one of `lengths`, so that rows of a new length need no compilation, and the outputs are cut
        again; a head with a beam is instead compiled for each length.

        Args:
            input_ids: int [B, L]; [B, C, L] for C choices.
            attention_mask: same shape, 1 for a real token; None for all ones.
            token_type_ids: same shape; None for all zeros.

        Returns:
            float32. A pre-trained pair or a discriminator: [B, L], positive if a token looks replaced (trained by
            Electric: each token's energy, which is minus its log-likelihood). A generator: [B, L, V], of the token
            itself, or, for a left-to-right language model, of the next one. Classification: [B, labels]; regression:
            [B, 1]; multiple choice: [B, C]; tagging: [B, L, labels]. Question answering: a dict, see `heads`. A bare
            encoder: its last hidden states [B, L, D]. A sentence encoder: [B, D].

        Raises:
            UserError: if shapes disagree, a row is too long, or an id is outside the model's tables.
        """
        result = jax.device_get(self.launch(input_ids, attention_mask, token_type_ids))
        length, names = np.shape(input_ids)[-1], per_token_outputs(self.description.kind)
        if isinstance(result, dict):
            return {name: values[:, :length] if name in names else values for name, values in result.items()}
        return result[:, :length] if "logits" in names else result

    def launch(
        self,
        input_ids: ArrayLike,
        attention_mask: ArrayLike | None = None,
        token_type_ids: ArrayLike | None = None,
    ) -> Any:
        """Return the same as `logits`, but padded and on the device, without waiting for the computation."""
        return self._run(outputs, input_ids, attention_mask, token_type_ids)

    def hidden_states(
        self,
        input_ids: ArrayLike,
        attention_mask: ArrayLike | None = None,
        token_type_ids: ArrayLike | None = None,
    ) -> np.ndarray:
        """Return the states of every layer, as `transformers` gives its `hidden_states`.

        The arguments are those of `logits`, with rows [B, L] for every kind of model.

        Returns:
            float32 [N + 1, B, L, D]: the embeddings, then each layer's output, of the discriminator if there is one.
            With pre-LayerNorm they are the residuals, before the LayerNorm with which the next layer begins; only the
            last of them has passed the final LayerNorm.

        Raises:
            UserError: as `logits`.
        """
        hidden = jax.device_get(self._run(main_tower_states, input_ids, attention_mask, token_type_ids).hidden)
        return hidden[:, :, : np.shape(input_ids)[-1]]

    def attentions(
        self,
        input_ids: ArrayLike,
        attention_mask: ArrayLike | None = None,
        token_type_ids: ArrayLike | None = None,
    ) -> np.ndarray:
        """Return the attention probabilities, float32 [N, B, H, L, L], one row for each query.

        The arguments are those of `hidden_states`.

        Raises:
            UserError: as `logits`.
        """
        length = np.shape(input_ids)[-1]
        states = self._run(main_tower_states, input_ids, attention_mask, token_type_ids)
        return jax.device_get(states.attentions)[..., :length, :length]

    def generator_logits(
        self,
        input_ids: ArrayLike,
        attention_mask: ArrayLike | None = None,
        token_type_ids: ArrayLike | None = None,
    ) -> np.ndarray:
        """Return the generator's logits over the vocabulary at every position, float32 [B, L, V].

        The arguments are those of `logits`.

        Raises:
            UserError: if the model has no generator, or as `logits`.
        """
        if self.description.generator is None:
            raise UserError(f"a model of kind {self.description.kind!r} has no generator")
        logits = jax.device_get(self._run(generator_outputs, input_ids, attention_mask, token_type_ids))
        return logits[:, : np.shape(input_ids)[-1]]

    def _run(
        self,
        function: Callable[..., Any],
        input_ids: ArrayLike,
        attention_mask: ArrayLike | None,
        token_type_ids: ArrayLike | None,
    ) -> Any:
        """Check the arguments, pad rows to one of `lengths`, and run a jitted function of the parameters and tokens."""
        choices = self.description.kind == "multiple_choice" and function is outputs
        ids = as_integers("input_ids", input_ids)
        if ids.ndim != (3 if choices else 2):
            shape = "[rows, choices, length]" if choices else "[rows, length]"
            raise UserError(f"input_ids has shape {ids.shape}: this model takes {shape}, all rows of one length")
        mask = np.ones_like(ids) if attention_mask is None else as_integers("attention_mask", attention_mask)
        types = np.zeros_like(ids) if token_type_ids is None else as_integers("token_type_ids", token_type_ids)
        tokens = Tokens(ids, types, mask)
        check_tokens(tokens, self.description.encoder)
        length = ids.shape[-1]
        # A beam that is wider than a row would point at positions in the padding.
        beam = self.description.head is not None and self.description.head.beam_size > 0
        room = [(0, 0)] * (ids.ndim - 1) + [(0, 0 if beam else bucket_of(length, self.lengths) - length)]
        tokens = jax.tree.map(lambda array: np.pad(array, room), tokens)
        if choices:
            tokens = jax.tree.map(lambda array: array.reshape(-1, array.shape[-1]), tokens)
        if function not in self._functions:
            self._functions[function] = jax.jit(functools.partial(function, self.description))
        result = self._functions[function](self._placed_params, tokens)
        return result.reshape(ids.shape[:2]) if choices else result


def as_integers(name: str, values: ArrayLike) -> np.ndarray:
    """Return any rectangular nesting of integers as an int32 array.

    Raises:
        UserError: if the values are ragged, or are not 32-bit integers.
    """
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise UserError(
            f"the rows of {name} are not of one length: pad them with 0, and give attention_mask"
        ) from error
    if array.dtype.kind not in "iub" and not (array.dtype.kind == "f" and np.all(array == np.round(array))):
        raise UserError(f"{name} holds {array.dtype} numbers: it must hold integers")
    bounds = np.iinfo(np.int32)
    if array.size and (array.min() < bounds.min or array.max() > bounds.max):
        raise UserError(f"{name} goes from {array.min()} to {array.max()}: no model has so many")
    return array.astype(np.int32)


def check_tokens(tokens: Tokens, config: EncoderConfig) -> None:
    """Check that tokens have one shape and index no table past its end, which JAX does silently.

    Raises:
        UserError: if shapes differ, a row is too long, an id is outside its table, or a mask is neither 0 nor 1.
    """
    ids, types, mask = tokens.input_ids, tokens.token_type_ids, tokens.attention_mask
    for name, array in (("attention_mask", mask), ("token_type_ids", types)):
        if array.shape != ids.shape:
            raise UserError(f"{name} has shape {array.shape} and input_ids {ids.shape}: they must be equal")
    if ids.shape[-1] > config.max_position_embeddings or not ids.size:
        raise UserError(
            f"rows of {ids.shape[-1]} tokens: this model takes 1 to {config.max_position_embeddings} "
            "(max_position_embeddings)"
        )
    for name, array, rows in (("input_ids", ids, config.vocab_size), ("token_type_ids", types, config.type_vocab_size)):
        # Without a table of token types, the type ids are not read.
        if rows and (array.min() < 0 or array.max() >= rows):
            raise UserError(f"{name} goes from {array.min()} to {array.max()}: this model has 0 to {rows - 1}")
    if mask.min() < 0 or mask.max() > 1:
        raise UserError(f"attention_mask goes from {mask.min()} to {mask.max()}: 1 is a token, and 0 is padding")


def embed(config: EncoderConfig, tables: PyTree, tokens: Tokens) -> jax.Array:
    """Return the embedded tokens, [B, L, E]."""
    return Embeddings(config).apply({"params": tables}, tokens.input_ids, tokens.token_type_ids, deterministic=True)


def encode(config: EncoderConfig, params: PyTree, embedded_BLE: jax.Array, attention_mask: jax.Array) -> jax.Array:
    """Return the last hidden states, [B, L, D]; the mask is as `Encoder` takes it."""
    return Encoder(config).apply({"params": params}, embedded_BLE, attention_mask, deterministic=True)


def outputs(description: Description, params: PyTree, tokens: Tokens) -> Any:
    """Return the head's float32 output, for each kind of model; see `Network.logits`."""
    if description.discriminator is None:
        return generator_outputs(description, params, tokens)
    if description.head is not None:
        return head_outputs(params, tokens, model=FinetunedModel(description.discriminator, description.head))
    config = evaluation_config(description.discriminator)
    tower = params["discriminator"]
    with evaluation_precision():
        hidden_BLD = encode(
            config, tower["encoder"], embed(config, params["embeddings"], tokens), tokens.attention_mask
        )
        if description.kind == "encoder":
            return hidden_BLD
        return ReplacedTokenHead(config).apply({"params": tower["head"]}, hidden_BLD)


def main_tower_states(description: Description, params: PyTree, tokens: Tokens) -> LayerStates:
    """Return the states of every layer of the tower that is kept after pre-training."""
    tower = params["generator" if description.discriminator is None else "discriminator"]
    return layer_states(
        description.encoder,
        params["embeddings"],
        tower["encoder"],
        tokens,
        left_to_right=description.reads_left_to_right,
    )


def generator_outputs(
    description: Description, params: PyTree, tokens: Tokens, positions_BK: jax.Array | None = None
) -> jax.Array:
    """Return the generator's float32 logits at every position, [B, L, V], or at some of them, [B, K, V]."""
    assert description.generator is not None
    config = evaluation_config(description.generator)
    tower = params["generator"]
    tables = tower["embeddings"] if description.generator_embeddings else params["embeddings"]
    with evaluation_precision():
        mask = visible_before(tokens) if description.reads_left_to_right else tokens.attention_mask
        hidden_BLD = encode(config, tower["encoder"], embed(config, tables, tokens), mask)
        if positions_BK is not None:
            hidden_BLD = take_positions(hidden_BLD, positions_BK)
        return MaskedLmHead(config).apply({"params": tower["head"]}, hidden_BLD, tables["word_embeddings"])

"""One object that holds a model: its parameters, what they are, and the logits they give."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from electra_jax.checkpoints.model_record import Description
from electra_jax.errors import UserError
from electra_jax.model.encoder import Embeddings, Encoder, EncoderConfig
from electra_jax.model.heads import make_head
from electra_jax.model.towers import MaskedLmHead, ReplacedTokenHead
from electra_jax.model.types import PyTree, Tokens
from electra_jax.tasks.vocabulary import Vocabulary

Logits = np.ndarray | dict[str, np.ndarray]


class Model:
    """A model that is loaded: what `electra_jax.load` returns.

    Attributes:
        description: its kind, sizes, head and labels.
        params: the parameter tree, float32 numpy arrays.
        vocabulary: None where the directory holds none.
        step: updates that the parameters have had, as the checkpoint counts them.
    """

    def __init__(self, description: Description, params: PyTree, vocabulary: Vocabulary | None, step: int) -> None:
        """Puts the parts together; nothing is computed."""
        self.description = description
        self.params = params
        self.vocabulary = vocabulary
        self.step = step
        self._functions: dict[Callable[..., Any], Callable[..., Any]] = {}

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the outputs of classification and tagging, by their number."""
        return self.description.labels

    @property
    def pieces(self) -> Vocabulary:
        """Return the vocabulary, to read text with.

        Raises:
            UserError: if the model has no vocabulary, or one that lacks a special token.
        """
        if self.vocabulary is None:
            raise UserError("the model has no vocabulary: it reads token ids (input_ids), but no text")
        self.vocabulary.check_special_tokens()
        return self.vocabulary

    @functools.cached_property
    def _placed_params(self) -> PyTree:
        """The parameters where they are computed with."""
        return jax.device_put(self.params)

    def __call__(self, inputs: Any, *, batch_size: int = 32) -> list[dict[str, Any]]:
        """What the model says of text, as JSON values.

        Args:
            inputs: one input, or a list of them. Question answering reads {"question": ..., "context": ...}; tagging a
                list of words within the list, or a text that is split at white space; every other model a text, or a
                pair of texts: a tuple, or {"text": ..., "text_pair": ...}.
            batch_size: rows at a time; changes only the speed.

        Returns:
            A dict for each input, in their order. Classification: `label`, `probabilities`. Regression: `value`.
            Tagging: `words`, `tags`, `probabilities`. Question answering: `answer`, its `probability`, `null_odds`
            where a question may have no answer, `nbest`. A pre-trained pair or a discriminator: `tokens` and the
            `replaced_probability` of each. Where there is a generator, `fillings` of each "[MASK]".

        Raises:
            UserError: an input of another form, or a model without a vocabulary.
        """
        from electra_jax.inference.prediction import predict

        return predict(self, inputs, batch_size=batch_size)

    def score(self, inputs: str | Sequence[str | Sequence[int]], *, batch_size: int = 32) -> list[dict[str, Any]]:
        """Pseudo-log-likelihoods of sentences by one forward pass of Electric (Electric, section 3.3), as JSON values.

        Args:
            inputs: one text, or a list of texts or of rows of token ids with their [CLS] and [SEP].
            batch_size: rows at a time; changes only the speed.

        Returns:
            A dict for each input, in their order: `sentence` (or `input_ids`), the ordinary `tokens`, the `scores` of
            each (log-probability given all the others, up to a constant), their `total` and their `mean`.

        Raises:
            UserError: a model that is not Electric's, a sentence that is too long, or ids that the model has not.
        """
        from electra_jax.inference.electric_scores import score

        return score(self, inputs, batch_size=batch_size)

    def logits(
        self,
        input_ids: ArrayLike,
        attention_mask: ArrayLike | None = None,
        token_type_ids: ArrayLike | None = None,
    ) -> Logits:
        """What the model's head says, computed in float32 without dropout.

        Args:
            input_ids: int [B, L]; [B, C, L] for C choices.
            attention_mask: same shape, 1 for a real token; None for all ones.
            token_type_ids: same shape; None for all zeros.

        Returns:
            float32. A pre-trained pair or a discriminator: [B, L], positive where a token looks replaced (of Electric:
            each token's energy, which is minus its log-likelihood). A generator: [B, L, V]. Classification:
            [B, labels]; regression: [B, 1]; multiple choice: [B, C]; tagging: [B, L, labels]. Question answering: a
            dict, see `heads`. A bare encoder: its last hidden states [B, L, D].

        Raises:
            UserError: shapes that disagree, a row too long, or ids that the model has not.
        """
        return jax.device_get(self.launch(input_ids, attention_mask, token_type_ids))

    def launch(
        self,
        input_ids: ArrayLike,
        attention_mask: ArrayLike | None = None,
        token_type_ids: ArrayLike | None = None,
    ) -> Any:
        """As `logits`, but left on the device: the call does not wait until they are computed."""
        return self._run(outputs, input_ids, attention_mask, token_type_ids)

    def generator_logits(
        self,
        input_ids: ArrayLike,
        attention_mask: ArrayLike | None = None,
        token_type_ids: ArrayLike | None = None,
    ) -> np.ndarray:
        """The generator's logits over the vocabulary at every position, float32 [B, L, V]; arguments as `logits`.

        Raises:
            UserError: as `logits`, or the model has no generator.
        """
        if self.description.generator is None:
            raise UserError(f"a model of kind {self.description.kind!r} has no generator")
        return jax.device_get(self._run(generator_outputs, input_ids, attention_mask, token_type_ids))

    def _run(
        self,
        function: Callable[..., Any],
        input_ids: ArrayLike,
        attention_mask: ArrayLike | None,
        token_type_ids: ArrayLike | None,
    ) -> Any:
        """Checks the arguments and runs a jitted function of the parameters and the tokens."""
        choices = self.description.kind == "multiple_choice"
        ids = as_integers("input_ids", input_ids)
        if ids.ndim != (3 if choices else 2):
            shape = "[rows, choices, length]" if choices else "[rows, length]"
            raise UserError(f"input_ids has shape {ids.shape}: this model takes {shape}, all rows of one length")
        mask = np.ones_like(ids) if attention_mask is None else as_integers("attention_mask", attention_mask)
        types = np.zeros_like(ids) if token_type_ids is None else as_integers("token_type_ids", token_type_ids)
        tokens = Tokens(ids, types, mask)
        check_tokens(tokens, self.description.encoder)
        if choices:
            tokens = jax.tree.map(lambda array: array.reshape(-1, array.shape[-1]), tokens)
        if function not in self._functions:
            self._functions[function] = jax.jit(functools.partial(function, self.description))
        # Accelerators otherwise multiply float32 in fewer bits.
        with jax.default_matmul_precision("highest"):
            result = self._functions[function](self._placed_params, tokens)
        return result.reshape(ids.shape[:2]) if choices else result


def as_integers(name: str, values: ArrayLike) -> np.ndarray:
    """Int32 of any rectangular nest of integers.

    Raises:
        UserError: it is ragged, or not of integers.
    """
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise UserError(
            f"the rows of {name} are not of one length: pad them with 0, and give attention_mask"
        ) from error
    if array.dtype.kind not in "iub" and not (array.dtype.kind == "f" and np.all(array == np.round(array))):
        raise UserError(f"{name} holds {array.dtype} numbers: it must hold integers")
    return array.astype(np.int32)


def check_tokens(tokens: Tokens, config: EncoderConfig) -> None:
    """Refuses what would index past a table, which JAX does silently.

    Raises:
        UserError: says what and where.
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
        if array.min() < 0 or array.max() >= rows:
            raise UserError(f"{name} goes from {array.min()} to {array.max()}: this model has 0 to {rows - 1}")


def embed(config: EncoderConfig, tables: PyTree, tokens: Tokens) -> jax.Array:
    """Embedded tokens, [B, L, E]."""
    return Embeddings(config).apply({"params": tables}, tokens.input_ids, tokens.token_type_ids, deterministic=True)


def encode(config: EncoderConfig, params: PyTree, embedded_BLE: jax.Array, tokens: Tokens) -> jax.Array:
    """Last hidden states, [B, L, D]."""
    return Encoder(config).apply({"params": params}, embedded_BLE, tokens.attention_mask, deterministic=True)


def outputs(description: Description, params: PyTree, tokens: Tokens) -> Any:
    """The head's float32 output, for each kind of model; see `Model.logits`."""
    if description.discriminator is None:
        return generator_outputs(description, params, tokens)
    config = description.discriminator
    tower = params["discriminator"]
    hidden_BLD = encode(config, tower["encoder"], embed(config, params["embeddings"], tokens), tokens)
    if description.head is not None:
        head = make_head(description.head, config)
        return head.apply({"params": params["head"]}, hidden_BLD, tokens, deterministic=True)
    if description.kind == "encoder":
        return hidden_BLD.astype(jnp.float32)
    return ReplacedTokenHead(config).apply({"params": tower["head"]}, hidden_BLD)


def generator_outputs(description: Description, params: PyTree, tokens: Tokens) -> jax.Array:
    """The generator's float32 logits at every position, [B, L, V]."""
    config = description.generator
    assert config is not None
    tower = params["generator"]
    tables = tower["embeddings"] if description.generator_embeddings else params["embeddings"]
    hidden_BLD = encode(config, tower["encoder"], embed(config, tables, tokens), tokens)
    return MaskedLmHead(config).apply({"params": tower["head"]}, hidden_BLD, tables["word_embeddings"])

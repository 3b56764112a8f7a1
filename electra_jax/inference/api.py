"""Load a model and ask it: `electra_jax.load(path)(texts)`."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from electra_jax.checkpoints import model_dir
from electra_jax.checkpoints.model_dir import Loaded
from electra_jax.inference import electric_scores, vectors
from electra_jax.inference.network import Network
from electra_jax.inference.prediction import predict


class Model(Network):
    """Answer texts with a loaded model; `electra_jax.load` returns one."""

    def __init__(self, loaded: Loaded) -> None:
        """Keep the loaded parts; nothing is computed."""
        super().__init__(loaded)
        # An encoder is kept with the programs compiled for its layer.
        self._encoders: dict[tuple[int | None, str | None], Network] = {}

    def __call__(self, inputs: Any, *, batch_size: int = 32) -> list[dict[str, Any]]:
        """Answer texts, pairs of texts, questions, choices or sentences, as JSON values.

        Args:
            inputs: one input, or a list of them. Question answering reads {"question": ..., "context": ...}; multiple
                choice {"text": ..., "choices": [...]}, with a question on the text as "text_pair"; tagging a list of
                words within the list, or a text that is split at white space; every other model a text, or a pair of
                texts: a tuple, or {"text": ..., "text_pair": ...}.
            batch_size: rows at a time; changes only the speed.

        Returns:
            A dict for each input, in order. Classification: `label`, `probabilities`; with several labels a text
            `labels`, `probabilities`. Multiple choice: `label`, the index of the `choice`, and the list of all
            `probabilities`. Regression: `value`. Tagging: `words`, `tags`, `probabilities`, and, if the tags mark
            entities, `entities`, each with its `type`, `text`, `start` and `end` (characters of the text) and `score`.
            Question answering: `answer`, its `start` and `end` (characters of the context) and `probability`,
            `null_odds` if a question may have no answer, `nbest`. A pre-trained pair or a discriminator: `tokens` and
            the `replaced_probability` of each. If there is a generator, `fillings` of each "[MASK]".

        Raises:
            UserError: if an input has another form than the model reads, or the model has no vocabulary.
        """
        return predict(self, inputs, batch_size=batch_size)

    def encode(
        self, inputs: Any, *, layer: int | None = None, pooling: str | None = None, batch_size: int = 32
    ) -> np.ndarray:
        """Return a vector for each text: the mean of one layer's states, or the state of [CLS] there.

        Apart from float32 rounding, the vector of a text does not depend on the other inputs. Rows are padded to one of
        a few lengths, so that texts of a new length need no compilation.

        Args:
            inputs: a text, a pair of texts (a tuple, read as one row), or a list of them.
            layer: from 1, whose input is the embeddings, to N, or from the last one, -1, to -N. Later layers are not
                computed. With pre-LayerNorm the states are normalized, as the next layer reads them. None for the layer
                that fine-tuning chose (tasks similarity and retrieval), or for other models the last one; a
                discriminator's last layer encodes mostly replaced tokens and little meaning.
            pooling: "mean", over all tokens with [CLS] and [SEP], or "cls". None for the chosen one, or "mean".
            batch_size: rows at a time; changes only the speed.

        Returns:
            float32 [N, D] for N inputs, in order. They have length 1 if fine-tuning trained them for cosines, or if an
            imported sentence-transformers model normalizes them.

        Raises:
            UserError: if an input is not a text, the model has no vocabulary, or there is no such layer or pooling.
        """
        if (layer, pooling) not in self._encoders:
            self._encoders[layer, pooling] = vectors.encoder_of(self, layer=layer, pooling=pooling)
        return vectors.encode(self._encoders[layer, pooling], inputs, batch_size=batch_size)

    def score(self, inputs: str | Sequence[str | Sequence[int]], *, batch_size: int = 32) -> list[dict[str, Any]]:
        """Score sentences by their pseudo-log-likelihood (Electric, section 3.3), as JSON values, in one forward pass.

        Args:
            inputs: one text, or a list of texts or of rows of token ids with their [CLS] and [SEP].
            batch_size: rows at a time; changes only the speed.

        Returns:
            A dict for each input, in order: `sentence` (or `input_ids`), the ordinary `tokens`, the `scores` of
            each (log-probability given all the others, up to a constant), their `total` and their `mean`.

        Raises:
            UserError: if Electric did not train the model, a sentence is too long, or an id is outside the vocabulary.
        """
        return electric_scores.score(self, inputs, batch_size=batch_size)


def load(path: str | os.PathLike[str]) -> Model:
    """Load any model directory: of `electra pretrain`, `electra finetune` or `electra import`.

    Args:
        path: the directory; see `model_record` for what it holds.

    Raises:
        UserError: if the path is not a model directory, or the parts of the directory do not fit together.
    """
    return Model(model_dir.load(path))

"""Load a model and ask it: `electra_jax.load(path)(texts)`."""

import os
from collections.abc import Sequence
from typing import Any

from electra_jax.checkpoints import model_dir
from electra_jax.inference import electric_scores
from electra_jax.inference.network import Network
from electra_jax.inference.prediction import predict


class Model(Network):
    """Answer texts by a loaded model; `electra_jax.load` returns one."""

    def __call__(self, inputs: Any, *, batch_size: int = 32) -> list[dict[str, Any]]:
        """Answer texts, pairs of texts, questions or sentences, as JSON values.

        Args:
            inputs: one input, or a list of them. Question answering reads {"question": ..., "context": ...}; tagging a
                list of words within the list, or a text that is split at white space; every other model a text, or a
                pair of texts: a tuple, or {"text": ..., "text_pair": ...}.
            batch_size: rows at a time; changes only the speed.

        Returns:
            A dict for each input, in their order. Classification: `label`, `probabilities`; of several labels
            `labels`, `probabilities`. Regression: `value`.
            Tagging: `words`, `tags`, `probabilities`, and where tags mark `entities` those, each with its `type`,
            `text`, `start` and `end` (characters of the text) and `score`. Question answering: `answer`, its `start`
            and `end` (characters of the context) and `probability`, `null_odds` where a question may have no answer,
            `nbest`. A pre-trained pair or a discriminator: `tokens` and the
            `replaced_probability` of each. Where there is a generator, `fillings` of each "[MASK]".

        Raises:
            UserError: if an input has another form than the model reads, or the model has no vocabulary.
        """
        return predict(self, inputs, batch_size=batch_size)

    def score(self, inputs: str | Sequence[str | Sequence[int]], *, batch_size: int = 32) -> list[dict[str, Any]]:
        """Score sentences by their pseudo-log-likelihood (Electric, section 3.3), as JSON values, in one forward pass.

        Args:
            inputs: one text, or a list of texts or of rows of token ids with their [CLS] and [SEP].
            batch_size: rows at a time; changes only the speed.

        Returns:
            A dict for each input, in their order: `sentence` (or `input_ids`), the ordinary `tokens`, the `scores` of
            each (log-probability given all the others, up to a constant), their `total` and their `mean`.

        Raises:
            UserError: if Electric did not train the model, a sentence is too long, or an id is outside the vocabulary.
        """
        return electric_scores.score(self, inputs, batch_size=batch_size)


def load(path: str | os.PathLike[str]) -> Model:
    """Load any model directory: of `electra pretrain`, of `electra finetune`, of `electra import`.

    Args:
        path: the directory; see `model_record` for what it holds.

    Raises:
        UserError: if the path is no model directory, or the parts of the directory do not fit together.
    """
    return Model(model_dir.load(path))

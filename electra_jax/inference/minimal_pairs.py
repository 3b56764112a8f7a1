"""Score minimal pairs without any training: does the model find the grammatical sentence more likely?

Each of a model's towers scores a sentence by its tokens, in the way for which it was trained; see `scorers_of`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from electra_jax.data.buckets import in_order_of_length
from electra_jax.errors import UserError
from electra_jax.inference import electric_scores
from electra_jax.inference.network import Network, generator_outputs
from electra_jax.inference.prediction import row_runner
from electra_jax.model.types import PyTree, Tokens
from electra_jax.tasks.protocol import Row
from electra_jax.tasks.text.minimal_pairs import MinimalPair


class SentenceScore(NamedTuple):
    """The sum of the scores of a sentence's tokens, and the number of its tokens, without [CLS] and [SEP]."""

    total: float
    num_tokens: int

    @property
    def mean(self) -> float:
        """Return the mean over the tokens."""
        return self.total / self.num_tokens


# Takes rows of token ids, int [L], [CLS] and [SEP] with the tokens between them, and the number of rows of a batch.
Scorer = Callable[[Sequence[np.ndarray], int], list[SentenceScore]]


def generator_scorer(model: Network) -> Scorer:
    """Return a scorer by pseudo-log-likelihood: each token is masked in turn, and predicted (Salazar et al., 2020)."""

    def log_likelihoods(params: PyTree, batch: Mapping[str, jax.Array]) -> jax.Array:
        logits_BKV = generator_outputs(model.description, params, tokens_of(batch), batch["position"][:, None])
        return -optax.softmax_cross_entropy_with_integer_labels(logits_BKV[:, 0], batch["target"])

    run = forward_of(model, log_likelihoods)

    def score(rows: Sequence[np.ndarray], batch_size: int) -> list[SentenceScore]:
        masked = [row for ids_L in rows for row in masked_rows(ids_L, model.pieces.mask_id)]
        number_of = np.repeat(np.arange(len(rows)), [len(ids_L) - 2 for ids_L in rows])
        totals = np.bincount(number_of, run(masked, batch_size), minlength=len(rows))
        return [SentenceScore(float(total), len(ids_L) - 2) for total, ids_L in zip(totals, rows, strict=True)]

    return score


def left_to_right_scorer(model: Network) -> Scorer:
    """Return a scorer by log-likelihood: each token is predicted from [CLS] and the tokens before it, in one pass."""

    def log_likelihoods(params: PyTree, batch: Mapping[str, jax.Array]) -> jax.Array:
        tokens = tokens_of(batch)
        logits_BLV = generator_outputs(model.description, params, tokens)
        nll_BL = optax.softmax_cross_entropy_with_integer_labels(logits_BLV, jnp.roll(tokens.input_ids, -1, axis=1))
        # Neither [SEP] nor the padding after it is predicted.
        last_B1 = jnp.sum(tokens.attention_mask, axis=1, keepdims=True) - 2
        return -jnp.sum(jnp.where(jnp.arange(nll_BL.shape[1])[None] < last_B1, nll_BL, 0.0), axis=1)

    run = forward_of(model, log_likelihoods)

    def score(rows: Sequence[np.ndarray], batch_size: int) -> list[SentenceScore]:
        totals = run([{"input_ids": ids_L, "token_type_ids": np.zeros_like(ids_L)} for ids_L in rows], batch_size)
        return [SentenceScore(float(total), len(ids_L) - 2) for total, ids_L in zip(totals, rows, strict=True)]

    return score


def forward_of(
    model: Network, function: Callable[[PyTree, Mapping[str, jax.Array]], jax.Array]
) -> Callable[[Sequence[Row], int], np.ndarray]:
    """Return a function of rows and a batch size that gives a value for each row, float64 [rows].

    Args:
        model: the model whose parameters are passed to `function`.
        function: maps the parameters and a batch (see `buckets.stack`) to a value for each of its rows.
    """
    params, run = jax.device_put(model.params), jax.jit(function)

    def values(rows: Sequence[Row], batch_size: int) -> np.ndarray:
        found = np.zeros(len(rows))
        for numbers, batch in in_order_of_length(rows, batch_size=batch_size, buckets=model.lengths):
            found[numbers] = jax.device_get(run(params, batch))[: len(numbers)]
        return found

    return values


def tokens_of(batch: Mapping[str, jax.Array]) -> Tokens:
    """Return the tokens of a batch."""
    return Tokens(*(batch[name] for name in ("input_ids", "token_type_ids", "attention_mask")))


def masked_rows(ids_L: np.ndarray, mask_id: int) -> list[Row]:
    """Return a row for each token between [CLS] and [SEP], with that token masked, its position and its id."""
    rows = []
    for position in range(1, len(ids_L) - 1):
        hidden_L = ids_L.copy()
        hidden_L[position] = mask_id
        place = {"position": np.array(position, np.int32), "target": np.array(ids_L[position], np.int32)}
        rows.append({"input_ids": hidden_L, "token_type_ids": np.zeros_like(ids_L)} | place)
    return rows


def discriminator_scorer(model: Network) -> Scorer:
    """Return a scorer by the log-probability that no token was replaced, each one independently, in one pass."""
    # log(1 - sigmoid(x)) is -log(1 + exp(x)).
    return token_scorer(model, lambda logits_L: -np.logaddexp(0.0, logits_L))


def energy_scorer(model: Network) -> Scorer:
    """Return a scorer by Electric's pseudo-log-likelihood, in one pass."""
    return token_scorer(model, np.negative)


def token_scorer(model: Network, of_logits: Callable[[np.ndarray], np.ndarray]) -> Scorer:
    """Return a scorer that sums a function of the logit of each token between [CLS] and [SEP]."""

    def score(rows: Sequence[np.ndarray], batch_size: int) -> list[SentenceScore]:
        named = [{"input_ids": ids_L, "token_type_ids": np.zeros_like(ids_L)} for ids_L in rows]
        outputs = row_runner(model, batch_size, len(named))(named)
        scores = [of_logits(output["logits"][1:-1].astype(np.float64)) for output in outputs]
        return [SentenceScore(float(scores_L.sum()), len(scores_L)) for scores_L in scores]

    return score


def scorers_of(model: Network) -> dict[str, Scorer]:
    """Return the ways in which a model scores sentences, by name.

    Raises:
        UserError: if it has none, such as a fine-tuned model.
    """
    description = model.description
    found: dict[str, Scorer] = {}
    if description.gives_energies:
        found["energy"] = energy_scorer(model)
    elif description.kind in ("pretraining", "discriminator"):
        found["discriminator"] = discriminator_scorer(model)
    if description.reads_left_to_right:
        found["lm"] = left_to_right_scorer(model)
    elif description.fills_masks:
        found["mlm"] = generator_scorer(model)
    if not found:
        raise UserError(
            f"a model of kind {description.kind!r} scores no sentence by itself: give a pre-trained one, with its "
            "generator or its discriminator"
        )
    return found


def score_pairs(
    model: Network, files: Mapping[str, Sequence[MinimalPair]], *, batch_size: int
) -> dict[str, dict[str, Any]]:
    """Return for each file its number of pairs, and for each way of scoring the percentage of correct pairs.

    A pair is correct if the grammatical sentence has the higher score, by the sum over its tokens or by their mean.

    Args:
        model: the model.
        files: pairs by the name of their file.
        batch_size: rows of a batch; changes only the speed.

    Raises:
        UserError: if the model scores no sentences, or a sentence is longer than it reads.
    """
    ways = scorers_of(model)
    found = {}
    for name, pairs in files.items():
        rows = [read(model, name, text) for pair in pairs for text in pair]
        found[name] = {"num_pairs": len(pairs)}
        for way, scorer in ways.items():
            scores = scorer(rows, batch_size)
            sides = list(zip(scores[::2], scores[1::2], strict=True))
            found[name][way] = {
                "sum": 100 * float(np.mean([good.total > bad.total for good, bad in sides])),
                "mean": 100 * float(np.mean([good.mean > bad.mean for good, bad in sides])),
            }
    return found


def read(model: Network, name: str, text: str) -> np.ndarray:
    """Return the token ids of a sentence of a file, int [L].

    Raises:
        UserError: if nothing of the sentence is left, or it is longer than the model reads.
    """
    ids_L = electric_scores.read(model, text)["input_ids"]
    if len(ids_L) < 3:
        raise UserError(f"{name} has the sentence {text!r}, from which the tokenizer makes no token: correct it")
    return ids_L


def overall(files: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the results of `score_pairs` over all files together, with every pair weighing the same."""
    counts = [found["num_pairs"] for found in files.values()]
    ways = [way for way in next(iter(files.values())) if way != "num_pairs"]
    return {"num_pairs": sum(counts)} | {
        way: {
            by: float(np.average([found[way][by] for found in files.values()], weights=counts))
            for by in ("sum", "mean")
        }
        for way in ways
    }

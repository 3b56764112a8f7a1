"""Define the heads of fine-tuning, which take the place of the replaced-token head on the discriminator's encoder.

Each takes the last hidden states and the tokens, and returns float32 logits: an array, or a dict of arrays for
question answering. Matrix products run in the encoder's `dtype`. Two heads exist in two forms, the original's and
that of `transformers`:

    sequence_classification             dense, GELU, projection over [CLS]: ElectraForSequenceClassification
    sequence_classification_reference   one projection over [CLS]: the original's
    token_classification                one projection per token: both
    question_answering                  independent start and end: ElectraForQuestionAnswering, and the original's
                                        `joint_prediction=False`
    joint_question_answering            end given start, with a beam: the original's default; not in `transformers`

ModernBERT's heads (`ModernBertFor...`) each have one more layer before their projection: dense, GELU, LayerNorm.

    modernbert_sequence_classification  over [CLS], or over the mean of the row
    modernbert_token_classification     over each token
    modernbert_question_answering       over each token, with a start and an end

Regression is sequence classification with one label, and so is the score of each choice in multiple choice.

`pooling` makes one vector from the row's states as sentence-transformers does, `normalized_pooling` one of length 1.
"""

import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from electra_jax import ranges
from electra_jax.model import matmul
from electra_jax.model.config import EncoderConfig
from electra_jax.model.layers import Linear, expand_to, gelu, logical, take_positions
from electra_jax.model.pooling import POOLINGS, normalized, pooled
from electra_jax.model.transform import transformed
from electra_jax.model.types import Tokens
from electra_jax.ranges import AT_LEAST_0, AT_LEAST_1, UNDER_1

JOINT_WIDTH = 512  # the original's hidden layers over (start, end) and over (CLS, start)
MASKED_LOGIT = 1000.0


@dataclasses.dataclass(frozen=True)
class HeadConfig:
    """The kind and the sizes of a head.

    Attributes:
        kind: a key of `HEADS`.
        num_labels: outputs of classification and tagging; 1 for a score (regression, multiple choice); 2 for the start
            and the end of question answering; the width of a vector.
        dropout_prob: dropout before each projection of classification and tagging, and of every ModernBERT head; 0.1 in
            the original. ELECTRA's question answering has no dropout.
        mask_questions: for question answering, subtract 1000 from the logits of tokens that cannot be in an answer
            (all but [CLS] and segment 1), as the original does; `transformers` does not, so a head to be exported
            needs False.
        final_sep_answers: with mask_questions, let the last [SEP] start or end an answer, as in the original.
        answerable: for question answering, the logit of "has no answer": "none", "cls" (computed from [CLS]) or
            "start" (from [CLS] and the expected start, the original's default).
        beam_size: for joint question answering, the number of starts kept, and of ends kept for each (20 in the
            original).
        classifier_pooling: what ModernBERT's sequence classification and a vector are computed from: "cls", or the
            "mean" of the row's tokens.
    """

    kind: str
    num_labels: Annotated[int, AT_LEAST_1]
    dropout_prob: Annotated[float, UNDER_1]
    mask_questions: bool
    final_sep_answers: bool
    answerable: str
    beam_size: Annotated[int, AT_LEAST_0]
    classifier_pooling: str

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UserError: if a number is out of range.
            ValueError: if `kind`, `answerable` or `classifier_pooling` has an unknown value.
        """
        ranges.check(self)
        if self.kind not in HEADS:
            raise ValueError(f"head {self.kind!r}: it must be one of {', '.join(HEADS)}")
        if self.answerable not in ("none", "cls", "start"):
            raise ValueError(f"answerable {self.answerable!r}: it must be none, cls or start")
        if self.classifier_pooling not in POOLINGS:
            raise ValueError(f"classifier_pooling {self.classifier_pooling!r}: it must be cls or mean")


# The question-answering fields of the heads of `transformers`, and of all other kinds of task.
WITHOUT_ANSWERS = {"mask_questions": False, "final_sep_answers": False, "answerable": "none", "beam_size": 0}


def glorot_linear(features: int, dtype: Any, name: str) -> Linear:
    """Return a layer initialized as in the original's heads, which name no initializer."""
    return Linear(features, ("embed", None), nn.initializers.glorot_uniform(), dtype, name=name)


class SequenceClassificationHead(nn.Module):
    """Dropout, dense, GELU, dropout, projection of [CLS]: the head of `transformers`."""

    head: HeadConfig
    config: EncoderConfig

    @nn.compact
    def __call__(self, hidden_BLD: jax.Array, tokens: Tokens, *, deterministic: bool) -> jax.Array:
        """Map [B, L, D] to float32 [B, labels]."""
        del tokens
        dropout = nn.Dropout(self.head.dropout_prob)
        hidden_BD = dropout(hidden_BLD[:, 0], deterministic=deterministic)
        dense = Linear(
            self.config.hidden_size,
            ("embed", None),
            self.config.initializer,
            jnp.dtype(self.config.dtype),
            name="dense",
        )
        hidden_BD = dropout(gelu(dense(hidden_BD)), deterministic=deterministic)
        return glorot_linear(self.head.num_labels, jnp.float32, "prediction")(hidden_BD)


class ReferenceClassificationHead(nn.Module):
    """Dropout and one projection of [CLS]: the original's head."""

    head: HeadConfig
    config: EncoderConfig

    @nn.compact
    def __call__(self, hidden_BLD: jax.Array, tokens: Tokens, *, deterministic: bool) -> jax.Array:
        """Map [B, L, D] to float32 [B, labels]."""
        del tokens
        hidden_BD = nn.Dropout(self.head.dropout_prob)(hidden_BLD[:, 0], deterministic=deterministic)
        return glorot_linear(self.head.num_labels, jnp.float32, "prediction")(hidden_BD)


class TokenClassificationHead(nn.Module):
    """Dropout and one projection of every token."""

    head: HeadConfig
    config: EncoderConfig

    @nn.compact
    def __call__(self, hidden_BLD: jax.Array, tokens: Tokens, *, deterministic: bool) -> jax.Array:
        """Map [B, L, D] to float32 [B, L, labels]."""
        del tokens
        hidden_BLD = nn.Dropout(self.head.dropout_prob)(hidden_BLD, deterministic=deterministic)
        return glorot_linear(self.head.num_labels, jnp.float32, "prediction")(hidden_BLD)


def answer_penalty(tokens: Tokens, *, final_sep_answers: bool) -> jax.Array:
    """Return 0 where an answer may start or end ([CLS] and segment 1) and -1000 elsewhere, float32 [B, L]."""
    allowed_BL = (tokens.attention_mask * tokens.token_type_ids).astype(jnp.float32).at[:, 0].add(1.0)
    if not final_sep_answers:
        last_B = jnp.sum(tokens.attention_mask, axis=1) - 1
        allowed_BL = jnp.where(jnp.arange(allowed_BL.shape[1])[None] == last_B[:, None], 0.0, allowed_BL)
    return MASKED_LOGIT * (allowed_BL - 1.0)


class AnswerableHead(nn.Module):
    """One logit per example for "has no answer", from [CLS] and optionally the expected start's hidden state."""

    uses_start: bool
    config: EncoderConfig

    @nn.compact
    def __call__(self, hidden_BLD: jax.Array, start_logits_BL: jax.Array) -> jax.Array:
        """Map [B, L, D] and the start's logits to float32 [B]."""
        features = hidden_BLD[:, 0]
        if self.uses_start:
            start_BL = jax.nn.softmax(start_logits_BL).astype(hidden_BLD.dtype)
            expected_BD = jnp.einsum("BL,BLD->BD", start_BL, hidden_BLD, precision=matmul.precision(hidden_BLD.dtype))
            joined = jnp.concatenate([features, expected_BD], axis=-1)
            features = gelu(glorot_linear(JOINT_WIDTH, jnp.dtype(self.config.dtype), "hidden")(joined))
        return glorot_linear(1, jnp.float32, "prediction")(features)[..., 0]


class LinearOfPairs(Linear):
    """A `Linear` over concatenated pairs of hidden states, computed without storing the pairs.

    Each half of the kernel is multiplied with every state once, rather than with every pair.
    """

    @nn.compact
    def __call__(self, first_BPD: jax.Array, second_BLD: jax.Array) -> jax.Array:
        """Map [B, P, D] and [B, L, D] to [B, P, L, out]."""
        size = first_BPD.shape[-1]
        kernel = self.param("kernel", logical(self.kernel_init, *self.axes), (2 * size, self.features), jnp.float32)
        bias = self.param("bias", logical(nn.initializers.zeros, self.axes[1]), (self.features,), jnp.float32)
        first = matmul.dense(first_BPD, kernel[:size], self.dtype)[:, :, None]
        second = matmul.dense(second_BLD, kernel[size:], self.dtype)[:, None]
        outputs = first + second
        return outputs + expand_to(bias.astype(outputs.dtype), outputs)


class QuestionAnsweringHead(nn.Module):
    """Start and end logits, each with its own projection.

    The parameters `span_kernel` [2, D] and `span_bias` [2] hold first the start's, then the end's.
    """

    head: HeadConfig
    config: EncoderConfig

    @nn.compact
    def __call__(self, hidden_BLD: jax.Array, tokens: Tokens, *, deterministic: bool) -> dict[str, jax.Array]:
        """Return float32 `start_logits` and `end_logits` [B, L], and `answerable_logit` [B] if the head has one."""
        del deterministic
        # Each row is a [D, 1] kernel in the original, and is initialized as one.
        init = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform", in_axis=1, out_axis=(), batch_axis=0)
        kernel_PD = self.param("span_kernel", logical(init, None, "embed"), (2, hidden_BLD.shape[-1]), jnp.float32)
        bias_P = self.param("span_bias", logical(nn.initializers.zeros, None), (2,), jnp.float32)
        logits_PBL = matmul.einsum("BLD,PD->PBL", hidden_BLD, kernel_PD, jnp.float32) + bias_P[:, None, None]
        if self.head.mask_questions:
            logits_PBL = logits_PBL + answer_penalty(tokens, final_sep_answers=self.head.final_sep_answers)[None]
        outputs = {"start_logits": logits_PBL[0], "end_logits": logits_PBL[1]}
        if self.head.answerable != "none":
            answerable = AnswerableHead(self.head.answerable == "start", self.config, name="answerable")
            outputs["answerable_logit"] = answerable(hidden_BLD, logits_PBL[0])
        return outputs


class JointQuestionAnsweringHead(nn.Module):
    """The original's head: a start, then the end given the hidden state at the start; and answerability."""

    head: HeadConfig
    config: EncoderConfig

    def setup(self) -> None:
        """Declare the layers."""
        dtype = jnp.dtype(self.config.dtype)
        self.start = glorot_linear(1, jnp.float32, None)
        self.joint = LinearOfPairs(JOINT_WIDTH, ("embed", None), nn.initializers.glorot_uniform(), dtype)
        self.end = glorot_linear(1, jnp.float32, None)
        if self.head.answerable != "none":
            self.answerable = AnswerableHead(self.head.answerable == "start", self.config)

    def __call__(
        self,
        hidden_BLD: jax.Array,
        tokens: Tokens,
        *,
        deterministic: bool,
        start_positions_B: jax.Array | None = None,
    ) -> dict[str, jax.Array]:
        """Return logits of the start, and of the end given the true start (in training) or each start of a beam.

        Args:
            hidden_BLD: the encoder's output.
            tokens: with the question as segment 0.
            deterministic: without effect, because this head has no dropout.
            start_positions_B: int32, the true starts.

        Returns:
            float32 `start_logits` [B, L], and `answerable_logit` [B] if the head has one. With the true starts,
            `end_logits` [B, L]. Without them, `start_top_log_probs` and `start_top_index` [B, P], and for each of those
            starts `end_top_log_probs` and `end_top_index` [B, P, P]: log probabilities of the end given the start, with
            P = min(beam_size, L).
        """
        del deterministic
        penalty_BL = jnp.zeros(hidden_BLD.shape[:2])
        if self.head.mask_questions:
            penalty_BL = answer_penalty(tokens, final_sep_answers=self.head.final_sep_answers)
        start_logits_BL = self.start(hidden_BLD)[..., 0] + penalty_BL
        outputs = {"start_logits": start_logits_BL}
        if start_positions_B is not None:
            starts_BP = start_positions_B[:, None]
        else:
            beam = min(self.head.beam_size, hidden_BLD.shape[1])
            top_BP, starts_BP = jax.lax.top_k(jax.nn.log_softmax(start_logits_BL), beam)
            outputs |= {"start_top_log_probs": top_BP, "start_top_index": starts_BP.astype(jnp.int32)}
        end_logits_BPL = self.end_logits(hidden_BLD, starts_BP) + penalty_BL[:, None]
        if start_positions_B is not None:
            outputs["end_logits"] = end_logits_BPL[:, 0]
        else:
            top_BPP, ends_BPP = jax.lax.top_k(jax.nn.log_softmax(end_logits_BPL), beam)
            outputs |= {"end_top_log_probs": top_BPP, "end_top_index": ends_BPP.astype(jnp.int32)}
        if self.head.answerable != "none":
            outputs["answerable_logit"] = self.answerable(hidden_BLD, start_logits_BL)
        return outputs

    def end_logits(self, hidden_BLD: jax.Array, starts_BP: jax.Array) -> jax.Array:
        """Return logits of every end given each of P starts, float32 [B, P, L]."""
        start_hidden_BPD = take_positions(hidden_BLD, starts_BP)
        return self.end(gelu(self.joint(start_hidden_BPD, hidden_BLD)))[..., 0]


class PredictionHead(nn.Module):
    """Dense, GELU, LayerNorm, dropout and a projection: the layers of every ModernBERT head."""

    head: HeadConfig
    config: EncoderConfig

    @nn.compact
    def __call__(self, hidden: jax.Array, *, deterministic: bool) -> jax.Array:
        """Map [..., D] to float32 [..., labels]."""
        hidden = transformed(hidden, self.config.hidden_size, self.config)
        hidden = nn.Dropout(self.head.dropout_prob)(hidden, deterministic=deterministic)
        init = nn.initializers.truncated_normal(self.config.hidden_size**-0.5)
        return Linear(self.head.num_labels, ("embed", None), init, jnp.float32, name="prediction")(hidden)


class ModernBertClassificationHead(PredictionHead):
    """Label a row, from [CLS] or from the mean of its tokens."""

    def __call__(self, hidden_BLD: jax.Array, tokens: Tokens, *, deterministic: bool) -> jax.Array:
        """Map [B, L, D] to float32 [B, labels]."""
        if self.head.classifier_pooling == "cls":
            return super().__call__(hidden_BLD[:, 0], deterministic=deterministic)
        weights_BL = tokens.attention_mask.astype(jnp.float32)
        sums_BD = matmul.einsum("BLD,BL->BD", hidden_BLD, weights_BL, jnp.float32)
        # A row that only fills up a batch has no tokens.
        counts_B1 = jnp.maximum(weights_BL.sum(1, keepdims=True), 1.0)
        return super().__call__(sums_BD / counts_B1, deterministic=deterministic)


class ModernBertTaggingHead(PredictionHead):
    """Label every token."""

    def __call__(self, hidden_BLD: jax.Array, tokens: Tokens, *, deterministic: bool) -> jax.Array:
        """Map [B, L, D] to float32 [B, L, labels]."""
        del tokens
        return super().__call__(hidden_BLD, deterministic=deterministic)


class ModernBertQuestionAnsweringHead(PredictionHead):
    """Start and end logits, from one projection with two outputs."""

    def __call__(self, hidden_BLD: jax.Array, tokens: Tokens, *, deterministic: bool) -> dict[str, jax.Array]:
        """Map [B, L, D] to float32 `start_logits` and `end_logits` [B, L]."""
        del tokens
        logits_BLP = super().__call__(hidden_BLD, deterministic=deterministic)
        return {"start_logits": logits_BLP[..., 0], "end_logits": logits_BLP[..., 1]}


class PoolingHead(nn.Module):
    """Make one vector per text, without parameters."""

    head: HeadConfig
    config: EncoderConfig

    @nn.compact
    def __call__(self, hidden_BLD: jax.Array, tokens: Tokens, *, deterministic: bool) -> jax.Array:
        """Map [B, L, D] to float32 [B, D]; see `pooling.pooled` for pairs."""
        del deterministic
        vectors = pooled(hidden_BLD, tokens, self.head.classifier_pooling)
        return normalized(vectors) if self.head.kind == "normalized_pooling" else vectors


HEADS: dict[str, type[nn.Module]] = {
    "sequence_classification": SequenceClassificationHead,
    "sequence_classification_reference": ReferenceClassificationHead,
    "token_classification": TokenClassificationHead,
    "question_answering": QuestionAnsweringHead,
    "joint_question_answering": JointQuestionAnsweringHead,
    "modernbert_sequence_classification": ModernBertClassificationHead,
    "modernbert_token_classification": ModernBertTaggingHead,
    "modernbert_question_answering": ModernBertQuestionAnsweringHead,
    "pooling": PoolingHead,
    "normalized_pooling": PoolingHead,
}


def make_head(head: HeadConfig, config: EncoderConfig) -> nn.Module:
    """Return the module of a head over an encoder of this configuration."""
    return HEADS[head.kind](head, config)


def span_losses(
    outputs: dict[str, jax.Array],
    start_positions_B: jax.Array,
    end_positions_B: jax.Array,
    is_impossible_B: jax.Array,
    *,
    answerable_weight: float,
) -> jax.Array:
    """Return the original's question-answering loss of each example, float32 [B].

    It is the mean of the cross-entropies of start and end, plus `answerable_weight` (0.5 in the original) times that of
    answerability where the head has it. `outputs` must be those of training, with `end_logits`.
    """

    def cross_entropy(logits_BL: jax.Array, positions_B: jax.Array) -> jax.Array:
        return -jnp.take_along_axis(jax.nn.log_softmax(logits_BL), positions_B[:, None], axis=1)[:, 0]

    start_B = cross_entropy(outputs["start_logits"], start_positions_B)
    losses_B = (start_B + cross_entropy(outputs["end_logits"], end_positions_B)) / 2.0
    if "answerable_logit" in outputs:
        labels_B = is_impossible_B.astype(jnp.float32)
        losses_B += answerable_weight * optax.sigmoid_binary_cross_entropy(outputs["answerable_logit"], labels_B)
    return losses_B

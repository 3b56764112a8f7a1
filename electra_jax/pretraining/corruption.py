"""Mask, sample and replace tokens, with pure functions of a key and a batch.

The key of a random draw is folded with the row's number, so that a row's masks and samples depend neither on the
number of devices nor on how a batch is cut into micro-batches.
"""

import dataclasses
from collections.abc import Callable
from typing import Protocol, Self

import jax
import jax.numpy as jnp

from electra_jax.model.layers import take_positions
from electra_jax.model.types import Corrupted, Masked, Tokens
from electra_jax.training.schedules import Schedule, largest_value, value_at


class PositionRule(Protocol):
    """Interface to a rule that draws the masked positions of a row."""

    def draw(
        self, key: jax.Array, ids_L: jax.Array, candidate_L: jax.Array, wanted: jax.Array, num_slots: int
    ) -> tuple[jax.Array, jax.Array]:
        """Return K positions of a row, int32 [K], and how many of them, counted from the first, are masked, int32 [].

        Args:
            key: PRNG key of the row.
            ids_L: its token ids, int32, with the marks of `MaskingConfig.word_mark` if there are any.
            candidate_L: bool, true at ordinary tokens; only these are masked.
            wanted: the most positions to mask, int32 [].
            num_slots: K.
        """

    def settle(self, masked: Masked, sampled_ids_BK: jax.Array) -> jax.Array:
        """Return the ids to write, int32 [B, K]; slots of the same position get the same id, see `put_positions`."""


@dataclasses.dataclass(frozen=True)
class DistinctPositions:
    """A `PositionRule` that draws no position of a row twice."""

    def draw(
        self, key: jax.Array, ids_L: jax.Array, candidate_L: jax.Array, wanted: jax.Array, num_slots: int
    ) -> tuple[jax.Array, jax.Array]:
        """Draw a random number for each candidate, and return the positions of the K largest."""
        del ids_L
        order_L = jax.random.uniform(key, candidate_L.shape)
        positions_K = jax.lax.top_k(jnp.where(candidate_L, order_L, -1.0), num_slots)[1]
        return positions_K, jnp.minimum(wanted, jnp.sum(candidate_L))

    def settle(self, masked: Masked, sampled_ids_BK: jax.Array) -> jax.Array:
        """Return the samples as they are: no two are at the same position."""
        del masked
        return sampled_ids_BK


@dataclasses.dataclass(frozen=True)
class MaskingConfig:
    """Settings of masking (ELECTRA, section 2 and appendix A).

    Attributes:
        mask_prob: share of the real tokens, [CLS] and [SEP] included, that is masked; it may change over the steps.
        mask_token_prob: probability that a masked position shows [MASK]; otherwise it keeps its token, and the
            generator still samples a token for it.
        positions: how the masked positions of a row are drawn.
        cls_id, sep_id, mask_id: ids that are never masked.
        word_mark: number that batches add to the id of a token that continues a word; None for unmarked ids.
        share: completed share of the steps, at which the schedule of `mask_prob` is evaluated: see `at`.
    """

    mask_prob: Schedule
    mask_token_prob: float
    positions: PositionRule
    cls_id: int
    sep_id: int
    mask_id: int
    word_mark: int | None = None
    share: jax.Array | float = 1.0

    def at(self, share: jax.Array | float) -> Self:
        """Return the settings after a share of the steps."""
        return dataclasses.replace(self, share=share)

    @property
    def rate(self) -> jax.Array | float:
        """The share of the real tokens that is masked now: a number if it never changes, otherwise float32 []."""
        return value_at(self.mask_prob, self.share)

    def max_predictions(self, sequence_length: int) -> int:
        """Return K, the most positions that are masked in a sequence of this length at any step."""
        return max_predictions(self.mask_prob, sequence_length)


def max_predictions(mask_prob: Schedule, sequence_length: int) -> int:
    """Return K, the most positions that are masked in a sequence of this length at any step, as published.

    Shapes do not change over a schedule: K is that of its largest value, and smaller values leave slots unused.
    """
    return int((largest_value(mask_prob) + 0.005) * sequence_length)


class SpecialIds(Protocol):
    """The ids that are not ordinary tokens, as a `MaskingConfig` and a vocabulary have them."""

    @property
    def cls_id(self) -> int:
        """Id of [CLS]."""

    @property
    def sep_id(self) -> int:
        """Id of [SEP]."""

    @property
    def mask_id(self) -> int:
        """Id of [MASK]."""


def row_keys(key: jax.Array, num_rows: int) -> jax.Array:
    """Return one key for each row of a batch, [B]; a row's key does not depend on its micro-batch."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(num_rows))


def candidates(input_ids_BL: jax.Array, attention_mask_BL: jax.Array, special: SpecialIds) -> jax.Array:
    """Return true at ordinary tokens, which may be masked, bool [B, L]."""
    special_BL = (input_ids_BL == special.cls_id) | (input_ids_BL == special.sep_id) | (input_ids_BL == special.mask_id)
    return (attention_mask_BL > 0) & ~special_BL


def num_to_mask(attention_mask_BL: jax.Array, config: MaskingConfig) -> jax.Array:
    """Return max(1, min(K, round(mask_prob * n))) for rows of n real tokens, int32 [B].

    Rounding is half to even and in float32, as in the original. With a schedule, mask_prob and K are those of the step.
    """
    length, rate = attention_mask_BL.shape[1], config.rate
    most: jax.Array | int = config.max_predictions(length)
    if isinstance(rate, jax.Array):
        most = jnp.minimum(most, ((rate + 0.005) * length).astype(jnp.int32))
    num_real_B = jnp.sum(attention_mask_BL, axis=-1).astype(jnp.float32)
    wanted_B = jnp.round(num_real_B * jnp.float32(rate)).astype(jnp.int32)
    return jnp.maximum(1, jnp.minimum(most, wanted_B))


def mask(key: jax.Array, tokens: Tokens, config: MaskingConfig) -> Masked:
    """Mask positions of every row, drawn among its ordinary tokens by the rule of `config.positions`.

    A row gets `num_to_mask` of them, but no more than the rule can give it: none if it has no ordinary token.

    Args:
        key: PRNG key.
        tokens: unmasked sequences, int32 [B, L], whose ids may have the marks of `config.word_mark`.
        config: share and kind of the masked positions.
    """
    num_rows, length = tokens.input_ids.shape
    marked_BL = tokens.input_ids
    if config.word_mark is not None:
        tokens = tokens._replace(input_ids=marked_BL % config.word_mark)
    num_slots = config.max_predictions(length)
    candidate_BL = candidates(tokens.input_ids, tokens.attention_mask, config)
    wanted_B = num_to_mask(tokens.attention_mask, config)

    def draw(row_key: jax.Array, *row: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        position_key, show_key = jax.random.split(row_key)
        positions_K, count = config.positions.draw(position_key, *row, num_slots)
        return positions_K, count, jax.random.uniform(show_key, (num_slots,)) < config.mask_token_prob

    rows = row_keys(key, num_rows), marked_BL, candidate_BL, wanted_B
    positions_BK, count_B, shown_BK = jax.vmap(draw)(*rows)
    used_BK = jnp.arange(num_slots)[None, :] < count_B[:, None]
    return mask_at(tokens, positions_BK, used_BK, shown_BK, config)


def mask_at(
    tokens: Tokens, positions_BK: jax.Array, used_BK: jax.Array, shown_BK: jax.Array, config: MaskingConfig
) -> Masked:
    """Mask given positions: [MASK] where `shown_BK`, the token itself elsewhere; unused slots are zero."""
    ids_BL = tokens.input_ids
    positions_BK = jnp.where(used_BK, positions_BK, 0).astype(jnp.int32)
    masked_ids_BK = jnp.where(used_BK, take_positions(ids_BL, positions_BK), 0)
    mask_ids_BK = jnp.full_like(positions_BK, config.mask_id)
    masked_input_BL = put_positions(ids_BL, positions_BK, mask_ids_BK, used_BK & shown_BK)
    return Masked(tokens._replace(input_ids=masked_input_BL), positions_BK, masked_ids_BK, used_BK.astype(jnp.float32))


SAMPLERS = ("inverse_cdf", "gumbel")
SAMPLING_BLOCK = 128


def sample(keys_B: jax.Array, logits_BKV: jax.Array, temperature: jax.Array | float, sampler: str) -> jax.Array:
    """Draw one id per masked position from softmax(logits / temperature), in float32.

    No gradient flows back through the draw (ELECTRA, section 2: sampling is not back-propagated).

    Args:
        keys_B: one key per row, from `row_keys`; or Gumbel noise itself, float32 [B, K, V], to replay recorded draws
            by Gumbel-max, whatever the sampler.
        logits_BKV: logits of the generator.
        temperature: divides the logits; 1 is the published value.
        sampler: "gumbel", as published: one noise value per word; or "inverse_cdf", the same distribution from two
            uniform numbers.

    Returns:
        int32 [B, K].
    """
    logits_BKV = jax.lax.stop_gradient(logits_BKV).astype(jnp.float32) / temperature
    if not jnp.issubdtype(keys_B.dtype, jax.dtypes.prng_key):
        return gumbel_max(keys_B, logits_BKV)
    num_slots, vocab_size = logits_BKV.shape[1:]
    if sampler == "gumbel":
        return gumbel_max(draw_rows(keys_B, jax.random.gumbel, (num_slots, vocab_size)), logits_BKV)
    # Drawn in one axis, because an axis of size 2 takes 128 lanes of a TPU.
    pairs_Bx = draw_rows(keys_B, jax.random.uniform, (2 * num_slots,))
    return invert_cdf(pairs_Bx[:, 0::2], pairs_Bx[:, 1::2], logits_BKV)


def draw_rows(keys_B: jax.Array, draw: Callable[..., jax.Array], shape: tuple[int, ...]) -> jax.Array:
    """Return random numbers, float32 [B, *shape], each row drawn with its own key."""
    return jax.vmap(lambda key: draw(key, shape, jnp.float32))(keys_B)


def gumbel_max(noise_BKV: jax.Array, logits_BKV: jax.Array) -> jax.Array:
    """Return the id with the largest sum of logit and Gumbel noise, int32 [B, K]: distributed as softmax(logits)."""
    return jnp.argmax(logits_BKV + noise_BKV, axis=-1).astype(jnp.int32)


def invert_cdf(of_block_BK: jax.Array, within_BK: jax.Array, logits_BKV: jax.Array) -> jax.Array:
    """Return the id at which softmax's cumulative sum passes a uniform number, int32 [B, K].

    It works on two levels, so that no array of size [B, K, V] is stored: the first number picks a block of ids by the
    sum of their probabilities, the second an id within the block. Uniform numbers in float32 are multiples of 2^-23,
    so the probabilities of blocks, and of ids within a block, are rounded to such multiples.

    Args:
        of_block_BK, within_BK: uniform numbers in [0, 1).
        logits_BKV: float32; -inf for ids that must not be drawn.
    """
    vocab_size = logits_BKV.shape[-1]
    whole = vocab_size // SAMPLING_BLOCK
    # Sums of exponentials up to the maximum cannot overflow.
    top_BK1 = jnp.max(logits_BKV, axis=-1, keepdims=True)

    def mass(logits: jax.Array) -> jax.Array:
        top = top_BK1.reshape(*top_BK1.shape, *(1,) * (logits.ndim - top_BK1.ndim))
        return jnp.exp(logits - top)

    blocks = logits_BKV[..., : whole * SAMPLING_BLOCK].reshape(*logits_BKV.shape[:-1], whole, SAMPLING_BLOCK)
    rest = logits_BKV[..., whole * SAMPLING_BLOCK :]
    block_sums = jnp.concatenate([jnp.sum(mass(blocks), -1), jnp.sum(mass(rest), -1, keepdims=True)], axis=-1)
    block_BK1 = passes(block_sums, of_block_BK[..., None])
    # The last block is cut off by the end of the vocabulary: what is missing has no probability.
    block_logits = jnp.pad(rest, ((0, 0), (0, 0), (0, SAMPLING_BLOCK - rest.shape[-1])), constant_values=-jnp.inf)
    if whole:
        block_logits = jnp.where(block_BK1 < whole, block_of(logits_BKV, block_BK1[..., 0]), block_logits)
    chosen_BK1 = passes(mass(block_logits), within_BK[..., None])
    return (SAMPLING_BLOCK * block_BK1 + chosen_BK1)[..., 0].astype(jnp.int32)


def block_of(logits_BKV: jax.Array, block_BK: jax.Array) -> jax.Array:
    """Return one whole block of the logits of each position, [B, K, SAMPLING_BLOCK], read as one slice."""

    def cut(logits_V: jax.Array, block: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice_in_dim(logits_V, SAMPLING_BLOCK * block, SAMPLING_BLOCK)

    return jax.vmap(jax.vmap(cut))(logits_BKV, block_BK)


def passes(masses: jax.Array, uniform: jax.Array) -> jax.Array:
    """Return the first index, [..., 1], whose cumulative sum is above `uniform` x the total; its mass is never 0."""
    cumulative = jnp.cumsum(masses, axis=-1)
    index = jnp.sum(cumulative <= uniform * cumulative[..., -1:], axis=-1, keepdims=True)
    # Sums in another order round differently, so that trailing zeros could seem to add something.
    num_zeros = jnp.argmax(jnp.flip(masses, axis=-1) > 0, axis=-1, keepdims=True)
    return jnp.minimum(index, masses.shape[-1] - 1 - num_zeros)


def forbid(logits_BKV: jax.Array, ids_BK: jax.Array) -> jax.Array:
    """Set the logit of one id per position to -inf."""
    ids_V = jnp.arange(logits_BKV.shape[-1])
    return jnp.where(ids_V[None, None] == ids_BK[..., None], -jnp.inf, logits_BKV)


def original_ids(masked: Masked) -> jax.Array:
    """Return the ids before masking, int32 [B, L]."""
    return put_positions(masked.tokens.input_ids, masked.masked_positions, masked.masked_ids, masked.masked_weights > 0)


def replace(masked: Masked, sampled_ids_BK: jax.Array) -> Corrupted:
    """Write the samples at the masked positions, and label the tokens that really differ from the original."""
    used_BK = masked.masked_weights > 0
    original_BL = original_ids(masked)
    corrupted_BL = put_positions(original_BL, masked.masked_positions, sampled_ids_BK, used_BK)
    labels_BL = (corrupted_BL != original_BL).astype(jnp.float32)
    return Corrupted(masked.tokens._replace(input_ids=corrupted_BL), labels_BL, sampled_ids_BK)


def selected(masked: Masked) -> jax.Array:
    """Return 1 at the masked positions, float32 [B, L]."""
    zeros_BL = jnp.zeros(masked.tokens.input_ids.shape, jnp.float32)
    return put_positions(zeros_BL, masked.masked_positions, masked.masked_weights, masked.masked_weights > 0)


def put_positions(values_BL: jax.Array, positions_BK: jax.Array, new_BK: jax.Array, where_BK: jax.Array) -> jax.Array:
    """Write `new_BK`, at least 0, at `positions_BK` of each row where `where_BK` is true.

    Every position is compared with every slot, which an accelerator does many times faster than a scatter.
    """
    places_L = jnp.arange(values_BL.shape[-1])
    here_BKL = where_BK[..., None] & (positions_BK[..., None] == places_L[None, None])
    # Slots of the same position have the same value.
    written_BL = jnp.max(jnp.where(here_BKL, new_BK[..., None], jnp.asarray(-1, new_BK.dtype)), axis=1)
    return jnp.where(written_BL < 0, values_BL, written_BL)

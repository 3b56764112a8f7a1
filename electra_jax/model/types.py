"""Define the structures of batches and losses, and the dimension key.

Array names end in the letters of their dimensions, outermost first:

    B  batch                     L  sequence length          K  masked positions per example
    D  hidden size               E  embedding size           F  feed-forward size
    H  attention heads           C  channels per head        V  vocabulary
    N  layers                    T  token types              S  sequence length, the attended side
    Z  query, key and value      P  candidates        x  any, or 1
    G  blocks of a row           W  tokens of a block        Y  classes of a probe
"""

from typing import Any, NamedTuple

import jax

PyTree = Any


class Tokens(NamedTuple):
    """Token sequences with BERT's field names; each array is int32 [B, L], and padding is 0 in all of them.

    `example_ids` are set where several examples share a row and must not attend to each other: 1 at the tokens of the
    first, 2 at those of the second, and so on.
    """

    input_ids: jax.Array
    token_type_ids: jax.Array
    attention_mask: jax.Array
    example_ids: jax.Array | None = None


class Masked(NamedTuple):
    """Token sequences after masking, with the original tokens of the masked positions.

    `tokens.input_ids` holds [MASK] at most of the masked positions. Unused slots among the K have position 0, id 0 and
    weight 0, as in BERT's records; position 0 is [CLS] and is never masked.
    """

    tokens: Tokens
    masked_positions: jax.Array  # int32 [B, K]
    masked_ids: jax.Array  # int32 [B, K], the original ids
    masked_weights: jax.Array  # float32 [B, K], 1 for a used slot


class Corrupted(NamedTuple):
    """The discriminator's input and labels."""

    tokens: Tokens
    labels_BL: jax.Array  # float32, 1 where the id differs from the original
    sampled_ids_BK: jax.Array  # int32, the generator's samples at the masked positions


class Loss(NamedTuple):
    """A loss before division: the weighted sum of its terms and their total weight, float32 scalars.

    The two are accumulated separately over micro-batches and shards and divided once, which keeps the mean exact.
    """

    sum: jax.Array
    weight: jax.Array

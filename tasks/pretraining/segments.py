"""What both ways of packing share: an example of one or two segments, and the published numbers of its making."""

from typing import NamedTuple

# The chance that a sentence which would reach past the middle still goes to segment A (ELECTRA's ExampleBuilder).
BORDER_COIN = 0.5
SHORTEST_TARGET = 5


class Example(NamedTuple):
    """`[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]`, without padding.

    `input_ids`: token ids, at most `length` of them. `token_type_ids`: as many; 0 up to and with the
    first [SEP], 1 after it.
    """

    input_ids: list[int]
    token_type_ids: list[int]


def join_segments(a: list[int], b: list[int], cls_id: int, sep_id: int) -> Example:
    """`[CLS] a [SEP] b [SEP]`, or `[CLS] a [SEP]` if `b` is empty."""
    first = [cls_id, *a, sep_id]
    if not b:
        return Example(first, [0] * len(first))
    return Example([*first, *b, sep_id], [0] * len(first) + [1] * (len(b) + 1))

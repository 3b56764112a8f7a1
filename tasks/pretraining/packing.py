"""Pack the token ids of one document into examples of one or two segments."""

import bisect
import dataclasses
import itertools
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tokenizers import Tokenizer

from electra_jax.data.batch_shapes import SHORTEST_TARGET
from electra_jax.errors import UserError
from electra_jax.tasks.encoding import encode_texts, encode_with_marks

# The chance that a sentence which would extend past the middle still goes to segment A (ELECTRA's ExampleBuilder).
BORDER_COIN = 0.5


class Example(NamedTuple):
    """Hold `[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]`, without padding.

    Attributes:
        input_ids: token ids, at most `Packing.length` of them.
        token_type_ids: as many; 0 up to and including the first [SEP], 1 after it.
    """

    input_ids: list[int]
    token_type_ids: list[int]


@dataclasses.dataclass(frozen=True)
class ExampleBuilder:
    """Build examples from the sentences of one document.

    Attributes:
        name: a name that a cache records.
        build: a function with the arguments and results of `pack`.
    """

    name: str
    build: Callable[..., tuple[list[Example], int]]


@dataclasses.dataclass(frozen=True)
class Packing:
    """Say how documents become examples: all settings other than their text and the vocabulary.

    Attributes:
        length: largest number of tokens of an example, special ones counted.
        one_segment_share: share of examples made as one segment.
        random_length_share: share of examples that aim at a length drawn from 5..length instead of `length`.
        seed: seed of the draws; each document has draws of its own, from (seed, document key).
        builder: builds the examples of each document.
        word_marks: whether ids have the marks of `encoding.encode_with_marks`.
    """

    length: int
    one_segment_share: float
    random_length_share: float
    seed: int
    builder: ExampleBuilder
    word_marks: bool = False

    def __post_init__(self) -> None:
        """Refuse a length that has no room for both segments.

        Raises:
            UserError: if `length` is under 5.
        """
        if self.length < SHORTEST_TARGET:
            raise UserError(f"A sequence length of {self.length} is too short: {SHORTEST_TARGET} is the least.")


def document_rng(seed: int, key: str) -> random.Random:
    """Return the generator of a document's draws: the same in any process and any order of documents."""
    return random.Random(f"{seed}/{key}")


def pack_document(
    key: str, text: str, *, tokenizer: Tokenizer, cls_id: int, sep_id: int, packing: Packing
) -> tuple[list[Example], int]:
    """Tokenise a document, each line of which is a sentence, and pack it: (examples, tokens in no example)."""
    encode = encode_with_marks if packing.word_marks else encode_texts
    sentences = encode(text.split("\n"), tokenizer)
    return packing.builder.build(
        sentences,
        length=packing.length,
        cls_id=cls_id,
        sep_id=sep_id,
        one_segment_share=packing.one_segment_share,
        random_length_share=packing.random_length_share,
        rng=document_rng(packing.seed, key),
    )


def pack(
    sentences: Sequence[Sequence[int]],
    *,
    length: int,
    cls_id: int,
    sep_id: int,
    one_segment_share: float,
    random_length_share: float,
    rng: random.Random,
) -> tuple[list[Example], int]:
    """Pack the sentences of one document into examples.

    This follows ELECTRA's `build_pretraining_dataset.py` with one change: tokens that do not fit are left to the next
    example, so that the examples hold every token of the document once, in order. (The original discards them, and may
    move a late short sentence in front of earlier ones.)

    Args:
        sentences: token ids of each sentence, without special tokens; empty ones are skipped.
        length: largest number of tokens of an example, special ones counted; >= 5.
        cls_id: id of [CLS].
        sep_id: id of [SEP].
        one_segment_share: chance of an example of one segment (published: 0.1).
        random_length_share: chance of aiming at a length drawn from 5..length (published: 0.05).
        rng: the document's own generator.

    Returns:
        (examples, number of tokens that are in no example).
    """
    tokens = list(itertools.chain.from_iterable(sentences))
    ends = list(itertools.accumulate(len(sentence) for sentence in sentences if sentence))
    examples, start, kept = [], 0, 0
    while start < len(tokens):
        short = rng.random() < random_length_share
        target = rng.randint(SHORTEST_TARGET, length) if short else length
        middle = len(tokens) + 1 if rng.random() < one_segment_share else (target - 3) // 2
        first = bisect.bisect_right(ends, start)
        # Sentences are taken until they hold `target` tokens; the special tokens are not counted, as published.
        last = min(bisect.bisect_left(ends, start + target), len(ends) - 1)
        border = _border(ends[first : last + 1], start, middle, rng)
        stop_a = min(border, start + length - 2)
        stop_b = stop_a
        if border == stop_a:
            stop_b = min(ends[last], max(start + length - 3, border))
        examples.append(join_segments(tokens[start:stop_a], tokens[stop_a:stop_b], cls_id, sep_id))
        kept += stop_b - start
        start = stop_b
    return examples, len(tokens) - kept


# No token is lost: those that do not fit an example are left to the next.
COMPLETE = ExampleBuilder("complete", pack)


def join_segments(a: list[int], b: list[int], cls_id: int, sep_id: int) -> Example:
    """Return `[CLS] a [SEP] b [SEP]`, or `[CLS] a [SEP]` if `b` is empty."""
    first = [cls_id, *a, sep_id]
    if not b:
        return Example(first, [0] * len(first))
    return Example([*first, *b, sep_id], [0] * len(first) + [1] * (len(b) + 1))


def _border(ends: Sequence[int], start: int, middle: int, rng: random.Random) -> int:
    """Return the end of segment A: after the first sentence, or a later one around `start + middle`."""
    border = ends[0]
    for end in ends[1:]:
        if end - start < middle or (border - start < middle and rng.random() < BORDER_COIN):
            border = end
        else:
            break
    return border

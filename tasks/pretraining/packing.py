"""Two-segment examples from the token ids of one document."""

import bisect
import dataclasses
import itertools
import random
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer

from electra_jax.errors import UserError
from electra_jax.tasks.original.packing import ReferencePacker
from electra_jax.tasks.pretraining.segments import BORDER_COIN, SHORTEST_TARGET, Example, join_segments

# The ways of packing: what does not fit an example goes on to the next, or is thrown away as the original does.
METHODS = ("complete", "reference")


@dataclasses.dataclass(frozen=True)
class Packing:
    """How documents become examples: all that matters beside their text and the vocabulary.

    `length`: most tokens of an example, special ones counted. `one_segment_share`: share of examples made
    as one segment. `random_length_share`: share that aims at a length drawn from 5..length instead of
    `length`. `seed`: of the draws; they are made anew for each document, from (seed, document key).
    `method`: "complete" (`pack`, which loses nothing) or "reference" (`ReferencePacker`, the original's losses).
    """

    length: int
    one_segment_share: float
    random_length_share: float
    seed: int
    method: str

    def __post_init__(self) -> None:
        """Refuse an unknown method, and a length that has no room for both segments."""
        if self.method not in METHODS:
            raise UserError(f"packing is {self.method!r}: it must be one of {', '.join(map(repr, METHODS))}")
        if self.length < SHORTEST_TARGET:
            raise UserError(f"A sequence length of {self.length} is too short: {SHORTEST_TARGET} is the least.")


def document_rng(seed: int, key: str) -> random.Random:
    """Return the generator of a document's draws: the same in any process and any order of documents."""
    return random.Random(f"{seed}/{key}")


def pack_document(
    key: str, text: str, *, tokenizer: Tokenizer, cls_id: int, sep_id: int, packing: Packing
) -> tuple[list[Example], int]:
    """Tokenise a document, each line of which is a sentence, and pack it: (examples, tokens in no example)."""
    sentences = [encoding.ids for encoding in tokenizer.encode_batch_fast(text.split("\n"), add_special_tokens=False)]
    options: dict[str, Any] = {
        "length": packing.length,
        "cls_id": cls_id,
        "sep_id": sep_id,
        "one_segment_share": packing.one_segment_share,
        "random_length_share": packing.random_length_share,
        "rng": document_rng(packing.seed, key),
    }
    if packing.method == "complete":
        return pack(sentences, **options)
    packer = ReferencePacker(**options)
    # The length aimed at is drawn anew for each example, here for the first one too: examples are distributed as in
    # a packer that lives on from document to document, and yet depend on their document alone.
    packer.draw_target()
    return packer.pack_document(sentences), packer.discarded


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

    As ELECTRA's `build_pretraining_dataset.py`, with one change: what does not fit goes on to the next
    example, so that the examples hold the document's tokens, each once and in order (there the surplus
    is discarded, and a late short sentence may move in front of earlier ones).

    Args:
      sentences: token ids of each sentence, without special tokens; empty ones are passed over.
      length: most tokens of an example, special ones counted; >= 5.
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


def _border(ends: Sequence[int], start: int, middle: int, rng: random.Random) -> int:
    """Return where segment A ends: after the first sentence, or a later one around `start + middle`."""
    border = ends[0]
    for end in ends[1:]:
        if end - start < middle or (border - start < middle and rng.random() < BORDER_COIN):
            border = end
        else:
            break
    return border

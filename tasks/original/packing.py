"""Pack two segments exactly as the original's `build_pretraining_dataset.py`, losses included, for comparison."""

import random
from collections.abc import Sequence

from electra_jax.data.batch_shapes import SHORTEST_TARGET
from electra_jax.errors import UserError
from electra_jax.tasks.pretraining.packing import (
    BORDER_COIN,
    Example,
    ExampleBuilder,
    join_segments,
)

# The length that the original aims at for segment A if the example is to have one segment: more than any example holds.
NO_BORDER = 100_000


class OriginalPacker:
    """Pack a stream of sentences as the original's `ExampleBuilder`, draw by draw.

    Four things differ from `packing.pack`:
      - the target length and the generator are kept from document to document, so that an example depends on
        everything before it (there: on its document alone);
      - tokens that do not fit an example are discarded (there: they go on to the next);
      - a late short sentence may go back into segment A, in front of earlier ones (there: order is kept);
      - a drawn shorter target ends the collecting of sentences, but the example is not cut to it.

    How much is discarded depends on the sentences: nothing if they are short, most of a sentence that is longer
    than an example. Of novels (../shared/data/corpus/gutenberg-00, its first 8 MB, a paragraph a line) 35 % of the
    tokens at length 128 and 14 % at 512; of documentation (debian-00) 27 % and 9 %. `discarded` counts it.

    Attributes:
        discarded: number of tokens so far that were given and are in no example.
        target: the number of tokens at which the next example is made.
    """

    def __init__(
        self,
        *,
        length: int,
        cls_id: int,
        sep_id: int,
        one_segment_share: float,
        random_length_share: float,
        rng: random.Random,
    ) -> None:
        """Start with no sentences.

        `length`: largest number of tokens of an example, special ones counted. The published shares are 0.1 and 0.05.

        Raises:
            UserError: if `length` is under 5.
        """
        if length < SHORTEST_TARGET:
            raise UserError(f"a sequence length of {length} is too short: {SHORTEST_TARGET} is the least")
        self.discarded = 0
        self.target = length
        self._length = length
        self._cls_id = cls_id
        self._sep_id = sep_id
        self._one_segment_share = one_segment_share
        self._random_length_share = random_length_share
        self._rng = rng
        self._sentences: list[Sequence[int]] = []
        self._num_tokens = 0

    def add(self, sentence: Sequence[int]) -> Example | None:
        """Take the token ids of a sentence; return an example if they complete one."""
        self._sentences.append(sentence)
        self._num_tokens += len(sentence)
        return self._make_example() if self._num_tokens >= self.target else None

    def end_document(self) -> Example | None:
        """Return the example made of the rest of the document, if any; call it at a blank line or a file's end."""
        return self._make_example() if self._num_tokens else None

    def pack_document(self, sentences: Sequence[Sequence[int]]) -> list[Example]:
        """Return the examples that a document completes; no example continues past its end."""
        examples = [self.add(sentence) for sentence in sentences]
        examples.append(self.end_document())
        return [example for example in examples if example is not None]

    def draw_target(self) -> None:
        """Draw the target length of the next example."""
        short = self._rng.random() < self._random_length_share
        self.target = self._rng.randint(SHORTEST_TARGET, self._length) if short else self._length

    def _make_example(self) -> Example:
        one_segment = self._rng.random() < self._one_segment_share
        middle = NO_BORDER if one_segment else (self.target - 3) // 2
        a: list[int] = []
        b: list[int] = []
        for sentence in self._sentences:
            # The random draw comes last: the original draws only if the other conditions leave the question open.
            if (
                not a
                or len(a) + len(sentence) < middle
                or (not b and len(a) < middle and self._rng.random() < BORDER_COIN)
            ):
                a.extend(sentence)
            else:
                b.extend(sentence)
        a = a[: self._length - 2]
        b = b[: max(0, self._length - len(a) - 3)]
        self.discarded += self._num_tokens - len(a) - len(b)
        self._sentences, self._num_tokens = [], 0
        self.draw_target()
        return join_segments(a, b, self._cls_id, self._sep_id)


def build_examples(
    sentences: Sequence[Sequence[int]],
    *,
    length: int,
    cls_id: int,
    sep_id: int,
    one_segment_share: float,
    random_length_share: float,
    rng: random.Random,
) -> tuple[list[Example], int]:
    """Pack the sentences of one document as the original does: see `packing.pack` for the arguments and the results."""
    packer = OriginalPacker(
        length=length,
        cls_id=cls_id,
        sep_id=sep_id,
        one_segment_share=one_segment_share,
        random_length_share=random_length_share,
        rng=rng,
    )
    # The target length is drawn for each example, here for the first one too: examples are distributed as in a packer
    # that is kept from document to document, and yet depend on their document alone.
    packer.draw_target()
    return packer.pack_document(sentences), packer.discarded


BUILDER = ExampleBuilder("original", build_examples)

"""Find the word pieces of a context that an annotated answer covers."""

import dataclasses
import functools
import re

import numpy as np

from electra_jax.tasks.encoding import parts_of, read_with_places
from electra_jax.tasks.qa.files import Answer
from electra_jax.tasks.vocabulary import Vocabulary


class UnusableAnswerError(Exception):
    """An answer that cannot be learnt from; the message is the reason, the same for all answers of its kind."""


@dataclasses.dataclass(frozen=True)
class TokenizedContext:
    """A context and its T word pieces.

    Attributes:
      ids_T: int32.
      offsets_T2: int32, the first character of each piece in `text` and the one after its last; white space that a
        piece begins with is not counted.
    """

    text: str
    ids_T: np.ndarray
    offsets_T2: np.ndarray


@functools.lru_cache(maxsize=8)
def tokenize_context(vocabulary: Vocabulary, text: str) -> TokenizedContext:
    """Return the word pieces of a context; the last few are kept, for the questions about one follow each other."""
    ids, offsets, begin = [], [], 0
    for part in parts_of(text):
        encoding = read_with_places(part, vocabulary.tokenizer)
        # Byte-level and SentencePiece pieces take the space before a word along.
        places = [(end - len(part[start:end].lstrip()), end) for start, end in encoding.offsets]
        ids.append(np.array(encoding.ids, np.int32))
        offsets.append(np.array(places, np.int32).reshape(-1, 2) + np.int32(begin))
        begin += len(part)
    return TokenizedContext(text, np.concatenate(ids), np.concatenate(offsets))


def locate_answer(text: str, answer: Answer) -> tuple[int, int]:
    """Return the characters of an answer, [start, end): where the annotation says, else its nearest occurrence.

    White space counts as equal to other white space, and capitals to small letters.

    Raises:
      UnusableAnswerError: if the text has no such answer, or the answer is empty.
    """
    words = answer.text.split()
    if not words:
        raise UnusableAnswerError("the answer is empty")
    start, end = answer.start, answer.end
    if start >= 0 and _comparable(text[start:end]) == _comparable(answer.text):
        return start, end
    pattern = re.compile(r"\s+".join(map(re.escape, words)), re.IGNORECASE)
    spans = [match.span() for match in pattern.finditer(text)]
    if not spans:
        raise UnusableAnswerError("the answer is not in its context")
    return min(spans, key=lambda span: abs(span[0] - start))


def align_by_characters(context: TokenizedContext, answer: Answer, vocabulary: Vocabulary) -> tuple[int, int]:
    """Return the first and the last of the pieces that share a character with the answer.

    Raises:
      UnusableAnswerError: if the answer is not in the context, or no piece holds any of it.
    """
    del vocabulary  # Characters suffice; other ways to align tokenise the answer.
    start, end = locate_answer(context.text, answer)
    offsets_T2 = context.offsets_T2
    tokens = np.flatnonzero((offsets_T2[:, 0] < end) & (offsets_T2[:, 1] > start))
    if not tokens.size:
        raise UnusableAnswerError("the answer holds nothing that the vocabulary reads")
    return int(tokens[0]), int(tokens[-1])


def _comparable(text: str) -> str:
    return " ".join(text.split()).casefold()

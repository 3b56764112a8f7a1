"""Find the word pieces of a context that an annotated answer covers."""

import dataclasses
import functools
import re
import unicodedata
from collections.abc import Iterator

import numpy as np

from electra_jax.tasks.encoding import parts_of, read_with_places
from electra_jax.tasks.qa.questions import Answer
from electra_jax.tasks.vocabulary import Vocabulary


class UnusableAnswerError(Exception):
    """An answer that cannot be learnt from; the message is the reason, the same for all answers of its kind."""


@dataclasses.dataclass(frozen=True)
class TokenizedContext:
    """A context and its T word pieces.

    Attributes:
        ids_T: int32.
        offsets_T2: int32, the first character of each piece in `text` and the one after its last; leading white space
            of a piece is not counted.
    """

    text: str
    ids_T: np.ndarray
    offsets_T2: np.ndarray


@functools.lru_cache(maxsize=8)
def tokenize_context(vocabulary: Vocabulary, text: str) -> TokenizedContext:
    """Return the word pieces of a context; the last few are cached, because a context's questions follow each other."""
    ids, offsets, begin = [], [], 0
    for part in parts_of(text):
        encoding = read_with_places(part, vocabulary.tokenizer)
        # Byte-level and SentencePiece pieces include the space before a word.
        places = [(end - len(part[start:end].lstrip()), end) for start, end in encoding.offsets]
        ids.append(np.array(encoding.ids, np.int32))
        offsets.append(np.array(places, np.int32).reshape(-1, 2) + np.int32(begin))
        begin += len(part)
    return TokenizedContext(text, np.concatenate(ids), np.concatenate(offsets))


def locate_answer(text: str, answer: Answer) -> tuple[int, int]:
    """Return the characters of an answer, [start, end): where the annotation says, else its nearest occurrence.

    A start that does not fit the answer may count bytes of UTF-8, or units of UTF-16 as JavaScript does. For an answer
    without a start the first occurrence is taken, if possible one that does not cut a word. All white space counts as
    equal, as do capitals and small letters, and a letter with its accent in composed and decomposed form.

    Raises:
        UnusableAnswerError: if the text has no such answer, or the answer is empty.
    """
    words = unicodedata.normalize("NFC", answer.text).split()
    if not words:
        raise UnusableAnswerError("the answer is empty")
    length = answer.end - answer.start
    for start in _annotated_starts(text, answer.start):
        if _comparable(text[start : start + length]) == _comparable(answer.text):
            return start, start + length
    pattern = re.compile(r"\s+".join(map(_pattern, words)), re.IGNORECASE)
    spans = [match.span() for match in pattern.finditer(text)]
    if not spans:
        raise UnusableAnswerError("the answer is not in its context")
    if answer.start < 0:
        return min(spans, key=lambda span: (_cuts_a_word(text, span), span))
    return min(spans, key=lambda span: abs(span[0] - answer.start))


def is_where_it_says(text: str, answer: Answer) -> bool:
    """Return whether an answer is at the characters that its annotation names."""
    return answer.start >= 0 and _comparable(text[answer.start : answer.end]) == _comparable(answer.text)


def align_by_characters(context: TokenizedContext, answer: Answer, vocabulary: Vocabulary) -> tuple[int, int]:
    """Return the first and the last of the pieces that share a character with the answer.

    Raises:
        UnusableAnswerError: if the answer is not in the context, or no piece covers any of it.
    """
    del vocabulary  # Characters suffice; other ways to align tokenise the answer.
    start, end = locate_answer(context.text, answer)
    offsets_T2 = context.offsets_T2
    tokens = np.flatnonzero((offsets_T2[:, 0] < end) & (offsets_T2[:, 1] > start))
    if not tokens.size:
        raise UnusableAnswerError("the answer holds nothing that the vocabulary reads")
    return int(tokens[0]), int(tokens[-1])


def _annotated_starts(text: str, start: int) -> Iterator[int]:
    """Yield the characters that a start may mean: the one at that index, then at that offset in UTF-8 and in UTF-16."""
    if start < 0:
        return
    yield start
    for encoding, unit in (("utf-8", 1), ("utf-16-le", 2)):
        try:
            yield len(text.encode(encoding)[: start * unit].decode(encoding))
        except UnicodeDecodeError:
            continue


def _pattern(word: str) -> str:
    """Return a pattern for a word whose letters may be composed or decomposed."""
    parts = [(letter, unicodedata.normalize("NFD", letter)) for letter in word]
    return "".join(
        re.escape(composed) if composed == apart else f"(?:{re.escape(composed)}|{re.escape(apart)})"
        for composed, apart in parts
    )


def _cuts_a_word(text: str, span: tuple[int, int]) -> bool:
    """Return whether a span begins or ends within a number, or within a word of a script with spaces and capitals."""
    return any(_is_joined(text[place - 1 : place], text[place : place + 1]) for place in span)


def _is_joined(before: str, after: str) -> bool:
    have_case = before.lower() != before.upper() and after.lower() != after.upper()
    return have_case or (before.isdigit() and after.isdigit())


def _comparable(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split()).casefold()

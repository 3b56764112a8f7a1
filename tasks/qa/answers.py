"""Where an annotated answer stands among the word pieces of its context: by characters, or as the original did."""

import dataclasses
import functools
import re

import numpy as np
from tokenizers import Tokenizer

from electra_jax.tasks.qa.files import Answer


class UnusableAnswerError(Exception):
    """An answer that cannot be learnt from; the message is the reason, the same for all answers of its kind."""


@dataclasses.dataclass(frozen=True)
class TokenizedContext:
    """A context and its T word pieces.

    Attributes:
      ids_T: int32.
      offsets_T2: int32, the first character of each piece in `text` and the one after its last.
    """

    text: str
    ids_T: np.ndarray
    offsets_T2: np.ndarray


# The questions about a context follow each other in every public file.
@functools.lru_cache(maxsize=8)
def tokenize_context(tokenizer: Tokenizer, text: str) -> TokenizedContext:
    """The word pieces of a context; the same object again while its questions are gone through."""
    encoding = tokenizer.encode(text, add_special_tokens=False)
    offsets = np.array(encoding.offsets, np.int32).reshape(-1, 2)
    return TokenizedContext(text, np.array(encoding.ids, np.int32), offsets)


def locate_answer(text: str, answer: Answer) -> tuple[int, int]:
    """The characters of an answer, [start, end): where the annotation says, else its nearest occurrence.

    White space counts as equal to other white space, and capitals to small letters.

    Raises:
      UnusableAnswerError: the text has no such answer, or the answer is empty.
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


def align_by_characters(context: TokenizedContext, answer: Answer) -> tuple[int, int]:
    """The first and the last of the pieces that share a character with the answer.

    Raises:
      UnusableAnswerError: the answer is not in the context, or no piece holds any of it.
    """
    start, end = locate_answer(context.text, answer)
    offsets_T2 = context.offsets_T2
    tokens = np.flatnonzero((offsets_T2[:, 0] < end) & (offsets_T2[:, 1] > start))
    if not tokens.size:
        raise UnusableAnswerError("the answer holds nothing that the vocabulary reads")
    return int(tokens[0]), int(tokens[-1])


@dataclasses.dataclass(frozen=True)
class Words:
    """The original's words: what stands between five characters that it takes for white space.

    Attributes:
      words: the words in order.
      word_of_character: for each character of the text the number of its word, or of the word before it; -1
        before the first.
    """

    words: list[str]
    word_of_character: list[int]


_WORD = re.compile("[^ \t\r\n\u202f]+")


@functools.lru_cache(maxsize=8)
def split_words(text: str) -> Words:
    """Splits as the original does: at space, tab, line ends and U+202F, but at no other white space."""
    words: list[str] = []
    word_of_character: list[int] = []
    for match in _WORD.finditer(text):
        word_of_character += [len(words) - 1] * (match.start() - len(word_of_character))
        words.append(match.group())
        word_of_character += [len(words) - 1] * len(match.group())
    word_of_character += [len(words) - 1] * (len(text) - len(word_of_character))
    return Words(words, word_of_character)


def word_span(text: str, answer: Answer) -> tuple[int, int]:
    """The original's `start_position` and `end_position`: the first and last word of an answer.

    Its length is that of its text. It is refused unless the words hold its text with single spaces, small and
    capital letters being equal. Text and words differ about U+00A0 and U+2028, and such answers are lost.

    Raises:
      UnusableAnswerError: it reaches beyond the context, or its words do not hold it.
    """
    split = split_words(text)
    words, word_of_character = split.words, split.word_of_character
    last_character = answer.start + len(answer.text) - 1
    if not -len(text) <= min(answer.start, last_character) <= max(answer.start, last_character) < len(text):
        raise UnusableAnswerError("the answer reaches beyond its context")
    first, last = word_of_character[answer.start], word_of_character[last_character]
    if " ".join(answer.text.split()).lower() not in " ".join(words[first : last + 1]).lower():
        raise UnusableAnswerError("the answer is not in its context")
    return first, last


def align_by_words(context: TokenizedContext, answer: Answer, tokenizer: Tokenizer) -> tuple[int, int]:
    """The original's pieces of an answer: those of its words, narrowed to the first run that spells it.

    Source: `_improve_answer_span` of the original, after BERT's.

    Raises:
      UnusableAnswerError: as `word_span`.
    """
    first_word, last_word = word_span(context.text, answer)
    words_T = words_of_tokens(context)
    first = int(np.searchsorted(words_T, first_word, side="left"))
    last = int(np.searchsorted(words_T, last_word, side="right")) - 1
    wanted = tokenizer.encode(answer.text, add_special_tokens=False).ids
    ids = context.ids_T[first : last + 1].tolist()
    for start in range(len(ids) - len(wanted) + 1):
        if wanted and ids[start : start + len(wanted)] == wanted:
            return first + start, first + start + len(wanted) - 1
    return first, last


def words_of_tokens(context: TokenizedContext) -> np.ndarray:
    """The number of the original's word that each piece belongs to: int32 [T], ascending."""
    return np.array(split_words(context.text).word_of_character, np.int32)[context.offsets_T2[:, 0]]


def _comparable(text: str) -> str:
    return " ".join(text.split()).casefold()

"""Answer questions exactly as the original's `finetune/qa`, faults included, for comparison."""

import dataclasses
import functools
import re

import numpy as np
from tokenizers import Tokenizer

from electra_jax.tasks.qa.answers import TokenizedContext, UnusableAnswerError
from electra_jax.tasks.qa.questions import Answer
from electra_jax.tasks.qa.windows import QARules, Window, cut_spans
from electra_jax.tasks.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class Words:
    """A text as the original's words: the parts between the five characters that it treats as white space.

    Attributes:
        words: the words in order.
        word_of_character: for each character of the text the number of its word, or of the word before it; -1 before
            the first.
    """

    words: list[str]
    word_of_character: list[int]


_WORD = re.compile("[^ \t\r\n\u202f]+")


@functools.lru_cache(maxsize=8)
def split_words(text: str) -> Words:
    """Split a text as the original does: at space, tab, line ends and U+202F, but at no other white space."""
    words: list[str] = []
    word_of_character: list[int] = []
    for match in _WORD.finditer(text):
        word_of_character += [len(words) - 1] * (match.start() - len(word_of_character))
        words.append(match.group())
        word_of_character += [len(words) - 1] * len(match.group())
    word_of_character += [len(words) - 1] * (len(text) - len(word_of_character))
    return Words(words, word_of_character)


def word_span(text: str, answer: Answer) -> tuple[int, int]:
    """Return the original's `start_position` and `end_position`: the first and last word of an answer.

    Its length is that of its text. It is refused unless the words contain its text with single spaces, ignoring case.
    Text and words differ at U+00A0 and U+2028, and such answers are lost.

    Raises:
        UnusableAnswerError: if it reaches beyond the context, or its words do not contain it.
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


def align_by_words(context: TokenizedContext, answer: Answer, vocabulary: Vocabulary) -> tuple[int, int]:
    """Return the original's pieces of an answer: those of its words, narrowed to the first run that spells it.

    It loses the questions whose answer contains U+00A0 or U+2028 or is not where the file says, and learns whole words
    if its search fails: 2 in 1,000 targets of SQuAD 1.1 differ. Source: `_improve_answer_span` of the original, after
    BERT's.

    Raises:
        UnusableAnswerError: if `word_span` refuses the answer.
    """
    first_word, last_word = word_span(context.text, answer)
    words_T = words_of_tokens(context)
    first = int(np.searchsorted(words_T, first_word, side="left"))
    last = int(np.searchsorted(words_T, last_word, side="right")) - 1
    wanted = vocabulary.encode(answer.text)
    ids = context.ids_T[first : last + 1].tolist()
    for start in range(len(ids) - len(wanted) + 1):
        if wanted and ids[start : start + len(wanted)] == wanted:
            return first + start, first + start + len(wanted) - 1
    return first, last


def words_of_tokens(context: TokenizedContext) -> np.ndarray:
    """Return the number of the original's word that each piece belongs to: int32 [T], ascending."""
    return np.array(split_words(context.text).word_of_character, np.int32)[context.offsets_T2[:, 0]]


def projected_span_text(context: str, window: Window, start: int, end: int, vocabulary: Vocabulary) -> str:
    """Return the original's text of a span: its word pieces, mapped back to its words, which are joined by spaces."""
    pieces = (vocabulary.tokens[token] for token in window.input_ids_L[start : end + 1].tolist())
    pieces_text = " ".join(pieces).replace(" ##", "").replace("##", "")
    split = split_words(context)
    first_character, last_character = window.offsets_C2[[start - window.context_start, end - window.context_start], 0]
    first, last = split.word_of_character[first_character], split.word_of_character[last_character]
    return project(" ".join(pieces_text.split()), " ".join(split.words[first : last + 1]), vocabulary.tokenizer)


def project(pieces_text: str, text: str, tokenizer: Tokenizer) -> str:
    """Return the part of `text` that spells `pieces_text`, or all of `text` if that cannot be determined.

    "steve smith" in "Steve Smith's" is "Steve Smith". Source: BERT's `get_final_text`. It fails if lower-casing
    or stripping changes the number of characters, and finds the first of several occurrences.

    Args:
        pieces_text: word pieces joined again.
        text: the words of the context that contain them.
        tokenizer: determines how text is cleaned and split.
    """
    cleaned = tokenizer.normalizer.normalize_str(text)
    split_text = " ".join(part for part, _ in tokenizer.pre_tokenizer.pre_tokenize_str(cleaned))
    start = split_text.find(pieces_text)
    characters = [place for place, character in enumerate(text) if character != " "]
    split_characters = [place for place, character in enumerate(split_text) if character != " "]
    if start == -1 or len(characters) != len(split_characters):
        return text
    text_place = dict(zip(split_characters, characters, strict=True))
    first, last = text_place.get(start), text_place.get(start + len(pieces_text) - 1)
    if first is None or last is None:
        return text
    return text[first : last + 1]


# A window without the answer of its question counts as answerable, at [CLS]: 1 in 200 windows of SQuAD 1.1 and 1 in 80
# of SQuAD 2.0 at length 512. `cut_spans` leaves gaps if the stride is longer than the window: at length and stride 128,
# 2 in 100 answers of SQuAD 1.1 are in no window, and the gold spans score 98.5 F1 instead of 99.9. A context without
# word pieces has no window.
RULES = QARules(
    name="original",
    align=align_by_words,
    cut=cut_spans,
    answerless_windows_are_impossible=False,
    final_sep_is_answerable=True,
    span_text=projected_span_text,
    no_span_text="empty",
    skip_unanswered=True,
)

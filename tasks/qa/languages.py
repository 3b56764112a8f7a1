"""Score answers in languages other than English, as the official scripts of CMRC 2018, KorQuAD 1.0 and MLQA do."""

import collections
import dataclasses
import functools
import re
import string
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence


@dataclasses.dataclass(frozen=True)
class AnswerMetric:
    """Say when two answers are equal, and how much they overlap.

    Attributes:
        name: its name in `QA_METRIC`.
        normalize: converts an answer to the form that the exact match compares.
        f1: the F1 of a prediction and a gold answer.
    """

    name: str
    normalize: Callable[[str], str]
    f1: Callable[[str, str], float]

    def exact_match(self, prediction: str, gold_text: str) -> bool:
        """Return whether the normalised texts are equal."""
        return self.normalize(prediction) == self.normalize(gold_text)

    def f1_with_no_answer(self, prediction: str, gold_text: str) -> float:
        """Return `f1`, but 1 if both texts are empty once normalised (SQuAD 2.0)."""
        if not self.normalize(prediction) and not self.normalize(gold_text):
            return 1.0
        return self.f1(prediction, gold_text)


def overlap_f1(predicted: Sequence[str], wanted: Sequence[str], num_shared: int) -> float:
    """Return the F1 of `num_shared` tokens that two answers share; 0 if they share none."""
    if num_shared == 0:
        return 0.0
    precision = num_shared / len(predicted)
    recall = num_shared / len(wanted)
    return (2 * precision * recall) / (precision + recall)


def bag_f1(predicted: Sequence[str], wanted: Sequence[str]) -> float:
    """Return the F1 of tokens as bags."""
    return overlap_f1(predicted, wanted, (collections.Counter(predicted) & collections.Counter(wanted)).total())


# CMRC 2018 (cmrc2018_evaluate.py, version 5). Its "……" is two characters, which no single character equals.
_CMRC_IGNORED = set("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
_HAN = re.compile("[\u4e00-\u9fa5]")
# Text that is not Chinese is split almost as by NLTK's word_tokenize: at spaces and around most signs, but not between
# the digits and letters of `3.5km` or around an ellipsis.
_HAN_OR_WORDS = re.compile(
    r"""
    (?: [^\s\u4e00-\u9fa5,.;@\#$%&?!()\[\]{}<>«»“”„‘"\u2012-\u2015] | ,(?=\d) | (?<!\.)\.(?=[^\s\u4e00-\u9fa5.]) )+
    | \.+ | \S
    """,
    re.VERBOSE,
)


def cmrc_normalized(text: str) -> str:
    """Return a text in lower case without Chinese punctuation."""
    return "".join(character for character in text.lower().strip() if character not in _CMRC_IGNORED)


def cmrc_tokens(text: str) -> list[str]:
    """Return Chinese characters one by one, and the words between them."""
    return _HAN_OR_WORDS.findall(cmrc_normalized(text))


def cmrc_f1(prediction: str, gold_text: str) -> float:
    """Return the F1 of the longest run of tokens that two texts share."""
    predicted, wanted = cmrc_tokens(prediction), cmrc_tokens(gold_text)
    longest, ending_before = 0, [0] * (len(predicted) + 1)
    for token in wanted:
        ending = [0]
        for place, other in enumerate(predicted):
            ending.append(ending_before[place] + 1 if token == other else 0)
        longest, ending_before = max(longest, *ending), ending
    return overlap_f1(predicted, wanted, longest)


# KorQuAD 1.0 (evaluate-v1.0.py).
_KORQUAD_SPACES = str.maketrans(dict.fromkeys("'\"《》<>〈〉()‘’", " "))
_NO_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)


def korquad_normalized(text: str) -> str:
    """Return a text in lower case, without brackets, quotes and ASCII punctuation, with single spaces."""
    return " ".join(text.translate(_KORQUAD_SPACES).lower().translate(_NO_ASCII_PUNCTUATION).split())


def korquad_f1(prediction: str, gold_text: str) -> float:
    """Return the F1 of the characters as bags, without spaces."""
    return bag_f1(*(korquad_normalized(text).replace(" ", "") for text in (prediction, gold_text)))


# MLQA (mlqa_evaluation_v1.py): articles by language. The other branch of its Arabic pattern never matches.
_ARTICLES = {
    "en": r"\b(a|an|the)\b",
    "es": r"\b(un|una|unos|unas|el|la|los|las)\b",
    "hi": None,
    "vi": r"\b(của|là|cái|chiếc|những)\b",
    "de": r"\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b",
    "ar": "ال",
    "zh": None,
}


@functools.cache
def _unicode_punctuation() -> dict[int, None]:
    """Return the characters that MLQA removes: Unicode's punctuation, and ASCII's, which includes symbols."""
    marks = (number for number in range(sys.maxunicode) if unicodedata.category(chr(number)).startswith("P"))
    return dict.fromkeys([*marks, *map(ord, string.punctuation)])


def mlqa_normalized(text: str, language: str) -> str:
    """Return a text in lower case without punctuation and articles, single-spaced; Chinese characters separated."""
    text = text.lower().translate(_unicode_punctuation())
    articles = _ARTICLES[language]
    if articles is not None:
        text = re.sub(articles, " ", text)
    if language == "zh":
        text = _HAN.sub(lambda found: f" {found[0]} ", text)
    return " ".join(text.split())


def mlqa_f1(prediction: str, gold_text: str, language: str) -> float:
    """Return the F1 of the normalised words as bags."""
    return bag_f1(*(mlqa_normalized(text, language).split() for text in (prediction, gold_text)))


def characters(text: str) -> str:
    """Return a text in lower case without punctuation and spaces."""
    return "".join(text.lower().translate(_unicode_punctuation()).split())


def characters_f1(prediction: str, gold_text: str) -> float:
    """Return the F1 of characters as bags, for languages that are written without spaces."""
    return bag_f1(characters(prediction), characters(gold_text))


LANGUAGE_METRICS = {
    "cmrc2018": AnswerMetric("cmrc2018", cmrc_normalized, cmrc_f1),
    "korquad": AnswerMetric("korquad", korquad_normalized, korquad_f1),
    **{
        f"mlqa_{language}": AnswerMetric(
            f"mlqa_{language}",
            functools.partial(mlqa_normalized, language=language),
            functools.partial(mlqa_f1, language=language),
        )
        for language in _ARTICLES
    },
    "characters": AnswerMetric("characters", characters, characters_f1),
}

# Letters by which a metric is recognised. Kana show that a text is Japanese, whose other letters are Chinese.
_SCRIPTS = {
    "squad": re.compile("[A-Za-z\u00c0-\u058f\u1e00-\u1fff]"),
    "cmrc2018": _HAN,
    "korquad": re.compile("[\uac00-\ud7a3]"),
    "kana": re.compile("[\u3040-\u30ff]"),
    "mlqa_ar": re.compile("[\u0620-\u06ff]"),
    "mlqa_hi": re.compile("[\u0900-\u097f]"),
    # Thai and Lao, Myanmar, Khmer.
    "characters": re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]"),
}
_LEAST_KANA = 0.1


def recognised_metric(texts: Iterable[str]) -> str:
    """Return the name of the metric for the script of most letters in some texts.

    Japanese, Thai and the like are compared by characters, Chinese as in CMRC 2018, Korean as in KorQuAD, Arabic and
    Hindi as in MLQA, and everything else as in SQuAD: German, Spanish and Vietnamese cannot be told from English by
    their letters.
    """
    counts: collections.Counter[str] = collections.Counter()
    for text in texts:
        counts.update({name: len(letters.findall(text)) for name, letters in _SCRIPTS.items()})
    kana = counts.pop("kana", 0)
    if kana > _LEAST_KANA * (kana + counts["cmrc2018"]):
        counts["characters"] += kana + counts.pop("cmrc2018")
    # Without letters, or in a tie, the result is SQuAD's, which comes first.
    return max(counts, key=counts.__getitem__, default="squad")

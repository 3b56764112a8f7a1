"""How text is cut into words, for every character of Unicode, against BERT's prose in Python's own tables."""

import sys
import unicodedata
from collections.abc import Iterator

import pytest

from electra_jax.tasks.tokenizer import UNKNOWN, build_tokenizer

# Blocks whose characters are words of their own: CJK Unified Ideographs, extensions A to E, and both compatibility
# blocks.
IDEOGRAPHS = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)
ASCII_PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"

# Where the library's tables are not of one Unicode version: a mark that became a spacing one in Unicode 16, and a
# vowel whose decomposition its table of 12.1 lacks.
OF_ANOTHER_UNICODE = {"\U0001171e", "\U00011938"}


def is_dropped(character: str) -> bool:
    if character in "\t\n\r":
        return False
    return character in "\x00\ufffd" or unicodedata.category(character).startswith("C")


def is_punctuation(character: str) -> bool:
    return character in ASCII_PUNCTUATION or unicodedata.category(character).startswith("P")


def spaced(character: str) -> str:
    if any(first <= ord(character) <= last for first, last in IDEOGRAPHS):
        return f" {character} "
    return " " if character in "\t\n\r" or unicodedata.category(character) == "Zs" else character


def words_of(text: str, *, lowercase: bool, strip_accents: bool) -> list[str]:
    """What BERT does before it looks words up: clean, stand ideographs apart, lower-case, strip, split."""
    words = []
    for word in "".join(spaced(character) for character in text if not is_dropped(character)).split():
        if lowercase:
            word = word.lower()
        if strip_accents:
            decomposed = unicodedata.normalize("NFD", word)
            word = "".join(character for character in decomposed if unicodedata.category(character) != "Mn")
        words += "".join(f" {c} " if is_punctuation(c) else c for c in word).split()
    return words


def characters() -> Iterator[str]:
    """Every assigned character, and one in 101 of the others and of the private ones."""
    for code in range(sys.maxunicode + 1):
        category = unicodedata.category(chr(code))
        if category != "Cs" and (category not in ("Cn", "Co") or code % 101 == 0):
            yield chr(code)


@pytest.mark.parametrize(("lowercase", "strip_accents"), [(True, True), (True, False), (False, False)])
def test_words_around_every_character_are_those_of_the_original(lowercase: bool, strip_accents: bool) -> None:
    tokenizer = build_tokenizer([UNKNOWN], lowercase=lowercase, strip_accents=strip_accents)

    def differ(some: list[str]) -> bool:
        text = "".join(f"a{character}B {character} " for character in some)
        cut = tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))
        return [word for word, _ in cut] != words_of(text, lowercase=lowercase, strip_accents=strip_accents)

    every = list(characters())
    assert len(every) > 150_000
    chunks = [every[start : start + 64] for start in range(0, len(every), 64)]
    different = {one for chunk in chunks if differ(chunk) for one in chunk if differ([one])}
    # What Python's tables do not have yet, the library's may.
    assigned = {one for one in different if unicodedata.category(one) != "Cn"}
    assert assigned <= OF_ANOTHER_UNICODE, sorted(assigned)
    assert len(different - assigned) < 200


def test_ascii_words_by_hand() -> None:
    assert words_of("It's $5.00\tna\u00efve\x07!", lowercase=True, strip_accents=True) == [
        *("it", "'", "s", "$", "5", ".", "00", "naive", "!")
    ]

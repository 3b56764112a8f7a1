"""Survey text before a tokenizer is learned from it: its scripts, its spaces, and what a casing would do to it."""

import collections
import functools
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from electra_jax.errors import UserError

# First words of Unicode character names that name no script, or another script than they say.
_NO_SCRIPT = {"COMBINING", "FEMININE", "MASCULINE", "MATHEMATICAL", "MICRO", "MODIFIER", "VARIATION"}
_OTHER_NAMES = {"CJK": "Han", "KATAKANA-HIRAGANA": "Katakana", "IDEOGRAPHIC": "Han"}
_WIDTHS = {"FULLWIDTH", "HALFWIDTH"}
# Chinese and Japanese, which are written without spaces; BERT makes a word of each ideograph.
IDEOGRAPHIC = {"Han", "Hiragana", "Katakana"}
WITHOUT_SPACES = IDEOGRAPHIC | {"Thai", "Lao", "Khmer", "Myanmar"}
# Scripts in which a letter without its combining marks is the same letter; elsewhere marks are vowels or voicing.
_WITH_ACCENTS = {"Latin", "Greek"}
# A run of letters of this mean length, weighted by letters, is not a word.
_LONGEST_MEAN_WORD = 20
# Words of ideographs and kana between which a segmenter has put spaces have fewer letters than this on average.
_LONGEST_SEGMENTED_WORD = 6
_APOSTROPHES = "'’ʼ"
# Shares of the letters: a setting that destroys more than the first is refused; scripts under the second are not named.
_REFUSED_SHARE = 0.01
_NAMED_SHARE = 0.001
# The share of ı and İ among the letters that shows Turkish or Azerbaijani, in which I is not the capital of i.
_DOTLESS_SHARE = 0.001


class Survey(NamedTuple):
    """Describe the writing of a text.

    Attributes:
        characters: how often each character occurs, spaces left out.
        scripts: the share of each script among the letters and marks, the largest first.
        mean_run: mean length, over letters, of the run of letters unbroken by spaces and punctuation around each.
        spaces: number of spaces within the lines.
    """

    characters: Mapping[str, int]
    scripts: Mapping[str, float]
    mean_run: float
    spaces: int

    @property
    def has_spaces(self) -> bool:
        """Return whether words are separated by spaces."""
        ideographs = sum(share for script, share in self.scripts.items() if script in IDEOGRAPHIC)
        if ideographs < 0.5:
            return self.mean_run <= _LONGEST_MEAN_WORD
        # Punctuation and short verses make short runs too, without a space.
        return self.spaces * _LONGEST_SEGMENTED_WORD >= self.num_letters

    def share(self, characters: Iterable[str]) -> float:
        """Return the share of some characters among the letters and marks."""
        return sum(self.characters.get(character, 0) for character in characters) / max(self.num_letters, 1)

    @property
    def num_letters(self) -> int:
        """Return the number of letters and marks."""
        return sum(count for character, count in self.characters.items() if script_of(character))

    def __str__(self) -> str:
        """Return the scripts, their shares and whether there are spaces, as a clause."""
        named = {script: share for script, share in self.scripts.items() if share >= _NAMED_SHARE}
        rest = 1 - sum(named.values())
        parts = [f"{100 * share:.1f} % {script}" for script, share in named.items()]
        parts += [f"{100 * rest:.2f} % others"] if rest > 1e-5 and named else []
        spaces = "spaces between words"
        if not self.has_spaces:
            spaces = f"no spaces between words (a run of letters has {self.mean_run:.0f} of them)"
        return f"letters: {', '.join(parts) or 'none'}; {spaces}"


class Casing(NamedTuple):
    """Hold how text is normalized before it is split, and the notes about the choice.

    Attributes:
        lowercase: whether it is lower-cased.
        strip_accents: whether combining marks are removed from it.
        notes: sentences for the user.
    """

    lowercase: bool
    strip_accents: bool
    notes: list[str]


@functools.cache
def script_of(character: str) -> str | None:
    """Return the script of a letter or a mark by its Unicode name; None for anything else and for shared marks."""
    if unicodedata.category(character)[0] not in "LM":
        return None
    first, *others = unicodedata.name(character, "COMBINING").split(" ")
    if first in _WIDTHS and others:
        first = others[0]
    return None if first in _NO_SCRIPT else _OTHER_NAMES.get(first, first.capitalize())


def survey(texts: Collection[str]) -> Survey:
    """Return a survey of the writing of some texts."""
    characters: collections.Counter[str] = collections.Counter()
    for text in texts:
        characters.update(unicodedata.normalize("NFC", text))
    # Characters other than letters and marks end a run, except for apostrophes.
    ends = {ord(each): " " for each in characters if unicodedata.category(each)[0] not in "LM"}
    ends |= dict.fromkeys(map(ord, _APOSTROPHES))
    letters = squares = spaces = 0
    for text in texts:
        spaces += sum(max(len(line.split()) - 1, 0) for line in text.split("\n"))
        for run in unicodedata.normalize("NFC", text).translate(ends).split():
            letters += len(run)
            squares += len(run) ** 2
    characters = collections.Counter({each: count for each, count in characters.items() if not each.isspace()})
    scripts: collections.Counter[str] = collections.Counter()
    for character, count in characters.items():
        if script := script_of(character):
            scripts[script] += count
    total = max(scripts.total(), 1)
    shares = {script: count / total for script, count in scripts.most_common()}
    return Survey(characters, shares, squares / max(letters, 1), spaces)


def choose_casing(found: Survey, *, lowercase: bool | None, strip_accents: bool | None, wordpiece: bool) -> Casing:
    """Return the requested casing, or else the one that follows from the text.

    By default WordPiece lower-cases if most letters have capitals, as BERT's English does, except in Turkish and
    Azerbaijani. Accents are kept unless their removal is requested.

    Args:
        found: the survey of the text.
        lowercase: None to choose by the script.
        strip_accents: None to keep accents.
        wordpiece: whether the tokenizer is WordPiece; others keep capitals by default.

    Raises:
        UserError: if accents are to be removed, and with them more than a hundredth of the letters of a script in which
            they are not accents.
    """
    notes = []
    if lowercase is None:
        turkish = found.share("ıİ") > _DOTLESS_SHARE
        lowercase = wordpiece and not turkish and found.share(filter(_has_case, found.characters)) > 0.5
        if wordpiece and turkish:
            notes.append("capitals are kept: of a text with ı and İ, I is not the capital of i")
    changed = [each for each in found.characters if strip_accents and _is_lost_by_stripping(each)]
    if changed:
        changed.sort(key=lambda each: (-found.characters[each], each))
        share = found.share(changed)
        examples = ", ".join(f"{_shown(each)} {_becomes(each)}" for each in changed[:3])
        if share > _REFUSED_SHARE:
            raise UserError(
                f"STRIP_ACCENTS is True, and would change {100 * share:.1f} % of the letters, of scripts in which a "
                f"mark is no accent ({examples}): set STRIP_ACCENTS to False"
            )
        notes.append(f"STRIP_ACCENTS changes letters of scripts in which a mark is no accent: {examples}")
    return Casing(lowercase, bool(strip_accents), notes)


def without_marks(text: str) -> str:
    """Return a text without combining marks, composed: the result of STRIP_ACCENTS."""
    kept = (each for each in unicodedata.normalize("NFD", text) if unicodedata.category(each) != "Mn")
    return unicodedata.normalize("NFC", "".join(kept))


@functools.cache
def _is_lost_by_stripping(character: str) -> bool:
    script = script_of(character)
    return script is not None and script not in _WITH_ACCENTS and without_marks(character) != character


def _has_case(character: str) -> bool:
    return script_of(character) is not None and character.lower() != character.upper()


def _shown(character: str) -> str:
    """Return a character in visible form: a mark on a dotted circle."""
    return f"\u25cc{character}" if unicodedata.combining(character) or _is_mark(character) else character


def _is_mark(character: str) -> bool:
    return unicodedata.category(character)[0] == "M"


def _becomes(character: str) -> str:
    left = without_marks(character)
    return f"becomes {left}" if left else "is removed"

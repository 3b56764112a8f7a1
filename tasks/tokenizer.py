"""Build BERT's tokenizer from `tokenizers` parts, without TensorFlow: worker processes start quickly."""

from collections.abc import Sequence
from typing import NamedTuple

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors


class SpecialTokens(NamedTuple):
    """Name the tokens that have a role in a row, as a vocabulary spells them; None for one that it lacks.

    Attributes:
        pad: fills a row; attention never reads it.
        unk: replaces text that cannot be read.
        cls: begins a row.
        sep: ends a segment.
        mask: replaces a token to be guessed.
    """

    pad: str | None
    unk: str | None
    cls: str | None
    sep: str | None
    mask: str | None


UNKNOWN = "[UNK]"
SPECIAL_TOKENS = SpecialTokens("[PAD]", UNKNOWN, "[CLS]", "[SEP]", "[MASK]")

# The original's limit; the library's own default of 100 turns longer words into [UNK].
MAX_WORD_CHARACTERS = 200

# BERT drops every character of a category C* except tab and the line ends, and U+FFFD. The library does so too, but
# keeps unassigned and private ones, and format characters that are newer than its table; and dropped characters must
# be gone before a final sigma is looked for.
_NOT_CHARACTERS = r"[\p{Cn}\p{Co}\p{Cs}\p{Cf}\x{0}-\x{8}\x{B}\x{C}\x{E}-\x{1F}\x{7F}-\x{9F}\x{FFFD}]"

# The library's own tables of accents and of punctuation are older than its regular expressions.
_COMBINING_MARK = r"\p{Mn}"
# BERT counts ASCII symbols as punctuation too.
_PUNCTUATION = r"[\p{P}$+<=>^`|~]"

# Parts of a word, each at most this long and not cut between a letter and its marks.
_PARTS = rf".{{1,{MAX_WORD_CHARACTERS}}}(?!\p{{M}})|.{{1,{MAX_WORD_CHARACTERS}}}"

# The library's table of ideographs lacks the first 256 of extension E.
_MISSED_IDEOGRAPHS = "[\U0002b820-\U0002b91f]"

# Python lower-cases a word-final capital sigma to its final form (the Unicode rule, but looking back over at most eight
# ignorable characters, because a look-behind must be of bounded length).
_IGNORABLE = r"[\p{Mn}\p{Me}\p{Cf}\p{Lm}\p{Sk}'.:·‘’․‧]"
_CASED = r"[\p{Lu}\p{Ll}\p{Lt}]"
_FINAL_SIGMA = f"(?<={'|'.join(_CASED + _IGNORABLE * count for count in range(9))})Σ(?!{_IGNORABLE}*{_CASED})"


def build_tokenizer(
    tokens: Sequence[str], *, lowercase: bool, strip_accents: bool, any_script: bool = False
) -> Tokenizer:
    """Return a tokenizer whose ids equal those of BERT's own, whatever the text.

    No token is registered as special, so text that contains "[MASK]" or "[SEP]" is split like any other text, as in the
    original, and can never inject a special id. The object can be pickled (as JSON) and gives offsets into the text
    that it was given.

    Args:
        tokens: the vocabulary; a token's index is its id. May be empty, before training.
        lowercase: whether to lower-case.
        strip_accents: whether to remove combining marks. The original does so only when lower-casing.
        any_script: whether to differ from BERT where it loses text of other scripts: the normalized text is composed
            (NFC), so that a letter is one letter however it was typed and Korean stays in syllables, and a word of more
            than `MAX_WORD_CHARACTERS` is read in parts instead of becoming [UNK].
    """
    tokenizer = Tokenizer(
        models.WordPiece(
            {token: index for index, token in enumerate(tokens)},
            unk_token=UNKNOWN,
            max_input_chars_per_word=MAX_WORD_CHARACTERS,
        )
    )
    steps = _normalizing(lowercase=lowercase, strip_accents=strip_accents)
    words = [
        pre_tokenizers.Split(Regex(_MISSED_IDEOGRAPHS), "isolated"),
        pre_tokenizers.WhitespaceSplit(),
        pre_tokenizers.Split(Regex(_PUNCTUATION), "isolated"),
    ]
    if any_script:
        steps.append(normalizers.NFC())
        words.append(pre_tokenizers.Split(Regex(_PARTS), "isolated"))
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(words)
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    return tokenizer


def add_special_tokens(tokenizer: Tokenizer, *, mask: AddedToken) -> None:
    """Let a tokenizer find `SPECIAL_TOKENS` in text, and lay out rows as BERT does: for files that others read.

    Args:
        tokenizer: a tokenizer that has them as entries.
        mask: the mask token, including how it treats the spaces around it.
    """
    others = (token for token in SPECIAL_TOKENS if token != SPECIAL_TOKENS.mask)
    tokenizer.add_special_tokens([*(AddedToken(token, normalized=False, special=True) for token in others), mask])
    cls, sep = SPECIAL_TOKENS.cls, SPECIAL_TOKENS.sep
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (cls, sep)],
    )


def _normalizing(*, lowercase: bool, strip_accents: bool) -> list[normalizers.Normalizer]:
    steps = [normalizers.Replace(Regex(_NOT_CHARACTERS), "")]
    if lowercase:
        steps.append(normalizers.Replace(Regex(_FINAL_SIGMA), "ς"))
    steps.append(
        normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=False, lowercase=lowercase)
    )
    if strip_accents:
        steps += [normalizers.NFD(), normalizers.Replace(Regex(_COMBINING_MARK), "")]
    return steps

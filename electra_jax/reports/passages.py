"""Prepare held-out passages for the page, with the generator's replacements and the discriminator's probabilities."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

THRESHOLD = 0.5

_JOINS_LEFT = frozenset(",.;:!?)]}%’”»…")
_JOINS_RIGHT = frozenset("([{$£€“«‘#@")
_JOINS_BOTH = frozenset("-/_'‐‑")
_PAIRED = frozenset('"`*')
_SPECIAL = {"[CLS]": "cls", "[SEP]": "sep", "<s>": "cls", "</s>": "sep"}


@dataclass(frozen=True)
class ShownToken:
    """A token as the page shows it.

    Attributes:
        style: its CSS classes: "t", and "rep" for a replaced token (with "missed" if it is not flagged), "hit" for one
            that the generator restored, or "special".
        text: the text shown.
        struck: the original of a replaced token; None for any other token.
        probability: the discriminator's probability that the token was replaced.
        note: the hover text.
        space: whether a space precedes the token.
    """

    style: str
    text: str
    struck: str | None
    probability: float
    note: str
    space: bool


@dataclass(frozen=True)
class Passage:
    """A passage and its counts of tokens.

    Attributes:
        tokens: the tokens, without [PAD].
        masked: tokens that the generator had to guess.
        replaced: tokens whose guess differs from the original.
        caught: replaced tokens with a probability above `THRESHOLD`.
        false_alarms: tokens that were not replaced, with a probability above `THRESHOLD`.
    """

    tokens: Sequence[ShownToken]
    masked: int
    replaced: int
    caught: int
    false_alarms: int


@dataclass(frozen=True)
class _Token:
    text: str
    original: str
    masked: bool
    replaced: bool
    probability: float

    @property
    def flagged(self) -> bool:
        return self.probability > THRESHOLD


def read_passage(columns: Mapping[str, Sequence[Any]]) -> Passage:
    """Prepare one passage of evaluation.json: parallel lists tokens, originals, masked, replaced, probability."""
    names = ("tokens", "originals", "masked", "replaced", "probability")
    rows = zip(*(columns[name] for name in names), strict=True)
    tokens = [token for row in rows if (token := _Token(*row)).original != "[PAD]"]
    # Spacing by the originals keeps the shape of the text, whatever the generator wrote.
    spaces = spacing([token.original for token in tokens])
    return Passage(
        tokens=[_shown(token, space) for token, space in zip(tokens, spaces, strict=True)],
        masked=sum(token.masked for token in tokens),
        replaced=sum(token.replaced for token in tokens),
        caught=sum(token.replaced and token.flagged for token in tokens),
        false_alarms=sum(not token.replaced and token.flagged for token in tokens),
    )


def read_tokens(tokens: Sequence[str], probabilities: Sequence[float]) -> list[ShownToken]:
    """Prepare the tokens of a text for which only the probability that each was replaced is known."""
    rows = [_Token(text, text, False, False, number) for text, number in zip(tokens, probabilities, strict=True)]
    return [_shown(token, space) for token, space in zip(rows, spacing(tokens), strict=True)]


def _shown(token: _Token, space: bool) -> ShownToken:
    text = _piece(token.text)
    if not space and text != token.text:
        text = text.removeprefix("-")
    style, note = "t", f"{token.probability:.0%} likely replaced"
    if token.text in _SPECIAL and not token.replaced:
        style, text = "t special", _SPECIAL[token.text]
    elif token.replaced:
        style = "t rep" if token.flagged else "t rep missed"
    elif token.masked:
        style = "t hit"
    if token.replaced:
        note += f"; was {_printable(token.original)}, the generator wrote {_printable(token.text)}"
    elif token.masked:
        note += "; hidden, and the generator restored it"
    struck = _piece(token.original) if token.replaced else None
    return ShownToken(style, text, struck, token.probability, note, space)


def _piece(token: str) -> str:
    """Return a token as text; a "##" piece begins with a hyphen instead, as dictionaries write a suffix.

    The space that a token begins with is removed, because the page adds it, unless the token is only a space.
    """
    printable = _printable(token.removeprefix(" ") or "\N{OPEN BOX}")
    return "-" + printable[2:] if printable.startswith("##") and len(printable) > 2 else printable


def _printable(token: str) -> str:
    """Replace control characters and lone surrogates by a visible one, so that no token disappears from the page."""
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in ("Cc", "Cs") else c for c in token)


def spacing(tokens: Sequence[str]) -> list[bool]:
    """Return whether a space precedes each token when tokens are shown as running text.

    Some tokenizers keep the space at the start of a token. BERT's discards it, so this is a guess, for display only:
    "##" pieces join the word before them; closing punctuation joins the token before it, opening punctuation the token
    after it; hyphens, apostrophes and slashes join both sides, as do dots, commas and colons between digits; straight
    quotes open and close in turn.
    """
    if any(token.startswith(" ") for token in tokens):
        return [token.startswith(" ") for token in tokens]
    spaces: list[bool] = []
    open_marks: set[str] = set()
    glued = True
    for before, token, after in zip(["", *tokens], tokens, [*tokens[1:], ""], strict=False):
        doubled = token in _PAIRED and token == before
        closes = token in _PAIRED and token in open_marks
        opens = token in _PAIRED and not closes
        continues = token.startswith("##") and len(token) > 2
        joins_left = doubled or closes or continues or token in _JOINS_LEFT or token in _JOINS_BOTH
        spaces.append(not (glued or joins_left))
        if doubled:  # `` and ** open and close as one mark
            continue
        in_number = token in {".", ",", ":"} and before[-1:].isdigit() and after[:1].isdigit()
        glued = opens or in_number or token in _JOINS_RIGHT or token in _JOINS_BOTH
        if token in _PAIRED:
            open_marks ^= {token}
    return spaces

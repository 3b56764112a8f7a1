"""Held-out passages as HTML: what the generator wrote in them, and what the discriminator made of it."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

THRESHOLD = 0.5

_JOINS_LEFT = frozenset(",.;:!?)]}%’”»…")
_JOINS_RIGHT = frozenset("([{$£€“«‘#@")
_JOINS_BOTH = frozenset("-/_'‐‑")
_PAIRED = frozenset('"`*')
_SPECIAL = frozenset({"[CLS]", "[SEP]"})

LEGEND = """
<p class="note">The models never trained on these passages. Some tokens of each were hidden, and the generator
wrote a guess into every gap; the discriminator then read the result without being told where the gaps had been.
Point at a token to see its number.</p>
<ul class="legend">
<li><span class="scale" aria-hidden="true"></span> The <b>shade</b> is the discriminator’s probability that
the token was replaced: from 0 (blank) to 1 (full colour).</li>
<li><span class="t rep" style="--p:.9">wrote</span><s>read</s> A <b>solid frame</b>: the generator’s token
differs from the original, which stands struck out beside it, and the discriminator <b>caught</b> it.</li>
<li><span class="t rep missed" style="--p:.15">wrote</span><s>read</s> A <b>dashed frame</b>: replaced as
well, but <b>missed</b>: its probability is not over 0.5.</li>
<li><span class="t hit" style="--p:.05">read</span> A <b>dotted underline</b>: hidden, and the generator
guessed the original, so the token counts as original.</li>
<li><span class="t" style="--p:.85">read</span> <b>Strong colour without a frame</b>: an original token
taken for a fake, a false alarm.</li>
</ul>
"""


@dataclass(frozen=True)
class PassageCounts:
    """How one passage went; every field is a number of tokens.

    Attributes:
      tokens: tokens shown, [PAD] left out.
      masked: those that the generator had to guess.
      replaced: those whose guess differs from the original.
      caught: replaced tokens with a probability over `THRESHOLD`.
      false_alarms: tokens that were not replaced, with a probability over `THRESHOLD`.
    """

    tokens: int
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


def _tokens(passage: Mapping[str, Sequence[Any]]) -> list[_Token]:
    """The rows of a passage's parallel lists tokens, originals, masked, replaced, probability; no [PAD]."""
    columns = ("tokens", "originals", "masked", "replaced", "probability")
    rows = zip(*(passage[column] for column in columns), strict=True)
    return [token for row in rows if (token := _Token(*row)).original != "[PAD]"]


def count_passage(passage: Mapping[str, Sequence[Any]]) -> PassageCounts:
    """Counts of one passage of evaluation.json (parallel lists, see `_tokens`)."""
    tokens = _tokens(passage)
    return PassageCounts(
        tokens=len(tokens),
        masked=sum(token.masked for token in tokens),
        replaced=sum(token.replaced for token in tokens),
        caught=sum(token.replaced and token.flagged for token in tokens),
        false_alarms=sum(not token.replaced and token.flagged for token in tokens),
    )


def passage_html(passage: Mapping[str, Sequence[Any]]) -> str:
    """One passage as a `<figure>`: readable text, every token shaded, and a caption with its counts."""
    tokens = _tokens(passage)
    # By the originals: the text keeps its shape, whatever the generator wrote into its gaps.
    spaces = spacing([token.original for token in tokens])
    text = "".join(
        (" " if space else "") + _token_html(token, spaced=space) for space, token in zip(spaces, tokens, strict=True)
    )
    return (
        f'<figure class="passage"><p dir="auto">{text}</p>'
        f"<figcaption>{_caption(count_passage(passage))}</figcaption></figure>"
    )


def _caption(counts: PassageCounts) -> str:
    right = counts.masked - counts.replaced
    return (
        f"<b>Replaced {counts.replaced}, caught {counts.caught}</b> at {THRESHOLD} · "
        f"{counts.false_alarms} false alarm{'' if counts.false_alarms == 1 else 's'} · "
        f"of {counts.masked} hidden tokens the generator restored {right} · {counts.tokens} tokens"
    )


def _token_html(token: _Token, *, spaced: bool) -> str:
    shown = _piece(token.text)
    if not spaced and shown != token.text:
        shown = shown.removeprefix("-")
    kind = "t"
    if token.text in _SPECIAL and not token.replaced:
        kind, shown = "t special", shown.strip("[]").lower()
    elif token.replaced:
        kind = "t rep" if token.flagged else "t rep missed"
    elif token.masked:
        kind = "t hit"
    note = f"{token.probability:.0%} likely replaced"
    if token.replaced:
        note += f"; was {_printable(token.original)}, the generator wrote {_printable(token.text)}"
    elif token.masked:
        note += "; hidden, and the generator restored it"
    shade = f'style="--p:{token.probability:.3f}"'
    struck = f"<s>{escape(_piece(token.original))}</s>" if token.replaced else ""
    return f'<span class="{kind}" {shade} title="{escape(note)}">{escape(shown)}</span>{struck}'


def _piece(token: str) -> str:
    """A token as text; a "##" piece carries a hyphen instead, as dictionaries write a suffix."""
    printable = _printable(token)
    return "-" + printable[2:] if printable.startswith("##") and len(printable) > 2 else printable


def _printable(token: str) -> str:
    """The token with what has no width or shape made visible, so that no token disappears from the page."""
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in ("Cc", "Cs") else c for c in token)


def spacing(tokens: Sequence[str]) -> list[bool]:
    """Whether a space stands before each token when WordPiece tokens are set as running text.

    "##" pieces join the word before them; closing punctuation joins what stands before it, opening
    punctuation what follows; hyphens, apostrophes and slashes join both sides, as do dots between numbers;
    straight quotes open and close in turn. A guess where BERT's tokenizer threw the answer away: it serves
    reading, nothing else.
    """
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

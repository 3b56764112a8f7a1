"""Recognise how a file's tags mark entities, and read every notation as IOB or IOBES tags with a prefix."""

import collections
import functools
import re
from collections.abc import Iterable, Sequence

from electra_jax.errors import UserError
from electra_jax.tasks.tagging.conlleval import OUTSIDE

PLAIN = "plain"

# The letters of a scheme's tags. IO has bare types, or only I; plain tags, such as parts of speech, mark no entities.
SCHEMES = {"IOB1": "IB", "IOB2": "IB", "IOBES": "IBES", "BILOU": "BILU", "BMES": "BMES", "IO": "I", PLAIN: ""}

# Schemes that are IOBES with other letters are read, learnt and written as IOBES.
READ_AS = {"BILOU": "IOBES", "BMES": "IOBES"}
_LETTERS = frozenset("BIESLUM")
_IOBES_LETTERS = {"L": "E", "U": "S", "M": "I"}

# "O", and its equivalents in users' files.
_OUTSIDE_TAGS = frozenset({OUTSIDE, "o", "-", "_"})

_PREFIXED = re.compile(r"(?P<letter>[BIESLUM])[-_.:](?P<kind>.+)", re.IGNORECASE)
_SUFFIXED = re.compile(r"(?P<kind>.+)[-_.:](?P<letter>[BIESLUM])", re.IGNORECASE)

# "B", "B-": a letter without a type, if no tag of the file has one; and the type that such entities get.
_TYPELESS = re.compile(r"(?P<letter>[BIESLUM])[-_.:]?", re.IGNORECASE)
ONLY_TYPE = "ENTITY"

# The bracket notation of spans in CoNLL-2005 and CoNLL-2012: "(PER*", "*", "*)", "(LOC)".
_BRACKETED = re.compile(r"\([^()*]+\*?\)?|\*\)+|\*")


@functools.cache
def marked_tag(tag: str) -> tuple[str, str] | None:
    """Split `B-PER`, `b_PER` or `PER-B` into ("B", "PER"); None if no letter of any scheme marks the tag."""
    match = _PREFIXED.fullmatch(tag) or _SUFFIXED.fullmatch(tag)
    return None if match is None else (match["letter"].upper(), match["kind"])


def are_typeless(tags: Iterable[str]) -> bool:
    """Return whether the tags of a file are O and only a scheme's letters, with B among them or nothing but I."""
    found = [_TYPELESS.fullmatch(tag) for tag in set(tags) - _OUTSIDE_TAGS]
    letters = {match["letter"].upper() for match in found if match is not None}
    return None not in found and ("B" in letters or letters == {"I"})


@functools.cache
def read_tag(tag: str, scheme: str, *, typeless: bool = False) -> str | None:
    """Return a tag of a file as `O` or `B-PER`, in IOB or IOBES letters; None if it does not belong to the scheme.

    Args:
        tag: the tag in the file.
        scheme: a name of `SCHEMES`. Plain tags are returned unchanged.
        typeless: whether the tags of its file have no types, see `are_typeless`: they get `ONLY_TYPE`.
    """
    if scheme == PLAIN:
        return tag
    if tag in _OUTSIDE_TAGS:
        return OUTSIDE
    marked = _typeless_tag(tag) if typeless else marked_tag(tag)
    if marked is not None and marked[0] in SCHEMES[scheme]:
        letter, kind = marked
        return f"{_IOBES_LETTERS.get(letter, letter) if scheme in READ_AS else letter}-{kind}"
    return f"I-{tag}" if scheme == "IO" and marked is None else None


def recognised_scheme(sentences: Iterable[Sequence[str]]) -> str:
    """Return the scheme of `SCHEMES` to which most tags belong.

    Letters on fewer than one in a hundred marked tags are taken as errors. IOB1 and IOB2 differ in the first letter of
    an entity that does not directly follow another one of its type: I, or B.

    Args:
        sentences: the tags of each sentence, as in the file.
    """
    sentences = list(sentences)
    split = _typeless_tag if are_typeless(tag for tags in sentences for tag in tags) else marked_tag
    letters: collections.Counter[str] = collections.Counter()
    starts: collections.Counter[str] = collections.Counter()
    bare: collections.Counter[str] = collections.Counter()
    for tags in sentences:
        last_kind = None
        for tag in tags:
            marked = None if tag in _OUTSIDE_TAGS else split(tag)
            if marked is None:
                bare[tag] += 1
                last_kind = None
                continue
            letter, kind = marked
            letters[letter] += 1
            if kind != last_kind:
                starts[letter] += 1
            last_kind = kind
    types = bare.keys() - _OUTSIDE_TAGS
    # Next to marked tags, a single bare type is not a part of speech, but replaces O.
    if sum(bare[tag] for tag in types) > letters.total() and not (len(types) == 1 and letters["B"] + letters["I"]):
        # Tags of one letter, O among them, are parts of speech.
        return "IO" if bare[OUTSIDE] and any(len(tag) > 1 for tag in types) else PLAIN
    return _scheme_of_letters(letters, starts)


def check_notation(tags: Iterable[str], place: str) -> None:
    """Refuse tags that mark entities in an unsupported notation; `place` says where they are.

    Raises:
        UserError: if they are brackets around spans, or letters and types without a separator (`BPER`).
    """
    tags = set(tags)
    problem = None
    if any(tag.startswith("(") for tag in tags) and all(map(_BRACKETED.fullmatch, tags)):
        problem = f"are brackets around entities, as {min(tags)!r}, and not a tag of each word"
    elif not are_typeless(tags) and not any(map(marked_tag, tags)):
        kinds = collections.defaultdict[str, set[str]](set)
        for tag in tags - _OUTSIDE_TAGS:
            kinds[tag[0].upper()].add(tag[1:])
        both = sorted(kinds["I"] & kinds["B"] - {""})
        if both and kinds["I"] <= kinds["B"] and kinds.keys() <= _LETTERS:
            problem = f"have no hyphen between the letter and the type, as {'B' + both[0]!r} and {'I' + both[0]!r}"
    if problem is not None:
        raise UserError(
            f"{place} {problem}: write them as B-TYPE, I-TYPE and O, or set TAG_SCHEME = 'plain' to learn them as they "
            "are"
        )


def _typeless_tag(tag: str) -> tuple[str, str] | None:
    match = _TYPELESS.fullmatch(tag)
    return None if match is None else (match["letter"].upper(), ONLY_TYPE)


def _scheme_of_letters(letters: collections.Counter[str], starts: collections.Counter[str]) -> str:
    ends, others = letters["E"] + letters["S"], letters["L"] + letters["U"]
    if letters["M"] > letters["I"]:
        return "BMES"
    if max(ends, others) * 100 >= max(1, letters.total()):
        return "BILOU" if others > ends else "IOBES"
    return "IOB1" if starts["I"] > starts["B"] else "IOB2"

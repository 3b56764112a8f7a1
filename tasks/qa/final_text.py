"""The text of a predicted span: cut out of the context by characters, or projected as the original did."""

import unicodedata

from tokenizers import Tokenizer

from electra_jax.tasks.qa.answers import split_words
from electra_jax.tasks.qa.windows import Window


def span_text(context: str, window: Window, start: int, end: int) -> str:
    """The characters from the first of position `start` to the last of position `end`, with the marks upon it."""
    first = int(window.offsets_C2[start - window.context_start, 0])
    last = int(window.offsets_C2[end - window.context_start, 1])
    # A piece whose accents are stripped ends before a combining mark at its end.
    while last < len(context) and unicodedata.category(context[last]) == "Mn":
        last += 1
    return context[first:last]


def projected_span_text(context: str, window: Window, start: int, end: int, tokenizer: Tokenizer) -> str:
    """The original's text of a span: its word pieces, found again in its words, which stand a space apart."""
    pieces = (tokenizer.id_to_token(token) for token in window.input_ids_L[start : end + 1].tolist())
    pieces_text = " ".join(pieces).replace(" ##", "").replace("##", "")
    split = split_words(context)
    first_character, last_character = window.offsets_C2[[start - window.context_start, end - window.context_start], 0]
    first, last = split.word_of_character[first_character], split.word_of_character[last_character]
    return project(" ".join(pieces_text.split()), " ".join(split.words[first : last + 1]), tokenizer)


def project(pieces_text: str, text: str, tokenizer: Tokenizer) -> str:
    """The part of `text` that spells `pieces_text`, or the whole of it where that cannot be told.

    "steve smith" in "Steve Smith's" is "Steve Smith". Source: BERT's `get_final_text`. It fails where lower-casing
    or stripping changes the number of characters, and finds the first of several occurrences.

    Args:
      pieces_text: word pieces put together again.
      text: the words of the context that hold them.
      tokenizer: tells how text is cleaned and split.
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

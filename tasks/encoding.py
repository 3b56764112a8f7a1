"""Tokenise texts of any length in a bounded memory."""

import unicodedata
from collections.abc import Iterable, Iterator

from tokenizers import Tokenizer

from electra_jax.data.blocks import WORD_MARK
from electra_jax.tasks.text_sample import cut_before_spaces

# Characters that are tokenised at once: of a part of a text, and of all parts together.
LONGEST_PART, LARGEST_BATCH = 2**17, 2**20


def encode_texts(texts: Iterable[str], tokenizer: Tokenizer) -> list[list[int]]:
    """Return the token ids of each text, without special tokens.

    The tokenizer's own objects take over a hundred bytes a character: it is given a bounded number of characters at a
    time, and a longer text in parts that are cut before spaces, which gives the ids of the whole text.
    """
    found: list[list[int]] = []
    for batch in _batches((number, part) for number, text in enumerate(texts) for part in parts_of(text)):
        encodings = tokenizer.encode_batch_fast([part for _, part in batch], add_special_tokens=False)
        for (number, _), encoding in zip(batch, encodings, strict=True):
            if number == len(found):
                found.append(encoding.ids)
            else:
                found[-1] += encoding.ids
    return found


def encode_with_marks(texts: Iterable[str], tokenizer: Tokenizer) -> list[list[int]]:
    """Return the token ids of each text, with `WORD_MARK` added where a token goes on with the word before it.

    A word begins at the beginning of a text and after white space, whatever the tokenizer makes of it; punctuation and
    symbols are words of their own.
    """
    found: list[list[int]] = []
    for text in texts:
        marked: list[int] = []
        for part in parts_of(text):
            encoding = tokenizer.encode(part, add_special_tokens=False)
            goes_on = False
            for index, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
                stands_alone = all(unicodedata.category(character)[0] in "PS" for character in part[start:end].strip())
                after_space = part[start - 1 : start].isspace() or part[start : start + 1].isspace()
                marked.append(index + WORD_MARK * (goes_on and not after_space and not stands_alone))
                goes_on = not stands_alone
        found.append(marked)
    return found


def parts_of(text: str) -> Iterator[str]:
    """Yield the parts of a text that are tokenised each by itself; joined they are the text."""
    return cut_before_spaces(text, LONGEST_PART) if len(text) > LONGEST_PART else iter((text,))


def _batches(parts: Iterable[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    batch: list[tuple[int, str]] = []
    size = 0
    for number, part in parts:
        batch.append((number, part))
        size += len(part)
        if size >= LARGEST_BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch

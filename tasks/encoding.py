"""Tokenise texts of any length in bounded memory."""

import contextlib
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from tokenizers import Encoding, Tokenizer

from electra_jax.data.blocks import WORD_MARK
from electra_jax.errors import UserError
from electra_jax.tasks.text_sample import cut_before_spaces
from electra_jax.tasks.tokenizer_json import is_of_tokenizers

# Characters that are tokenised at once: of a part of a text, and of all parts together.
LONGEST_PART, LARGEST_BATCH = 2**17, 2**20


def encode_texts(texts: Iterable[str], tokenizer: Tokenizer) -> list[list[int]]:
    """Return the token ids of each text, without special tokens.

    The tokenizer's own objects take over a hundred bytes a character. It is therefore given a bounded number of
    characters at a time, and a longer text in parts cut before spaces, which yields the ids of the whole text.
    """
    found: list[list[int]] = []
    for batch in _batches((number, part) for number, text in enumerate(texts) for part in parts_of(text)):
        encodings = read([part for _, part in batch], tokenizer)
        for (number, _), encoding in zip(batch, encodings, strict=True):
            if number == len(found):
                found.append(encoding.ids)
            else:
                found[-1] += encoding.ids
    return found


def encode_with_marks(texts: Iterable[str], tokenizer: Tokenizer) -> list[list[int]]:
    """Return the token ids of each text, with `WORD_MARK` added where a token continues a word.

    A word begins at the beginning of a text and after white space, however the tokenizer splits; punctuation marks and
    symbols are words of their own.
    """
    found: list[list[int]] = []
    for text in texts:
        marked: list[int] = []
        for part in parts_of(text):
            encoding = read_with_places(part, tokenizer)
            goes_on = False
            for index, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
                stands_alone = all(unicodedata.category(character)[0] in "PS" for character in part[start:end].strip())
                after_space = part[start - 1 : start].isspace() or part[start : start + 1].isspace()
                marked.append(index + WORD_MARK * (goes_on and not after_space and not stands_alone))
                goes_on = not stands_alone
        found.append(marked)
    return found


def read(texts: Sequence[str], tokenizer: Tokenizer) -> list[Encoding]:
    """Encode texts without special tokens and without the offsets of tokens.

    Raises:
        UserError: if it cannot encode one, such as an unknown character if the tokenizer has no unknown token.
    """
    with _errors_for_users():
        return tokenizer.encode_batch_fast(texts, add_special_tokens=False)


def read_with_places(text: str, tokenizer: Tokenizer) -> Encoding:
    """Encode a text without special tokens, with the offsets of each token.

    Raises:
        UserError: as `read`.
    """
    with _errors_for_users():
        return tokenizer.encode(text, add_special_tokens=False)


@contextlib.contextmanager
def _errors_for_users() -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        if not is_of_tokenizers(error):
            raise
        raise UserError(
            f"the tokenizer cannot read a text ({error}): correct its tokenizer.json, as for the token of what is "
            "unknown, or learn another with `electra vocab`"
        ) from error


def parts_of(text: str) -> Iterator[str]:
    """Yield the parts of a text that are tokenised separately; joined they are the text."""
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

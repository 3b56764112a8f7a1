"""Define the interface of every source of text, and which of its documents are held out."""

import abc
import collections
import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from electra_jax.errors import UserError

SPLITS = ("train", "validation")
_HASHES = 2**64

# Vertical tab, form feed, file and record separators, next line, and Unicode's line and paragraph separators.
# A carriage return is white space to every tokenizer.
_OTHER_LINE_ENDS = re.compile("[\v\f\x1c-\x1e\x85\u2028\u2029]")


@dataclasses.dataclass(frozen=True)
class Document:
    """Hold a text that belongs together.

    Attributes:
        key: a name that is stable, and unique in the corpus, such as "novels/a.txt.xz#17".
        text: non-empty lines joined by line ends; packing takes each line as a sentence.
    """

    key: str
    text: str


class Corpus(abc.ABC):
    """Read documents from a source. A corpus can be pickled, and each unit read in another process.

    Attributes:
        name: a short readable name.
        units: the parts that can be read independently (files, shards of a split, packages), in order.
        skipped: how much was left out of the units read so far with this object, by reason ("undecodable lines").
        tokenised: whether the corpus holds token ids (`examples`) instead of text (`documents`).
    """

    tokenised: bool = False

    def __init__(self, *, name: str, units: Iterable[str]) -> None:
        """Take the name and the units; nothing is read yet."""
        self.name = name
        self.units = list(units)
        self.skipped: collections.Counter[str] = collections.Counter()

    @property
    @abc.abstractmethod
    def size_bytes(self) -> int:
        """Return the bytes of text; an estimate if the text is compressed."""

    @abc.abstractmethod
    def fingerprint(self) -> str:
        """Return a hash of everything that determines the documents, without reading them."""

    def description(self) -> Iterable[str]:
        """Return lines that tell the user how the corpus is read.

        Raises:
            UserError: if something cannot be read.
        """
        return ()

    def documents(self, unit: str) -> Iterator[Document]:
        """Yield the documents of a unit.

        Raises:
            UserError: if something cannot be read.
        """
        raise NotImplementedError(f"{self.name} holds token ids: read its examples")

    def examples(self, unit: str) -> Iterator[dict[str, list[int]]]:
        """Yield the examples of a unit of a tokenised corpus: input_ids and token_type_ids, without padding.

        Raises:
            UserError: if something cannot be read.
        """
        raise NotImplementedError(f"{self.name} holds text: read its documents")


def fingerprint_of(*parts: object) -> str:
    """Return a short hash of values that JSON can hold."""
    content = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def joined_lines(lines: Iterable[str]) -> str:
    """Join the lines that are not blank, stripped, by line ends: the text of a Document.

    Other line ends of Unicode separate lines here too: a tokenizer that removes control characters would join the words
    on either side.
    """
    stripped = (part.strip() for line in lines for part in _OTHER_LINE_ENDS.split(line))
    return "\n".join(line for line in stripped if line)


def text_hash(text: str | bytes) -> int:
    """Return a 64-bit hash."""
    data = text.encode("utf-8") if isinstance(text, str) else text
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


def held_out_threshold(hashes: Iterable[int], held_out_fraction: float) -> int:
    """Return the threshold below which the hash of a held-out document lies.

    The hash is of a document's text, so that all copies of a document are on the same side. A share that is so small
    that it would hold out none holds out the document with the smallest hash. `hashes` are read only up to the first
    held-out document.

    Args:
        hashes: `text_hash` of every document of the corpus.
        held_out_fraction: share of the documents to hold out; 0 for none.

    Raises:
        UserError: if the fraction is outside [0, 1), or there are fewer than two different documents to divide.
    """
    if not 0 <= held_out_fraction < 1:
        raise UserError(f"HELD_OUT_FRACTION is {held_out_fraction}: it must be at least 0 and less than 1.")
    threshold = int(held_out_fraction * _HASHES)
    if threshold == 0:
        return 0
    seen = set()
    for value in hashes:
        if value < threshold:
            return threshold
        seen.add(value)
    if not seen:
        raise UserError("The corpus is empty: no document was found in it.")
    if len(seen) == 1:
        raise UserError(
            "The corpus has no two different documents, therefore none can be held out for evaluation: "
            "give more text, divide plain text with blank lines or TEXT_FORMAT 'lines', a document a line, or set "
            "HELD_OUT_FRACTION to 0."
        )
    return min(seen) + 1


def example_id(key: str, index: int) -> int:
    """Return the number of example `index` of document `key`: an int64 >= 0, 63 bits of a hash plus the index."""
    hashed = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")
    return (hashed + index) % 2**63


def read_corpus(corpus: Corpus, units: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (`text_hash`, {"key", "text"}) of each document.

    A tokenised corpus yields (hash, {"example_id", "input_ids", "token_type_ids"}) of each example.
    """
    for unit in units:
        if not corpus.tokenised:
            for document in corpus.documents(unit):
                yield text_hash(document.text), {"key": document.key, "text": document.text}
            continue
        for index, example in enumerate(corpus.examples(unit)):
            ids = example["input_ids"]
            yield text_hash(np.asarray(ids, np.int32).tobytes()), {"example_id": example_id(unit, index), **example}

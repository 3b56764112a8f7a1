"""What every source of text offers: units that are read one by one, documents in them, and a fingerprint."""

import abc
import collections
import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator


@dataclasses.dataclass(frozen=True)
class Document:
    """A text that belongs together.

    Attributes:
      key: stable, and unique in the corpus, such as "novels/a.txt.xz#17".
      text: non-empty lines joined by a line end; packing takes each line for a sentence.
    """

    key: str
    text: str


class Corpus(abc.ABC):
    """A source of documents. It pickles, and each unit can be read in another process.

    Attributes:
      name: a short name for people.
      units: the parts that can be read independently (files, shards of a split, packages), in order.
      skipped: what was left out of the units read so far by this object, and why ("undecodable lines").
      tokenised: whether it holds token ids (`examples`) rather than text (`documents`).
    """

    tokenised: bool = False

    def __init__(self, *, name: str, units: Iterable[str]) -> None:
        """Nothing is read yet."""
        self.name = name
        self.units = list(units)
        self.skipped: collections.Counter[str] = collections.Counter()

    @property
    @abc.abstractmethod
    def size_bytes(self) -> int:
        """Bytes of text; an estimate where the text is compressed."""

    @abc.abstractmethod
    def fingerprint(self) -> str:
        """Hash of all that determines the documents, without reading them."""

    def documents(self, unit: str) -> Iterator[Document]:
        """The documents of a unit, streamed. Raises UserError at what cannot be read."""
        raise NotImplementedError(f"{self.name} holds token ids: read its examples")

    def examples(self, unit: str) -> Iterator[dict[str, list[int]]]:
        """The examples of a unit of a tokenised corpus: input_ids and token_type_ids, unpadded."""
        raise NotImplementedError(f"{self.name} holds text: read its documents")


def fingerprint_of(*parts: object) -> str:
    """A short hash of JSON-able parts."""
    content = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def joined_lines(lines: Iterable[str]) -> str:
    """The lines that are not blank, stripped, joined by line ends: the text of a Document."""
    stripped = (line.strip() for line in lines)
    return "\n".join(line for line in stripped if line)

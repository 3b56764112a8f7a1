"""Divide long documents, so that a share of the text, and of each file, can always be held out."""

from collections.abc import Iterable, Iterator

from electra_jax.tasks.corpora.corpus import Corpus, Document, fingerprint_of
from electra_jax.tasks.text_sample import cut_before_spaces

# Characters: a small part of a corpus, but many times an example.
LONGEST_DOCUMENT = 2**15
# A smaller corpus is cut into this many parts, as long as each of them makes several examples.
NUM_PARTS = 64
CHARACTERS_A_TOKEN, EXAMPLES_A_PART = 4, 8


class DividedCorpus(Corpus):
    """Read the documents of another corpus, cut to a maximum number of characters.

    A longer document is cut between its lines, and a longer line before a space; its parts have the keys "<key>/0",
    "<key>/1" and so on. A shorter document keeps its key.
    """

    def __init__(self, corpus: Corpus, longest: int) -> None:
        """Take a corpus of text, and the most characters of a document."""
        super().__init__(name=corpus.name, units=corpus.units)
        self._corpus, self._longest = corpus, longest
        self.skipped = corpus.skipped

    @property
    def size_bytes(self) -> int:
        """Return the bytes of text."""
        return self._corpus.size_bytes

    def fingerprint(self) -> str:
        """Return a hash of everything that determines the documents."""
        return fingerprint_of(self._corpus.fingerprint(), self._longest)

    def description(self) -> Iterable[str]:
        """Return lines that tell the user how the corpus is read."""
        return self._corpus.description()

    def documents(self, unit: str) -> Iterator[Document]:
        """Yield the documents of a unit, in order."""
        for document in self._corpus.documents(unit):
            if len(document.text) <= self._longest:
                yield document
                continue
            for number, text in enumerate(_parts(document.text, self._longest)):
                yield Document(f"{document.key}/{number}", text)


def divide(corpus: Corpus, *, sequence_length: int) -> Corpus:
    """Return a corpus without long documents; a tokenised corpus is returned unchanged.

    Args:
        corpus: any corpus.
        sequence_length: tokens of an example.
    """
    return corpus if corpus.tokenised else DividedCorpus(corpus, longest_document(corpus.size_bytes, sequence_length))


def divide_as_before(corpus: Corpus) -> Corpus:
    """Return a corpus divided as by the first version that divided any, however small the corpus is."""
    return corpus if corpus.tokenised else DividedCorpus(corpus, LONGEST_DOCUMENT)


def longest_document(size_bytes: int, sequence_length: int) -> int:
    """Return the most characters of a document, for a corpus of some size and examples of some tokens."""
    least = sequence_length * CHARACTERS_A_TOKEN * EXAMPLES_A_PART
    return min(LONGEST_DOCUMENT, max(least, size_bytes // NUM_PARTS))


def _parts(text: str, longest: int) -> Iterator[str]:
    lines: list[str] = []
    size = 0
    for whole in text.split("\n"):
        for line in cut_before_spaces(whole, longest):
            if lines and size + len(line) > longest:
                yield "\n".join(lines)
                lines, size = [], 0
            lines.append(line.strip())
            size += len(line) + 1
    yield "\n".join(lines)

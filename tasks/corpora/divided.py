"""Divide long documents, so that a share of the text can be held out whatever its documents are."""

from collections.abc import Iterable, Iterator

from electra_jax.tasks.corpora.corpus import Corpus, Document, fingerprint_of
from electra_jax.tasks.text_sample import cut_before_spaces

# Characters: a small part of a corpus, and many times an example.
LONGEST_DOCUMENT = 2**15


class DividedCorpus(Corpus):
    """Read the documents of another corpus, each of at most `LONGEST_DOCUMENT` characters.

    A document that is longer is cut between its lines, and a line that is longer before a space; its parts have the
    keys "<key>/0", "<key>/1" and so on. A shorter document keeps its key.
    """

    def __init__(self, corpus: Corpus) -> None:
        """Take a corpus of text."""
        super().__init__(name=corpus.name, units=corpus.units)
        self._corpus = corpus
        self.skipped = corpus.skipped

    @property
    def size_bytes(self) -> int:
        """Return the bytes of text."""
        return self._corpus.size_bytes

    def fingerprint(self) -> str:
        """Return a hash of all that determines the documents."""
        return fingerprint_of(self._corpus.fingerprint(), LONGEST_DOCUMENT)

    def description(self) -> Iterable[str]:
        """Return lines for people on how the corpus is read."""
        return self._corpus.description()

    def documents(self, unit: str) -> Iterator[Document]:
        """Yield the documents of a unit, in order."""
        for document in self._corpus.documents(unit):
            if len(document.text) <= LONGEST_DOCUMENT:
                yield document
                continue
            for number, text in enumerate(_parts(document.text)):
                yield Document(f"{document.key}/{number}", text)


def divide(corpus: Corpus) -> Corpus:
    """Return a corpus without long documents; one that is tokenised already is returned as it is."""
    return corpus if corpus.tokenised else DividedCorpus(corpus)


def _parts(text: str) -> Iterator[str]:
    lines: list[str] = []
    size = 0
    for whole in text.split("\n"):
        for line in cut_before_spaces(whole, LONGEST_DOCUMENT):
            if lines and size + len(line) > LONGEST_DOCUMENT:
                yield "\n".join(lines)
                lines, size = [], 0
            lines.append(line.strip())
            size += len(line) + 1
    yield "\n".join(lines)

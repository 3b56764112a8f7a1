"""Leave out documents of a corpus: copies of earlier ones, those of a wrong length, and those with too few letters."""

import dataclasses
import functools
import sqlite3
import threading
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any

from electra_jax.errors import UserError
from electra_jax.tasks.corpora.corpus import Corpus, Document, fingerprint_of, text_hash

# Memory for the index of hashes; the rest of it is in a temporary file.
_INDEX_KILOBYTES = 64_000
# MinHash as in Lee et al. 2022, "Deduplicating Training Data Makes Language Models Better": 5-grams, Jaccard 0.8.
_SHINGLE_WORDS, _SIMILARITY, _PERMUTATIONS = 5, 0.8, 128
# Up to this mean number of characters of a word and its space, a text has spaces between words.
_LONGEST_MEAN_WORD = 20
_SEED = 1
_NUMBER_BITS = 40


@dataclasses.dataclass(frozen=True)
class Filters:
    """Say which documents are left out, in this order.

    Attributes:
        min_characters, max_characters: the shortest and the longest document; None for no maximum.
        min_letter_share: the smallest share of letters and their marks among the characters other than spaces.
        deduplicate: None; "exact" for documents whose text occurred before; "near" also for those that share most of
            their runs of five words (or characters, if there are no spaces) with an earlier one.
    """

    min_characters: int
    max_characters: int | None
    min_letter_share: float
    deduplicate: str | None

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            UserError: if DEDUPLICATE is unknown, or no length is possible.
        """
        if self.deduplicate not in (None, "exact", "near"):
            raise UserError(f"DEDUPLICATE is {self.deduplicate!r}: it must be None, 'exact' or 'near'")
        if self.max_characters is not None and self.max_characters < self.min_characters:
            raise UserError(
                f"MAX_CHARACTERS is {self.max_characters}, less than MIN_CHARACTERS {self.min_characters}: no document "
                "is left"
            )

    def reason(self, text: str) -> str | None:
        """Return why a document is left out regardless of the others, as a plural phrase; None if it is kept."""
        if len(text) < self.min_characters:
            return f"documents of under {self.min_characters} characters"
        if self.max_characters is not None and len(text) > self.max_characters:
            return f"documents of over {self.max_characters} characters"
        if self.min_letter_share and letter_share(text) < self.min_letter_share:
            return f"documents with under {self.min_letter_share:.0%} letters"
        return None


class FilteredCorpus(Corpus):
    """Read the documents of another corpus that are not left out; the others are counted in `skipped`.

    The first of several copies is kept, in the order of the units, regardless of the order of reading: before a unit is
    read, those before it are gone through once.
    """

    def __init__(self, corpus: Corpus, filters: Filters) -> None:
        """Take a corpus of text."""
        super().__init__(name=corpus.name, units=corpus.units)
        self._corpus, self._filters = corpus, filters
        self.skipped = corpus.skipped
        self._forget()

    def _forget(self) -> None:
        self._indexes: list[HashIndex | SimilarityIndex] | None = None
        self._indexed_units = 0
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the indexes, which the other process builds again."""
        return {key: value for key, value in self.__dict__.items() if key not in ("_indexes", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the state, with empty indexes."""
        self.__dict__.update(state)
        self._forget()

    @property
    def size_bytes(self) -> int:
        """Return the bytes of text before any is left out."""
        return self._corpus.size_bytes

    def fingerprint(self) -> str:
        """Return a hash of everything that determines the documents."""
        return fingerprint_of(self._corpus.fingerprint(), dataclasses.asdict(self._filters))

    def description(self) -> Iterable[str]:
        """Return lines that tell the user how the corpus is read."""
        return self._corpus.description()

    def documents(self, unit: str) -> Iterator[Document]:
        """Yield the kept documents of a unit, in order."""
        position = self.units.index(unit)
        if self._filters.deduplicate is not None:
            before = self.skipped.copy()
            while self._indexed_units < position:
                for _ in self._kept(self._indexed_units):
                    pass
                self._indexed_units += 1
            # The documents of earlier units are counted when those units are read.
            self.skipped.clear()
            self.skipped.update(before)
        yield from self._kept(position)
        self._indexed_units = max(self._indexed_units, position + 1)

    def _kept(self, position: int) -> Iterator[Document]:
        for number, document in enumerate(self._corpus.documents(self.units[position])):
            reason = self._filters.reason(document.text) or self._copy(document.text, position, number)
            if reason is None:
                yield document
            else:
                self.skipped[reason] += 1

    def _copy(self, text: str, position: int, number: int) -> str | None:
        """Return the kind of copy that a document is of an earlier one; None if it is none."""
        if self._filters.deduplicate is None:
            return None
        with self._lock:
            if self._indexes is None:
                near = [SimilarityIndex()] if self._filters.deduplicate == "near" else []
                self._indexes = [HashIndex(), *near]
            place = (position << _NUMBER_BITS) + number
            return next((index.what for index in self._indexes if index.is_copy(text, place)), None)


class HashIndex:
    """Remember where each text occurred first, by a 64-bit hash, in a temporary file."""

    what = "copies of documents"

    def __init__(self) -> None:
        """Open an empty index, which is removed with the process."""
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for setting in (f"cache_size = -{_INDEX_KILOBYTES}", "journal_mode = OFF", "synchronous = OFF"):
            self._database.execute(f"PRAGMA {setting}")
        self._database.execute("CREATE TABLE first (hash INTEGER PRIMARY KEY, place INTEGER)")

    def is_copy(self, text: str, place: int) -> bool:
        """Return whether a text occurred before at a place other than this one; if not, remember it."""
        # SQLite's integers are signed.
        hashed = text_hash(text) - 2**63
        if self._database.execute("INSERT OR IGNORE INTO first VALUES (?, ?)", (hashed, place)).rowcount:
            return False
        return self._database.execute("SELECT place FROM first WHERE hash = ?", (hashed,)).fetchone()[0] != place


class SimilarityIndex:
    """Remember texts by MinHash, in memory: about 4 kB each."""

    what = "near-copies of documents"

    def __init__(self) -> None:
        """Open an empty index.

        Raises:
            UserError: if the library is not installed.
        """
        try:
            import datasketch
        except ImportError as error:
            raise UserError(
                "DEDUPLICATE 'near' needs the package datasketch: install electra-jax with its extra dedup, or set "
                "DEDUPLICATE to 'exact'"
            ) from error
        self._minhash = functools.partial(datasketch.MinHash, num_perm=_PERMUTATIONS, seed=_SEED)
        self._index = datasketch.MinHashLSH(threshold=_SIMILARITY, num_perm=_PERMUTATIONS)

    def is_copy(self, text: str, place: int) -> bool:
        """Return whether a text is similar to an earlier one at a place other than this one; if not, remember it."""
        if place in self._index:
            return False
        signature = self._minhash()
        signature.update_batch([shingle.encode() for shingle in shingles(text)])
        if self._index.query(signature):
            return True
        self._index.insert(place, signature)
        return False


def filtered(corpus: Corpus, filters: Filters) -> Corpus:
    """Return a corpus without the documents that filters leave out; the corpus itself if they leave out none.

    Raises:
        UserError: if they would leave out documents of a tokenised corpus.
    """
    if filters == Filters(0, None, 0.0, None):
        return corpus
    if corpus.tokenised:
        raise UserError(
            f"{corpus.name} holds token ids, and DEDUPLICATE, MIN_CHARACTERS, MAX_CHARACTERS and MIN_LETTER_SHARE are "
            "for text: set them to None, 0, None and 0.0"
        )
    return FilteredCorpus(corpus, filters)


def letter_share(text: str) -> float:
    """Return the share of letters and their combining marks among the characters other than spaces."""
    letters = others = 0
    for character in text:
        if character.isalpha() or unicodedata.category(character)[0] == "M":
            letters += 1
        elif not character.isspace():
            others += 1
    return letters / max(letters + others, 1)


def shingles(text: str) -> set[str]:
    """Return a text's runs of five words; of five characters if there are too few words, as without spaces."""
    words = text.lower().split()
    spaced = len(words) >= _SHINGLE_WORDS and len(text) <= _LONGEST_MEAN_WORD * len(words)
    units, gap = (words, " ") if spaced else (list("".join(words)), "")
    last = max(len(units) - _SHINGLE_WORDS, 0)
    return {gap.join(units[start : start + _SHINGLE_WORDS]) for start in range(last + 1)}

"""Read files of text as a corpus, as streams, reporting the file and place of any damage."""

from collections.abc import Iterable, Iterator

from etils import epath

from electra_jax.files import size_and_time
from electra_jax.tasks.corpora.byte_streams import EXPANSION, open_content
from electra_jax.tasks.corpora.corpus import Corpus, Document, fingerprint_of
from electra_jax.tasks.corpora.text_format import FORMATS
from electra_jax.tasks.corpora.text_reader import TextReader

# The most files that are described one by one; if there are more, the first of each format is described.
_DESCRIBED = 20
_SHOWN_CHARACTERS = 80


class TextFiles(Corpus):
    """Read files of text. A unit is a file, named by its path relative to `root`; its keys are "<unit>#<number>"."""

    def __init__(
        self,
        paths: Iterable[epath.Path],
        *,
        root: epath.Path,
        name: str,
        text_format: str,
        text_field: str,
        skip_undecodable: bool,
    ) -> None:
        """Take the files; nothing is read yet.

        Args:
            paths: the files.
            root: a folder that holds all of them.
            name: a short readable name.
            text_format: see `open.open_corpus`.
            text_field: see `open.open_corpus`.
            skip_undecodable: see `open.open_corpus`.
        """
        self._paths = {path.relative_to(root).as_posix(): path for path in paths}
        super().__init__(name=name, units=self._paths)
        self._reader = TextReader(text_format, text_field, skip_undecodable, self.skipped)
        self._formats: dict[str, str] = {}

    @property
    def size_bytes(self) -> int:
        """Return the bytes of text; an estimate for compressed files."""
        return int(sum(size_and_time(path)[0] * EXPANSION.get(path.suffix, 1) for path in self._paths.values()))

    def fingerprint(self) -> str:
        """Return a hash of the units' names, sizes and modification times, and of how they are read."""
        files = [(unit, *size_and_time(path)) for unit, path in self._paths.items()]
        formats = {unit: self._format_of(unit) for unit in self._paths}
        # Plain text and JSON lines with the usual suffix keep the hash by which existing caches are found.
        read = {unit: kind for unit, kind in formats.items() if kind != ("jsonl" if ".jsonl" in unit else "documents")}
        how = self._reader
        extra = [read] if how.text_format == "auto" and read else []
        return fingerprint_of(files, how.text_format, how.text_field, how.skip_undecodable, *extra)

    def documents(self, unit: str) -> Iterator[Document]:
        """Yield the documents of a file, in order."""
        path = self._paths[unit]
        with open_content(path) as content:
            texts = self._reader.texts(content, str(path))
            for number, text in enumerate(text for text in texts if text):
                yield Document(f"{unit}#{number}", text)

    def description(self) -> Iterator[str]:
        """Yield the detected format and the first line of each file; of many files, only the first of each format.

        Raises:
            UserError: as `documents`.
        """
        by_format: dict[str, list[str]] = {}
        for unit in self._paths:
            by_format.setdefault(self._format_of(unit), []).append(unit)
        for kind, units in by_format.items():
            shown = units if len(self.units) <= _DESCRIBED else units[:1]
            for unit in shown:
                others = f" and {len(units) - 1:,} more" if len(units) > len(shown) else ""
                yield f"{unit}{others}: {FORMATS[kind]}, {self._first_line(unit)}"

    def _first_line(self, unit: str) -> str:
        skipped = self.skipped.copy()
        first = next(self.documents(unit), None)
        # The lines are counted when the whole file is read.
        self.skipped.clear()
        self.skipped.update(skipped)
        if first is None:
            return "no text"
        line = first.text.split("\n", 1)[0]
        return f"which begins {line[:_SHOWN_CHARACTERS]!r}{'...' if len(line) > _SHOWN_CHARACTERS else ''}"

    def _format_of(self, unit: str) -> str:
        if unit not in self._formats:
            path = self._paths[unit]
            with open_content(path) as content:
                self._formats[unit] = self._reader.format_of(content, str(path))
        return self._formats[unit]

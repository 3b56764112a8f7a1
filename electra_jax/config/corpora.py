"""Name a corpus, or a mixture of corpora with weights, and the documents of it that are left out."""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Annotated, Self

from electra_jax import ranges
from electra_jax.errors import UserError
from electra_jax.ranges import AT_LEAST_0, AT_LEAST_1, SHARE


@dataclasses.dataclass(frozen=True)
class Corpora:
    """Say what is read: a corpus or a mixture of corpora, and which of their documents are left out.

    Attributes:
        corpus: the directory of a cache, or what `tasks.corpora.open` opens; or a mixture, [(corpus, weight), ...],
            whose parts get shares of the rows in proportion to their weights.
        min_characters, max_characters, min_letter_share, deduplicate: see `tasks.corpora.filtered.Filters`.
    """

    corpus: str | Sequence[tuple[str, float]] | None
    min_characters: Annotated[int, AT_LEAST_0]
    max_characters: Annotated[int | None, AT_LEAST_1]
    min_letter_share: Annotated[float, SHARE]
    deduplicate: str | None

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            UserError: if one is out of range, or a mixture is not a list of pairs of a name and a weight above 0.
        """
        ranges.check(self)
        if self.corpus is None or isinstance(self.corpus, str):
            return
        pairs = self.corpus if isinstance(self.corpus, list | tuple) else ()
        if not pairs or not all(map(_is_weighted, pairs)):
            raise UserError(
                f"CORPUS is {self.corpus!r}: it must be a name, or a mixture of names with weights above 0, as in "
                '[("wiki/*.parquet", 3.0), ("law/*.jsonl", 1.0)]'
            )

    @property
    def is_mixture(self) -> bool:
        """Return whether this is a mixture, with weights."""
        return self.corpus is not None and not isinstance(self.corpus, str)

    @property
    def parts(self) -> list[tuple[Self, float]]:
        """Return the corpora of a mixture and their weights; a single corpus has weight 1."""
        pairs = self.corpus if self.is_mixture else [(self.corpus, 1.0)]
        return [(dataclasses.replace(self, corpus=name), float(weight)) for name, weight in pairs]

    @property
    def name(self) -> str | None:
        """Return the readable name of the corpus."""
        return " + ".join(f"{weight:g} x {name}" for name, weight in self.corpus) if self.is_mixture else self.corpus


@dataclasses.dataclass(frozen=True)
class CorpusConfig(Corpora):
    """The text: its source, which of it is left out (see `Corpora`), and how it is read.

    Attributes:
        text_format: how text files are divided; "auto" to tell from their first bytes.
        text_field: the field, column or feature that holds the text.
        skip_undecodable: skip and count lines that are not UTF-8 instead of stopping.
    """

    text_format: str
    text_field: str
    skip_undecodable: bool


def _is_weighted(pair: object) -> bool:
    return (
        isinstance(pair, list | tuple)
        and len(pair) == 2
        and isinstance(pair[0], str)
        and isinstance(pair[1], int | float)
        and 0 < pair[1] <= sys.float_info.max
    )

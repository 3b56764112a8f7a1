"""Texts as the rows of word pieces that a model reads, a row each."""

from collections.abc import Sequence

from electra_jax.tasks.text.tables import TextFeatures, text_windows
from electra_jax.tasks.vocabulary import Vocabulary


def text_features(
    texts: Sequence[tuple[str, str | None]], *, vocabulary: Vocabulary, length: int
) -> list[TextFeatures]:
    """The rows of texts or pairs, cut to a length."""
    return [windows.rows[0] for windows in text_windows(texts, vocabulary=vocabulary, length=length, long_texts="cut")]

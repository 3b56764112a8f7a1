"""Hold a model's predictions for a sentence: tags, and the entities that they mark."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from electra_jax.tasks.tagging.conlleval import Span
from electra_jax.tasks.tagging.sentences import TaggedSentence


@dataclasses.dataclass(frozen=True)
class Entity:
    """An entity of a sentence.

    Attributes:
        type: its type.
        text: its words.
        start, end: its characters in the sentence, [start, end); words that were given separately are joined by spaces.
        score: the mean of its words' probabilities.
    """

    type: str
    text: str
    start: int
    end: int
    score: float


@dataclasses.dataclass(frozen=True)
class TaggingPrediction:
    """The tags of a sentence.

    Attributes:
        words: the words as they were given.
        tags: a tag for each word, in the scheme of the task's files, repaired as conlleval would read them; "O" for
            words that were cut off.
        probabilities: for each word the probability of its label; None for words that were cut off.
        entities: the entities that the tags mark, in order; None for tags that mark none, such as parts of speech.
    """

    words: tuple[str, ...]
    tags: tuple[str, ...]
    probabilities: tuple[float | None, ...]
    entities: tuple[Entity, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        record = {"words": list(self.words), "tags": list(self.tags), "probabilities": list(self.probabilities)}
        return record if self.entities is None else record | {"entities": list(map(dataclasses.asdict, self.entities))}


def entities_of(sentence: TaggedSentence, spans: Iterable[Span], probabilities: Sequence[float]) -> tuple[Entity, ...]:
    """Return the entities at spans of words, given a probability for each word."""
    places = sentence.places
    return tuple(
        Entity(
            type=kind,
            text=" ".join(sentence.words[start : end + 1]),
            start=places[start][0],
            end=places[end][1],
            score=float(np.mean(probabilities[start : end + 1])),
        )
        for start, end, kind in spans
    )

"""Measure how much of a text a vocabulary does not know, and report the words and characters that became [UNK]."""

import collections
import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from electra_jax.errors import UserError
from electra_jax.tasks.encoding import parts_of, read_with_places
from electra_jax.tasks.protocol import Row
from electra_jax.tasks.vocabulary import Vocabulary

WARNED_SHARE = 0.01
REFUSED_SHARE = 0.2
# The number of commonest characters and words that are kept, and of those that are named.
KEPT, NAMED = 20, 5
_LONGEST_NAMED = 24
_EXAMPLES_LOOKED_AT = 1000


@dataclasses.dataclass(frozen=True)
class Unknown:
    """Say how much of a text became [UNK].

    Attributes:
        tokens: number of tokens, without special tokens except [UNK].
        unknown: how many of them are [UNK].
        words: how often each word became [UNK], the commonest first, as far as text was examined.
        characters: how often each character occurs in such a word and in no entry of the vocabulary, likewise.
    """

    tokens: int
    unknown: int
    words: Mapping[str, int]
    characters: Mapping[str, int]

    @property
    def share(self) -> float:
        """Return the share of [UNK] among the tokens."""
        return self.unknown / max(self.tokens, 1)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, from which `Unknown(**values)` is built again."""
        return dataclasses.asdict(self)


def count_unknown(ids: np.ndarray, vocabulary: Vocabulary) -> tuple[int, int]:
    """Return the number of tokens of text, and how many of them are [UNK].

    Args:
        ids: token ids of any shape; special tokens other than [UNK] are not counted.
        vocabulary: the vocabulary of the ids.
    """
    roles = dict(vocabulary.special_ids)
    unknown = roles.pop("unk", None)
    tokens = ids.size - int(np.isin(ids, list(roles.values())).sum())
    return tokens, 0 if unknown is None else int(np.count_nonzero(ids == unknown))


def what_became_unknown(
    texts: Iterable[str], vocabulary: Vocabulary
) -> tuple[collections.Counter[str], collections.Counter[str]]:
    """Return how often each word of some texts becomes [UNK], and how often each character that is in no entry."""
    words: collections.Counter[str] = collections.Counter()
    characters: collections.Counter[str] = collections.Counter()
    if "unk" not in vocabulary.special_ids:
        return words, characters
    for part in (part for text in texts for part in parts_of(text)):
        encoding = read_with_places(part, vocabulary.tokenizer)
        places = zip(encoding.ids, encoding.offsets, strict=True)
        words.update(part[start:end].strip() for index, (start, end) in places if index == vocabulary.unk_id)
    known = set().union(*vocabulary.tokens)
    normalizer = vocabulary.tokenizer.normalizer
    for word, count in words.items():
        for character in normalizer.normalize_str(word) if normalizer else word:
            if character not in known and not character.isspace():
                characters[character] += count
    return words, characters


def commonest(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the `KEPT` most frequent entries, the commonest first; long words are cut at the end."""
    short: collections.Counter[str] = collections.Counter()
    for word, count in counts.items():
        cut = len(word) > _LONGEST_NAMED
        short[f"{word[:_LONGEST_NAMED]}… ({len(word):,} characters)" if cut else word] += count
    return dict(sorted(short.items(), key=lambda entry: (-entry[1], entry[0]))[:KEPT])


def join_unknown(parts: Iterable[Unknown]) -> Unknown:
    """Return the sums over parts of a text."""
    tokens = unknown = 0
    words: collections.Counter[str] = collections.Counter()
    characters: collections.Counter[str] = collections.Counter()
    for part in parts:
        tokens, unknown = tokens + part.tokens, unknown + part.unknown
        words.update(part.words)
        characters.update(part.characters)
    return Unknown(tokens, unknown, commonest(words), commonest(characters))


def measure_unknown(texts: Collection[str], vocabulary: Vocabulary) -> Unknown:
    """Return how much of some texts becomes [UNK]."""
    tokens = unknown = 0
    for text in texts:
        found = count_unknown(np.array(vocabulary.encode(text), np.int64), vocabulary)
        tokens, unknown = tokens + found[0], unknown + found[1]
    words, characters = what_became_unknown(texts, vocabulary) if unknown else ({}, {})
    return Unknown(tokens, unknown, commonest(words), commonest(characters))


def unknown_of_batches(batches: Iterable[Mapping[str, np.ndarray]], vocabulary: Vocabulary) -> Unknown:
    """Return how much of some pre-training examples is [UNK]; ids do not show which words it was.

    Args:
        batches: batches with `input_ids` and `attention_mask`, with or without masks.
        vocabulary: the vocabulary of the ids.

    Raises:
        UserError: if an id is outside the vocabulary.
    """
    tokens = unknown = 0
    for batch in batches:
        ids = batch["input_ids"][batch["attention_mask"] > 0]
        if ids.max(initial=0) >= vocabulary.vocab_size:
            raise UserError(
                f"the examples hold the token id {ids.max()}, but the vocabulary has {vocabulary.vocab_size} entries: "
                "name the one that they were made with as TOKENIZER"
            )
        found = count_unknown(ids, vocabulary)
        tokens, unknown = tokens + found[0], unknown + found[1]
    return Unknown(tokens, unknown, {}, {})


def unknown_of_rows(rows: Sequence[Row], examples: Sequence[Any], vocabulary: Vocabulary) -> Unknown:
    """Return how much of a downstream task's split is [UNK]; the first examples show which words it is.

    Args:
        rows: the rows of the split, from the task.
        examples: the examples of the split; their texts are found by the field names of all task families.
        vocabulary: the vocabulary of the rows.
    """
    tokens, unknown = count_unknown(np.concatenate([row["input_ids"].ravel() for row in rows]), vocabulary)
    texts = [text for example in examples[:_EXAMPLES_LOOKED_AT] for text in _texts_of(example)] if unknown else []
    words, characters = what_became_unknown(texts, vocabulary)
    return Unknown(tokens, unknown, commonest(words), commonest(characters))


def _texts_of(example: Any) -> list[str]:
    found = (getattr(example, name, None) for name in ("text_a", "text_b", "question", "context", "words", "choices"))
    return [text if isinstance(text, str) else " ".join(text) for text in found if text]


def state_unknown(found: Unknown, *, what: str, allow_unknown: bool) -> str:
    """Return a sentence with the share of [UNK]; above a hundredth also with its commonest characters and words.

    Args:
        found: the measurement.
        what: the text, for the sentence.
        allow_unknown: whether to continue whatever the share is.

    Raises:
        UserError: if more than a fifth is [UNK], and that is not allowed.
    """
    stated = f"{100 * found.share:.2f} % of the {found.tokens:,} tokens of {what} are [UNK]"
    if found.share <= WARNED_SHARE:
        return stated
    commonest_of = {"characters": found.characters, "words": found.words}
    lists = [
        f"the commonest {name} of them: {', '.join(f'{each} ({count:,})' for each, count in [*counts.items()][:NAMED])}"
        for name, counts in commonest_of.items()
        if counts
    ]
    stated = "; ".join([stated, *lists])
    advice = "learn a vocabulary from this text with `electra vocab`, or name one that fits it"
    if found.share > REFUSED_SHARE and not allow_unknown:
        raise UserError(f"{stated}: {advice}; ALLOW_UNKNOWN=True continues anyway")
    return f"warning: {stated}: {advice}"

"""Read the labels of texts that may have several or none, decide them by a threshold each, and score them by F1."""

import ast
import collections
import dataclasses
import json
import logging
import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

logger = logging.getLogger(__name__)

# A table's spellings of yes and no, in columns for one label each.
_YES, _NO = {"1", "1.0", "True", "true", "TRUE"}, {"0", "0.0", "False", "false", "FALSE"}

# The most labels that occur in a single row only and are named.
_NAMED_LABELS = 3

# Characters that join several labels in one cell.
_JOINING = "|;,/"

# The probability from which a label is given if no threshold was chosen, as in `transformers`.
EVEN = 0.5


@dataclasses.dataclass(frozen=True)
class LabelSets:
    """The labels of a multi-label classification, of which a text has any number; a label's index is its number."""

    labels: tuple[str, ...]

    def parse(self, label: str | tuple[str, ...]) -> tuple[int, ...]:
        """Return the numbers of a text's labels; raise ValueError if they are not a list, or one is unknown."""
        if isinstance(label, str):
            raise ValueError(label)
        return tuple(sorted({number_of(name, self.labels) for name in label}))

    @property
    def expected(self) -> str:
        """Describe the allowed labels of a row."""
        return f"a list of none, one or several of {', '.join(map(repr, self.labels))}"

    def indicators(self, numbers: Sequence[int]) -> np.ndarray:
        """Return 1 at the index of each of a text's labels and 0 elsewhere, float32 [C]."""
        values_C = np.zeros(len(self.labels), np.float32)
        values_C[list(numbers)] = 1.0
        return values_C

    def named(self, probabilities: Mapping[str, float], thresholds: Sequence[float] | None) -> tuple[str, ...]:
        """Return the labels whose probability reaches their threshold, in order.

        Args:
            probabilities: the probability of each label.
            thresholds: the threshold of each label; None for `EVEN`.
        """
        limits = thresholds or (EVEN,) * len(self.labels)
        return tuple(name for name, limit in zip(self.labels, limits, strict=True) if probabilities[name] >= limit)


def plain_label(label: str) -> str:
    """Return a label stripped and with composed characters, so that labels that look alike are one class."""
    return unicodedata.normalize("NFC", label.strip())


def number_of(label: str, labels: Sequence[str]) -> int:
    """Return the number of a label, or else of its `plain_label`; raise ValueError if there is none."""
    return labels.index(label if label in labels else plain_label(label))


def warn_of_single_labels(found: Iterable[str | tuple[str, ...] | None], path: str | os.PathLike[str]) -> None:
    """Warn of labels that only one row has: a slip, a row of another kind, or texts in place of labels."""
    counts = collections.Counter(plain_label(label) for label in found if isinstance(label, str))
    single = sorted(label for label, count in counts.items() if count == 1)
    if single and counts.total() > 2 * _NAMED_LABELS:
        logger.warning(
            "%s: %d of %d labels occur in only one row, such as %s: correct them if they are slips; a class of one "
            "example cannot be both learnt and scored.",
            path, len(single), len(counts), ", ".join(map(repr, single[:_NAMED_LABELS])),
        )  # fmt: skip


def warn_of_joined_labels(labels: Iterable[str], path: str | os.PathLike[str]) -> None:
    """Warn of labels such as `neg|toxic` next to `neg`: they are classes of their own, but may mean several labels."""
    labels = list(labels)
    for mark in _JOINING:
        parts = {label: {part.strip() for part in label.split(mark)} - {""} for label in labels}
        counts = collections.Counter(part for each in parts.values() for part in each)
        joined = [label for label, each in parts.items() if len(each) > 1 and any(counts[part] > 1 for part in each)]
        if joined:
            logger.warning(
                "%s: %d of %d labels join others by %r, such as %r, and each is read as a class of its own: if a text "
                "may have several labels, write them as a list, %s, or as a column of 0 and 1 for each label.",
                path, len(joined), len(labels), mark, joined[0],
                json.dumps(sorted(parts[joined[0]]), ensure_ascii=False),
            )  # fmt: skip
            return


def as_list(label: object) -> tuple[str, ...] | None:
    """Return the labels of a list, each once, in JSON or as Python prints lists; None for any other value.

    Raises:
        ValueError: if it is an object, or a list that contains anything other than texts and numbers.
    """
    if isinstance(label, str) and label.strip().startswith(("[", "(", "{")):
        try:
            label = ast.literal_eval(label.strip())
        except (ValueError, SyntaxError):
            return None
    if not isinstance(label, (list, tuple, set, dict)):
        return None
    # NaN, which JSON may contain, is the one number that differs from itself.
    if isinstance(label, dict) or not all(isinstance(one, (str, int, float)) and one == one for one in label):
        raise ValueError(label)
    return tuple(dict.fromkeys(map(str, label)))


def is_indicator(value: object) -> bool:
    """Return whether a value of a table says yes or no."""
    return str(value).strip() in _YES | _NO


def labels_of_columns(record: Mapping[str, object], names: Sequence[str]) -> tuple[str, ...] | None:
    """Return the names of the columns that say yes; None if one says neither yes nor no."""
    if not all(is_indicator(record[name]) for name in names):
        return None
    return tuple(name for name in names if str(record[name]).strip() in _YES)


def f1_micro(gold_NC: np.ndarray, found_NC: np.ndarray) -> float:
    """Return the F1 of all labels of all texts counted together, per cent; 0 if there are none, gold or predicted."""
    return float(_f1(np.sum(gold_NC & found_NC), np.sum(found_NC), np.sum(gold_NC)))


def f1_macro(gold_NC: np.ndarray, found_NC: np.ndarray) -> float:
    """Return the mean of the labels' F1s, per cent; a label that is neither gold nor predicted counts 0."""
    return float(np.mean(_f1(np.sum(gold_NC & found_NC, 0), np.sum(found_NC, 0), np.sum(gold_NC, 0))))


METRICS = {"f1_micro": f1_micro, "f1_macro": f1_macro}


def best_threshold(gold_N: np.ndarray, probabilities_N: np.ndarray) -> float:
    """Return the threshold with the highest F1 for one label; in a tie, the one nearest to `EVEN`.

    Args:
        gold_N: bool, whether each text has the label.
        probabilities_N: the label's probabilities, float64.
    """
    if not gold_N.any():
        return EVEN
    every = np.sort(probabilities_N)
    steps = np.unique(np.concatenate([[0.0], every]))
    # With the threshold 0, every text has the label.
    candidates = np.array([EVEN, 0.0, *((steps[1:] + steps[:-1]) / 2)])
    found = len(every) - np.searchsorted(every, candidates)
    right = gold_N.sum() - np.searchsorted(np.sort(probabilities_N[gold_N]), candidates)
    scores = _f1(right, found, gold_N.sum())
    best = candidates[scores == scores.max()]
    return float(best[np.argmin(np.abs(best - EVEN))])


def _f1(correct: np.ndarray, found: np.ndarray, gold: np.ndarray) -> np.ndarray:
    return 200.0 * correct / np.maximum(found + gold, 1)

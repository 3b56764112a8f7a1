"""Read entities from tags and score them, as conlleval (CoNLL-2000, Tjong Kim Sang and Buchholz) counts them."""

import collections
import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from electra_jax.errors import UserError
from electra_jax.tasks.rows import numbered_lines

OUTSIDE = "O"


class Span(NamedTuple):
    """An entity: its first and its last word (both included) and its type."""

    start: int
    end: int
    type: str


SpanReader = Callable[[Sequence[str]], list[Span]]


def split_tag(tag: str) -> tuple[str, str]:
    """Split `B-NP` into ("B", "NP"). The type may hold hyphens; "O" and a bare "B" have the type ""."""
    prefix, _, kind = tag.partition("-")
    return prefix, kind


def conlleval_spans(tags: Sequence[str]) -> list[Span]:
    """Read the entities of one sentence's IOB1, IOB2 or IOBES tags by conlleval's rules.

    A sequence that breaks its scheme is repaired as in conlleval: an entity starts at B or S, at I or E after O, E or
    S, and wherever the type changes; it ends before the next one, before O, and after E or S.
    """
    spans: list[Span] = []
    start: int | None = None
    last, last_type = OUTSIDE, ""
    for i, tag in enumerate(tags):
        prefix, kind = split_tag(tag)
        starts = prefix != OUTSIDE and (prefix in ("B", "S") or last in (OUTSIDE, "E", "S") or kind != last_type)
        if start is not None and (starts or prefix == OUTSIDE):
            spans.append(Span(start, i - 1, last_type))
            start = None
        if starts:
            start = i
        last, last_type = prefix, kind
    if start is not None:
        spans.append(Span(start, len(tags) - 1, last_type))
    return spans


@dataclasses.dataclass(frozen=True)
class Scores:
    """The numbers of gold entities, of entities found, and of correct ones among those."""

    gold: int
    found: int
    correct: int

    @property
    def precision(self) -> float:
        """Return the percentage of the entities found that are correct; 0 if none was found."""
        return 100.0 * self.correct / self.found if self.found else 0.0

    @property
    def recall(self) -> float:
        """Return the percentage of the gold entities that were found; 0 if there are none."""
        return 100.0 * self.correct / self.gold if self.gold else 0.0

    @property
    def f1(self) -> float:
        """Return the harmonic mean of precision and recall, per cent; 0 if both are 0."""
        total = self.precision + self.recall
        return 2.0 * self.precision * self.recall / total if total else 0.0


@dataclasses.dataclass(frozen=True)
class EntityEvaluation:
    """The numbers of tokens and of right tags; scores of all entities, and of each type in alphabetical order."""

    num_tokens: int
    num_correct_tokens: int
    overall: Scores
    by_type: dict[str, Scores]

    @property
    def accuracy(self) -> float:
        """Return the percentage of the tokens whose tag is right."""
        return 100.0 * self.num_correct_tokens / self.num_tokens if self.num_tokens else 0.0

    def metrics(self) -> dict[str, float]:
        """Return the scores of all entities and the accuracy, per cent, the main score first."""
        total = self.overall
        return {"f1": total.f1, "precision": total.precision, "recall": total.recall, "accuracy": self.accuracy}

    def report(self) -> str:
        """Return conlleval's output, to the last digit."""
        total = self.overall
        lines = [
            f"processed {self.num_tokens} tokens with {total.gold} phrases; "
            f"found: {total.found} phrases; correct: {total.correct}.",
            f"accuracy: {self.accuracy:6.2f}%; {_printed(total)}",
        ]
        lines += [f"{kind:>17}: {_printed(scores)}  {scores.found}" for kind, scores in self.by_type.items()]
        return "".join(line + "\n" for line in lines)


def evaluate_tags(
    gold: Iterable[Sequence[str]], predicted: Iterable[Sequence[str]], *, spans_of: SpanReader
) -> EntityEvaluation:
    """Score predicted tags against gold ones, sentence by sentence; both have equal lengths.

    Args:
        gold, predicted: tags of each sentence.
        spans_of: reads tags as entities, like `conlleval_spans`.
    """
    counts = {name: collections.Counter[str]() for name in ("gold", "found", "correct")}
    num_tokens = num_correct = 0
    for gold_tags, predicted_tags in zip(gold, predicted, strict=True):
        num_tokens += len(gold_tags)
        num_correct += sum(a == b for a, b in zip(gold_tags, predicted_tags, strict=True))
        gold_spans, found_spans = set(spans_of(gold_tags)), set(spans_of(predicted_tags))
        for name, spans in (("gold", gold_spans), ("found", found_spans), ("correct", gold_spans & found_spans)):
            counts[name].update(span.type for span in spans)
    by_type = {
        kind: Scores(**{name: counter[kind] for name, counter in counts.items()})
        for kind in sorted(counts["gold"].keys() | counts["found"].keys())
    }
    overall = Scores(**{name: counter.total() for name, counter in counts.items()})
    return EntityEvaluation(num_tokens, num_correct, overall, by_type)


def read_tagged_output(path: str | os.PathLike[str]) -> tuple[list[list[str]], list[list[str]]]:
    """Read conlleval's input: lines whose last two columns are the gold and the predicted tag.

    Returns:
        (gold, predicted): tags of each sentence; blank lines separate sentences.

    Raises:
        UserError: if the file is missing or empty, or a line has only one column.
    """
    gold: list[list[str]] = [[]]
    predicted: list[list[str]] = [[]]
    for number, line in numbered_lines(path):
        columns = line.split()
        if not columns:
            gold.append([])
            predicted.append([])
            continue
        if len(columns) == 1:
            raise UserError(f"{path}, line {number}: one column; expected the gold and the predicted tag at its end")
        gold[-1].append(columns[-2])
        predicted[-1].append(columns[-1])
    return [tags for tags in gold if tags], [tags for tags in predicted if tags]


def _printed(scores: Scores) -> str:
    return f"precision: {scores.precision:6.2f}%; recall: {scores.recall:6.2f}%; FB1: {scores.f1:6.2f}"

"""Define tasks that train the vectors of texts: pairs with a similarity score, and pairs that belong together.

A pair's similarity is the cosine of the vectors of its two texts, which do not attend to each other.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from electra_jax.errors import UserError
from electra_jax.tasks.long_texts import count_fields
from electra_jax.tasks.options import TaskOptions
from electra_jax.tasks.protocol import Examples, Row
from electra_jax.tasks.split_files import NO_SOURCES, FromSources, Sources
from electra_jax.tasks.text.glue_metrics import METRICS
from electra_jax.tasks.text.sources import table_sources
from electra_jax.tasks.text.tables import Classes, Interval, TextExample, TextWindows, text_windows
from electra_jax.tasks.vocabulary import Vocabulary

# The scores of each task, whose name is also its kind; the main one first.
VECTOR_METRICS = {"similarity": ("spearman", "pearson"), "retrieval": ("mrr", "accuracy_at_1")}

NAMES = tuple(VECTOR_METRICS)

# Number of queries whose scores with all candidates are in memory at once.
_QUERIES_AT_ONCE = 1024


@dataclasses.dataclass(frozen=True, eq=False)
class PairPrediction:
    """The vectors of a pair, their cosine, and its value in the units of the task; None for retrieval."""

    vectors: tuple[np.ndarray, np.ndarray]
    similarity: float
    value: float | None

    def to_json(self) -> dict[str, Any]:
        """Return `similarity`, and `value` if the task has units."""
        return {"similarity": self.similarity} | ({} if self.value is None else {"value": self.value})


@dataclasses.dataclass(frozen=True, kw_only=True)
class VectorTask(FromSources):
    """A task on vectors of texts: a `protocol.DownstreamTask`.

    Attributes:
        kind: "similarity" or "retrieval", and the task's name in the catalogue.
        target: the interval of the similarity scores; None for retrieval.
        vocabulary: tokenises the texts.
        length: the most tokens of a text, special ones counted.
        sources: its splits.
    """

    kind: str
    target: Interval | None
    vocabulary: Vocabulary
    length: int
    sources: Sources

    @property
    def name(self) -> str:
        """Return the name in the catalogue."""
        return self.kind

    @property
    def labels(self) -> tuple[str, ...]:
        """Return (): vectors have no names."""
        return ()

    @property
    def main_metric(self) -> str:
        """Return the name of the score by which the best checkpoint is chosen."""
        return VECTOR_METRICS[self.kind][0]

    def examples(self, split: str) -> Examples:
        """Read the pairs of a split; those of retrieval have the label 1, because they belong together.

        Raises:
            UserError: if there is no such split or file, or nothing in it can be used.
        """
        found = self.sources.read(self.name, split)
        if self.kind == "similarity":
            return found
        return dataclasses.replace(found, examples=[example._replace(label=1) for example in found.examples])

    def raw_examples(self, inputs: Sequence[Any]) -> list[TextExample]:
        """Return examples from pairs of texts.

        Raises:
            UserError: if an input is a single text.
        """
        for number, value in enumerate(inputs, start=1):
            if isinstance(value, str):
                raise UserError(
                    f"input {number} is one text: a pair has a similarity, and electra embed gives the vector of a text"
                )
        return [TextExample(index, first, second, None) for index, (first, second) in enumerate(inputs)]

    def rows(self, examples: Sequence[TextExample], *, training: bool) -> list[Row]:
        """Tokenise: in training both texts of a pair in one row, otherwise a row for each.

        A text that is longer than `length` is cut.
        """
        sides = [self._windows([example.text_a for example in examples])]
        sides += [self._windows([example.text_b or "" for example in examples])]
        numbers: tuple[dict[str, int], dict[str, int]] = ({}, {})
        rows = []
        for number, (example, *pair) in enumerate(zip(examples, *sides, strict=True)):
            tokens, cut = (
                sum(counts) for counts in zip(*((text.num_tokens, text.num_cut) for text in pair), strict=True)
            )
            shared = {"example": np.array(number, np.int32)} | count_fields(tokens, cut)
            ids = [np.array(text.rows[0].input_ids, np.int32) for text in pair]
            if not training:
                rows += [text_row(each) | shared | {"side": np.array(side)} for side, each in enumerate(ids)]
                continue
            target = self._target(example, numbers)
            if target is not None:
                example_ids = np.repeat(np.array([1, 2], np.int32), [len(each) for each in ids])
                rows.append(text_row(np.concatenate(ids)) | {"example_ids": example_ids} | shared | target)
        return rows

    def predictions(
        self, examples: Sequence[TextExample], rows: Sequence[Row], outputs: Sequence[Mapping[str, np.ndarray]]
    ) -> list[PairPrediction]:
        """Return a prediction for each pair.

        Args:
            examples: as they were given to `rows`.
            rows: the rows for prediction, in any order.
            outputs: the outputs of each row: `logits`, its vector, float32 [D], of any length.
        """
        vectors = np.zeros((len(examples), 2, len(outputs[0]["logits"])), np.float32)
        for row, output in zip(rows, outputs, strict=True):
            vectors[int(row["example"]), int(row["side"])] = output["logits"]
        vectors /= np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
        found = []
        for first, second in vectors:
            cosine = float(first @ second)
            value = None if self.target is None else self.target.denormalised(cosine)
            found.append(PairPrediction((first, second), cosine, value))
        return found

    def score(self, examples: Sequence[TextExample], predictions: Sequence[PairPrediction]) -> dict[str, float]:
        """Return the metrics, per cent, the main one first.

        Raises:
            UserError: if pairs that must have a score have none.
        """
        if self.kind == "retrieval":
            return retrieval_scores(examples, [prediction.vectors for prediction in predictions])
        gold = [example.label for example in examples if example.label is not None]
        if len(gold) < len(examples):
            raise UserError(
                f"{len(examples) - len(gold)} of the {len(examples)} pairs of {self.name} have no score: they can be "
                "predicted (electra predict), but not scored; name a split with scores"
            )
        said = [prediction.similarity for prediction in predictions]
        return {name: METRICS[name](gold, said) for name in VECTOR_METRICS[self.kind]}

    def describe(self) -> dict[str, Any]:
        """Return the facts that `vector_task_from_facts` needs."""
        return {
            "task": self.name,
            "kind": self.kind,
            "target": None if self.target is None else [self.target.low, self.target.high],
            "pair": True,
            "rules": "standard",
            "length": self.length,
        }

    def _windows(self, texts: Sequence[str]) -> list[TextWindows]:
        single = [(text, None) for text in texts]
        return text_windows(single, vocabulary=self.vocabulary, length=self.length, long_texts="cut")

    def _target(self, example: TextExample, numbers: Sequence[dict[str, int]]) -> Row | None:
        """Return the targets of a pair; None without one. `numbers` are those of the texts before it, by side."""
        if self.target is not None:
            label = example.label
            return None if label is None else {"label": np.array(self.target.normalised(label), np.float32)}
        texts = (example.text_a, example.text_b or "")
        first, second = (known.setdefault(text, len(known)) for known, text in zip(numbers, texts, strict=True))
        return {"first_id": np.array(first, np.int32), "second_id": np.array(second, np.int32)}


def text_row(ids_L: np.ndarray) -> Row:
    """Return the model's inputs for a single text, or for two that do not attend to each other."""
    return {"input_ids": ids_L, "token_type_ids": np.zeros_like(ids_L)}


def retrieval_scores(
    examples: Sequence[TextExample], vectors: Sequence[tuple[np.ndarray, np.ndarray]]
) -> dict[str, float]:
    """Return how well each first text finds a matching second text among all second texts, per cent.

    Each distinct text occurs once. If several texts match a query, the nearest counts. A text that is exactly as near
    as the right one ranks before it, so that vectors that are all the same find nothing.

    Args:
        examples: the pairs.
        vectors: the vectors of their texts, of length 1.

    Returns:
        `mrr`, the mean of 1 / rank, and `accuracy_at_1`, the share of ranks 1, over the different first texts.
    """
    queries = {example.text_a: number for number, example in reversed([*enumerate(examples)])}
    candidates = {example.text_b: number for number, example in reversed([*enumerate(examples)])}
    rows, columns = ({text: place for place, text in enumerate(texts)} for texts in (queries, candidates))
    belongs = np.zeros((len(rows), len(columns)), bool)
    for example in examples:
        belongs[rows[example.text_a], columns[example.text_b]] = True
    firsts = np.stack([vectors[number][0] for number in queries.values()])
    seconds = np.stack([vectors[number][1] for number in candidates.values()])
    ranks = first_ranks(firsts, seconds, belongs)
    return {"mrr": 100.0 * float(np.mean(1.0 / ranks)), "accuracy_at_1": 100.0 * float(np.mean(ranks == 1))}


def first_ranks(queries_ND: np.ndarray, candidates_MD: np.ndarray, belongs_NM: np.ndarray) -> np.ndarray:
    """Return the rank of each query's nearest matching candidate, from 1; equally near ones rank before it.

    Args:
        queries_ND, candidates_MD: vectors; a larger product is nearer.
        belongs_NM: whether a candidate matches a query; each query has at least one that does.
    """
    ranks = []
    for start in range(0, len(queries_ND), _QUERIES_AT_ONCE):
        part = slice(start, start + _QUERIES_AT_ONCE)
        scores = queries_ND[part] @ candidates_MD.T
        best = np.where(belongs_NM[part], scores, -np.inf).max(axis=1, keepdims=True)
        ranks.append(1 + np.sum((scores >= best) & ~belongs_NM[part], axis=1))
    return np.concatenate(ranks)


def make_vector_task(
    options: TaskOptions, vocabulary: Vocabulary, *, recorded: Mapping[str, Any] | None = None
) -> VectorTask:
    """Make a task on a user's own pairs.

    Args:
        options: which task, and where its data is. For retrieval no label column is read.
        vocabulary: tokenises the texts.
        recorded: the result of `VectorTask.describe` for the task on which a model was fine-tuned.

    Raises:
        UserError: if there is no data, the settings do not say how to read it, or long texts should have windows.
    """
    if options.long_texts != "cut":
        raise UserError(
            f"LONG_TEXTS is {options.long_texts!r}: {options.task} makes one vector of a text; set it to 'cut'"
        )
    target = None if recorded is None else interval_of(recorded)
    if options.task == "retrieval":
        unlabelled = dataclasses.replace(options, label_column=None)
        sources, _ = table_sources(unlabelled, regression=False, target=Classes(()))
    else:
        sources, target = table_sources(options, regression=True, target=target)
    return VectorTask(
        kind=options.task, target=target, vocabulary=vocabulary, length=options.row_length, sources=sources
    )


def vector_task_from_facts(facts: Mapping[str, Any], vocabulary: Vocabulary) -> VectorTask:
    """Rebuild a task from the result of `VectorTask.describe`, to read raw input."""
    return VectorTask(
        kind=facts["kind"],
        target=interval_of(facts),
        vocabulary=vocabulary,
        length=facts["length"],
        sources=NO_SOURCES,
    )


def interval_of(facts: Mapping[str, Any]) -> Interval | None:
    """Return the interval of the scores on which a model was trained; None for retrieval."""
    return None if facts["target"] is None else Interval(*facts["target"])

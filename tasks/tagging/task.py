"""Tagging as a task that can be fine-tuned: CoNLL's chunks and named entities, and a user's own column files."""

import collections
import dataclasses
import functools
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from electra_jax.errors import UserError
from electra_jax.tasks.options import TaskOptions
from electra_jax.tasks.protocol import Examples, Row
from electra_jax.tasks.rows import numbered_lines, without_surrogates
from electra_jax.tasks.split_files import NO_SOURCES, Sources, file_sources, reads_tfds, tfds_sources
from electra_jax.tasks.tagging.conlleval import EntityEvaluation, evaluate_tags
from electra_jax.tasks.tagging.sentences import (
    SPAN_READERS,
    TaggedFile,
    TaggedSentence,
    TaggingFeatures,
    complete_labels,
    encoded_tags,
    observed_labels,
    predicted_tags,
    read_tagged_file,
    tagging_features,
    without_unseen_types,
)
from electra_jax.tasks.vocabulary import Vocabulary

# Of each task TFDS's dataset and the field of its tags, if it has one. CoNLL-2003 has chunks too, but they are not
# the chunking task, which is CoNLL-2000's.
TAGGING_TASKS: dict[str, tuple[str, str] | None] = {"chunk": None, "ner": ("conll2003", "ner"), "tagging": None}

# The encoding (see `tagging.tags_of`) of each scheme.
_WRITTEN = {"IOB1": "IOB1", "IOB2": "BIO", "IOBES": "BIOES"}


@dataclasses.dataclass(frozen=True)
class TaggingPrediction:
    """The tags of a sentence.

    Attributes:
      words: as they were given.
      tags: one of each, in the scheme of the task's files, repaired as conlleval would read them; "O" for what was cut
        off.
      probabilities: of each word, what the model gave the label that it chose; None for what was cut off.
    """

    words: tuple[str, ...]
    tags: tuple[str, ...]
    probabilities: tuple[float | None, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {"words": list(self.words), "tags": list(self.tags), "probabilities": list(self.probabilities)}


@dataclasses.dataclass(frozen=True)
class TaggingTask:
    """Sentences of words with a tag each: a `downstream.DownstreamTask`.

    Attributes:
      name: of the catalogue.
      labels: the tags that the model learns, by their number.
      vocabulary: with its tokenizer.
      length: the most tokens of a sentence; words beyond it are tagged "O".
      scheme: how the files write entities: "IOB1", "IOB2" or "IOBES"; None for tags as the model says them, which
        need not be those of entities.
      encoding: how the model writes them: "BIOES", "BIO" ...
      span_reader, alignment, token_type_id: see `tagging`.
      skip_bad_rows: leave out and count the sentences of a split with a type that training never saw.
      sources: where the splits are.
    """

    name: str
    labels: tuple[str, ...]
    vocabulary: Vocabulary
    length: int
    scheme: str | None
    encoding: str
    span_reader: str
    alignment: str
    token_type_id: int
    skip_bad_rows: bool
    sources: Sources

    kind: ClassVar[str] = "tagging"
    main_metric: ClassVar[str] = "f1"

    @property
    def splits(self) -> tuple[str, ...]:
        """Those that can be read."""
        return tuple(self.sources.readers)

    def examples(self, split: str) -> Examples:
        """Read a split, of `TaggedSentence`s.

        Raises:
          UserError: no such split or file; a bad row; a type of entity that training never saw.
        """
        whole = self.sources.read(self.name, split)
        file = TaggedFile(whole.file or f"{self.name}, {split} split", tuple(whole.examples), whole.skipped)
        known = without_unseen_types(file, self.labels, skip_bad_rows=self.skip_bad_rows)
        if not known.sentences:
            raise UserError(f"{self.name}, {split} split: every sentence has a type that was never seen in training.")
        return Examples(known.sentences, known.skipped, whole.file)

    def raw_examples(self, inputs: Iterable[str | Sequence[str]]) -> list[TaggedSentence]:
        """Sentences that a user gives: words, or a text of words with white space between them."""
        words = [value.split() if isinstance(value, str) else value for value in inputs]
        return [TaggedSentence(tuple(map(without_surrogates, each)), (), 0) for each in words]

    def rows(self, examples: Sequence[TaggedSentence], *, training: bool) -> list[Row]:
        """One row per sentence: `input_ids`, `token_type_ids` and, with tags, `label_ids` int32 [L], `label_mask` [L].

        In the reference alignment two words may share a place; the later one's label is then learnt there.
        """
        del training  # A sentence has one form.
        number_of = {label: number for number, label in enumerate(self.labels)}
        rows = []
        for number, example in enumerate(examples):
            tags = encoded_tags(example.tags, span_reader=self.span_reader, encoding=self.encoding)
            features = self._features(example, [number_of[tag] for tag in tags])
            row = {
                "input_ids": np.array(features.input_ids, np.int32),
                "token_type_ids": np.array(features.token_type_ids, np.int32),
                "example": np.array(number, np.int32),
            }
            if example.tags:
                row["label_ids"] = np.zeros_like(row["input_ids"])
                row["label_ids"][features.word_positions] = features.label_ids
                row["label_mask"] = np.zeros(len(features.input_ids), np.float32)
                row["label_mask"][features.word_positions] = 1.0
            rows.append(row)
        return rows

    def predictions(
        self, examples: Sequence[TaggedSentence], rows: Sequence[Row], outputs: Sequence[dict[str, np.ndarray]]
    ) -> list[TaggingPrediction]:
        """Return the tags of each sentence from the `logits` [L, labels] of its row."""
        logits_of = {int(row["example"]): output["logits"] for row, output in zip(rows, outputs, strict=True)}
        predictions = []
        for number, example in enumerate(examples):
            positions = self._features(example, ()).word_positions
            logits_WC = np.asarray(logits_of[number], np.float64)[positions]
            chosen = logits_WC.argmax(axis=-1)
            probabilities = np.exp(logits_WC.max(-1) - np.logaddexp.reduce(logits_WC, axis=-1)).tolist()
            tags = predicted_tags(chosen.tolist(), len(example.words), self.labels)
            predictions.append(
                TaggingPrediction(
                    words=example.words,
                    tags=tuple(self._written(tags)),
                    probabilities=(*probabilities, *[None] * (len(example.words) - len(probabilities))),
                )
            )
        return predictions

    def score(self, examples: Sequence[TaggedSentence], predictions: Sequence[TaggingPrediction]) -> dict[str, float]:
        """Return `f1`, `precision` and `recall` of entities and `accuracy` of tags, per cent: see `evaluation`."""
        return self.evaluation(examples, predictions).metrics()

    def evaluation(
        self, examples: Sequence[TaggedSentence], predictions: Sequence[TaggingPrediction]
    ) -> EntityEvaluation:
        """Return the scores of all entities and of each type, counted over every word, also those that were cut off.

        The accuracy is of the tags as the file has them: what conlleval says of the columns that are written.

        Raises:
          UserError: the sentences have no tags, as those of a test split.
        """
        if not any(example.tags for example in examples):
            raise UserError(f"none of the {len(examples)} sentences of {self.name} has tags to score against.")
        return evaluate_tags(
            [example.tags for example in examples],
            [prediction.tags for prediction in predictions],
            spans_of=SPAN_READERS[self.span_reader],
        )

    def describe(self) -> dict[str, Any]:
        """Return JSON values of all but the vocabulary and the files: see `tagging_task_from_facts`."""
        return {
            "task": self.name,
            "kind": self.kind,
            "labels": list(self.labels),
            "length": self.length,
            "scheme": self.scheme,
            "encoding": self.encoding,
            "span_reader": self.span_reader,
            "alignment": self.alignment,
            "token_type_id": self.token_type_id,
        }

    def _features(self, example: TaggedSentence, label_ids: Sequence[int]) -> TaggingFeatures:
        return tagging_features(
            example.words,
            label_ids,
            vocabulary=self.vocabulary,
            length=self.length,
            token_type_id=self.token_type_id,
            alignment=self.alignment,
        )

    def _written(self, tags: Sequence[str]) -> list[str]:
        if self.scheme is None:
            return list(tags)
        # The original does not read IOB1.
        encoding = "BIO" if self.span_reader == "reference" and self.scheme == "IOB1" else _WRITTEN[self.scheme]
        return encoded_tags(tags, span_reader=self.span_reader, encoding=encoding)


def tagging_task_from_facts(facts: Mapping[str, Any], vocabulary: Vocabulary) -> TaggingTask:
    """Rebuild a task from what `TaggingTask.describe` gave, to read raw input."""
    return TaggingTask(
        name=facts["task"],
        labels=tuple(facts["labels"]),
        vocabulary=vocabulary,
        length=facts["length"],
        scheme=facts["scheme"],
        encoding=facts["encoding"],
        span_reader=facts["span_reader"],
        alignment=facts["alignment"],
        token_type_id=facts["token_type_id"],
        skip_bad_rows=False,
        sources=NO_SOURCES,
    )


def make_tagging_task(
    options: TaskOptions, vocabulary: Vocabulary, *, recorded: Mapping[str, Any] | None = None
) -> TaggingTask:
    """Return the task of `TAGGING_TASKS` that `options.task` names.

    Its labels are all tags that the types of the training split can take; without one, those of the first split that
    is there; with `observed_labels`, those that occur in any split.

    Args:
      options: which, where its data is, and how it is read.
      vocabulary: with its tokenizer.
      recorded: what `TaggingTask.describe` said of the task that a model was fine-tuned on: its labels and how it read
        and wrote sentences are then taken, and the training file need not be there.

    Raises:
      UserError: there is no split with tags; a malformed file; settings that cannot be.
    """
    if options.span_reader not in SPAN_READERS:
        raise UserError(f"The span reader {options.span_reader!r} is unknown: use {' or '.join(SPAN_READERS)}.")
    sources = tagging_sources(options)
    if recorded is not None:
        rebuilt = tagging_task_from_facts(recorded, vocabulary)
        return dataclasses.replace(
            rebuilt, scheme=options.tag_scheme, skip_bad_rows=options.skip_bad_rows, sources=sources
        )
    return TaggingTask(
        name=options.task,
        labels=tuple(_labels(options, sources)),
        vocabulary=vocabulary,
        length=options.row_length,
        scheme=options.tag_scheme,
        encoding=options.tag_encoding,
        span_reader=options.span_reader,
        alignment=options.alignment,
        token_type_id=options.token_type_id,
        skip_bad_rows=options.skip_bad_rows,
        sources=sources,
    )


def tagging_sources(options: TaskOptions) -> Sources:
    """Return the splits of the task that `options.task` names.

    Raises:
      UserError: TFDS has no such dataset here.
    """
    if not reads_tfds(options):
        return file_sources(
            options,
            folders=(options.task,),
            suffixes=(".txt",),
            read=functools.partial(_read_file, options),
            # CoNLL-2000 has no dev file.
            text_of=None if options.task == "ner" else _joined_words,
        )
    dataset = TAGGING_TASKS[options.task]
    if dataset is None:
        raise UserError(f"TFDS has no dataset of the task {options.task!r}; set SOURCE = 'files' and DATA_DIR.")
    return tfds_sources(options, dataset=dataset[0], read=functools.partial(_examples_of_tfds, dataset[1]))


def _labels(options: TaskOptions, sources: Sources) -> list[str]:
    if not sources.readers:
        raise UserError(f"{options.task} has no training split to take its labels from: {sources.missing}.")
    if options.observed_labels:
        sentences = [example for split in sources.readers for example in sources.read(options.task, split).examples]
        return observed_labels(sentences, span_reader=options.span_reader, encoding=options.tag_encoding)
    return complete_labels(
        sources.read(options.task, next(iter(sources.readers))).examples, encoding=options.tag_encoding
    )


def _joined_words(sentence: TaggedSentence) -> str:
    return " ".join(sentence.words)


def _read_file(options: TaskOptions, path: pathlib.Path, split: str) -> Examples:
    columns = next((line.split() for _, line in numbered_lines(path) if line.strip()), [])
    # A test file of words alone is one without tags.
    untagged = split == "test" and len(columns) == 1
    file = read_tagged_file(
        path,
        word_column=options.word_column,
        tag_column=None if untagged else options.tag_column,
        scheme=options.tag_scheme,
        skip_bad_rows=options.skip_bad_rows,
    )
    return Examples(file.sentences, file.skipped, file.path)


def _examples_of_tfds(field: str, records: Iterable[Mapping[str, Any]], features: Any, place: str) -> Examples:
    del place
    names = features[field].feature.names
    sentences = [
        TaggedSentence(
            tuple(word.decode("utf-8") for word in record["tokens"]),
            tuple(names[number] for number in record[field]),
            number,
        )
        for number, record in enumerate(records)
    ]
    return Examples(tuple(sentences), collections.Counter())

"""Define tagging as a task to fine-tune on: CoNLL's chunks and named entities, and a user's own column files."""

import collections
import dataclasses
import functools
import itertools
import logging
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from electra_jax.errors import UserError
from electra_jax.tasks.long_texts import check_long_texts, count_fields
from electra_jax.tasks.options import TaskOptions
from electra_jax.tasks.protocol import Examples, Row
from electra_jax.tasks.rows import without_surrogates
from electra_jax.tasks.split_files import (
    NO_SOURCES,
    FromSources,
    Sources,
    file_sources,
    reads_tfds,
    split_paths,
    tfds_sources,
)
from electra_jax.tasks.tagging.columns import column_sentences
from electra_jax.tasks.tagging.conlleval import OUTSIDE, EntityEvaluation, Span, evaluate_tags
from electra_jax.tasks.tagging.listed import LISTED_SUFFIXES
from electra_jax.tasks.tagging.prediction import Entity, TaggingPrediction, entities_of
from electra_jax.tasks.tagging.schemes import PLAIN, READ_AS, are_typeless, check_notation, read_tag, recognised_scheme
from electra_jax.tasks.tagging.sentences import (
    TaggedSentence,
    TaggingRules,
    TaggingWindow,
    encoded_tags,
    predicted_tags,
    read_tagged_file,
    tagging_features,
    tagging_windows,
    without_unseen_types,
)
from electra_jax.tasks.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

# For each task, TFDS's dataset and the field of its tags, or None. CoNLL-2003 has chunks too, but the chunking task is
# that of CoNLL-2000.
TAGGING_TASKS: dict[str, tuple[str, str] | None] = {"chunk": None, "ner": ("conll2003", "ner"), "tagging": None}


@dataclasses.dataclass(frozen=True)
class TaggingTask(FromSources):
    """Sentences of words with a tag each: a `protocol.DownstreamTask`.

    Attributes:
        name: its name in the catalogue.
        labels: the tags that the model learns, in order.
        vocabulary: tokenises the words.
        length: the most tokens of a row; words beyond it are tagged "O", unless `long_texts` is "windows".
        long_texts: how longer sentences are handled, a name of `long_texts.LONG_TEXTS`.
        scheme: how entities are written: "IOB1", "IOB2", "IOBES" or "IO"; "plain" for tags that mark none, such as
            parts of speech; None for the model's tags unchanged, which need not mark entities.
        encoding: how the model writes them: "BIOES", "BIO" ..., or "plain".
        rules: how tags are read, and words placed.
        skip_bad_rows: whether to leave out and count sentences with a type that training never saw.
        sources: its splits.
    """

    name: str
    labels: tuple[str, ...]
    vocabulary: Vocabulary
    length: int
    long_texts: str
    scheme: str | None
    encoding: str
    rules: TaggingRules
    skip_bad_rows: bool
    sources: Sources

    kind: ClassVar[str] = "tagging"

    @property
    def main_metric(self) -> str:
        """Return the name of the entities' F1, or of the tags' accuracy if they mark none."""
        return "accuracy" if self.scheme == PLAIN else "f1"

    def examples(self, split: str) -> Examples:
        """Read the `TaggedSentence`s of a split.

        Raises:
            UserError: if there is no such split or file, a row is bad, or an entity has a type that training never saw.
        """
        whole = self.sources.read(self.name, split)
        place = whole.file or f"{self.name}, {split} split"
        known = without_unseen_types(
            whole, self.labels, place=place, skip_bad_rows=self.skip_bad_rows, plain=self.scheme == PLAIN
        )
        if not known.examples:
            raise UserError(f"{self.name}, {split} split: every sentence has a type that was never seen in training")
        return known

    def raw_examples(self, inputs: Iterable[str | Sequence[str]]) -> list[TaggedSentence]:
        """Return the sentences of a user: lists of words, or texts with white space between the words."""
        return [_sentence_of(value) for value in inputs]

    def rows(self, examples: Sequence[TaggedSentence], *, training: bool) -> list[Row]:
        """Return a row per sentence: `input_ids`, `token_type_ids`; with tags `label_ids` and `label_mask` [L].

        A long sentence has a row per window; each word is labelled in the window with the most context around it.
        """
        del training  # A sentence has one form.
        number_of = {label: number for number, label in enumerate(self.labels)}
        rows = []
        for number, example in enumerate(examples):
            tags = encoded_tags(example.tags, spans_of=self.rules.spans_of, encoding=self.encoding)
            windows = self._windows(example, [number_of[tag] for tag in tags])
            shared = {"example": np.array(number, np.int32)} | count_fields(*self._counts(example, windows))
            for place, window in enumerate(windows):
                features = window.features
                row = {
                    "input_ids": np.array(features.input_ids, np.int32),
                    "token_type_ids": np.array(features.token_type_ids, np.int32),
                    "window": np.array(place, np.int32),
                }
                if example.tags:
                    row["label_ids"] = np.zeros_like(row["input_ids"])
                    row["label_ids"][features.word_positions] = features.label_ids
                    row["label_mask"] = np.zeros(len(features.input_ids), np.float32)
                    row["label_mask"][features.word_positions] = window.own_words
                rows.append(row | shared)
        return rows

    def predictions(
        self, examples: Sequence[TaggedSentence], rows: Sequence[Row], outputs: Sequence[dict[str, np.ndarray]]
    ) -> list[TaggingPrediction]:
        """Return the tags of each sentence from the `logits` [L, labels] of its rows."""
        logits_of = {
            (int(row["example"]), int(row["window"])): output["logits"]
            for row, output in zip(rows, outputs, strict=True)
        }
        predictions = []
        for number, example in enumerate(examples):
            windows = enumerate(self._windows(example, ()))
            logits_WC = np.concatenate(
                [np.asarray(logits_of[number, place], np.float64)[window.own_positions] for place, window in windows]
            )
            chosen = logits_WC.argmax(axis=-1)
            probabilities = np.exp(logits_WC.max(-1) - np.logaddexp.reduce(logits_WC, axis=-1)).tolist()
            tags = self._written(predicted_tags(chosen.tolist(), len(example.words), self.labels))
            predictions.append(
                TaggingPrediction(
                    words=example.words,
                    tags=tuple(tags),
                    probabilities=(*probabilities, *[None] * (len(example.words) - len(probabilities))),
                    entities=self._entities(example, tags, probabilities),
                )
            )
        return predictions

    def score(self, examples: Sequence[TaggedSentence], predictions: Sequence[TaggingPrediction]) -> dict[str, float]:
        """Return `f1`, `precision` and `recall` of entities and `accuracy` of tags, per cent: see `evaluation`.

        Plain tags have only an accuracy.
        """
        evaluation = self.evaluation(examples, predictions)
        return {"accuracy": evaluation.accuracy} if self.scheme == PLAIN else evaluation.metrics()

    def evaluation(
        self, examples: Sequence[TaggedSentence], predictions: Sequence[TaggingPrediction]
    ) -> EntityEvaluation:
        """Return the scores of all entities and of each type, counted over every word, including those cut off.

        The accuracy is that of the tags in the file's own scheme: conlleval's result on the written columns.

        Raises:
            UserError: if the sentences have no tags, as in a test split.
        """
        if not any(example.tags for example in examples):
            raise UserError(f"none of the {len(examples)} sentences of {self.name} has tags to score against")
        return evaluate_tags(
            [example.tags for example in examples],
            [prediction.tags for prediction in predictions],
            spans_of=_no_spans if self.scheme == PLAIN else self.rules.spans_of,
        )

    def describe(self) -> dict[str, Any]:
        """Return JSON values of everything but the vocabulary and the files: see `tagging_task_from_facts`."""
        return {
            "task": self.name,
            "kind": self.kind,
            "labels": list(self.labels),
            "length": self.length,
            "long_texts": self.long_texts,
            "scheme": self.scheme,
            "encoding": self.encoding,
            "rules": self.rules.name,
        }

    def _windows(self, example: TaggedSentence, label_ids: Sequence[int]) -> list[TaggingWindow]:
        fixed = {"vocabulary": self.vocabulary, "length": self.length, "rules": self.rules}
        if self.long_texts == "windows":
            return tagging_windows(example.words, label_ids, **fixed)
        features = tagging_features(example.words, label_ids, **fixed)
        return [TaggingWindow(features, [True] * len(features.word_positions))]

    def _counts(self, example: TaggedSentence, windows: Sequence[TaggingWindow]) -> tuple[int, int]:
        """Return the number of tokens of a sentence, and how many of them are in no row."""
        (*_, last), num_words = windows, sum(sum(window.own_words) for window in windows)
        kept = len(last.features.input_ids) - 2
        if len(windows) == 1 and num_words == len(example.words) and kept + 2 < self.length:
            return kept, 0
        sizes = [max(1, len(pieces)) for pieces in self.vocabulary.encode_words(example.words)]
        return sum(sizes), 0 if len(windows) > 1 else max(0, sum(sizes) - kept)

    def _entities(
        self, example: TaggedSentence, tags: Sequence[str], probabilities: Sequence[float]
    ) -> tuple[Entity, ...] | None:
        # The labels of another library's model show how it writes entities, if it does.
        scheme = recognised_scheme([self.labels]) if self.scheme is None else self.scheme
        if scheme == PLAIN:
            return None
        typeless = are_typeless(self.labels)
        read = [read_tag(tag, scheme, typeless=typeless) or OUTSIDE for tag in tags] if self.scheme is None else tags
        return entities_of(example, self.rules.spans_of(read), probabilities)

    def _written(self, tags: Sequence[str]) -> list[str]:
        if self.scheme in (None, PLAIN):
            return list(tags)
        return encoded_tags(tags, spans_of=self.rules.spans_of, encoding=self.rules.encoding_of[self.scheme])


def tagging_task_from_facts(facts: Mapping[str, Any], vocabulary: Vocabulary, *, rules: TaggingRules) -> TaggingTask:
    """Rebuild a task from the result of `TaggingTask.describe`, to read raw input; `rules` are those that it names."""
    return TaggingTask(
        name=facts["task"],
        labels=tuple(facts["labels"]),
        vocabulary=vocabulary,
        length=facts["length"],
        long_texts=facts["long_texts"],
        scheme=facts["scheme"],
        encoding=facts["encoding"],
        rules=rules,
        skip_bad_rows=False,
        sources=NO_SOURCES,
    )


def make_tagging_task(
    options: TaskOptions, vocabulary: Vocabulary, *, rules: TaggingRules, recorded: Mapping[str, Any] | None = None
) -> TaggingTask:
    """Return the task of `TAGGING_TASKS` that `options.task` names.

    Its labels are taken from the splits by `rules`, from the training split if it exists.

    Args:
        options: which task, where its data is, and how it is read.
        vocabulary: tokenises the words.
        rules: how tags are read, and words placed.
        recorded: the result of `TaggingTask.describe` for the task on which a model was fine-tuned, from which the
            labels and the way of reading and writing sentences are taken; the training file need not exist then.

    Raises:
        UserError: if there is no split with tags, a file is malformed, or settings are invalid.
    """
    check_long_texts(options)
    options = dataclasses.replace(options, tag_scheme=_scheme(options, recorded))
    sources = tagging_sources(options)
    scheme = READ_AS.get(options.tag_scheme, options.tag_scheme)
    if recorded is not None:
        rebuilt = tagging_task_from_facts(recorded, vocabulary, rules=rules)
        rebuilt = dataclasses.replace(rebuilt, long_texts=options.long_texts)
        return dataclasses.replace(rebuilt, scheme=scheme, skip_bad_rows=options.skip_bad_rows, sources=sources)
    if scheme == PLAIN:
        options = dataclasses.replace(options, tag_encoding=PLAIN)
    return TaggingTask(
        name=options.task,
        labels=tuple(_labels(options, rules)),
        vocabulary=vocabulary,
        length=options.row_length,
        long_texts=options.long_texts,
        scheme=scheme,
        encoding=options.tag_encoding,
        rules=rules,
        skip_bad_rows=options.skip_bad_rows,
        sources=sources,
    )


def tagging_sources(options: TaskOptions) -> Sources:
    """Return the splits of the task that `options.task` names.

    Raises:
        UserError: if the data should come from TFDS, which has no such dataset.
    """
    if not reads_tfds(options):
        return file_sources(
            options,
            folders=(options.task,),
            suffixes=(".txt", *LISTED_SUFFIXES),
            read=functools.partial(_read_file, options),
            # CoNLL-2000 has no dev file.
            text_of=None if options.task == "ner" else _joined_words,
        )
    dataset = TAGGING_TASKS[options.task]
    if dataset is None:
        raise UserError(f"TFDS has no dataset of the task {options.task!r}; set SOURCE = 'files' and DATA_DIR")
    return tfds_sources(options, dataset=dataset[0], read=functools.partial(_examples_of_tfds, dataset[1]))


def _labels(options: TaskOptions, rules: TaggingRules) -> list[str]:
    # Types count wherever they occur in the training file, even in the part that replaces a dev file.
    sources = tagging_sources(dataclasses.replace(options, dev_fraction=0.0))
    if not sources.readers:
        raise UserError(f"{options.task} has no training split to take its labels from: {sources.missing}")
    parts = (sources.read(options.task, split).examples for split in sources.readers)
    first = next(parts)
    tags = {tag for sentence in first for tag in sentence.tags}
    if len(tags) == 1 and (options.tag_encoding == PLAIN or tags == {OUTSIDE}):
        raise UserError(
            f"{options.task}: every word has the tag {tags.pop()!r}, from which nothing can be learnt; set TAG_COLUMN, "
            f"now {options.tag_column}, to the column of the tags"
        )
    return rules.labels(itertools.chain([first], parts), options.tag_encoding)


def _scheme(options: TaskOptions, recorded: Mapping[str, Any] | None) -> str:
    """Return the scheme that is set, or else that of the tags of the first split that has some; print which.

    A model's own scheme applies if no file has tags, or if its tags mark no entities.
    """
    # TFDS's datasets are IOB2.
    own = "IOB2" if recorded is None or recorded["scheme"] is None else recorded["scheme"]
    if reads_tfds(options) or options.tag_column is None or own == PLAIN:
        return options.tag_scheme or own
    for split, path in split_paths(options, folders=(options.task,), suffixes=(".txt", *LISTED_SUFFIXES)).items():
        rows = [[columns for _, columns in sentence] for sentence in column_sentences(path)]
        if split == "test" and rows and len(rows[0][0]) == 1:
            continue
        place = options.tag_column
        # A row that is too short is reported when the sentences are read.
        tags = [[row[place] for row in sentence if -len(row) <= place < len(row)] for sentence in rows]
        found = recognised_scheme(tags)
        if options.tag_scheme is None:
            check_notation((tag for each in tags for tag in each), f"{path}: the tags of column {place}")
            number = len({tag for each in tags for tag in each})
            logger.info("%s: the %d different tags are read as %s (TAG_SCHEME sets another).", path, number, found)
        elif {options.tag_scheme, found} == {"IOB1", "IOB2"}:
            logger.warning(
                "TAG_SCHEME is %r, but the tags of %s are those of %s: accuracy and predicted tags will not agree with "
                "the file; set TAG_SCHEME = %r.",
                options.tag_scheme, path, found, found,
            )  # fmt: skip
        return options.tag_scheme or found
    return options.tag_scheme or own


def _sentence_of(value: str | Sequence[str]) -> TaggedSentence:
    if not isinstance(value, str):
        return TaggedSentence(tuple(map(without_surrogates, value)), (), 0)
    found = list(re.finditer(r"\S+", without_surrogates(value)))
    return TaggedSentence(tuple(match.group() for match in found), (), 0, tuple(match.start() for match in found))


def _no_spans(tags: Sequence[str]) -> list[Span]:
    del tags  # Plain tags mark no entities.
    return []


def _joined_words(sentence: TaggedSentence) -> str:
    return " ".join(sentence.words)


def _read_file(options: TaskOptions, path: pathlib.Path, split: str) -> Examples:
    _, columns = next(column_sentences(path), [(0, [])])[0]
    # A test file that has only words has no tags.
    untagged = split == "test" and len(columns) == 1
    return read_tagged_file(
        path,
        word_column=options.word_column,
        tag_column=None if untagged else options.tag_column,
        scheme=options.tag_scheme,
        skip_bad_rows=options.skip_bad_rows,
    )


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

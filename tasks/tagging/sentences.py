"""Tagging: CoNLL column files, their tags as labels, and sentences as the first word piece of each word."""

import collections
import dataclasses
import os
from collections.abc import Iterable, Sequence

from electra_jax.errors import UserError
from electra_jax.tasks.original.tagging import reference_positions, reference_spans
from electra_jax.tasks.rows import BadRows, numbered_lines
from electra_jax.tasks.tagging.conlleval import OUTSIDE, Span, conlleval_spans, split_tag
from electra_jax.tasks.vocabulary import Vocabulary

# The tags of a scheme begin with one of these letters, or are "O".
SCHEMES = {"IOB1": "IB", "IOB2": "IB", "IOBES": "IBES"}

# How a sequence of tags is read as entities: each reader's own docstring says what it repairs.
SPAN_READERS = {"conlleval": conlleval_spans, "reference": reference_spans}

# Between the documents of CoNLL-2003; not a word.
_DOCUMENT_START = "-DOCSTART-"


@dataclasses.dataclass(frozen=True)
class TaggedSentence:
    """Words, their tags as the file writes them (none where it has no tags), and the line of the first word."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    line: int


@dataclasses.dataclass(frozen=True)
class TaggedFile:
    """The sentences of a file, and how many were left out, by reason."""

    path: str
    sentences: tuple[TaggedSentence, ...]
    skipped: collections.Counter[str]


def read_tagged_file(
    path: str | os.PathLike[str], *, word_column: int, tag_column: int | None, scheme: str, skip_bad_rows: bool
) -> TaggedFile:
    """Read a file of a word a line, columns separated by white space, a blank line after each sentence.

    Args:
      path: the file, UTF-8.
      word_column: number of the word's column, from 0; negative ones count from the end.
      tag_column: the same for the tag (the CoNLL files: -1); None for a file without tags.
      scheme: "IOB1", "IOB2" or "IOBES": which letters a tag may begin with. How tags that break their scheme
        are read is the span reader's affair.
      skip_bad_rows: leave out a sentence with a bad row and count it, rather than stop.

    Raises:
      UserError: no such file or scheme, an empty file, a row of fewer columns than the first, a tag that is none.
    """
    if scheme not in SCHEMES:
        raise UserError(f"The tag scheme {scheme!r} is unknown: use one of {', '.join(SCHEMES)}.")
    bad_rows = BadRows(path, skip=skip_bad_rows)
    used = [column for column in (word_column, tag_column) if column is not None]
    num_columns = max(column + 1 if column >= 0 else -column for column in used)
    sentences = []
    for number, rows in enumerate(_sentences(path)):
        if number == 0:
            num_columns = max(num_columns, len(rows[0][1]))
        problem = _problem(rows, num_columns, tag_column, scheme)
        if problem is not None:
            bad_rows.report(*problem)
            continue
        words = tuple(columns[word_column] for _, columns in rows)
        tags = () if tag_column is None else tuple(columns[tag_column] for _, columns in rows)
        sentences.append(TaggedSentence(words, tags, rows[0][0]))
    if not sentences:
        raise UserError(f"{path} holds no sentence that can be used.")
    return TaggedFile(os.fspath(path), tuple(sentences), bad_rows.skipped)


def tags_of(spans: Iterable[Span], num_words: int, *, encoding: str) -> list[str]:
    """Write entities as tags.

    Args:
      spans: entities that do not overlap.
      num_words: number of words of the sentence.
      encoding: which letters mark more than I: "IO", "BIO" (IOB2), "BIOES" (IOBES, the published choice) ...; or
        "IOB1": B only where an entity of the same type ends right before.
    """
    tags = [OUTSIDE] * num_words
    for start, end, kind in sorted(spans):
        if encoding == "IOB1":
            beside = start > 0 and split_tag(tags[start - 1])[1] == kind
            tags[start : end + 1] = [f"{'B' if beside else 'I'}-{kind}", *[f"I-{kind}"] * (end - start)]
            continue
        tags[start : end + 1] = [f"I-{kind}"] * (end + 1 - start)
        if "E" in encoding:
            tags[end] = f"E-{kind}"
        if "B" in encoding:
            tags[start] = f"B-{kind}"
        if "S" in encoding and start == end:
            tags[start] = f"S-{kind}"
    return tags


def encoded_tags(tags: Sequence[str], *, span_reader: str, encoding: str) -> list[str]:
    """Return the tags that a model is to learn: the file's, read as entities and written in `encoding`."""
    return tags_of(SPAN_READERS[span_reader](tags), len(tags), encoding=encoding)


def complete_labels(sentences: Iterable[TaggedSentence], *, encoding: str) -> list[str]:
    """Return every tag that the types of the (training) sentences can take, sorted.

    So a tag that training happens to lack, as I-LST of CoNLL-2000, can be predicted if its type was seen.
    """
    kinds = {split_tag(tag)[1] for sentence in sentences for tag in sentence.tags if tag != OUTSIDE}
    letters = [letter for letter in encoding if letter != OUTSIDE]
    return sorted({OUTSIDE} | {f"{letter}-{kind}" for letter in letters for kind in kinds})


def observed_labels(sentences: Iterable[TaggedSentence], *, span_reader: str, encoding: str) -> list[str]:
    """Return the tags that occur, sorted: with the sentences of all splits, the original's label set."""
    return sorted({tag for s in sentences for tag in encoded_tags(s.tags, span_reader=span_reader, encoding=encoding)})


def without_unseen_types(file: TaggedFile, labels: Sequence[str], *, skip_bad_rows: bool) -> TaggedFile:
    """Return the file without the sentences that hold a type of which training knows no tag.

    Raises:
      UserError: there is one, and `skip_bad_rows` is False; file, line, and the types that are known.
    """
    known = {split_tag(label)[1] for label in labels}
    bad_rows = BadRows(file.path, skip=skip_bad_rows)
    kept = []
    for sentence in file.sentences:
        unseen = [i for i, tag in enumerate(sentence.tags) if tag != OUTSIDE and split_tag(tag)[1] not in known]
        if unseen:
            problem = f"the type of {sentence.tags[unseen[0]]!r} was never seen in training"
            bad_rows.report(sentence.line + unseen[0], problem, f"one of {', '.join(sorted(known - {''}))}")
        else:
            kept.append(sentence)
    return TaggedFile(file.path, tuple(kept), file.skipped + bad_rows.skipped)


@dataclasses.dataclass(frozen=True)
class TaggingFeatures:
    """A sentence as the model reads it, without padding.

    Attributes:
      input_ids: [CLS], word pieces, [SEP].
      token_type_ids: as many.
      word_positions: where the first piece of each word stands; as many as words that were not cut off.
      label_ids: the label of each of those words; empty without tags.
    """

    input_ids: list[int]
    token_type_ids: list[int]
    word_positions: list[int]
    label_ids: list[int]


def tagging_features(
    words: Sequence[str],
    label_ids: Sequence[int],
    *,
    vocabulary: Vocabulary,
    length: int,
    token_type_id: int,
    alignment: str,
) -> TaggingFeatures:
    """Turn a sentence into word pieces, of which the first of each word carries its label.

    Args:
      words: the words; each is tokenised alone.
      label_ids: a label for each, or none.
      vocabulary: its casing decides the words' casing.
      length: most tokens, special ones counted; what does not fit is cut off.
      token_type_id: type of all tokens: 0, as the first segment of pre-training, or 1, as the original.
      alignment: "complete": every word that fits has a place of its own, [UNK] if cleaning leaves nothing of
        it. "reference": the original's, whose faults `reference_positions` tells; at the published length of
        256 it differs for sentences of about 128 words or more, and for words such as U+200B or "[CLS]".
    """
    if alignment == "complete":
        input_ids, positions = _complete_positions(words, vocabulary, length)
    elif alignment == "reference":
        input_ids, positions = reference_positions(words, vocabulary=vocabulary, length=length)
    else:
        raise UserError(f"The alignment {alignment!r} is unknown: use complete or reference.")
    return TaggingFeatures(input_ids, [token_type_id] * len(input_ids), positions, list(label_ids[: len(positions)]))


def predicted_tags(label_ids: Sequence[int], num_words: int, labels: Sequence[str]) -> list[str]:
    """Return a tag for every word: those of the words that the model saw, and "O" for those cut off."""
    tags = [labels[i] for i in label_ids]
    return tags + [OUTSIDE] * (num_words - len(tags))


def mean_word_loss(sentence_losses: Sequence[float], num_words: Sequence[int], *, count_twice: bool) -> float:
    """Return the loss per word of summed losses per sentence.

    `count_twice`: as the original's scorer, which adds each sentence's loss twice and so reports exactly double.
    """
    return (2 if count_twice else 1) * sum(sentence_losses) / max(1, sum(num_words))


def _sentences(path: str | os.PathLike[str]) -> Iterable[list[tuple[int, list[str]]]]:
    """The sentences of a file as (line number, columns) of each word."""
    rows: list[tuple[int, list[str]]] = []
    for number, line in numbered_lines(path):
        columns = line.split()
        if columns and columns[0] != _DOCUMENT_START:
            rows.append((number, columns))
        elif not columns and rows:
            yield rows
            rows = []
    if rows:
        yield rows


def _problem(
    rows: Sequence[tuple[int, list[str]]], num_columns: int, tag_column: int | None, scheme: str
) -> tuple[int, str, str] | None:
    """The first bad row: line, what is wrong, what was expected."""
    for number, columns in rows:
        if len(columns) < num_columns:
            return number, f"{len(columns)} columns", f"{num_columns} (separated by white space)"
        if tag_column is None:
            continue
        prefix, kind = split_tag(columns[tag_column])
        if columns[tag_column] != OUTSIDE and not (kind and prefix in tuple(SCHEMES[scheme])):
            letters = ", ".join(f"{letter}-TYPE" for letter in SCHEMES[scheme])
            return number, f"{columns[tag_column]!r} is not a tag of {scheme}", f"O, {letters}"
    return None


def _complete_positions(words: Sequence[str], vocabulary: Vocabulary, length: int) -> tuple[list[int], list[int]]:
    input_ids = [vocabulary.cls_id]
    positions = []
    for pieces in vocabulary.encode_batch(words):
        room = length - 1 - len(input_ids)
        if room <= 0:
            break
        positions.append(len(input_ids))
        input_ids += (pieces or [vocabulary.unk_id])[:room]
    return [*input_ids, vocabulary.sep_id], positions

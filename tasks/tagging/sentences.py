"""Read CoNLL column files, and turn tags into labels and sentences into word pieces."""

import collections
import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence

from electra_jax.errors import UserError
from electra_jax.tasks.long_texts import window_of_words, word_windows
from electra_jax.tasks.protocol import Examples
from electra_jax.tasks.rows import BadRows
from electra_jax.tasks.tagging.columns import ColumnRow, check_columns, column_sentences
from electra_jax.tasks.tagging.conlleval import OUTSIDE, Span, conlleval_spans, split_tag
from electra_jax.tasks.tagging.schemes import PLAIN, SCHEMES, are_typeless, read_tag
from electra_jax.tasks.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class TaggedSentence:
    """Words with their tags.

    Attributes:
        words: the words.
        tags: as `schemes.read_tag` reads them; empty if there are no tags.
        line: the line of the first word.
        starts: the index of each word's first character in the text; () if there is no text but the words, which are
            then joined by spaces.
    """

    words: tuple[str, ...]
    tags: tuple[str, ...]
    line: int
    starts: tuple[int, ...] = ()

    @property
    def places(self) -> tuple[tuple[int, int], ...]:
        """Return the characters of each word, [start, end)."""
        lengths = [len(word) for word in self.words]
        starts = self.starts or itertools.accumulate([length + 1 for length in lengths[:-1]], initial=0)
        return tuple((start, start + length) for start, length in zip(starts, lengths, strict=False))


@dataclasses.dataclass(frozen=True)
class TaggingRules:
    """Decide how tags become entities and labels, and words tokens, where implementations differ.

    Attributes:
        name: the name that a fine-tuned model records.
        spans_of: reads the tags of one sentence as entities that do not overlap.
        align: has the arguments and results of `complete_positions`.
        token_type_id: type of every token of a sentence.
        labels: given the sentences of each split, the training split first, and an encoding, returns the labels to
            learn, sorted. Splits are read only on demand.
        encoding_of: by scheme, the encoding (see `tags_of`) in which predicted tags are written.
    """

    name: str
    spans_of: Callable[[Sequence[str]], list[Span]]
    align: Callable[[Sequence[str], Vocabulary, int], tuple[list[int], list[int]]]
    token_type_id: int
    labels: Callable[[Iterable[Sequence[TaggedSentence]], str], list[str]]
    encoding_of: Mapping[str, str]


def read_tagged_file(
    path: str | os.PathLike[str], *, word_column: int, tag_column: int | None, scheme: str, skip_bad_rows: bool
) -> Examples:
    """Read the sentences of a file: a word a line in columns (see `column_sentences`), a blank line after a sentence.

    Args:
        path: the file, UTF-8.
        word_column: number of the word's column, from 0; negative ones count from the end.
        tag_column: the same for the tag (the CoNLL files: -1); None for a file without tags.
        scheme: a name of `SCHEMES`, which determines the letters of tags. `TaggingRules.spans_of` decides how tags that
            break their scheme are read.
        skip_bad_rows: whether to leave out and count a sentence with a bad row, instead of stopping.

    Raises:
        UserError: if there is no such file or scheme, the file is empty, a row has another number of columns than most,
            a tag does not belong to the scheme, or the columns cannot be words and tags.
    """
    if scheme not in SCHEMES:
        raise UserError(f"the tag scheme {scheme!r} is unknown: use one of {', '.join(SCHEMES)}")
    bad_rows = BadRows(path, skip=skip_bad_rows)
    used = [column for column in (word_column, tag_column) if column is not None]
    num_columns = max(column + 1 if column >= 0 else -column for column in used)
    sentences = []
    found = list(column_sentences(path))
    if tag_column is not None:
        check_columns(path, found, word_column=word_column, tag_column=tag_column)
    widths = collections.Counter(len(columns) for rows in found for _, columns in rows)
    num_columns = max(num_columns, *(width for width, _ in widths.most_common(1)), 0)
    whole = [columns for rows in found for _, columns in rows if len(columns) == num_columns]
    typeless = tag_column is not None and are_typeless(columns[tag_column] for columns in whole)
    read = functools.partial(read_tag, scheme=scheme, typeless=typeless)
    for rows in found:
        problem = _problem(rows, num_columns, tag_column, scheme, read)
        if problem is not None:
            bad_rows.report(*problem)
            continue
        words = tuple(columns[word_column] for _, columns in rows)
        tags = () if tag_column is None else tuple(read(columns[tag_column]) or "" for _, columns in rows)
        sentences.append(TaggedSentence(words, tags, rows[0][0]))
    if not sentences:
        raise UserError(f"{path} holds no sentence that can be used")
    return Examples(tuple(sentences), bad_rows.skipped, os.fspath(path))


def tags_of(spans: Iterable[Span], num_words: int, *, encoding: str) -> list[str]:
    """Write entities as tags.

    Args:
        spans: entities that do not overlap.
        num_words: number of words of the sentence.
        encoding: the letters that mark more than I: "IO", "BIO" (IOB2), "BIOES" (IOBES, the published choice) ...; or
            "IOB1": B only if an entity of the same type ends right before.
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


def encoded_tags(tags: Sequence[str], *, spans_of: Callable[[Sequence[str]], list[Span]], encoding: str) -> list[str]:
    """Return the tags that a model learns: the file's, read as entities and written in `encoding`.

    If the encoding is "plain", they are the file's own.
    """
    if encoding == PLAIN:
        return list(tags)
    return tags_of(spans_of(tags), len(tags), encoding=encoding)


def complete_labels(splits: Iterable[Sequence[TaggedSentence]], encoding: str) -> list[str]:
    """Return every tag that the types of the first split's sentences can take, sorted.

    A tag that training lacks by chance, such as I-LST of CoNLL-2000, can then be predicted if its type was seen.
    """
    if encoding == PLAIN:
        return sorted({tag for sentence in next(iter(splits)) for tag in sentence.tags})
    kinds = {split_tag(tag)[1] for sentence in next(iter(splits)) for tag in sentence.tags if tag != OUTSIDE}
    letters = [letter for letter in encoding if letter != OUTSIDE]
    return sorted({OUTSIDE} | {f"{letter}-{kind}" for letter in letters for kind in kinds})


def without_unseen_types(
    found: Examples, labels: Sequence[str], *, place: str, skip_bad_rows: bool, plain: bool = False
) -> Examples:
    """Return the sentences without those that contain a type which no label has.

    Args:
        found: sentences.
        labels: the labels that the model learns.
        plain: whether the tags are plain, so that each is a type of its own.
        place: the source of the sentences, for messages.
        skip_bad_rows: whether to leave out and count such sentences, instead of stopping.

    Raises:
        UserError: if there is such a sentence and `skip_bad_rows` is False.
    """
    known = set(labels) if plain else {split_tag(label)[1] for label in labels}
    bad_rows = BadRows(place, skip=skip_bad_rows)
    kept = []
    for sentence in found.examples:
        kinds = sentence.tags if plain else ["" if tag == OUTSIDE else split_tag(tag)[1] for tag in sentence.tags]
        unseen = [i for i, kind in enumerate(kinds) if kind not in known]
        if unseen:
            problem = f"the type of {sentence.tags[unseen[0]]!r} was never seen in training"
            bad_rows.report(sentence.line + unseen[0], problem, f"one of {', '.join(sorted(known - {''}))}")
        else:
            kept.append(sentence)
    return Examples(tuple(kept), found.skipped + bad_rows.skipped, found.file)


@dataclasses.dataclass(frozen=True)
class TaggingFeatures:
    """A sentence as the model reads it, without padding.

    Attributes:
        input_ids: [CLS], word pieces, [SEP].
        token_type_ids: as many.
        word_positions: the position of the first piece of each word that was not cut off.
        label_ids: the label of each of those words; empty without tags.
    """

    input_ids: list[int]
    token_type_ids: list[int]
    word_positions: list[int]
    label_ids: list[int]


def tagging_features(
    words: Sequence[str], label_ids: Sequence[int], *, vocabulary: Vocabulary, length: int, rules: TaggingRules
) -> TaggingFeatures:
    """Turn a sentence into word pieces, with the label of each word on its first piece.

    Args:
        words: the words.
        label_ids: a label for each word, or none.
        vocabulary: its casing decides the words' casing.
        length: most tokens, special ones counted; the rest is cut off.
        rules: the rules that place the words and give the tokens' type.
    """
    input_ids, positions = rules.align(words, vocabulary, length)
    token_type_ids = [rules.token_type_id] * len(input_ids)
    return TaggingFeatures(input_ids, token_type_ids, positions, list(label_ids[: len(positions)]))


@dataclasses.dataclass(frozen=True)
class TaggingWindow:
    """A row of a sentence, and for each of its words whether its tag is read from this row."""

    features: TaggingFeatures
    own_words: list[bool]

    @property
    def own_positions(self) -> list[int]:
        """Return the positions of the words whose tags are read from this row."""
        return list(itertools.compress(self.features.word_positions, self.own_words))


def tagging_windows(
    words: Sequence[str], label_ids: Sequence[int], *, vocabulary: Vocabulary, length: int, rules: TaggingRules
) -> list[TaggingWindow]:
    """Turn a sentence into overlapping windows of whole words; the arguments are those of `tagging_features`.

    The tag of each word is read from the window with the most context around it.
    """
    sizes = [max(1, len(pieces)) for pieces in vocabulary.encode_words(words)]
    spans = word_windows(sizes, length - 2)
    window_of = window_of_words(spans, len(words))
    windows = []
    for number, (start, count) in enumerate(spans):
        inside = slice(start, start + count)
        features = tagging_features(words[inside], label_ids[inside], vocabulary=vocabulary, length=length, rules=rules)
        windows.append(TaggingWindow(features, [owner == number for owner in window_of[inside]]))
    return windows


def predicted_tags(label_ids: Sequence[int], num_words: int, labels: Sequence[str]) -> list[str]:
    """Return a tag for every word: the predicted one if the model saw the word, and "O" if it was cut off."""
    tags = [labels[i] for i in label_ids]
    return tags + [OUTSIDE] * (num_words - len(tags))


def complete_positions(words: Sequence[str], vocabulary: Vocabulary, length: int) -> tuple[list[int], list[int]]:
    """Place every word that fits: return the token ids, and the position of each placed word's first piece.

    A word that cleaning empties becomes [UNK], so that each word has a position of its own.

    Args:
        words: the words of a sentence.
        vocabulary: tokenises them.
        length: the most tokens, [CLS] and [SEP] counted; words beyond it are cut off.
    """
    input_ids = [vocabulary.cls_id]
    positions = []
    for pieces in vocabulary.encode_words(words):
        room = length - 1 - len(input_ids)
        if room <= 0:
            break
        positions.append(len(input_ids))
        input_ids += (pieces or [vocabulary.unk_id])[:room]
    return [*input_ids, vocabulary.sep_id], positions


STANDARD_RULES = TaggingRules(
    name="standard",
    spans_of=conlleval_spans,
    align=complete_positions,
    token_type_id=0,
    labels=complete_labels,
    encoding_of={"IOB1": "IOB1", "IOB2": "BIO", "IOBES": "BIOES", "IO": "IO"},
)


def _problem(
    rows: Sequence[ColumnRow],
    num_columns: int,
    tag_column: int | None,
    scheme: str,
    read: Callable[[str], str | None],
) -> tuple[int, str, str] | None:
    """Return the first bad row: its line, the problem, and what was expected."""
    for number, columns in rows:
        if len(columns) != num_columns:
            remedy = "" if len(columns) < num_columns else "; a word that holds spaces needs tabs between the columns"
            return number, f"{len(columns)} columns", f"{num_columns} (separated by white space{remedy})"
        if tag_column is None:
            continue
        if read(columns[tag_column]) is None:
            letters = ", ".join(f"{letter}-TYPE" for letter in SCHEMES[scheme])
            return number, f"{columns[tag_column]!r} is not a tag of {scheme}", f"O, {letters}"
    return None

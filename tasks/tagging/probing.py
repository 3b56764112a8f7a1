"""Read what a probe predicts from an encoder's hidden states: a column of a file of words, or masked tokens."""

import functools
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from electra_jax.errors import UserError
from electra_jax.tasks.options import TaskOptions
from electra_jax.tasks.protocol import Examples, Row
from electra_jax.tasks.split_files import Sources, file_sources
from electra_jax.tasks.tagging.schemes import PLAIN
from electra_jax.tasks.tagging.sentences import STANDARD_RULES, TaggedSentence, read_tagged_file, tagging_features
from electra_jax.tasks.vocabulary import Vocabulary

# The column of each probe in the files of CoNLL-2000 and CoNLL-2003, which begin with the word and its part of speech;
# masked tokens have no column.
COLUMNS = {"chunk": -1, "pos": 1, "words": None}
SPLITS = ("train", "dev", "test")


class Asked(NamedTuple):
    """Hold the questions of a probe on a split.

    Attributes:
        rows: `input_ids` and `token_type_ids` of each sentence.
        positions: for each row, the positions of the tokens whose states are read, int [number].
        answers: the tag or the token at each of them, row by row.
        num_cut: number of words that do not fit into a row and are not asked for.
    """

    rows: list[Row]
    positions: list[np.ndarray]
    answers: list[str]
    num_cut: int


def check_probe(name: str) -> None:
    """Check that there is a probe of this name.

    Raises:
        UserError: if there is none.
    """
    if name not in COLUMNS:
        raise UserError(f"TASK is {name!r}: a probe is one of {', '.join(COLUMNS)}")


def probe_sources(options: TaskOptions) -> Sources:
    """Return the splits of the sentences that a probe reads, which have the layout of the task `chunk`.

    Raises:
        UserError: if there is no such probe, or the sentences should come from TFDS or be divided into folds.
    """
    check_probe(options.task)
    if options.source != "files":
        raise UserError(f"SOURCE is {options.source!r}: a probe reads files; set it to 'files', and DATA_DIR")
    if options.folds is not None or options.fold is not None:
        raise UserError("FOLDS and FOLD are of electra finetune: leave them out, a probe has a dev split")
    return file_sources(
        options,
        folders=("chunk",),
        suffixes=(".txt",),
        read=functools.partial(_read, options),
        text_of=lambda sentence: " ".join(sentence.words),
    )


def draw_of(seed: int, split: str) -> np.random.Generator:
    """Return the generator of a probe's draws on a split, see `ask`.

    Each split has a random stream of its own, so that the number of training sentences does not change other masks.
    """
    return np.random.default_rng([seed, SPLITS.index(split)])


def ask(
    probe: str,
    sentences: Sequence[TaggedSentence],
    vocabulary: Vocabulary,
    *,
    length: int,
    mask_prob: float,
    draw: np.random.Generator,
) -> Asked:
    """Return the rows of sentences and the answers of a probe: each word's tag, at its first piece; or masked tokens.

    Args:
        probe: a name of `COLUMNS`.
        sentences: sentences with the tags of the probe's column.
        vocabulary: the model's.
        length: most tokens of a row; words beyond it are cut off.
        mask_prob: for "words", the chance of each token except [CLS] and [SEP] to become [MASK] and be asked for.
        draw: for "words", the generator of the masks.
    """
    rows, positions, answers, num_cut = [], [], [], 0
    for sentence in sentences:
        features = tagging_features(sentence.words, (), vocabulary=vocabulary, length=length, rules=STANDARD_RULES)
        ids_L = np.array(features.input_ids, np.int32)
        places = np.array(features.word_positions)
        num_cut += len(sentence.words) - len(places)
        if probe == "words":
            places = 1 + np.flatnonzero(draw.random(len(ids_L) - 2) < mask_prob)
            answers += [vocabulary.tokens[token] for token in ids_L[places]]
            ids_L[places] = vocabulary.mask_id
        else:
            answers += sentence.tags[: len(places)]
        rows.append({"input_ids": ids_L, "token_type_ids": np.zeros_like(ids_L)})
        positions.append(places)
    return Asked(rows, positions, answers, num_cut)


def check_asks(asked: Asked, probe: str, split: str, num_sentences: int) -> None:
    """Check that a split has something to ask for.

    Raises:
        UserError: if it has nothing.
    """
    if not asked.answers:
        raise UserError(f"the {split} split of {probe} asks nothing in {num_sentences} sentences: give it more")


def _read(options: TaskOptions, path: os.PathLike[str], split: str) -> Examples:
    del split  # All splits have tags.
    return read_tagged_file(
        path,
        word_column=options.word_column,
        tag_column=COLUMNS[options.task],
        scheme=PLAIN,
        skip_bad_rows=options.skip_bad_rows,
    )

"""Tokenise and pack the documents of one job: `python -m electra_jax.tasks.pretraining.cache_worker`.

`cache.build_cache` starts the process. It reads pickles from its standard input (a `Setup`, then one `Job` at a time)
and answers each job with its record, or with the exception that stopped it. It ends when its input does, and therefore
also when its parent is killed. It imports neither TensorFlow nor the caller's main module.
"""

import array
import dataclasses
import io
import json
import pathlib
import pickle
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from electra_jax.data.blocks import WORD_MARK, token_dtype
from electra_jax.errors import UserError
from electra_jax.files import replace_file
from electra_jax.tasks.corpora.corpus import example_id
from electra_jax.tasks.pretraining.packing import Packing, pack_document
from electra_jax.tasks.unknown import Unknown, commonest, count_unknown, what_became_unknown
from electra_jax.tasks.vocabulary import Vocabulary

# Characters of a job's text in which the words that became [UNK] are looked for; their number is counted everywhere.
_LOOKED_AT = 10**6


@dataclasses.dataclass(frozen=True)
class Setup:
    """Hold the settings that all jobs share.

    Attributes:
        directory: the folder for the jobs' pieces and records.
        vocabulary: tokenises the text; every id is below its size.
        tokenised: whether the corpus already holds ids.
        packing: how documents become examples.
    """

    directory: pathlib.Path
    vocabulary: Vocabulary
    tokenised: bool
    packing: Packing


@dataclasses.dataclass(frozen=True)
class Job:
    """Hold consecutive documents of the corpus: (whether held out, an item of `corpus.read_corpus`)."""

    index: int
    documents: Sequence[tuple[bool, dict[str, Any]]]


class Piece(NamedTuple):
    """Hold the examples of one job and split, in the layout of `blocks.TokenBlocks`, with the number of each.

    Attributes:
        tokens: ids of all examples end to end, uint16 or uint32.
        lengths: number of tokens of each example, int64 [N].
        second_starts: position in each example at which segment B starts, its length if it has none, int64 [N].
        example_ids: `corpus.example_id` of each, int64 [N].
    """

    tokens: np.ndarray
    lengths: np.ndarray
    second_starts: np.ndarray
    example_ids: np.ndarray


def record_path(directory: pathlib.Path, index: int) -> pathlib.Path:
    """Return the path of a finished job's record; the job is unfinished as long as that file is missing."""
    return directory / f"{index:06d}.json"


def piece_path(directory: pathlib.Path, index: int, split: str) -> pathlib.Path:
    """Return the path of a job's `Piece` of one split."""
    return directory / f"{index:06d}.{split}.npz"


def read_piece(path: pathlib.Path) -> Piece:
    """Read a piece that `run_job` wrote."""
    with np.load(path) as arrays:
        return Piece(**arrays)


def largest_size(vocab_size: int, *, word_marks: bool) -> int:
    """Return one more than the largest number that represents a token in a cache."""
    return vocab_size + WORD_MARK * word_marks


def run_job(setup: Setup, job: Job) -> dict[str, Any]:
    """Write the job's pieces, then its record, and return the record.

    The record has {"documents", "examples", "tokens"} of "train" and of "validation", special tokens counted;
    "dropped": the number of tokens that are in no example; and "unknown": an `Unknown` of both splits.
    """
    dropped = [0]
    tokens = unknown = 0
    record: dict[str, Any] = {}
    for split, held_out in (("train", False), ("validation", True)):
        documents = [features for side, features in job.documents if side == held_out]
        piece = _piece(setup, (example for document in documents for example in _examples(setup, document, dropped)))
        buffer = io.BytesIO()
        np.savez(buffer, **piece._asdict())
        replace_file(piece_path(setup.directory, job.index, split), buffer.getvalue())
        counts = {"documents": len(documents), "examples": len(piece.lengths), "tokens": len(piece.tokens)}
        record[split] = counts
        ids = piece.tokens % WORD_MARK if setup.packing.word_marks else piece.tokens
        found = count_unknown(ids, setup.vocabulary)
        tokens, unknown = tokens + found[0], unknown + found[1]
    record["dropped"] = dropped[0]
    words, characters = _commonest_unknown(setup, job) if unknown else ({}, {})
    record["unknown"] = Unknown(tokens, unknown, words, characters).to_json()
    replace_file(record_path(setup.directory, job.index), json.dumps(record))
    return record


def _commonest_unknown(setup: Setup, job: Job) -> tuple[dict[str, int], dict[str, int]]:
    """Return the commonest words and characters at the beginning of a job's text that became [UNK]."""
    lines: list[str] = []
    left = _LOOKED_AT
    for _, document in job.documents:
        if setup.tokenised or left <= 0:
            break
        text = document["text"][:left]
        left -= len(text)
        lines += text.split("\n")
    words, characters = what_became_unknown(lines, setup.vocabulary)
    return commonest(words), commonest(characters)


def _examples(
    setup: Setup, document: dict[str, Any], dropped: list[int]
) -> Iterator[tuple[int, Sequence[int], Sequence[int]]]:
    """Yield (example_id, input_ids, token_type_ids) of a document, and add the number of lost tokens to `dropped`."""
    if setup.tokenised:
        yield document["example_id"], document["input_ids"], document["token_type_ids"]
        return
    key = document["key"]
    packed, lost = pack_document(
        key,
        document["text"],
        tokenizer=setup.vocabulary.tokenizer,
        cls_id=setup.vocabulary.cls_id,
        sep_id=setup.vocabulary.sep_id,
        packing=setup.packing,
    )
    dropped[0] += lost
    for index, example in enumerate(packed):
        yield example_id(key, index), *example


def _piece(setup: Setup, examples: Iterator[tuple[int, Sequence[int], Sequence[int]]]) -> Piece:
    """Lay examples end to end.

    Raises:
        UserError: if an example is too long, holds an id outside the vocabulary, or has segments that are not 0s and
            then 1s.
    """
    # A list would take five times as much memory for each token.
    tokens = array.array("q")
    numbers, lengths, second_starts = [], [], []
    for number, input_ids, types in examples:
        if len(input_ids) > setup.packing.length:
            raise UserError(
                f"the corpus holds an example of {len(input_ids)} tokens, more than the sequence length of "
                f"{setup.packing.length}: set SEQUENCE_LENGTH to what it was made for"
            )
        second_start = len(types) - sum(types)
        if any(types[:second_start]):
            raise UserError(f"the corpus holds an example whose token_type_ids are not 0s and then 1s: {types}")
        tokens.extend(input_ids)
        numbers.append(number)
        lengths.append(len(input_ids))
        second_starts.append(second_start)
    ids, vocab_size = np.array(tokens, np.int64), setup.vocabulary.vocab_size
    largest = np.max(ids % WORD_MARK if setup.packing.word_marks else ids, initial=0)
    if largest >= vocab_size:
        raise UserError(
            f"the corpus holds the token id {largest}, but the vocabulary has {vocab_size} entries: name the "
            "vocabulary that it was made with"
        )
    return Piece(
        ids.astype(token_dtype(largest_size(vocab_size, word_marks=setup.packing.word_marks))),
        np.array(lengths, np.int64),
        np.array(second_starts, np.int64),
        np.array(numbers, np.int64),
    )


def main() -> None:
    """Serve jobs until the input ends."""
    # Ctrl-C reaches every process of the terminal, but the parent decides when to stop the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    setup = pickle.load(sys.stdin.buffer)
    while True:
        try:
            job = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer = run_job(setup, job)
        except Exception as error:
            answer = error
        pickle.dump(answer, sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()

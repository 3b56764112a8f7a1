"""The process that tokenises and packs for `cache.build_cache`: `python -m electra_jax.tasks.pretraining.cache_worker`.

Speaks pickles over its standard input and output: a `Setup`, then a `Job` at a time, each answered by its
record or by the exception that stopped it. Ends when its input does, hence also when its parent is killed.
It imports neither TensorFlow nor the caller's main module.
"""

import dataclasses
import itertools
import json
import os
import pathlib
import pickle
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tokenizers import Tokenizer

from electra_jax.errors import UserError
from electra_jax.tasks.pretraining.packing import Packing, example_id, pack_document
from electra_jax.tasks.pretraining.tfrecords import encode_example, frame

RECORDS_AT_ONCE = 4096


@dataclasses.dataclass(frozen=True)
class Setup:
    """What every job shares. `tokenizer` is None if the corpus is tokenised."""

    directory: pathlib.Path
    tokenizer: Tokenizer | None
    cls_id: int
    sep_id: int
    packing: Packing


@dataclasses.dataclass(frozen=True)
class Job:
    """Documents of one shard: (whether held out, document), as `pretraining.read_corpus` yields them."""

    index: int
    documents: Sequence[tuple[bool, dict[str, Any]]]


def record_path(directory: pathlib.Path, index: int) -> pathlib.Path:
    """Return where a finished job leaves its record; the job is unfinished as long as that is missing."""
    return directory / f"{index:06d}.json"


def piece_path(directory: pathlib.Path, index: int, split: str) -> pathlib.Path:
    """Return where a job leaves the examples of one split; it leaves no file of none."""
    return directory / f"{index:06d}.{split}.tfrecord"


def run_job(setup: Setup, job: Job) -> dict[str, Any]:
    """Write the job's examples, then its record, and return the record.

    The record has for "train" and "validation": {"documents", "examples", "tokens" (special ones counted),
    "longest", "bytes"}; and "dropped": the number of tokens that are in no example.
    """
    dropped = [0]
    record: dict[str, Any] = {}
    for split, held_out in (("train", False), ("validation", True)):
        documents = [features for side, features in job.documents if side == held_out]
        counts = {"documents": len(documents), "examples": 0, "tokens": 0, "longest": 0, "bytes": 0}
        encoded = _encode(setup, documents, counts, dropped)
        _write_atomically(piece_path(setup.directory, job.index, split), encoded, counts)
        record[split] = counts
    record["dropped"] = dropped[0]
    path = record_path(setup.directory, job.index)
    temporary = path.with_suffix(".json.tmp")
    temporary.write_text(json.dumps(record))
    os.replace(temporary, path)
    return record


def _encode(
    setup: Setup, documents: Iterable[dict[str, Any]], counts: dict[str, int], dropped: list[int]
) -> Iterator[bytes]:
    for document in documents:
        if setup.tokenizer is None:
            examples = [(document["example_id"], document["input_ids"], document["token_type_ids"])]
        else:
            key = document["key"]
            packed, lost = pack_document(
                key,
                document["text"],
                tokenizer=setup.tokenizer,
                cls_id=setup.cls_id,
                sep_id=setup.sep_id,
                packing=setup.packing,
            )
            dropped[0] += lost
            examples = [(example_id(key, index), *example) for index, example in enumerate(packed)]
        for number, ids, types in examples:
            if len(ids) > setup.packing.length:
                raise UserError(
                    f"The corpus holds an example of {len(ids)} tokens, more than the sequence length of "
                    f"{setup.packing.length}: set SEQUENCE_LENGTH to what it was made for."
                )
            counts["examples"] += 1
            counts["tokens"] += len(ids)
            counts["longest"] = max(counts["longest"], len(ids))
            yield encode_example(number, ids, types)


def _write_atomically(path: pathlib.Path, records: Iterator[bytes], counts: dict[str, int]) -> None:
    temporary = path.with_suffix(".tmp")
    with open(temporary, "wb") as file:
        while chunk := list(itertools.islice(records, RECORDS_AT_ONCE)):
            counts["bytes"] += file.write(frame(chunk))
    if counts["bytes"]:
        os.replace(temporary, path)
    else:
        temporary.unlink()


def main() -> None:
    """Serve jobs until the input ends."""
    # Ctrl-C reaches every process of the terminal: the parent decides what becomes of the workers.
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

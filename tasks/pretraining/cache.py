"""Tokenise and pack a corpus once, in parallel processes: `electra cache`.

A cache is the directory `CACHE_DIR/NAME`: `train.blocks` and `validation.blocks` (see `electra_jax.data.blocks`; with
`example_ids.npy`, the number of each example), `made_by.json`, a readable record of its origin, and `COMPLETED`.
`tfrecords.add_tfrecords` adds the files that SeqIO and T5X read. A cache is built in `CACHE_DIR/NAME.partial`, which
is renamed at the end; the jobs that a killed run finished are kept.
"""

import collections
import concurrent.futures
import functools
import hashlib
import json
import os
import pathlib
import pickle
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath

from electra_jax.data.blocks import BlocksWriter, save_array, seal_blocks
from electra_jax.errors import UserError
from electra_jax.files import disk_errors_for_users, is_remote, path_of, replace_file
from electra_jax.json_files import read_json
from electra_jax.locks import sole_builder
from electra_jax.runtime import user_cache
from electra_jax.tasks.corpora.corpus import SPLITS, Corpus, held_out_threshold, read_corpus
from electra_jax.tasks.pretraining.cache_worker import (
    Job,
    Setup,
    largest_size,
    piece_path,
    read_piece,
    record_path,
)
from electra_jax.tasks.pretraining.packing import Packing
from electra_jax.tasks.pretraining.progress import ByteProgress
from electra_jax.tasks.unknown import Unknown, join_unknown
from electra_jax.tasks.vocabulary import Vocabulary

# Raised whenever the same inputs would yield other examples than before.
FORMAT_VERSION = 2

# Bytes of text of a job: 64 jobs for a small corpus, more for a large one.
SMALLEST_JOB, LARGEST_JOB, JOBS = 2**16, 2**26, 64

# Held-out text may be this many times the requested share, or in any case this share of the text.
_TOLERANCE, _SMALL_SHARE = 5, 0.1

# The file with the size of a job, in the folder of the jobs. Its name changes with the contents of a job's record.
_JOB_BYTES = "bytes_of_a_job"


def cache_description(
    corpus: Corpus, vocabulary: Vocabulary, *, packing: Packing, held_out_fraction: float
) -> dict[str, Any]:
    """Return the facts that determine the content of a cache."""
    return {
        "corpus": corpus.name,
        "corpus_fingerprint": corpus.fingerprint(),
        "vocabulary_fingerprint": vocabulary.fingerprint,
        "sequence_length": packing.length,
        "one_segment_share": packing.one_segment_share,
        "random_length_share": packing.random_length_share,
        "seed": packing.seed,
        "packing": packing.builder.name,
        "held_out_fraction": held_out_fraction,
        "format_version": FORMAT_VERSION,
        # Only caches with marks have this entry, so that others keep the names of versions without marks.
        **({"word_marks": True} if packing.word_marks else {}),
    }


def cache_name(description: dict[str, Any]) -> str:
    """Return a SeqIO task name that differs whenever the description does."""
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:12]
    words = re.sub(r"\W+", "_", description["corpus"])[-40:].strip("_")
    return f"{words}_{description['sequence_length']}_{digest}"


def find_cache(
    corpus: Corpus, vocabulary: Vocabulary, *, cache_dir: str, packing: Packing, held_out_fraction: float
) -> str | None:
    """Return the directory of a finished cache; None if there is none. The arguments are those of `build_cache`."""
    description = cache_description(corpus, vocabulary, packing=packing, held_out_fraction=held_out_fraction)
    path = path_of(cache_dir) / cache_name(description)
    return str(path) if (path / "COMPLETED").exists() else None


def build_cache(
    corpus: Corpus,
    vocabulary: Vocabulary,
    *,
    cache_dir: str,
    packing: Packing,
    held_out_fraction: float,
    num_processes: int,
    show_progress: bool,
) -> str:
    """Return the directory of the cache of `corpus`, building it if there is none.

    The content does not depend on `num_processes`. If another process is building the same cache, this one waits for
    it.

    Args:
        corpus: text, or examples of the original's TFRecords, which keep their ids.
        vocabulary: tokenises the text.
        cache_dir: a folder that may hold many caches; if it is in an object store, the cache is built on the local disk
            and copied.
        packing: how documents become examples.
        held_out_fraction: share of the documents, chosen by a hash of their text, for the validation split; at least
            one document, or 0 for no such split.
        num_processes: worker processes, in addition to this one, which reads.
        show_progress: whether to show progress on standard error.

    Raises:
        UserError: if the corpus is empty or too small to hold anything out, the disk is full, or a worker was killed.
    """
    description = cache_description(corpus, vocabulary, packing=packing, held_out_fraction=held_out_fraction)
    if packing.word_marks and corpus.tokenised:
        raise UserError(f"WORD_MARKS is True, and {corpus.name} holds token ids, not text: set it to False")
    if num_processes < 1:
        raise UserError(f"{num_processes} processes cannot build a cache: give at least 1.")
    name = cache_name(description)
    if is_remote(cache_dir):
        how = {"packing": packing, "held_out_fraction": held_out_fraction, "num_processes": num_processes}
        build = functools.partial(build_cache, corpus, vocabulary, **how, show_progress=show_progress)
        return store(build, path_of(cache_dir) / name)
    final = pathlib.Path(cache_dir) / name
    with disk_errors_for_users(cache_dir):
        if (final / "COMPLETED").exists():
            # A process that was killed after it had renamed its cache left these.
            shutil.rmtree(final / "jobs", ignore_errors=True)
            return str(final)
        with sole_builder(pathlib.Path(cache_dir) / f".{name}.lock"):
            if not (final / "COMPLETED").exists():
                for line in corpus.description() if show_progress else ():
                    print(line, file=sys.stderr, flush=True)
                partial = final.with_name(name + ".partial")
                setup = _setup(partial, corpus, vocabulary, packing)
                title = f"Tokenising {corpus.name}"
                with ByteProgress(title, corpus.size_bytes, show=show_progress) as progress:
                    records, skipped = _run_jobs(corpus, setup, held_out_fraction, num_processes, progress)
                summary = _finish(partial, setup, records, description, skipped)
                os.rename(partial, final)
                shutil.rmtree(final / "jobs")
                if show_progress:
                    print(f"{final}: {summary}", file=sys.stderr, flush=True)
    return str(final)


def _setup(partial: pathlib.Path, corpus: Corpus, vocabulary: Vocabulary, packing: Packing) -> Setup:
    return Setup(
        directory=_jobs_folder(partial, corpus),
        vocabulary=vocabulary,
        tokenised=corpus.tokenised,
        packing=packing,
    )


def store(build: Callable[..., str], stored: epath.Path) -> str:
    """Build a cache on the local disk and copy it into an object store, COMPLETED last, unless it is there."""
    if not (stored / "COMPLETED").exists():
        built = pathlib.Path(build(cache_dir=str(user_cache() / "examples")))
        stored.mkdir(parents=True, exist_ok=True)
        files = [path for path in built.rglob("*") if path.is_file() and not path.name.startswith(".")]
        for path in sorted(files, key=lambda path: (path.name == "COMPLETED", path)):
            target = stored / path.relative_to(built).as_posix()
            target.parent.mkdir(parents=True, exist_ok=True)
            path_of(path).copy(target, overwrite=True)
    return str(stored)


def _run_jobs(
    corpus: Corpus, setup: Setup, held_out_fraction: float, num_processes: int, progress: ByteProgress
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Let workers run the jobs without a record; return the records of all in order, and what was skipped."""
    hashes = (hashed for hashed, _ in read_corpus(corpus, corpus.units))
    threshold = held_out_threshold(hashes, held_out_fraction)
    skipped_before = collections.Counter(corpus.skipped)
    jobs = _jobs(corpus, threshold, int((setup.directory / _JOB_BYTES).read_text()))
    records: dict[int, dict[str, Any]] = {}
    lock, stop = threading.Lock(), threading.Event()

    workers = [_Worker(setup) for _ in range(num_processes)]

    def work(worker: _Worker) -> None:
        try:
            while not stop.is_set():
                with lock:
                    job, size = next(jobs, (None, 0))
                if job is None:
                    return
                path = record_path(setup.directory, job.index)
                done = path.exists()
                records[job.index] = read_json(path, dict[str, Any], remedy="remove it") if done else worker.run(job)
                with lock:
                    progress.advance(size, already_done=done)
        except BaseException:
            stop.set()
            raise

    with concurrent.futures.ThreadPoolExecutor(num_processes) as pool:
        try:
            for future in concurrent.futures.as_completed([pool.submit(work, worker) for worker in workers]):
                future.result()
        finally:
            stop.set()
            for worker in workers:
                worker.close()
    return [records[index] for index in sorted(records)], dict(corpus.skipped - skipped_before)


def _jobs(corpus: Corpus, threshold: int, job_bytes: int) -> Iterator[tuple[Job, int]]:
    """Yield jobs of at least `job_bytes` (except the last), and the bytes of each."""
    documents, size, index = [], 0, 0
    for hashed, features in read_corpus(corpus, corpus.units):
        documents.append((hashed < threshold, features))
        size += len(features["text"].encode()) if "text" in features else 4 * len(features["input_ids"])
        if size >= job_bytes:
            yield Job(index, documents), size
            documents, size, index = [], 0, index + 1
    if documents:
        yield Job(index, documents), size


def _jobs_folder(partial: pathlib.Path, corpus: Corpus) -> pathlib.Path:
    """Return the folder of the jobs' results, emptied unless an interrupted build left jobs of the same kind there.

    The size of a job is kept there: if its estimate changed, a resumed build would divide the text into other jobs.
    """
    folder = partial / "jobs"
    if not (folder / _JOB_BYTES).exists():
        shutil.rmtree(partial, ignore_errors=True)
        folder.mkdir(parents=True)
        size = min(max(corpus.size_bytes // JOBS, SMALLEST_JOB), LARGEST_JOB)
        replace_file(folder / _JOB_BYTES, str(size))
    return folder


class _Worker:
    """Run jobs in a process of `cache_worker`, which is started for the first one."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, job: Job) -> dict[str, Any]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "electra_jax.tasks.pretraining.cache_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # One thread each, because the processes already run in parallel.
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TOKENIZERS_PARALLELISM": "false"},
            )
            self._send(self._setup)
        self._send(job)
        try:
            answer = pickle.load(self._process.stdout)
        except EOFError as error:
            raise self._death() from error
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _send(self, message: Setup | Job) -> None:
        try:
            pickle.dump(message, self._process.stdin)
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._death() from error

    def _death(self) -> UserError:
        return UserError(
            f"A tokenising process died with exit code {self._process.wait()} (killed for memory?): start again "
            "with fewer processes; what is finished is kept."
        )

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process.stdin.close()
            self._process.stdout.close()


def _finish(
    partial: pathlib.Path,
    setup: Setup,
    records: Sequence[dict[str, Any]],
    description: dict[str, Any],
    skipped: dict[str, int],
) -> str:
    """Join the pieces and write their descriptions, COMPLETED last; return a readable summary.

    Raises:
        UserError: if there is nothing to train on.
    """
    totals = {
        split: {key: sum(record[split][key] for record in records) for key in ("documents", "examples", "tokens")}
        for split in SPLITS
    }
    _check_held_out(totals, description)
    if not totals["train"]["examples"]:
        raise UserError(f"The corpus {description['corpus']} is empty: nothing to train on was found in it.")
    for split in SPLITS:
        pieces = (piece_path(setup.directory, index, split) for index in range(len(records)))
        size = largest_size(setup.vocabulary.vocab_size, word_marks=setup.packing.word_marks)
        _join_pieces(partial / f"{split}.blocks", pieces, size)
    dropped = sum(record["dropped"] for record in records)
    unknown = join_unknown(Unknown(**record["unknown"]) for record in records)
    counts = {**totals, "dropped_tokens": dropped, "skipped": skipped, "unknown": unknown.to_json()}
    replace_file(
        partial / "made_by.json", json.dumps({"made_by": "electra cache", **description, **counts}, indent=2) + "\n"
    )
    replace_file(partial / "COMPLETED", "")
    left_out = "".join(f", {count} {what} skipped" for what, count in skipped.items())
    return (
        f"{totals['train']['examples']} training examples of {totals['train']['documents']} documents, "
        f"{totals['validation']['examples']} held out of {totals['validation']['documents']}, "
        f"{dropped} tokens dropped{left_out}"
    )


def _check_held_out(totals: dict[str, dict[str, int]], description: dict[str, Any]) -> None:
    """Refuse a split that holds out too much of the text: documents are then too few, or of too unequal length.

    The least that can be held out of a small corpus is a document, which may be many times the requested share.

    Raises:
        UserError: if over five times the requested tokens are held out, in several documents that are over a tenth of
            the text, or in one that is most of it; or if all tokens are.
    """
    train, held_out = (totals[split]["tokens"] for split in SPLITS)
    several = totals["validation"]["documents"] > 1 and held_out > _SMALL_SHARE * (train + held_out)
    too_much = held_out > _TOLERANCE * description["held_out_fraction"] * (train + held_out)
    if (too_much and (several or held_out > train)) or (held_out and not train):
        raise UserError(
            f"HELD_OUT_FRACTION {description['held_out_fraction']} of the documents of {description['corpus']} is "
            f"{held_out / (train + held_out):.0%} of its tokens ({totals['train']['examples']} training examples are "
            "left), because the documents are few or of very unequal length: divide plain text with blank lines or "
            "TEXT_FORMAT 'lines', a document a line, or set HELD_OUT_FRACTION to 0"
        )


def _join_pieces(directory: pathlib.Path, pieces: Iterable[pathlib.Path], vocab_size: int) -> None:
    """Write the blocks of a split and, next to them, the number of each example, which seeds SeqIO's masks."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    example_ids = [np.zeros(0, np.int64)]
    with BlocksWriter(directory, vocab_size=vocab_size) as writer:
        for path in pieces:
            piece = read_piece(path)
            writer.add(piece.tokens, piece.lengths, piece.second_starts)
            example_ids.append(piece.example_ids)
    save_array(directory / "example_ids.npy", np.concatenate(example_ids))
    seal_blocks(directory)

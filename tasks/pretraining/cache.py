"""`electra cache`: tokenises and packs a corpus once, in parallel processes, into a SeqIO cache.

The cache has the layout that `seqio_cache_tasks` writes, so that SeqIO, T5X and this project read it:
`CACHE_DIR/NAME/{train,validation}.tfrecord-XXXXX-of-NNNNN`, `info.*.json`, `stats.*.json`, `COMPLETED`;
`made_by.json` says in words where it comes from. It is built in `CACHE_DIR/NAME.partial`, which is renamed at
the end; the jobs that a killed run finished are kept.
"""

import collections
import concurrent.futures
import functools
import hashlib
import importlib.metadata
import json
import os
import pathlib
import pickle
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from etils import epath

from electra_jax.errors import UserError
from electra_jax.files import disk_errors_for_users, is_remote, path_of, replace_file, sole_builder
from electra_jax.runtime import user_cache
from electra_jax.tasks.corpora.corpus import Corpus
from electra_jax.tasks.corpora.splits import held_out_threshold
from electra_jax.tasks.pretraining.byte_progress import ByteProgress
from electra_jax.tasks.pretraining.cache_worker import Job, Setup, piece_path, record_path
from electra_jax.tasks.pretraining.packing import Packing
from electra_jax.tasks.pretraining.tasks import CACHED_FEATURES, SPLITS, read_corpus
from electra_jax.tasks.vocabulary import WordPieceVocabulary

# Raised whenever the same inputs would give other examples than before.
FORMAT_VERSION = 2

# A shard comes from about this much text: 64 shards of a small corpus, more of a large one.
SMALLEST_SHARD, LARGEST_SHARD, SHARDS = 2**16, 2**26, 64


def cache_description(
    corpus: Corpus, vocabulary: WordPieceVocabulary, *, packing: Packing, held_out_fraction: float
) -> dict[str, Any]:
    """Return everything that determines the content of a cache."""
    return {
        "corpus": corpus.name,
        "corpus_fingerprint": corpus.fingerprint(),
        "vocabulary_fingerprint": vocabulary.fingerprint,
        "sequence_length": packing.length,
        "one_segment_share": packing.one_segment_share,
        "random_length_share": packing.random_length_share,
        "seed": packing.seed,
        "packing": packing.method,
        "held_out_fraction": held_out_fraction,
        "format_version": FORMAT_VERSION,
    }


def cache_name(description: dict[str, Any]) -> str:
    """Return a SeqIO task name that differs whenever the description does."""
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:12]
    words = re.sub(r"\W+", "_", description["corpus"])[-40:].strip("_")
    return f"{words}_{description['sequence_length']}_{digest}"


def build_cache(
    corpus: Corpus,
    vocabulary: WordPieceVocabulary,
    *,
    cache_dir: str,
    packing: Packing,
    held_out_fraction: float,
    num_processes: int,
    show_progress: bool,
) -> str:
    """Return the directory of the cache of `corpus`, building it if there is none.

    The content does not depend on `num_processes`. A process that asks for a cache that another one is
    building waits for it.

    Args:
      corpus: text, or examples of the original's TFRecords, which keep their ids.
      vocabulary: tokenises the text.
      cache_dir: a folder that may hold many caches; one in an object store gets what was built on the local disk.
      packing: how documents become examples.
      held_out_fraction: share of the documents, chosen by a hash of their text, that makes the validation
        split; at least one document, and 0 for no such split.
      num_processes: worker processes, beside this one, which reads.
      show_progress: whether to say on standard error how far it is.

    Raises:
      UserError: an empty corpus; one too small to hold anything out; a full disk; a worker that was killed.
    """
    description = cache_description(corpus, vocabulary, packing=packing, held_out_fraction=held_out_fraction)
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
            return str(final)
        with sole_builder(pathlib.Path(cache_dir) / f".{name}.lock"):
            if not (final / "COMPLETED").exists():
                partial = final.with_name(name + ".partial")
                setup = Setup(
                    directory=partial / "jobs",
                    tokenizer=None if corpus.tokenised else vocabulary.tokenizer,
                    cls_id=vocabulary.cls_id,
                    sep_id=vocabulary.sep_id,
                    packing=packing,
                )
                setup.directory.mkdir(parents=True, exist_ok=True)
                title = f"Tokenising {corpus.name}"
                with ByteProgress(title, corpus.size_bytes, show=show_progress) as progress:
                    records, skipped = _run_jobs(corpus, setup, held_out_fraction, num_processes, progress)
                summary = _finish(partial, records, description, skipped)
                os.rename(partial, final)
                shutil.rmtree(final / "jobs")
                if show_progress:
                    print(f"{final}: {summary}", file=sys.stderr, flush=True)
    return str(final)


def store(build: Callable[..., str], stored: epath.Path) -> str:
    """Builds a cache on the local disk and copies it into an object store, COMPLETED last, unless it is there."""
    if not (stored / "COMPLETED").exists():
        built = pathlib.Path(build(cache_dir=str(user_cache() / "examples")))
        stored.mkdir(parents=True, exist_ok=True)
        files = [path for path in built.iterdir() if path.is_file() and not path.name.startswith(".")]
        for path in sorted(files, key=lambda path: (path.name == "COMPLETED", path.name)):
            path_of(path).copy(stored / path.name, overwrite=True)
    return str(stored)


def _run_jobs(
    corpus: Corpus, setup: Setup, held_out_fraction: float, num_processes: int, progress: ByteProgress
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Have workers do the jobs without a record; return the records of all in order, and what was skipped."""
    hashes = (hashed for hashed, _ in read_corpus(corpus, corpus.units))
    threshold = held_out_threshold(hashes, held_out_fraction)
    skipped_before = collections.Counter(corpus.skipped)
    jobs = _jobs(corpus, threshold, _shard_bytes(corpus, setup.directory))
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
                records[job.index] = json.loads(path.read_text()) if done else worker.run(job)
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


def _jobs(corpus: Corpus, threshold: int, shard_bytes: int) -> Iterator[tuple[Job, int]]:
    """Yield jobs of at least `shard_bytes` (but the last), and the bytes of each."""
    documents, size, index = [], 0, 0
    for hashed, features in read_corpus(corpus, corpus.units):
        documents.append((hashed < threshold, features))
        size += len(features["text"].encode()) if "text" in features else 4 * len(features["input_ids"])
        if size >= shard_bytes:
            yield Job(index, documents), size
            documents, size, index = [], 0, index + 1
    if documents:
        yield Job(index, documents), size


def _shard_bytes(corpus: Corpus, directory: pathlib.Path) -> int:
    """Return the size of a job; kept on disk, lest an estimate that changed mix up the jobs of a resumed run."""
    path = directory / "shard_bytes"
    if not path.exists():
        size = min(max(corpus.size_bytes // SHARDS, SMALLEST_SHARD), LARGEST_SHARD)
        replace_file(path, str(size))
    return int(path.read_text())


class _Worker:
    """A process of `cache_worker`, started when it gets its first job."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, job: Job) -> dict[str, Any]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "electra_jax.tasks.pretraining.cache_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # One thread each: the processes are the parallelism.
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
    partial: pathlib.Path, records: Sequence[dict[str, Any]], description: dict[str, Any], skipped: dict[str, int]
) -> str:
    """Make the pieces into shards, write what describes them, COMPLETED last; return a summary in words.

    Killed in between, it can be done again: a piece is moved, never changed.
    """
    totals = {
        split: {key: sum(record[split][key] for record in records) for key in ("documents", "examples", "tokens")}
        for split in SPLITS
    }
    if not totals["train"]["examples"]:
        raise UserError(f"The corpus {description['corpus']} is empty: nothing to train on was found in it.")
    for split in SPLITS:
        if totals[split]["examples"]:
            num_shards = _make_shards(partial, records, split)
            _describe_split(partial, records, split, totals[split], num_shards)
    dropped = sum(record["dropped"] for record in records)
    counts = {**totals, "dropped_tokens": dropped, "skipped": skipped}
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


def _make_shards(partial: pathlib.Path, records: Sequence[dict[str, Any]], split: str) -> int:
    """Join pieces, in order, until a shard has half the size of the largest; return the number of shards."""
    smallest = max(record["train"]["bytes"] for record in records) // 2
    shards, size = [[]], 0
    for index, record in enumerate(records):
        if record[split]["bytes"]:
            if size >= smallest:
                shards.append([])
                size = 0
            shards[-1].append(piece_path(partial / "jobs", index, split))
            size += record[split]["bytes"]
    for number, pieces in enumerate(shards):
        target = partial / f"{split}.tfrecord-{number:05d}-of-{len(shards):05d}"
        if len(pieces) == 1 and pieces[0].exists():
            os.replace(pieces[0], target)
        elif not target.exists():
            joined = target.with_name(target.name + ".tmp")
            with open(joined, "wb") as file:
                for piece in pieces:
                    with open(piece, "rb") as part:
                        shutil.copyfileobj(part, file)
            os.replace(joined, target)
    return len(shards)


def _describe_split(
    partial: pathlib.Path, records: Sequence[dict[str, Any]], split: str, totals: dict[str, int], num_shards: int
) -> None:
    info = {
        "num_shards": num_shards,
        "features": {
            key: {"shape": spec.shape.as_list(), "dtype": spec.dtype.name} for key, spec in CACHED_FEATURES.items()
        },
        "seqio_version": importlib.metadata.version("seqio"),
    }
    stats = {
        "examples": totals["examples"],
        "input_ids_tokens": totals["tokens"],
        "input_ids_max_tokens": max(record[split]["longest"] for record in records),
    }
    replace_file(partial / f"info.{split}.json", json.dumps(info, indent=2) + "\n")
    replace_file(partial / f"stats.{split}.json", json.dumps(stats, indent=2) + "\n")

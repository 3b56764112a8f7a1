"""Continue an output whose job was killed or stopped, instead of answering its inputs twice.

Records are written to `FILE.part`, and `FILE.part.json` records the job that made them. The same job continues after
the last whole record; any other starts over.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from electra_jax.checkpoints.checksum import params_sha256
from electra_jax.errors import UserError
from electra_jax.files import absolute, remove_unless_regular, replace_file, size_and_time
from electra_jax.inference.network import Network
from electra_jax.json_files import json_text, parse_json, read_json
from electra_jax.locks import open_lock, try_lock


@dataclasses.dataclass(frozen=True)
class Unfinished:
    """The part of an output that is being written.

    Attributes:
        path: its name while it is being written.
        file: the file to which the next record is written.
        done: number of records that it already holds.
        errors: the `error` of each of those records that has one.
    """

    path: Path
    file: IO[str]
    done: int
    errors: tuple[str, ...]


def job_of(source: str | None, model: Network, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the facts that determine a job's records; None for standard input and for a text, which are not resumed.

    Args:
        source: the input, as `read_items` takes it.
        model: the model that answers.
        settings: all other settings; JSON values.
    """
    if source is None or not os.path.isfile(source):
        return None
    return {
        "input": str(absolute(source)),
        "size_and_time": list(size_and_time(Path(source))),
        "weights": params_sha256(model.params),
        "vocabulary": None if model.vocabulary is None else model.vocabulary.fingerprint,
        "settings": dict(settings),
    }


@contextlib.contextmanager
def unfinished(path: Path, job: Mapping[str, Any] | None) -> Iterator[Unfinished]:
    """Hold `path`.part open during the body, which gives it its final name; it is removed if the body fails.

    It is kept if the process is killed or a signal ends it, so that the same job can continue.

    Args:
        path: the output.
        job: the facts that determine its records; None if they cannot be told from those of other jobs.

    Raises:
        UserError: if another process writes it.
    """
    part, facts = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.part.json")
    remove_unless_regular(part)
    with open_lock(part) as file:
        if not try_lock(file):
            raise UserError(f"{path} is being written by another process: wait until it ends, or name another")
        if path.exists():
            raise UserError(f"{path} was written by another process in this moment: nothing was done")
        lines = whole_records(part) if job is not None and describes(facts, job) else []
        file.truncate(sum(size for size, _ in lines))
        if not lines and job is not None:
            replace_file(facts, json_text(job))
        file.seek(0, os.SEEK_END)
        try:
            yield Unfinished(part, file, len(lines), tuple(error for _, error in lines if error is not None))
        except BaseException as error:
            if job is None or isinstance(error, Exception):
                part.unlink(missing_ok=True)
                facts.unlink(missing_ok=True)
            raise
    facts.unlink(missing_ok=True)


def describes(facts: Path, job: Mapping[str, Any]) -> bool:
    """Return whether the part was written by the same job."""
    try:
        return read_json(facts, dict[str, Any]) == parse_json(json_text(job), dict[str, Any], facts)
    except UserError:
        return False


def whole_records(part: Path) -> list[tuple[int, str | None]]:
    """Return the size in bytes and the `error`, if any, of each record up to the first incomplete one."""
    found: list[tuple[int, str | None]] = []
    with open(part, "rb") as lines:
        for line in lines:
            try:
                record = parse_json(line.decode(), dict[str, Any], part)
            except (UnicodeDecodeError, UserError):
                break
            if not line.endswith(b"\n") or record.get("index") != len(found):
                break
            found.append((len(line), str(record["error"]) if "error" in record else None))
    return found

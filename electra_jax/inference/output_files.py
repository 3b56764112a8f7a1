"""Write the records of `electra predict`: JSON lines or CSV, to standard output or to a file."""

import contextlib
import csv
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from electra_jax.errors import UserError
from electra_jax.inference.unfinished_output import unfinished
from electra_jax.json_files import json_text
from electra_jax.tasks.rows import without_surrogates

Write = Callable[[Mapping[str, Any]], None]

# What separates the columns of a table, by the ending of its name.
DELIMITERS = {".csv": ",", ".tsv": "\t"}
# Endings that promise another format than the one that is written.
OTHER_FORMATS = frozenset({".parquet", ".arrow", ".xlsx", ".xls", ".npy", ".npz", ".gz", ".xz", ".bz2", ".zst", ".zip"})


@dataclasses.dataclass(frozen=True)
class Output:
    """The destination of records.

    Attributes:
        write: writes a record.
        done: number of records that an earlier job has left there; they must not be written again.
        errors: the `error` of each of those records that has one.
    """

    write: Write
    done: int = 0
    errors: tuple[str, ...] = ()


@contextlib.contextmanager
def record_writer(path: str | None, job: Mapping[str, Any] | None = None) -> Iterator[Output]:
    """Yield the output to which records are written.

    A file takes its name only once the body has succeeded; if a signal or a kill ends the body, the same job continues
    it later. Standard output is flushed after each record, and a reader that closes it, as `head` does, ends the body
    without an error.

    Args:
        path: a .csv or a .tsv, any other file for a JSON object a line, or None for standard output.
        job: the settings that determine the records, see `job_of`; None for a job that cannot be continued.

    Raises:
        UserError: if the file exists, its name promises another format, or another process writes it.
    """
    if path is None:
        with ending_with_reader():
            yield Output(lambda record: print(as_json(record), flush=True))
        return
    check_free(path)
    end = Path(path).suffix.lower()
    if end in OTHER_FORMATS:
        raise UserError(f"{path}: records are not written as {end}; name a .csv, a .tsv or a .jsonl")
    with unfinished(Path(path), job) as part:
        if part.done:
            print(f"continuing after the {part.done:,} records in {part.path}", flush=True)
        yield Output(lambda record: print(as_json(record), file=part.file), part.done, part.errors)
        part.file.flush()
        if end in DELIMITERS:
            write_table(part.path, Path(path), DELIMITERS[end])
            part.path.unlink()
        else:
            part.path.replace(path)


def check_free(path: str) -> None:
    """Check that no file exists at a path that is to be written.

    Raises:
        UserError: if the file exists.
    """
    if Path(path).exists():
        raise UserError(f"{path} exists: nothing was written; name another file, or remove it first")


@contextlib.contextmanager
def ending_with_reader() -> Iterator[None]:
    """End the body without an error if the reader of standard output has closed it."""
    try:
        yield
    except BrokenPipeError:
        # Python flushes standard output once more when it exits.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def as_json(record: Any) -> str:
    """Return JSON values as a line; an input id that is NaN or infinite, which JSON lacks, becomes null."""
    return without_surrogates(json_text(record, indent=None, ensure_ascii=False).removesuffix("\n"))


def write_table(records: Path, path: Path, delimiter: str) -> None:
    """Write JSON lines as a table with a column for each field of any of them, in order of appearance.

    A field that holds an object has a column for each of its fields, `field.name`; a list is written as JSON.
    """
    names: dict[str, None] = {}
    with open(records, encoding="utf-8") as lines:
        for line in lines:
            names |= dict.fromkeys(flat(json.loads(line)))
    # The error column comes last, next to the answers.
    if "error" in names:
        names["error"] = names.pop("error")
    table = path.with_name(f"{path.name}.part.csv")
    # A killed process may have left one; writing must not follow a link that somebody else made.
    table.unlink(missing_ok=True)
    try:
        with open(records, encoding="utf-8") as lines, open(table, "x", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(names), delimiter=delimiter, lineterminator="\n")
            writer.writeheader()
            writer.writerows(flat(json.loads(line)) for line in lines)
        table.replace(path)
    finally:
        table.unlink(missing_ok=True)


def flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with only scalar values, as in a row of a table."""
    row: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            row |= {f"{name}.{inner}": one for inner, one in flat(value).items()}
        else:
            row[name] = as_json(value) if isinstance(value, list) else value
    return row

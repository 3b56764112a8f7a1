"""Read tables that are not line-based: an array of JSON, and Parquet in the form of data sets on hubs."""

import json
import os
import pathlib
from typing import TYPE_CHECKING, Any

from electra_jax.errors import UserError
from electra_jax.files import regular
from electra_jax.json_files import parse_json, without_repeats
from electra_jax.tasks.rows import WHOLE_SUFFIXES, numbered_lines

if TYPE_CHECKING:
    import pyarrow

_REMEDY = "write an array of objects, or an object a line under the name .jsonl"


def whole_table(path: str | os.PathLike[str]) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the names of the columns of a .json or a .parquet, and its rows.

    The columns of a .json are the fields of its first object. If the `datasets` library has recorded the names of a
    column's classes in a Parquet file, the names replace their numbers, also within lists.

    Raises:
        UserError: if the file is missing, empty, damaged or of another format, or the JSON is not an array of objects
            or has a field twice.
    """
    if pathlib.Path(path).suffix.lower() == ".parquet":
        return _parquet(path)
    text = "\n".join(line for _, line in numbered_lines(path))
    rows = parse_json(text, list[dict[str, Any]], path, remedy=_REMEDY, hook=without_repeats)
    if not rows:
        raise UserError(f"{path} is empty.")
    return list(rows[0]), rows


def is_whole(path: str | os.PathLike[str]) -> bool:
    """Return whether a table is not line-based: by its name, and for a .json unless its first line is an object."""
    suffix = pathlib.Path(path).suffix.lower()
    if suffix != ".json":
        return suffix in WHOLE_SUFFIXES
    first = next((text for _, text in numbered_lines(path) if text.strip()), "")
    try:
        return not isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return True


def _parquet(path: str | os.PathLike[str]) -> tuple[list[str], list[dict[str, Any]]]:
    # Importing takes a fifth of a second, which other tables need not wait for.
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(regular(pathlib.Path(path)), page_checksum_verification=True) as file:
            table = file.read(use_threads=False)
        rows = table.to_pylist()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} holds text that is not UTF-8 ({error.reason}); convert the file.") from error
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.strerror:
            raise UserError(f"{path} cannot be read ({error.strerror}).") from error
        raise UserError(f"{path} is no Parquet file, or a damaged one ({str(error).splitlines()[0]})") from error
    if not rows:
        raise UserError(f"{path} is empty.")
    for column, classes in _class_names(table.schema).items():
        for row in rows:
            row[column] = _named(row[column], classes)
    return table.schema.names, rows


def _named(value: Any, classes: list[str]) -> Any:
    """Return the name of a number, or the names of a list of them; any other value unchanged."""
    if isinstance(value, list):
        return [_named(one, classes) for one in value]
    return classes[value] if isinstance(value, int) and 0 <= value < len(classes) else value


def _class_names(schema: "pyarrow.Schema") -> dict[str, list[str]]:
    """Return the class names of each column that has some, as the `datasets` library records them."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        found = {name: _names_of(feature) for name, feature in features.items()}
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return {}
    return {name: names for name, names in found.items() if name in schema.names and names is not None}


def _names_of(feature: Any) -> list[str] | None:
    """Return the names of a column's classes: of its values, or of those in its lists."""
    inner = feature.get("feature", feature) if isinstance(feature, dict) else feature
    # Before version 4 a list of values was described by a list.
    inner = inner[0] if isinstance(inner, list) and len(inner) == 1 else inner
    names = inner.get("names") if isinstance(inner, dict) and inner.get("_type") == "ClassLabel" else None
    return names if isinstance(names, list) and all(isinstance(one, str) for one in names) else None

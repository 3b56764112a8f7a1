"""Read the text column of Parquet and Arrow files, a few rows at a time."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from electra_jax.errors import UserError
from electra_jax.tasks.corpora.byte_streams import DamagedError

if TYPE_CHECKING:
    import pyarrow

KINDS = ("parquet", "arrow", "arrow_stream")

# A text may be a book: memory is bounded by a batch of rows.
_ROWS = 64
_READ_BYTES = 1 << 20


class UndecodableText:
    """Stand for a text that is not UTF-8."""


def column_records(stream: BinaryIO, kind: str, field: str, place: str) -> Iterator[dict[str, Any]]:
    """Yield {column: value} for each row, in order; a value that is not UTF-8 is an `UndecodableText`.

    Args:
        stream: the file; it must be seekable unless it is an Arrow stream.
        kind: its kind, one of `KINDS`.
        field: the column, or a column and the fields of nested records in it, joined by dots.
        place: the file, for the error.

    Raises:
        UserError: if there is no such column.
        DamagedError: if the file is truncated or damaged.
    """
    # Importing takes a fifth of a second, which text files need not wait for.
    import pyarrow

    batches = _parquet_batches if kind == "parquet" else _arrow_batches
    try:
        for name, column in batches(stream, kind, field, place):
            for start in range(0, len(column), _ROWS):
                for value in _values(column.slice(start, _ROWS)):
                    yield {name: value}
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DamagedError(str(error).splitlines()[0]) from error


def _parquet_batches(stream: BinaryIO, kind: str, field: str, place: str) -> Iterator[tuple[str, "pyarrow.Array"]]:
    from pyarrow import parquet

    del kind
    file = parquet.ParquetFile(stream, buffer_size=_READ_BYTES, pre_buffer=False, page_checksum_verification=True)
    name = _column_of(file.schema_arrow, field, place)
    for batch in file.iter_batches(batch_size=_ROWS, columns=[name], use_threads=False):
        yield name, batch.column(0)


def _arrow_batches(stream: BinaryIO, kind: str, field: str, place: str) -> Iterator[tuple[str, "pyarrow.Array"]]:
    from pyarrow import ipc

    if kind == "arrow_stream":
        reader = ipc.open_stream(stream)
        name = _column_of(reader.schema, field, place)
        for batch in reader:
            yield name, batch.column(name)
        return
    schema = ipc.open_file(stream).schema
    name = _column_of(schema, field, place)
    stream.seek(0)
    file = ipc.open_file(stream, options=ipc.IpcReadOptions(included_fields=[schema.get_field_index(name)]))
    for number in range(file.num_record_batches):
        yield name, file.get_batch(number).column(0)


def _column_of(schema: "pyarrow.Schema", field: str, place: str) -> str:
    """Return the column that holds a field, or the beginning of its path.

    Raises:
        UserError: if there is none.
    """
    parts = field.split(".")
    prefixes = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    name = next((prefix for prefix in prefixes if schema.names.count(prefix) == 1), None)
    if name is None:
        raise UserError(
            f"{place}: no column {field!r} (columns: {', '.join(map(repr, schema.names))}); "
            "name the one that holds the text with --gin.TEXT_FIELD."
        )
    return name


def _values(column: "pyarrow.Array") -> list[Any]:
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        return [_value(scalar) for scalar in column]


def _value(scalar: "pyarrow.Scalar") -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return UndecodableText()

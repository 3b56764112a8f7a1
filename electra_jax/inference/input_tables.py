"""Read a table of inputs: a .csv, a .tsv or a .parquet; see `input_files`."""

from collections.abc import Iterator

from electra_jax.checkpoints.model_record import TASK_KINDS
from electra_jax.errors import UserError
from electra_jax.inference.inputs import SECOND, as_input
from electra_jax.inference.items import InputColumns, Item, choice_names, with_choices
from electra_jax.inference.network import Network
from electra_jax.tasks.records import NAMED, column_names, records
from electra_jax.tasks.rows import BadRows, row_name
from electra_jax.tasks.whole_tables import is_whole


def read_table(path: str, model: Network, columns: InputColumns) -> Iterator[Item]:
    """Yield the inputs of a table's rows.

    Raises:
        UserError: if the file cannot be read, is empty, or lacks a column.
    """
    header = column_names(path)
    fields = table_fields(model, columns, header)
    chooses = model.description.kind == "multiple_choice"
    needed = [*fields.values(), *(choice_names(columns) if chooses else ())]
    missing = [name for name in needed if name not in header]
    if missing:
        raise UserError(
            f"{path} has no column {', '.join(map(repr, missing))}: {NAMED[is_whole(path)]} "
            f"{', '.join(map(repr, header))}; set TEXT_COLUMN and TEXT_B_COLUMN to those of the texts"
            f"{', CHOICE_COLUMNS to those of the choices' if chooses else ''}, or rename them"
        )
    identified = columns.identifier in header
    problems = RowProblems(path)
    used = [*needed, *([columns.identifier] if columns.identifier is not None and identified else [])]
    for index, (line, record) in enumerate(records(path, used, problems)):
        if record is None:
            yield Item(index, error=problems.by_line.pop(line, f"{row_name(path, line)}: an empty line"))
            continue
        identifier = record[columns.identifier] if columns.identifier is not None and identified else None
        try:
            named = {name: record[column] for name, column in fields.items()}
            if chooses:
                named |= with_choices(record, columns)
            value = as_input(model, named, row_name(path, line))
            yield Item(index, identifier, value=value)
        except UserError as error:
            yield Item(index, identifier, error=str(error))


class RowProblems(BadRows):
    """Keep the problems of rows, by line, instead of stopping."""

    def __init__(self, path: str) -> None:
        """Start without problems."""
        super().__init__(path, skip=True)
        self.by_line: dict[int, str] = {}

    def report(self, line: int, problem: str, expected: str) -> None:
        """Keep a problem."""
        self.by_line[line] = f"{row_name(self._path, line)}: {problem}; expected {expected}"


def table_fields(model: Network, columns: InputColumns, header: list[str]) -> dict[str, str]:
    """Return the columns that hold the fields of the model's inputs, by field name."""
    kind = TASK_KINDS.get(model.description.kind, model.description.kind)
    if kind == "question_answering":
        return {name: name for name in ("question", "context")}
    if kind == "tagging":
        return {"text": columns.text or next((name for name in ("words", "tokens") if name in header), "text")}
    first = {"text": columns.text or "text"}
    if kind == "multiple_choice" and columns.text is not None and columns.text_pair is None:
        return first
    pair = (model.description.task or {}).get("pair")
    second = columns.text_pair or next((name for name in SECOND if name in header), None)
    if pair is False or (pair is None and second not in header):
        return first
    return first | {"text_pair": second or SECOND[0]}

"""Write and read `metrics.jsonl`, which has one line of JSON for every report of a run."""

import json
import math
from typing import TYPE_CHECKING, Any, TypedDict

from electra_jax.files import regular, replace_file, set_aside
from electra_jax.json_files import parse_json, read_text

if TYPE_CHECKING:
    from pathlib import Path

    from etils import epath

Rows = list[dict[str, Any]]


class MetricsRow(TypedDict):
    """Declare the fields of every line of metrics: the step, and the split: "train", "validation" or "health"."""

    step: int
    split: str


def line_of(step: int, split: str, values: dict[str, float]) -> str:
    """Return the line of one report; a value that is not finite (nothing was counted) becomes null."""
    finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
    return json.dumps({"step": step, "split": split, **finite}) + "\n"


def drop_after(path: "epath.Path | Path", step: int) -> None:
    """Remove the lines of a metrics file that are later than `step`, and a torn last line.

    If other lines are no reports, the file is set aside with a warning, and a new file gets the valid lines.
    """
    if not path.exists():
        return
    kept, damaged = [], []
    *lines, last = regular(path).read_bytes().split(b"\n")
    # A run that was killed while it wrote leaves half a line at the end, without its newline.
    for number, line in enumerate([*lines, last] if _row(last) else lines, start=1):
        row = _row(line)
        if row is None and line.strip():
            damaged.append(number)
        elif row is not None and row["step"] <= step:
            kept.append(line + b"\n")
    if damaged:
        set_aside(path, f"{len(damaged)} of its lines are no reports, the first is line {damaged[0]}")
    replace_file(path, b"".join(kept), durable=True)


def _row(line: bytes) -> dict[str, Any] | None:
    """Return the report that a line holds; None if the line is no report."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or type(row.get("step")) is not int or not isinstance(row.get("split"), str):
        return None
    values = {name: value for name, value in row.items() if name not in ("step", "split")}
    if row["split"] == "health":
        return row if isinstance(row.get("finding"), str) and isinstance(row.get("words"), str) else None
    return row if all(value is None or isinstance(value, int | float) for value in values.values()) else None


def read_rows(path: "epath.Path | Path") -> Rows:
    """Return the lines of a metrics file; none if there is no such file.

    Raises:
        UserError: if the file cannot be read, or a line is not a line of metrics.
    """
    return parse_lines(read_text(path), MetricsRow, path) if path.exists() else []


def parse_lines(text: str, kind: Any, place: object) -> Rows:
    """Return the values of JSON lines, without a last line that lacks its newline.

    Args:
        text: the content of the file.
        kind: the type of a line's value; see `parse_json`.
        place: the file, for the message.

    Raises:
        UserError: if a line is not of that type.
    """
    lines = text.split("\n")
    # A run that was killed while it wrote leaves half a line at the end, without its newline.
    return [
        parse_json(line, kind, f"{place}, line {number}")
        for number, line in enumerate(lines[:-1], start=1)
        if line.strip()
    ]


def by_step(rows: Rows, split: str) -> Rows:
    """Return the rows of one split by rising step; the later row of a step that was run twice (after a resume)."""
    latest = {row["step"]: row for row in rows if row.get("split") == split}
    return [latest[step] for step in sorted(latest)]

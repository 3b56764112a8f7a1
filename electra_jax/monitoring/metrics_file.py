"""Write and read `metrics.jsonl`, which has a line of JSON for every report of a run."""

import contextlib
import json
import math
from typing import TYPE_CHECKING, Any, TypedDict

from electra_jax.errors import UserError
from electra_jax.files import replace_file
from electra_jax.json_files import parse_json, read_text

if TYPE_CHECKING:
    from pathlib import Path

    from etils import epath

Rows = list[dict[str, Any]]


class MetricsRow(TypedDict):
    """What every line of metrics has: the step, and "train", "validation" or "health"."""

    step: int
    split: str


def line_of(step: int, split: str, values: dict[str, float]) -> str:
    """Return the line of one report; a value that is not finite (nothing was counted) becomes null."""
    finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
    return json.dumps({"step": step, "split": split, **finite}) + "\n"


def drop_after(path: "epath.Path | Path", step: int) -> None:
    """Remove the lines of a metrics file that are of later steps than `step`, and a torn last line."""
    if not path.exists():
        return
    kept = []
    for line in read_text(path).splitlines():
        # A torn line says no step.
        with contextlib.suppress(UserError):
            if parse_json(line, MetricsRow, path)["step"] <= step:
                kept.append(line + "\n")
    replace_file(path, "".join(kept))


def read_rows(path: "epath.Path | Path") -> Rows:
    """Return the lines of a metrics file; none if there is no such file.

    Raises:
      UserError: if the file cannot be read, or a line is not one of metrics.
    """
    return parse_lines(read_text(path), MetricsRow, path) if path.exists() else []


def parse_lines(text: str, kind: Any, place: object) -> Rows:
    """Return the values of JSON lines, without a last line that lacks its newline.

    Args:
      text: the content of the file.
      kind: the type of the value of a line, see `parse_json`.
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
    """Return the rows of one split by rising step; of a step that was run twice (resumed) the later row."""
    latest = {row["step"]: row for row in rows if row.get("split") == split}
    return [latest[step] for step in sorted(latest)]

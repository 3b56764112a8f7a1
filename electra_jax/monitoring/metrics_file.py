"""`metrics.jsonl`: a line of JSON for every report of a run."""

import json
import math
from typing import TYPE_CHECKING

from electra_jax.files import replace_file

if TYPE_CHECKING:
    from pathlib import Path

    from etils import epath


def line_of(step: int, split: str, values: dict[str, float]) -> str:
    """One report; a value that is not a number (nothing was counted) is null."""
    finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
    return json.dumps({"step": step, "split": split, **finite}) + "\n"


def drop_after(path: "epath.Path | Path", step: int) -> None:
    """Keeps the lines of a metrics file up to a step; a torn last line goes too."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except ValueError:
            continue
    replace_file(path, "".join(kept))


def time_left(seconds_per_step: float, steps: int) -> str:
    """As hours, minutes and seconds."""
    minutes, seconds = divmod(round(seconds_per_step * steps), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"

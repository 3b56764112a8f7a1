"""Read minimal pairs in BLiMP's format: two sentences that differ in little, of which one is grammatical."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from electra_jax.errors import UserError
from electra_jax.tasks.rows import numbered_lines, without_surrogates

# Their task name for `electra evaluate`.
MINIMAL_PAIRS = "minimal_pairs"

_FIELDS = ("sentence_good", "sentence_bad")


class MinimalPair(NamedTuple):
    """A grammatical sentence, and one that is not."""

    good: str
    bad: str


def read_minimal_pairs(folder: str | os.PathLike[str]) -> dict[str, list[MinimalPair]]:
    """Return the pairs of every .jsonl file of a folder, by the file's name without suffix (BLiMP: Warstadt, 2020).

    Raises:
        UserError: if there is no such folder or no such file in it, a file cannot be read, or a line is not a pair.
    """
    files = sorted(Path(folder).glob("*.jsonl"))
    if not files:
        raise UserError(
            f"{folder} holds no .jsonl file: set DATA_DIR to the folder of the pairs, such as BLiMP's data/"
        )
    return {path.stem: [_pair(path, *line) for line in numbered_lines(path) if line[1].strip()] for path in files}


def _pair(path: Path, number: int, line: str) -> MinimalPair:
    try:
        record: Any = json.loads(line)
    except ValueError as error:
        raise UserError(
            f"{path}, line {number}: not JSON ({error}); a line is an object with both sentences"
        ) from error
    texts = [record.get(name) if isinstance(record, dict) else None for name in _FIELDS]
    for name, text in zip(_FIELDS, texts, strict=True):
        if not isinstance(text, str) or not text.strip():
            raise UserError(
                f"{path}, line {number}: no text {name!r}; a line has both, as in "
                '{"sentence_good": "the cats sat", "sentence_bad": "the cats sits"}'
            )
    return MinimalPair(*map(without_surrogates, texts))

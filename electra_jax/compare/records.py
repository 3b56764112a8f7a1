"""What a comparison keeps of its pieces, on disk: what is done, with which settings, from which weights."""

import datetime
import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from electra_jax.checkpoints import orbax_store
from electra_jax.compare.pieces import Piece, Timing
from electra_jax.errors import UserError
from electra_jax.files import absolute, replace_file
from electra_jax.finetuning.results import RESULTS
from electra_jax.finetuning.seed_run import RESULT

Record = dict[str, Any]


class Records:
    """The files of a comparison's pieces, and the records of those that are done, by name."""

    def __init__(self, model_dir: Path, pieces: Sequence[Piece], seeds: Sequence[int]) -> None:
        """Reads what is there.

        Args:
            model_dir: of the comparison.
            pieces: all of them; what one needs comes before it.
            seeds: that every fine-tuning must have.

        Raises:
            UserError: a record is damaged, or something was done with other settings, or from weights that were made
                anew since.
        """
        self.model_dir, self.pieces, self._seeds = model_dir, pieces, seeds
        self.done: dict[str, Record] = {}
        for piece in pieces:
            if (record := self._read(piece)) is not None:
                self.done[piece.name] = record

    def directory(self, piece: Piece) -> Path:
        """The MODEL_DIR of a piece's process."""
        return self.model_dir / piece.name

    def log(self, piece: Piece) -> Path:
        """What its processes said."""
        return self.model_dir / f"{piece.name}.log"

    def results(self, piece: Piece) -> Record | None:
        """A fine-tuning's results; None where it has none, or fewer seeds than are asked for."""
        path = self.directory(piece) / RESULTS
        if not path.exists():
            return None
        results = json.loads(path.read_text(encoding="utf-8"))
        return results if set(self._seeds) <= {seed["seed"] for seed in results["seeds"]} else None

    def made(self, piece: Piece) -> Record:
        """The run.json of a piece."""
        return json.loads((self.directory(piece) / "run.json").read_text(encoding="utf-8"))

    def held_out(self, piece: Piece) -> Record:
        """The last metrics of held-out text that a pre-training reported; empty where it reported none."""
        rows = [row for row in self._lines(piece) if row["split"] == "validation"]
        return {name: value for name, value in rows[-1].items() if name != "split"} if rows else {}

    def share(self, piece: Piece) -> float:
        """How much of a piece is there: of the steps that are its own, or of the seeds."""
        directory = self.directory(piece)
        if piece.task is not None:
            return sum((directory / "seeds" / str(seed) / RESULT).exists() for seed in self._seeds) / len(self._seeds)
        rows = self._lines(piece)
        before = next((one.steps for one in self.pieces if one.name == piece.needs), 0)
        return max(0, rows[-1]["step"] - before) / (piece.steps - before) if rows else 0.0

    def timings(self) -> dict[str, Timing]:
        """Of the pieces that are done."""
        return {name: Timing(record["seconds"], record.get("share", 1.0), 0.0) for name, record in self.done.items()}

    def add(self, piece: Piece, *, seconds: float, share: float) -> None:
        """Writes the record of a piece that is done.

        Args:
            piece: which.
            seconds: of the process that ended it.
            share: of the piece that this process did.
        """
        record = {
            "command": command_of(piece),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds, 1),
            "share": round(share, 4),
            "steps": piece.steps,
            "flops": piece.flops,
            **({"sha256": parameters_sha256(self.directory(piece))} if piece.task is None else {}),
            "source_sha256": self.done[piece.needs]["sha256"] if piece.needs else None,
            "settings": dict(piece.settings),
        }
        replace_file(absolute(self._path(piece)), json.dumps(record, indent=1) + "\n")
        self.done[piece.name] = record

    def _lines(self, piece: Piece) -> list[Record]:
        """The metrics that a pre-training reported so far."""
        path = self.directory(piece) / "metrics.jsonl"
        # The last line may be half written.
        lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
        return [json.loads(line) for line in lines]

    def _path(self, piece: Piece) -> Path:
        return self.model_dir / f"{piece.name}.json"

    def _read(self, piece: Piece) -> Record | None:
        path = self._path(piece)
        if not path.exists():
            return None
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            held, source = record["settings"], record["source_sha256"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged ({error}): remove it and {self.directory(piece)}") from error
        different = different_settings(held, piece.settings)
        if different:
            raise UserError(
                f"{self.directory(piece)} was made by other settings ({'; '.join(different[:5])}): use another "
                "MODEL_DIR, or remove that folder and its .json to make it again"
            )
        if piece.task is None:
            return record
        if piece.needs is not None and self.done.get(piece.needs, {}).get("sha256") != source:
            raise UserError(
                f"{self.directory(piece)} was fine-tuned from other weights than {self.model_dir / piece.needs} "
                "holds: remove that folder and its .json to fine-tune again"
            )
        return record if self.results(piece) is not None else None


def different_settings(held: Mapping[str, str], asked: Mapping[str, str]) -> list[str]:
    """In words, the settings that two records both have and that differ.

    One that only one of them has came or went with a version of the code: every setting has a value, none a hidden
    default, so that another choice shows in a setting that both have.
    """
    return [
        f"{name} {held[name]} there, {asked[name]} here"
        for name in sorted(held.keys() & asked.keys())
        if held[name] != asked[name]
    ]


def command_of(piece: Piece) -> str:
    """What makes a piece, to be pasted into a shell."""
    return shlex.join(["electra", *piece.arguments])


def parameters_sha256(model_dir: Path) -> str:
    """A hash of the newest checkpoint's parameters: names, types, shapes and values, whatever way they are stored."""
    found = hashlib.sha256()
    params = orbax_store.read_item(absolute(model_dir), "params").tree
    for name, leaf in sorted(flatten_dict(params, sep="/").items()):
        found.update(f"{name} {leaf.dtype} {leaf.shape}\n".encode())
        found.update(np.ascontiguousarray(leaf).tobytes())
    return found.hexdigest()

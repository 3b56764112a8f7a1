"""Checkpoints of a run: Orbax, asynchronous and atomic, each sealed with a checksum of every file.

A checkpoint holds the training state and the data iterator's state. It is sealed before it gets its final name, so
that what looks complete can be checked: one whose files are not those that were sealed, or that Orbax cannot read, is
passed over for the one before.
"""

import json
import logging
import os
import zlib
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from etils import epath

from electra_jax.distributed import processes
from electra_jax.errors import UserError
from electra_jax.files import absolute, is_remote
from electra_jax.model.types import PyTree

SEAL = "integrity.json"
METADATA = "_CHECKPOINT_METADATA"
# In an object store, which cannot rename, it is this file that says that a checkpoint or a part of it is whole.
COMMITTED = "commit_success.txt"
# Orbax writes these after the seal: when it was committed, and that it was.
AFTER_SEAL = (METADATA, COMMITTED)
logger = logging.getLogger(__name__)


class Restored(NamedTuple):
    """What a checkpoint held."""

    step: int
    state: PyTree
    data_state: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run directory, `MODEL_DIR/checkpoints/<step>`."""

    def __init__(self, model_dir: str | os.PathLike[str], *, keep: int) -> None:
        """Opens the directory for writing and removes what an interrupted save left.

        Args:
            model_dir: the run directory.
            keep: how many of the newest checkpoints stay.
        """
        self._model_dir = absolute(model_dir)
        self.directory = self._model_dir / "checkpoints"
        self._saving: int | None = None
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            cleanup_tmp_directories=True,
            async_options=ocp.options.AsyncOptions(post_finalization_callback=self._seal),
        )
        self._manager = ocp.CheckpointManager(self.directory, options=options, item_handlers=handlers())

    def save(self, step: int, state: PyTree, data_state: dict[str, Any]) -> None:
        """Starts writing a checkpoint; returns once the state is copied off the device.

        Raises:
            UserError: this one or the one before could not be written; earlier checkpoints are untouched.
        """
        self.wait()
        self._saving = step
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), data=ocp.args.JsonSave(data_state))
        try:
            saved = self._manager.save(step, args=items)
        except Exception as error:
            raise self._unwritten(error) from error
        if not saved:
            raise RuntimeError(f"step {step} is not after the checkpoints in {self.directory}")

    def wait(self) -> None:
        """Waits until the checkpoint under way is complete.

        Raises:
            UserError: it could not be written.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._unwritten(error) from error
        self._saving = None

    def close(self) -> None:
        """Waits and lets go of the directory."""
        try:
            self.wait()
        finally:
            self._manager.close()

    def latest_step(self) -> int | None:
        """The newest complete checkpoint, None where there is none."""
        return max(complete_steps(self.directory), default=None)

    def restore(self, abstract: PyTree) -> Restored | None:
        """Restores the newest sound checkpoint into the given shapes and shardings.

        Corrupt ones after it are set aside under `MODEL_DIR/corrupt_checkpoints`, so that their steps can be written
        again.

        Returns:
            None where the directory holds no checkpoint, or weights alone.

        Raises:
            UserError: the parameters are of another model, or every checkpoint is corrupt.
        """
        restored, corrupt = newest_sound(self.directory, abstract)
        if corrupt:
            aside = self._model_dir / "corrupt_checkpoints"
            if processes.leader():
                for step in corrupt:
                    aside.mkdir(exist_ok=True)
                    (aside / str(step)).rmtree(missing_ok=True)
                    (self.directory / str(step)).rename(aside / str(step))
                logger.warning("what was corrupt is set aside in %s", aside)
            processes.gather("corrupt checkpoints are set aside")
            self._manager.reload()
        return restored

    def _seal(self) -> None:
        """Seals the checkpoint under way; Orbax calls this when its items are written, before it is renamed."""
        if jax.process_index() == 0:
            if is_remote(self.directory):
                seal(self.directory / str(self._saving))
            else:
                (unfinished,) = self.directory.glob(f"{self._saving}.*")
                seal(unfinished)

    def _unwritten(self, error: Exception) -> UserError:
        """The sentence for a checkpoint that could not be written, whatever library raised it."""
        failed, self._saving = self._saving, None
        kept = max((step for step in complete_steps(self.directory) if step != failed), default=None)
        last = "there is no earlier checkpoint" if kept is None else f"the last good checkpoint is step {kept}"
        reason = next((line for line in str(error).splitlines() if "No space left" in line), str(error).splitlines()[0])
        return UserError(
            f"the checkpoint of step {failed} could not be written to {self.directory} ({reason.strip()}): {last}; "
            "free the disk and run the same command again to go on from it"
        )


def handlers() -> dict[str, ocp.CheckpointHandler]:
    """How each item of a checkpoint is stored."""
    return {"state": ocp.StandardCheckpointHandler(), "data": ocp.JsonCheckpointHandler()}


def is_of_run(directory: epath.Path, step: int) -> bool:
    """Whether a run wrote a checkpoint: what `electra import` and fine-tuning write has no place in any data."""
    return json.loads((directory / str(step) / "data" / "metadata").read_text(encoding="utf-8")) != {}


class CorruptCheckpointError(Exception):
    """A checkpoint that is not what was written; the message says which file or why."""


def complete_steps(directory: epath.Path) -> list[int]:
    """The steps whose checkpoints were committed; what an interrupted save left does not count."""
    if not directory.is_dir():
        return []
    steps = [path for path in directory.iterdir() if path.name.isdigit()]
    return [int(path.name) for path in steps if not is_remote(path) or (path / COMMITTED).exists()]


def restore_latest(model_dir: str | os.PathLike[str], abstract: PyTree) -> Restored:
    """Restores the newest sound checkpoint of a run directory without writing anything there.

    Raises:
        UserError: there is none, or it is of another model.
    """
    directory = absolute(model_dir) / "checkpoints"
    restored, _ = newest_sound(directory, abstract)
    if restored is None:
        raise UserError(f"no checkpoint in {directory}: MODEL_DIR must be a directory that `electra pretrain` wrote")
    return restored


def newest_sound(directory: epath.Path, abstract: PyTree) -> tuple[Restored | None, list[int]]:
    """Restores the newest sound checkpoint, and lists the steps after it that are corrupt.

    Returns:
        None for the checkpoint where there is none, or where it holds weights alone.

    Raises:
        UserError: it is of another model, or every checkpoint is corrupt.
    """
    corrupt: list[int] = []
    for step in sorted(complete_steps(directory), reverse=True):
        try:
            return load_step(directory, step, abstract), corrupt
        except CorruptCheckpointError as error:
            if processes.leader():
                logger.warning("checkpoint %d in %s is corrupt (%s): trying the one before", step, directory, error)
            corrupt.append(step)
    if corrupt:
        raise UserError(
            f"every checkpoint in {directory} is corrupt (steps {', '.join(map(str, corrupt))}): nothing was changed; "
            "bring back a copy, or start again in another MODEL_DIR"
        )
    return None, corrupt


def load_step(directory: epath.Path, step: int, abstract: PyTree) -> Restored | None:
    """Restores one checkpoint.

    Returns:
        None for weights alone, without a state to train on from, as `electra import` writes them of one tower.

    Raises:
        CorruptCheckpointError: it is not what was written.
        UserError: it is sound, but of another model.
    """
    check_together(directory / str(step))
    manager = ocp.CheckpointManager(
        directory, options=ocp.CheckpointManagerOptions(read_only=True), item_handlers=handlers()
    )
    try:
        stored = manager.item_metadata(step).state.tree
        if hasattr(abstract, "opt_state") and "opt_state" not in stored:
            return None
        check_shapes(stored, abstract, directory / str(step))
        items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), data=ocp.args.JsonRestore())
        restored = manager.restore(step, args=items)
    except UserError:
        raise
    except Exception as error:
        raise CorruptCheckpointError(str(error).splitlines()[0] if str(error) else repr(error)) from error
    finally:
        manager.close()
    return Restored(step, restored.state, restored.data)


def check_shapes(stored: PyTree, abstract: PyTree, path: epath.Path) -> None:
    """Refuses a checkpoint whose arrays differ from the run's in name or shape.

    Raises:
        UserError: which differ.
    """
    found, wanted = named_shapes(stored), named_shapes(abstract)
    differences = [
        f"{name} {found.get(name, 'missing')} there, {wanted.get(name, 'missing')} here"
        for name in sorted(found.keys() | wanted.keys())
        if found.get(name) != wanted.get(name) and not name.startswith("opt_state")
    ]
    if not differences and found != wanted:
        differences = ["the optimizer's state"]
    if differences:
        shown = "; ".join(differences[:8]) + (f"; and {len(differences) - 8} more" if len(differences) > 8 else "")
        raise UserError(
            f"{path} holds another run's checkpoint ({shown}): use another MODEL_DIR, or the configuration that made it"
        )


def named_shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    """Shapes by path; a named tuple, a list and a dict of the same names give the same paths."""
    leaves = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda leaf: hasattr(leaf, "shape"))[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape) for path, leaf in leaves}


def seal(directory: epath.Path) -> None:
    """Writes the size and CRC-32 of every file that is final beside them."""
    final = {name: sums for name, sums in checksums(directory).items() if name not in AFTER_SEAL}
    part = directory / f"{SEAL}.part"
    part.write_text(json.dumps(final, indent=1))
    part.replace(directory / SEAL)


def check_seal(directory: epath.Path) -> None:
    """Compares a checkpoint's files with its seal.

    Raises:
        CorruptCheckpointError: names the file.
    """
    for name in (METADATA, SEAL):
        if not (directory / name).exists():
            raise CorruptCheckpointError(f"{name} is missing")
    try:
        sealed = json.loads((directory / SEAL).read_text())
    except ValueError as error:
        raise CorruptCheckpointError(f"{SEAL} cannot be read") from error
    found = checksums(directory)
    for name, expected in sealed.items():
        if name not in found:
            raise CorruptCheckpointError(f"{name} is missing")
        if found[name] != expected:
            raise CorruptCheckpointError(f"{name} is not what was written")


def check_together(directory: epath.Path) -> None:
    """Compares a checkpoint's files with its seal in one process, for all of them.

    Raises:
        CorruptCheckpointError: in every process; names the file.
    """
    found = None
    if processes.leader():
        try:
            check_seal(directory)
        except CorruptCheckpointError as error:
            found = str(error)
    found = processes.gather(found)[0]
    if found is not None:
        raise CorruptCheckpointError(found)


def checksums(directory: epath.Path) -> dict[str, list[int]]:
    """[size, CRC-32] of every file below a checkpoint directory but the seal itself, by relative path."""
    sums = {}
    files = [folder / name for folder, _, names in directory.walk() for name in names if not name.startswith(SEAL)]
    for path in sorted(files):
        size = crc = 0
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                size += len(chunk)
                crc = zlib.crc32(chunk, crc)
        sums[str(path.relative_to(directory))] = [size, crc]
    return sums

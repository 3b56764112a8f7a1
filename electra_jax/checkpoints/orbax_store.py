"""Write and read checkpoints with Orbax: asynchronous, atomic, and sealed with a checksum of every file.

A checkpoint holds the training state and the data iterator's state. It is sealed before it gets its final name. If a
complete checkpoint does not match its seal, or Orbax cannot read it, the one before it is used.
"""

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from electra_jax.checkpoints import t5x_layout
from electra_jax.checkpoints.rotation import check_not_removed, complete_steps, despite_rotation
from electra_jax.checkpoints.seal import CorruptCheckpointError, check_seal, check_seal_everywhere, seal
from electra_jax.checkpoints.stored_arrays import (
    check_metadata,
    check_shapes,
    first_line,
    is_array,
    metadata_of,
    named_shapes,
)
from electra_jax.distributed import processes
from electra_jax.errors import UserError, is_full_disk
from electra_jax.files import absolute, check_no_pattern, is_remote
from electra_jax.json_files import read_json
from electra_jax.model.types import PyTree
from electra_jax.run_directory import CHECKPOINTS

logger = logging.getLogger(__name__)

# The name of the vocabulary's fingerprint in the `data_state` of a checkpoint.
TRAINED_WITH = "vocabulary"


class Restored(NamedTuple):
    """The content of a checkpoint, placed on devices."""

    step: int
    state: PyTree
    data_state: dict[str, Any]


class StoredItem(NamedTuple):
    """One item of a checkpoint's state, such as its parameters, as a tree of numpy arrays, and the step."""

    step: int
    tree: PyTree


class StoredState(NamedTuple):
    """The step, the folder and the layout of a checkpoint's state.

    `items` holds the metadata of arrays by the field names of `TrainState`, and `names_in_folder` maps those names to
    the ones in the folder.
    """

    step: int
    folder: epath.Path
    items: PyTree
    names_in_folder: Mapping[str, str]


class Checkpoints:
    """The checkpoints of one run directory, `MODEL_DIR/checkpoints/<step>`."""

    def __init__(self, model_dir: str | os.PathLike[str], *, keep: int) -> None:
        """Open the directory for writing and remove what an interrupted save left.

        Args:
            model_dir: the run directory.
            keep: how many of the newest checkpoints to keep.

        Raises:
            UserError: if the directory's path holds a character of a pattern.
        """
        check_no_pattern(model_dir)
        self._model_dir = absolute(model_dir)
        self.directory = self._model_dir / CHECKPOINTS
        self._saving: int | None = None
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            cleanup_tmp_directories=True,
            async_options=ocp.options.AsyncOptions(post_finalization_callback=self._seal),
            # Orbax names its barriers after the step alone, and two stores may write the same step at once.
            multiprocessing_options=ocp.options.MultiprocessingOptions(barrier_sync_key_prefix=self._model_dir.name),
        )
        self._manager = ocp.CheckpointManager(self.directory, options=options, item_handlers=handlers())

    def save(self, step: int, state: PyTree, data_state: dict[str, Any]) -> None:
        """Start to write a checkpoint; return once the state is copied off the device.

        Raises:
            UserError: if this checkpoint or the previous one cannot be written; earlier ones are untouched.
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
        """Wait until the checkpoint that is being written is complete.

        Raises:
            UserError: if the checkpoint cannot be written.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._unwritten(error) from error
        self._saving = None

    def close(self) -> None:
        """Wait, and release the directory."""
        try:
            self.wait()
        finally:
            self._manager.close()

    def latest_step(self) -> int | None:
        """Return the step of the newest complete checkpoint, or None if there is none."""
        return max(complete_steps(self.directory), default=None)

    def restore(self, abstract: PyTree) -> Restored | None:
        """Restore the newest sound checkpoint into the given shapes and shardings.

        Newer ones that are corrupt are set aside under `MODEL_DIR/corrupt_checkpoints`, so that their steps can be
        written again.

        Returns:
            None if the directory holds no checkpoint, or only weights.

        Raises:
            UserError: if the checkpoint belongs to another model, or every checkpoint is corrupt.
        """
        restored, corrupt = newest_sound(self.directory, abstract)
        if corrupt:
            aside = self._model_dir / "corrupt_checkpoints"
            if processes.leader():
                for step in corrupt:
                    aside.mkdir(exist_ok=True)
                    (aside / str(step)).rmtree(missing_ok=True)
                    (self.directory / str(step)).rename(aside / str(step))
                logger.warning("corrupt checkpoints were moved to %s", aside)
            processes.gather("corrupt checkpoints are set aside")
            self._manager.reload()
        return restored

    def _seal(self) -> None:
        """Seal the checkpoint that is being written; Orbax calls this between writing its items and renaming it."""
        if jax.process_index() == 0:
            if is_remote(self.directory):
                seal(self.directory / str(self._saving))
            else:
                (unfinished,) = self.directory.glob(f"{self._saving}.*")
                seal(unfinished)

    def _unwritten(self, error: Exception) -> UserError:
        """Return the error for a checkpoint that cannot be written, whatever library raised it."""
        failed, self._saving = self._saving, None
        kept = max((step for step in complete_steps(self.directory) if step != failed), default=None)
        last = "there is no earlier checkpoint" if kept is None else f"the last good checkpoint is step {kept}"
        reason = next((line for line in str(error).splitlines() if "No space left" in line), str(error).splitlines()[0])
        remedy = "free the disk" if is_full_disk(error) else "make the directory writable"
        return UserError(
            f"the checkpoint of step {failed} could not be written to {self.directory} ({reason.strip()}): {last}; "
            f"{remedy} and run the same command again to resume from it"
        )


def handlers() -> dict[str, ocp.CheckpointHandler]:
    """Return the handler that stores each item of a checkpoint, by name."""
    return {"state": ocp.StandardCheckpointHandler(), "data": ocp.JsonCheckpointHandler()}


def is_of_run(directory: epath.Path, step: int) -> bool:
    """Return whether a training run wrote a checkpoint: imported weights have no place in the data."""
    return has_place(_data_state(directory, step))


def has_place(data_state: dict[str, Any]) -> bool:
    """Return whether the `data_state` of a checkpoint has a place in the data, and not only the vocabulary."""
    return not data_state.keys() <= {TRAINED_WITH}


def newest_data_state(directory: epath.Path) -> dict[str, Any]:
    """Return the `data_state` of the newest checkpoint in which it can be read; an empty dict if there is none."""
    for step in sorted(complete_steps(directory), reverse=True):
        # Readers of the checkpoint itself report its damage.
        with contextlib.suppress(UserError):
            return _data_state(directory, step)
    return {}


def _data_state(directory: epath.Path, step: int) -> dict[str, Any]:
    return read_json(directory / str(step) / "data" / "metadata", dict[str, Any])


def restore_latest(model_dir: str | os.PathLike[str], abstract: PyTree) -> Restored:
    """Restore the newest sound checkpoint of a run directory, which may be training, without writing anything there.

    Raises:
        UserError: if there is none, or it belongs to another model.
    """
    directory = absolute(model_dir) / CHECKPOINTS

    def restore() -> Restored:
        restored, _ = newest_sound(directory, abstract)
        if restored is None:
            raise UserError(
                f"no checkpoint in {directory}: MODEL_DIR must be a directory that `electra pretrain` wrote"
            )
        return restored

    return despite_rotation(directory, restore)


def newest_sound(directory: epath.Path, abstract: PyTree) -> tuple[Restored | None, list[int]]:
    """Restore the newest sound checkpoint, and list the newer steps that are corrupt.

    Returns:
        None for the checkpoint if there is none, or if it holds only weights.

    Raises:
        UserError: if the checkpoint belongs to another model, or every checkpoint is corrupt.
    """
    corrupt: list[int] = []
    steps = complete_steps(directory)
    for step in sorted(steps, reverse=True):
        try:
            return load_step(directory, step, abstract), corrupt
        except CorruptCheckpointError as error:
            check_not_removed(directory, step, steps)
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
    """Restore one checkpoint.

    Returns:
        None if it holds only weights, without a state to resume from, as `electra import` writes them for one tower.

    Raises:
        CorruptCheckpointError: if the checkpoint is not what was written.
        UserError: if the checkpoint is sound, but belongs to another model.
    """
    check_seal_everywhere(directory / str(step))
    manager = ocp.CheckpointManager(
        directory, options=ocp.CheckpointManagerOptions(read_only=True), item_handlers=handlers()
    )
    try:
        stored = manager.item_metadata(step).state.tree
        check_metadata(stored, directory / str(step))
        if hasattr(abstract, "opt_state") and "opt_state" not in stored:
            return None
        check_shapes(stored, abstract, directory / str(step))
        items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), data=ocp.args.JsonRestore())
        restored = manager.restore(step, args=items)
    except (UserError, CorruptCheckpointError):
        raise
    except Exception as error:
        raise CorruptCheckpointError(first_line(error)) from error
    finally:
        manager.close()
    return Restored(step, restored.state, restored.data)


def is_of_t5x(directory: epath.Path) -> bool:
    """Return whether T5X, or `electra export --format t5x`, wrote the checkpoints of a model directory."""
    return not (directory / CHECKPOINTS).is_dir() and bool(t5x_layout.complete_steps(directory))


def sound_states(directory: epath.Path) -> Iterator[StoredState]:
    """Yield the sound checkpoints of a model directory, the newest first."""
    if is_of_t5x(directory):
        for step in sorted(t5x_layout.complete_steps(directory), reverse=True):
            folder = t5x_layout.state_of(absolute(directory), step)
            names = t5x_layout.ENTRIES
            try:
                stored = metadata_of(folder)
            except CorruptCheckpointError as error:
                logger.warning("checkpoint %d is corrupt (%s): trying the one before", step, error)
                continue
            yield StoredState(
                step, folder, {ours: stored[theirs] for ours, theirs in names.items() if theirs in stored}, names
            )
        return
    folder = absolute(directory) / CHECKPOINTS
    steps = complete_steps(folder)
    for step in sorted(steps, reverse=True):
        try:
            check_seal(folder / str(step))
            stored = metadata_of(folder / str(step) / "state")
            yield StoredState(step, folder / str(step) / "state", stored, {name: name for name in stored})
        except CorruptCheckpointError as error:
            check_not_removed(folder, step, steps)
            logger.warning("checkpoint %d is corrupt (%s): trying the one before", step, error)


def newest_state(directory: epath.Path) -> StoredState:
    """Find the newest sound checkpoint of a model directory.

    Raises:
        UserError: if there is none.
    """
    state = next(sound_states(directory), None)
    if state is None:
        folder = absolute(directory) / CHECKPOINTS
        raise UserError(f"no checkpoint in {folder}: nothing was saved there, or all of it is corrupt")
    return state


def read_item(directory: epath.Path, item: str) -> StoredItem:
    """Read one item of the newest checkpoint's state onto the host, and nothing else of it.

    Args:
        directory: the model directory.
        item: a field of `TrainState`, such as "params".

    Raises:
        UserError: if there is no checkpoint, or the newest one has no such item or cannot be read.
    """
    return despite_rotation(absolute(directory) / CHECKPOINTS, lambda: read_item_of(newest_state(directory), item))


def read_item_of(state: StoredState, item: str) -> StoredItem:
    """Read one item of a checkpoint's state onto the host, and nothing else of it.

    Raises:
        UserError: if the checkpoint has no such item, or cannot be read.
    """
    step, folder, items, names = state
    if item not in items:
        raise UserError(f"{folder.parent} holds {', '.join(sorted(items))} but no {item}")
    name = names[item]
    wanted = {name: jax.tree.map(_host_array, items[item], is_leaf=is_array)}
    arguments = ocp.args.PyTreeRestore(
        item=wanted, restore_args=jax.tree.map(lambda _: ocp.RestoreArgs(np.ndarray), wanted), partial_restore=True
    )
    try:
        restored = ocp.PyTreeCheckpointHandler().restore(folder, args=arguments)
    # Errors are of many types, as in `metadata_of`.
    except Exception as error:
        raise UserError(f"{folder.parent} cannot be read ({first_line(error)}): bring back a copy") from error
    return StoredItem(step, restored[name])


def read_moments(directory: epath.Path) -> tuple[PyTree, PyTree] | None:
    """Read Adam's moments from the newest checkpoint, as trees like its parameters.

    Returns:
        None if it has none, or not for every parameter, as when Muon updates some of them.
    """
    items = newest_state(directory).items
    found = _find_moments(items["opt_state"]) if "opt_state" in items else None
    if found is None or named_shapes(found["nu"]) != named_shapes(items["params"]):
        return None
    moments = _find_moments(read_item(directory, "opt_state").tree)
    return moments["mu"], moments["nu"]


def _find_moments(tree: PyTree) -> dict[str, PyTree] | None:
    """Return the first node of an optimizer's state that holds both moments."""
    if isinstance(tree, dict) and {"mu", "nu"} <= tree.keys():
        return tree
    children = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, (list, tuple)) else ()
    return next((found for child in children if (found := _find_moments(child)) is not None), None)


def _host_array(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)

"""Rescue a run when something fails: save its state, and say in a sentence where it resumes."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from electra_jax.errors import UserError, is_closed_output, is_full_disk
from electra_jax.model.types import PyTree
from electra_jax.training.meter import NotFiniteError
from electra_jax.training.state import TrainState

logger = logging.getLogger(__name__)


class Checkpoints(Protocol):
    """Interface to the store in which the loop saves its state."""

    def save(self, step: int, state: TrainState, data_state: dict[str, Any]) -> None:
        """Start to save a state after `step` updates."""

    def wait(self) -> None:
        """Wait until the last save is complete."""

    def latest_step(self) -> int | None:
        """Return the step of the newest complete checkpoint; None if there is none."""


class HasPlace(Protocol):
    """Interface to what knows the place in the data."""

    def data_state(self) -> dict[str, Any]:
        """Return the place in the data after the last batch that was handed out."""


@contextlib.contextmanager
def saved_if_interrupted(checkpoints: Checkpoints, step: int, state: TrainState, job: HasPlace) -> Iterator[None]:
    """Save a state if the body, which reports and evaluates, raises an error, and raise the error again.

    The state is not saved if it is not finite, if it was saved already, or if there are several processes, because
    these can only save together.

    Args:
        checkpoints: where the state is saved.
        step: the number of updates that it has had.
        state: the state.
        job: knows the place in the data.
    """
    try:
        yield
    except NotFiniteError:
        raise
    except Exception:
        # An error of the rescue must not hide the original one.
        with contextlib.suppress(Exception):
            if jax.process_count() == 1 and is_finite(state.params):
                checkpoints.wait()
                if checkpoints.latest_step() != step:
                    checkpoints.save(step, state, job.data_state())
                    checkpoints.wait()
                    logger.warning("the state of step %d was saved on the way out", step)
        raise


def is_finite(tree: PyTree) -> bool:
    """Return whether every number of a tree of arrays is finite."""
    return all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(tree))


@contextlib.contextmanager
def explain_failures(checkpoints: Checkpoints) -> Iterator[None]:
    """Turn an error that ends training early into a sentence that names the last good checkpoint.

    Raises:
        UserError: if a loss or gradient norm is not finite, the disk is full when metrics are written, or standard
            output is closed.
    """
    try:
        yield
    except NotFiniteError as error:
        raise UserError(
            f"{error}; nothing of it was saved and {last_good_checkpoint(checkpoints)}: lower the learning rate or "
            "lengthen the warm-up"
        ) from error
    except Exception as error:
        if is_closed_output(error):
            raise UserError(
                f"standard output was closed by what read it: {last_good_checkpoint(checkpoints)}; send the output to "
                "a file, and run the same command again to resume from it"
            ) from error
        # A checkpoint that finds the disk full raises a UserError of its own.
        if isinstance(error, UserError) or not is_full_disk(error):
            raise
        raise UserError(
            f"the metrics could not be written (No space left on device): {last_good_checkpoint(checkpoints)}; "
            "free the disk and run the same command again to resume from it"
        ) from error


def last_good_checkpoint(checkpoints: Checkpoints) -> str:
    """Return a clause for an error message that names the last good checkpoint."""
    checkpoints.wait()
    last = checkpoints.latest_step()
    return "there is no checkpoint yet" if last is None else f"the last good checkpoint is step {last}"

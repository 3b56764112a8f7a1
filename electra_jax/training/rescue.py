"""Save a run's state when something beside its training fails."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from electra_jax.model.types import PyTree
from electra_jax.training.meter import NotFiniteError
from electra_jax.training.state import TrainState

logger = logging.getLogger(__name__)


class Saves(Protocol):
    """Name what a state is saved by."""

    def save(self, step: int, state: TrainState, data_state: dict[str, Any]) -> None:
        """Start to save a state after `step` updates."""

    def wait(self) -> None:
        """Wait until the last save is complete."""


class HasPlace(Protocol):
    """Name what knows the place in the data."""

    def data_state(self) -> dict[str, Any]:
        """Return the place in the data after the last batch that was handed out."""


@contextlib.contextmanager
def saved_if_interrupted(checkpoints: Saves, step: int, state: TrainState, job: HasPlace) -> Iterator[None]:
    """Save a state before an error of the body, which reports and evaluates, is raised again.

    A state that is not finite is not saved, and neither is that of one among several processes, which save together.

    Args:
        checkpoints: where the state is saved.
        step: the updates that it has had.
        state: the state.
        job: what trains it.
    """
    try:
        yield
    except NotFiniteError:
        raise
    except Exception:
        # An error of the rescue must not hide the one that it is for.
        with contextlib.suppress(Exception):
            if jax.process_count() == 1 and is_finite(state.params):
                checkpoints.save(step, state, job.data_state())
                checkpoints.wait()
                logger.warning("the state of step %d was saved on the way out", step)
        raise


def is_finite(tree: PyTree) -> bool:
    """Return whether every number of a tree of arrays is finite."""
    return all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(tree))

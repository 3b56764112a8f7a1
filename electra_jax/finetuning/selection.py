"""Decide which checkpoint of a fine-tuning counts, and which examples its score is measured on."""

from collections.abc import Mapping
from typing import Generic, NamedTuple, TypeVar

from electra_jax.config.selection import BEST, LAST
from electra_jax.finetuning.results import rank

Part = TypeVar("Part")


class Parts(NamedTuple, Generic[Part]):
    """Hold the examples that a run is evaluated on as it goes, and those that its kept checkpoint is scored on.

    Attributes:
        watched_name: the name of `watched` in results.
        watched: the part scored at every evaluation; with SELECTION "best" it chooses the checkpoint, and is not
            reported.
        scored: the parts that the kept checkpoint is scored on, by name, first the one whose score counts.
    """

    watched_name: str
    watched: Part
    scored: Mapping[str, Part]

    @property
    def headline(self) -> str:
        """The name of the part whose score counts."""
        return next(iter(self.scored))

    @property
    def by_name(self) -> dict[str, Part]:
        """All parts by their names."""
        return {self.watched_name: self.watched, **self.scored}


def parts_of(selection: str, dev: Part, test: Part | None, halves: tuple[Part, Part] | None = None) -> Parts[Part]:
    """Return the watched and the scored parts, so that no score is on examples that chose its checkpoint.

    Args:
        selection: SELECTION, a name of `config.selection.SELECTIONS`.
        dev: the dev split.
        test: the test split, if there is one with labels. With "last" it is scored in addition to the dev split.
        halves: the dev split in two parts; needed with "best" if there is no test split. The first one chooses.
    """
    of_test = {} if test is None else {"test": test}
    if selection == LAST:
        return Parts("dev", dev, {"dev": dev, **of_test})
    if test is not None:
        return Parts("dev", dev, of_test)
    if halves is None:
        raise ValueError("without a test split the dev split must be in two parts")
    chooses, scores = halves
    return Parts("dev_selection", chooses, {"dev_report": scores})


def keeps(selection: str, *, metric: str, score: float, best: float | None, step: int, last_step: int) -> bool:
    """Return whether the checkpoint of a step is kept in place of the previous one.

    Args:
        selection: SELECTION.
        metric: the name of the score.
        score: the checkpoint's score on the watched part; NaN is below all others.
        best: the score of the checkpoint that is kept so far; None if there is none.
        step: updates so far.
        last_step: updates of the whole run.
    """
    if selection == BEST:
        return best is None or rank(score, metric) >= rank(best, metric)
    return step == last_step

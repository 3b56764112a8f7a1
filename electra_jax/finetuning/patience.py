"""Stop a seed that no longer improves: early stopping, with patience."""

from collections.abc import Sequence

from electra_jax.finetuning.results import rank
from electra_jax.training.stop import Stop


class Patience(Stop):
    """Ask to stop after several evaluations in a row without a better score, or when another stop asks to."""

    def __init__(self, evaluations: int | None, metric: str, *, earlier: Sequence[float], stop: Stop) -> None:
        """Continue the count of an interrupted run.

        Args:
            evaluations: how many evaluations without a better score end the training; None for no limit.
            metric: the name of the score, which tells whether small or large ones are good.
            earlier: scores of the evaluations so far, in order.
            stop: the other stop.
        """
        super().__init__()
        self._evaluations, self._metric, self._stop = evaluations, metric, stop
        self._best: float | None = None
        self._without = 0
        for score in earlier:
            self.add(score)

    def add(self, score: float) -> None:
        """Count the score of an evaluation."""
        value = rank(score, self._metric)
        if self._best is None or value > self._best:
            self._best, self._without = value, 0
        else:
            self._without += 1

    @property
    def exhausted(self) -> bool:
        """Whether there have been too many evaluations without a better score."""
        return self._evaluations is not None and self._without >= self._evaluations

    def after_step(self) -> bool:
        """Return whether to stop now; called after every dispatch."""
        return self._stop.after_step() or self.exhausted

    def after_evaluation(self) -> bool:
        """Return whether there have been too many evaluations without a better score."""
        return self.exhausted

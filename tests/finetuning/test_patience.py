"""Early stopping: after how many evaluations, by which score, and from where an interrupted run counts on."""

import math

import pytest

from electra_jax.finetuning.patience import Patience
from electra_jax.training.stop import Stop


@pytest.mark.parametrize(
    ("metric", "scores", "stops_after"),
    [
        ("accuracy", [50.0, 60.0, 60.0, 55.0], 4),
        ("accuracy", [50.0, 40.0, 51.0, 40.0, 52.0], None),
        # The smallest error is the best.
        ("rmse", [3.0, 2.0, 2.5, 2.1], 4),
        ("rmse", [3.0, 3.5, 2.0, 1.0], None),
        # A score that is none is never better; even the first is, for want of another.
        ("accuracy", [math.nan, math.nan, math.nan], 3),
    ],
)
def test_two_evaluations_without_a_better_score(metric: str, scores: list[float], stops_after: int | None) -> None:
    patience = Patience(2, metric, earlier=(), stop=Stop())
    never = Patience(None, metric, earlier=(), stop=Stop())
    stopped = []
    for number, score in enumerate(scores, start=1):
        patience.add(score)
        never.add(score)
        assert patience.after_step() == patience.after_evaluation()
        if patience.after_evaluation():
            stopped.append(number)
        # Interrupted here, a run counts on.
        again = Patience(2, metric, earlier=scores[:number], stop=Stop())
        assert again.exhausted == patience.exhausted
    assert stopped == ([] if stops_after is None else [stops_after])
    assert not never.after_step()


def test_a_request_to_stop_is_passed_on() -> None:
    stop = Stop()
    patience = Patience(1, "f1", earlier=(), stop=stop)
    assert not patience.after_step()
    stop.requested = "SIGTERM"
    assert patience.after_step()
    assert not patience.exhausted

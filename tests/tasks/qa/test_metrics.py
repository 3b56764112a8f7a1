"""Scores of question answering, by hand-worked cases and against a search of every threshold."""

import numpy as np
import pytest

from electra_jax.errors import UserError
from electra_jax.tasks.qa import metrics


def test_scores_by_hand() -> None:
    gold = [("a", ["the Eiffel Tower", "Paris"]), ("b", ["10th and 11th centuries"]), ("c", ["x"])]
    predictions = {"a": "Eiffel tower!", "b": "the 11th centuries"}
    # b: 2 of 2 words right, 2 of 4 found: F1 2/3.
    assert metrics.squad_v1_metrics(gold, predictions) == {
        "exact_match": 100 / 3,
        "f1": pytest.approx(100 * (1 + 2 / 3) / 3),
    }
    assert metrics.mrqa_metrics(gold, predictions, skip_unanswered=True)["exact_match"] == 50
    assert metrics.unanswered(gold, predictions) == ["c"]
    # Nothing but an article: equal to nothing, with F1 1 in SQuAD 2.0 alone.
    assert metrics.exact_match("the", "a")
    assert metrics.f1("the", "a") == 0
    assert metrics.SQUAD.f1_with_no_answer("the", "a") == 1
    with pytest.raises(UserError, match="no gold answer, such as 'n'"):
        metrics.squad_v1_metrics([*gold, ("n", [])], predictions)
    with pytest.raises(UserError, match="same data set"):
        metrics.squad_v2_metrics(gold, {"z": "x"}, null_odds=None, null_threshold=1.0)
    with pytest.raises(UserError, match="no null odds, such as 'b'"):
        metrics.squad_v2_metrics(gold, predictions, null_odds={"a": 0.0}, null_threshold=1.0)


def test_best_threshold_is_the_best_of_all() -> None:
    draw = np.random.default_rng(0)
    for _ in range(20):
        gold = [(str(number), ["x y"] if draw.random() < 0.6 else []) for number in range(12)]
        predictions = {example_id: str(draw.choice(["x y", "y z", "w"])) for example_id, _ in gold}
        # Below 0: the official search gives 0 as the threshold for never answering.
        odds = {
            example_id: float(value) for (example_id, _), value in zip(gold, draw.permutation(12) - 12, strict=True)
        }

        found, *tried = (
            metrics.squad_v2_metrics(gold, predictions, null_odds=odds, null_threshold=float(threshold))
            for threshold in range(0, -15, -1)
        )
        for name in ("exact", "f1"):
            assert found[f"best_{name}"] == pytest.approx(max(each[name] for each in [found, *tried]))
            if found[f"best_{name}_thresh"] < 0:
                at_threshold = tried[-int(found[f"best_{name}_thresh"]) - 1]
                assert at_threshold[name] == pytest.approx(found[f"best_{name}"])

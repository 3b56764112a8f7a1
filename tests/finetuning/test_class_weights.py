"""Weights of classes: by hand, and what is refused."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sklearn.utils.class_weight

from electra_jax.errors import UserError
from electra_jax.finetuning.class_weights import weights_of_classes
from electra_jax.tasks.text.tables import TextExample

ONE: Any = SimpleNamespace(name="own", kind="classification", labels=("no", "yes"))
SEVERAL: Any = SimpleNamespace(name="own", kind="multi_label_classification", labels=("neg", "toxic"))


def examples(*labels: Any) -> list[TextExample]:
    return [TextExample(number, "a", None, label) for number, label in enumerate(labels)]


def test_balanced() -> None:
    labels = [0, 0, 0, 1]
    theirs = sklearn.utils.class_weight.compute_class_weight("balanced", classes=np.array([0, 1]), y=labels)
    assert weights_of_classes("balanced", ONE, examples(*labels, None)) == pytest.approx(theirs.tolist())
    # Of four texts three have "neg" and one has "toxic": 1 / 3 and 3.
    several = examples((0, 1), (0,), (), (0,))
    assert weights_of_classes("balanced", SEVERAL, several) == pytest.approx((1 / 3, 3.0))


def test_by_name() -> None:
    assert weights_of_classes({"yes": 5.0}, ONE, examples(0, 1)) == (1.0, 5.0)
    assert weights_of_classes(None, ONE, examples(0, 1)) is None


@pytest.mark.parametrize(
    ("setting", "task", "told"),
    [
        ({"maybe": 2.0}, ONE, "CLASS_WEIGHTS names 'maybe', and the classes of own are 'no', 'yes'"),
        ("balanced", SEVERAL, "no training example has 'toxic': set weights by name"),
        ("balanced", SimpleNamespace(name="ner", kind="tagging", labels=("O",)), "ner has no classes: leave it out"),
    ],
)
def test_refused(setting: Any, task: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        weights_of_classes(setting, task, examples((0,), (0,)))

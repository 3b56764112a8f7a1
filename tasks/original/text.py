"""Score texts exactly as the original's `finetune/classification`, faults included, for comparison."""

from collections.abc import Sequence

from electra_jax.tasks.text.glue_metrics import precision_recall_f1
from electra_jax.tasks.text.task import TextRules


def precision_recall_f1_of_predicted(labels: Sequence[int], predictions: Sequence[int]) -> tuple[float, float, float]:
    """Return precision, recall and F1 of class 1, per cent, as the original's F1Scorer; 0 where undefined.

    It takes the number of predicted positives as that of the gold ones, so that all three equal the precision (75 in
    the recorded case, in which F1 is 54.5). None of the published tasks is scored by it.
    """
    precision, _, _ = precision_recall_f1(labels, predictions)
    return precision, precision, precision


def f1(labels: Sequence[int], predictions: Sequence[int]) -> float:
    """Return the original's F1 of class 1, per cent."""
    return precision_recall_f1_of_predicted(labels, predictions)[2]


RULES = TextRules(name="original", f1=f1)

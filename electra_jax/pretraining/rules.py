"""Define rules of pre-training in which implementations differ: how positions are masked, what evaluation reports."""

import dataclasses

from electra_jax.pretraining.corruption import DistinctPositions, PositionRule
from electra_jax.pretraining.metrics import ExtraMetrics


@dataclasses.dataclass(frozen=True)
class PretrainingRules:
    """The rules of one implementation: which positions are masked, and what evaluation reports in addition.

    Attributes:
        name: name that Gin binds.
        positions: how the masked positions of a row are drawn.
        extra_metrics: metrics that evaluation reports in addition to `metrics.finish`; None for none.
    """

    name: str
    positions: PositionRule
    extra_metrics: ExtraMetrics | None


STANDARD_RULES = PretrainingRules("standard", DistinctPositions(), None)

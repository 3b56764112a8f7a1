"""What pre-training does where implementations differ: how positions are masked, and what evaluation reports beside."""

import dataclasses

from electra_jax.pretraining.corruption import DistinctPositions, PositionRule
from electra_jax.pretraining.metrics import ExtraMetrics


@dataclasses.dataclass(frozen=True)
class PretrainingRules:
    """Decide what is masked and reported, where implementations differ.

    Attributes:
        name: what Gin binds.
        positions: how the masked positions of a row are drawn.
        extra_metrics: what evaluation reports beside `metrics.finish`; None for nothing.
    """

    name: str
    positions: PositionRule
    extra_metrics: ExtraMetrics | None


STANDARD_RULES = PretrainingRules("standard", DistinctPositions(), None)

"""Name which checkpoint of a fine-tuning counts, as the setting SELECTION does and as tables and pages say it."""

from collections.abc import Mapping
from typing import Any

# The last one, as in the original; or the best one on examples that the reported score is not of.
LAST, BEST = "last", "best"
SELECTIONS = {
    LAST: "the last checkpoint",
    BEST: "the best checkpoint, chosen on other examples than are scored",
}
# What results of earlier versions, which do not name it, were.
_UNNAMED = "the best checkpoint, chosen on the examples that are scored, which is a little too high"


def selection_of(results: Mapping[str, Any]) -> str:
    """Return, in words, which checkpoint the scores of a results.json are of."""
    return SELECTIONS.get(results.get("selection") or "", _UNNAMED)

"""Name the checkpoint of a fine-tuning that counts: the values of the setting SELECTION, and their words in reports."""

from collections.abc import Mapping
from typing import Any

# The last one, as in the original; or the best one on examples other than those of the reported score.
LAST, BEST = "last", "best"
SELECTIONS = {
    LAST: "the last checkpoint",
    BEST: "the best checkpoint, chosen on other examples than are scored",
}
# The selection of earlier versions, whose results do not name it.
_UNNAMED = "the best checkpoint, chosen on the examples that are scored, which is a little too high"


def selection_of(results: Mapping[str, Any]) -> str:
    """Describe in words which checkpoint a results.json scores."""
    return SELECTIONS.get(results.get("selection") or "", _UNNAMED)

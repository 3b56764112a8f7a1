"""Compare what two models answer."""

from typing import Any

import pytest


def assert_alike(before: Any, after: Any) -> None:
    """Compare records: numbers within the rounding of float32."""
    if isinstance(before, dict):
        assert before.keys() == after.keys()
        for key, value in before.items():
            assert_alike(value, after[key])
    elif isinstance(before, list):
        for pair in zip(before, after, strict=True):
            assert_alike(*pair)
    elif isinstance(before, float):
        assert after == pytest.approx(before, rel=1e-5, abs=1e-6)
    else:
        assert after == before

"""Rows of different lengths through a forward pass that is a stand-in: every output names the row that it is of."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from electra_jax.data.forward import RowRunner

LENGTHS = (5, 1, 8, 3, 3, 7, 2)


def rows() -> list[dict[str, np.ndarray]]:
    """Rows whose ids are their number, and an array that no model reads."""
    return [
        {
            "input_ids": np.full(length, number, np.int32),
            "token_type_ids": np.zeros(length, np.int32),
            "label": np.array(number),
        }
        for number, length in enumerate(LENGTHS)
    ]


def forward(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    assert batch.keys() == {"input_ids", "token_type_ids", "attention_mask", "row_weight"}
    return {"ids": batch["input_ids"], "first": batch["input_ids"][:, 0], "size": batch["attention_mask"].sum(-1)}


@pytest.mark.parametrize("batch_size", [1, 2, 3, 16])
def test_outputs_are_in_the_order_of_the_rows_and_of_their_lengths(batch_size: int) -> None:
    found = RowRunner(forward, ("ids",), batch_size, (4, 8))(rows())
    assert [output["ids"].tolist() for output in found] == [[number] * size for number, size in enumerate(LENGTHS)]
    assert [int(output["first"]) for output in found] == list(range(len(LENGTHS)))
    assert [int(output["size"]) for output in found] == list(LENGTHS)


def test_a_batch_is_of_few_sizes_and_the_next_one_is_launched_before_it_is_fetched() -> None:
    shapes, log = [], []

    class Fetched(np.ndarray):
        """An array that tells when it is read."""

        def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
            log.append("fetch")
            return super().__array__(*args, **kwargs)

    def launch(batch: Mapping[str, np.ndarray]) -> np.ndarray:
        log.append("launch")
        shapes.append(batch["input_ids"].shape)
        return batch["input_ids"].view(Fetched)

    (first, *_) = RowRunner(launch, ("logits",), 3, (4, 8))(rows())
    assert first["logits"].tolist() == [0] * 5
    assert shapes == [(3, 8), (3, 4), (3, 4)]
    assert log[:3] == ["launch", "launch", "fetch"]


def test_no_rows_give_no_outputs() -> None:
    assert RowRunner(forward, (), 3, (4, 8))([]) == []

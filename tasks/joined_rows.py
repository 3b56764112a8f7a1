"""Join the rows of one example, such as those of its choices, into one training row of arrays [C, L]."""

from collections.abc import Sequence

import numpy as np

from electra_jax.tasks.protocol import Row


def joined_rows(rows: Sequence[Row], number: int) -> Row:
    """Join rows into one row, filled up to a given number of them.

    Args:
        rows: at least one, with `input_ids` [L] and other arrays [L].
        number: C, at least the number of rows.

    Returns:
        Their arrays [C, L], padded with 0 to the longest L; `attention_mask` int32 [C, L]; and `choice_mask` float32
        [C], 0 for a row that only fills up.
    """
    length = max(len(row["input_ids"]) for row in rows)
    joined = {name: np.zeros((number, length), values.dtype) for name, values in rows[0].items()}
    joined["attention_mask"] = np.zeros((number, length), np.int32)
    for place, row in enumerate(rows):
        for name, values in row.items():
            joined[name][place, : len(values)] = values
        joined["attention_mask"][place, : len(row["input_ids"])] = 1
    # Fused attention leaves the result undefined for a token that attends to nothing.
    joined["attention_mask"][len(rows) :, 0] = 1
    return joined | {"choice_mask": (np.arange(number) < len(rows)).astype(np.float32)}

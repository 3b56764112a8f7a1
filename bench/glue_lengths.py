"""Make rows as long as those of GLUE's tasks, at most 128 tokens, from lengths counted with BERT's vocabulary."""

from collections.abc import Sequence

import numpy as np

from electra_jax.data.buckets import bucket_of, epoch_order

# Deciles of the row lengths, counted in the training splits (for QNLI in the dev split).
DECILES = {
    "cola": (4, 7, 8, 9, 10, 10, 11, 12, 14, 17, 47),
    "sst2": (2, 4, 6, 7, 8, 10, 13, 16, 20, 27, 66),
    "mrpc": (19, 36, 41, 45, 50, 53, 57, 61, 64, 70, 103),
    "stsb": (10, 16, 18, 19, 21, 23, 25, 28, 35, 51, 125),
    "rte": (13, 33, 40, 45, 50, 56, 62, 72, 103, 128, 128),
    "qnli": (15, 31, 36, 40, 44, 48, 52, 57, 63, 75, 128),
}
LONGEST = 128
# From gin/runs/finetune.gin, up to LONGEST.
BUCKETS = (8, 16, 24, 32, 48, 64, 96, LONGEST)
POOL_BATCHES = 64


def lengths(task: str, count: int, seed: int) -> np.ndarray:
    """Draw lengths, int [N], distributed uniformly between neighbouring deciles."""
    places = np.random.default_rng(seed).uniform(0, 10, count)
    return np.round(np.interp(places, range(11), DECILES[task])).astype(int)


def synthetic_rows(lengths_N: np.ndarray, vocab_size: int, seed: int) -> list[dict[str, np.ndarray]]:
    """Return a row of random ids for each length, with a label of 0 or 1."""
    draw = np.random.default_rng(seed)
    return [
        {
            "input_ids": draw.integers(1000, vocab_size, length).astype(np.int32),
            "token_type_ids": np.zeros(length, np.int32),
            "label": np.array(draw.integers(2), np.int32),
        }
        for length in lengths_N
    ]


def batches_by_bucket(lengths_N: np.ndarray, buckets: Sequence[int], *, batch_size: int, seed: int) -> dict[int, int]:
    """Count the batches of each bucket in one epoch of fine-tuning."""
    counts = dict.fromkeys(buckets, 0)
    padded_N = np.array([bucket_of(length, buckets) for length in lengths_N.tolist()])
    for rows_B in epoch_order(padded_N, batch_size=batch_size, pool_batches=POOL_BATCHES, seed=seed, epoch=0):
        counts[int(padded_N[rows_B].max())] += 1
    return counts

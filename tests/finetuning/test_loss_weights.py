"""What every example and every word weighs in the updates of an epoch: as much as any other."""

import collections
import types
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.data.buckets import Row, TrainingBatches
from electra_jax.finetuning.loss_weights import mean_weight, share_of_example, weighted
from electra_jax.finetuning.seed_run import SeedContext, Split
from electra_jax.finetuning.selection import Parts
from electra_jax.finetuning.steps import LossConfig, loss_of
from electra_jax.tasks.long_texts import CutCount

BUCKETS = (4, 8, 16, 32)


def row(number: int, length: int, **targets: Any) -> Row:
    ids = np.full(length, number, np.int32)
    return {"input_ids": ids, "token_type_ids": ids * 0, "example": np.array(number)} | targets


def sentences(words: Sequence[int]) -> list[Row]:
    """Sentence n has words[n] words, each a token, between [CLS] and [SEP]."""
    return [
        row(number, count + 2, label_ids=np.zeros(count + 2, np.int32), label_mask=np.array([0, *[1] * count, 0.0]))
        for number, count in enumerate(words)
    ]


def weights_of_epoch(
    kind: str, rows: list[Row], *, batch_size: int, class_weights: tuple[float, ...] | None = None
) -> list[tuple[int, np.ndarray]]:
    """The number of each example, and the weight of its row, or of each of its words, in the loss of its batch.

    The gradient of a squared error of 1/2, and of half a cross-entropy of two equal logits, is that of the loss's sum.
    """
    divisor = batch_size * mean_weight(kind, rows, class_weights)
    config = LossConfig(kind, 0.5, divisor, class_weights, 0.05)
    stream = TrainingBatches(list(weighted(kind, rows)), batch_size, BUCKETS, 64, 0, 0)
    found = []
    for _ in range(stream.batches_per_epoch):
        batch = next(stream)
        numbers_B = batch.pop("example")
        shape = batch["input_ids"].shape if kind == "tagging" else (batch_size,)

        def loss(outputs: jax.Array, batch: dict[str, np.ndarray] = batch) -> jax.Array:
            return loss_of(config, outputs, batch).sum / config.divisor

        if kind == "regression":
            weights = jax.grad(loss)(jnp.full((*shape, 1), 0.5))[:, 0]
        else:
            weights = -2.0 * jax.grad(loss)(jnp.zeros((*shape, 2)))[..., 0]
        real = zip(numbers_B.tolist(), np.asarray(weights), batch["row_weight"].tolist(), strict=True)
        found += [(number, weight) for number, weight, counts in real if counts]
    return found


def test_a_word_weighs_the_same_in_a_batch_of_short_sentences_and_of_long_ones() -> None:
    """In batches of two, by hand: 1, 1, 2 and 20, 24 words are 9.6 a sentence, so 19.2 a batch."""
    rows = sentences([1, 20, 1, 24, 2])
    assert mean_weight("tagging", rows, None) == 9.6
    for number, weights_L in weights_of_epoch("tagging", rows, batch_size=2):
        words = len(rows[number]["input_ids"]) - 2
        np.testing.assert_allclose(weights_L, np.pad([1 / 19.2] * words, (1, len(weights_L) - words - 1)), rtol=1e-6)


@pytest.mark.parametrize(("reduction", "divisor"), [("mean", 19.2), ("sum", 1.0)])
def test_a_run_divides_by_its_average_batch(reduction: str, divisor: float) -> None:
    run: Any = types.SimpleNamespace(
        batch_size=2, loss_reduction=reduction, class_weights=None, answerable_weight=0.5, temperature=0.05
    )
    task: Any = types.SimpleNamespace(kind="tagging")
    nothing: Any = None
    split = Split([], sentences([1, 20, 1, 24, 2]), {}, CutCount(32))
    context = SeedContext(run, task, nothing, split, Parts("dev", split, {"dev": split}), nothing, nothing)
    assert context.loss == LossConfig("tagging", 0.5, divisor, None, 0.05)


@pytest.mark.parametrize("count", [1, 31, 32, 33, 100])
def test_every_example_weighs_the_same_however_few_share_its_batch(count: int) -> None:
    """Of 33 examples, the one that is left over weighed as much as the 32 others."""
    draw = np.random.default_rng(count)
    rows = [row(number, int(draw.integers(3, 33)), label=np.array(0.0, np.float32)) for number in range(count)]
    weights = dict(weights_of_epoch("regression", rows, batch_size=32))
    assert len(weights) == count
    np.testing.assert_allclose(list(weights.values()), 1 / 32, rtol=1e-6)


def test_a_text_of_several_windows_weighs_as_much_as_one_of_one() -> None:
    windows = [1, 4, 1, 2]
    rows = [
        row(number, 8, label=np.array(0.0, np.float32)) for number, count in enumerate(windows) for _ in range(count)
    ]
    # Two rows a text: a text of four windows has half a row's weight in each.
    assert share_of_example("regression", rows).tolist() == [2.0, 0.5, 0.5, 0.5, 0.5, 2.0, 1.0, 1.0]
    assert mean_weight("regression", rows, None) == 1.0
    texts: dict[int, float] = collections.defaultdict(float)
    for number, weight in weights_of_epoch("regression", rows, batch_size=3):
        texts[number] += float(weight)
    np.testing.assert_allclose(list(texts.values()), [2 / 3] * 4, rtol=1e-6)


@pytest.mark.parametrize("kind", ["tagging", "question_answering"])
def test_windows_that_are_learnt_each_for_itself_weigh_alike(kind: str) -> None:
    rows = [row(0, 8), row(0, 8), row(1, 8)]
    assert share_of_example(kind, rows).tolist() == [1.0] * 3
    assert weighted(kind, rows) is rows


def test_examples_of_a_class_weigh_the_same_whatever_their_mates_are() -> None:
    """In batches of one, which each alone would be a mean of itself: weights 3, 1, 1, 1, whose mean is 1.5."""
    rows = [row(number, 8, label=np.array(label)) for number, label in enumerate([1, 0, 0, 0])]
    assert mean_weight("classification", rows, (1.0, 3.0)) == 1.5
    # The gradient of class 1 has the other sign.
    found = dict(weights_of_epoch("classification", rows, batch_size=1, class_weights=(1.0, 3.0)))
    assert [round(float(abs(found[number])), 4) for number in range(4)] == [2.0, 0.6667, 0.6667, 0.6667]


def test_sentences_without_words_are_divided_by_one() -> None:
    assert mean_weight("tagging", sentences([0, 0]), None) == 1.0

"""The layer and the pooling of vectors are those that are best on the dev split, as `Model.encode` gives each."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import electra_jax
from electra_jax.errors import UserError
from electra_jax.finetuning.layers import Chosen, choose_layer, said
from electra_jax.tasks.catalog import task_from_facts
from electra_jax.tasks.text.glue_metrics import spearman
from electra_jax.tasks.text.tables import TextExample
from support.finetuned_model import write_tuned
from support.tiny_model import small_encoder

FACTS = {
    "task": "similarity",
    "kind": "similarity",
    "target": [0.0, 5.0],
    "pair": True,
    "rules": "standard",
    "length": 16,
}
PAIRS = [("the cat", "the dog"), ("who ran", "paris"), ("the mat", "the cats sat on the mat"), ("home", "dog ran home")]
LABELS = [4.0, 0.0, 3.0, 1.0]


def run_of(folder: Path | None, **heads: Any) -> Any:
    return SimpleNamespace(
        init_from=None if folder is None else str(folder),
        heads=SimpleNamespace(**({"layer": None, "pooling": None} | heads)),
        buckets=(8, 32),
        evaluation_batch_size=3,
    )


def test_every_layer_is_scored_and_the_best_is_taken(tmp_path: Path) -> None:
    folder = write_tuned(tmp_path / "pair", "pretraining", labels=(), task=None)
    model = electra_jax.load(folder)
    task = task_from_facts(FACTS, model.pieces)
    examples = [
        TextExample(number, *pair, label) for number, (pair, label) in enumerate(zip(PAIRS, LABELS, strict=True))
    ]
    rows = task.rows(examples, training=False)
    chosen = choose_layer(run_of(folder), small_encoder(), task, examples, rows)
    expected = {}
    for layer in (2, 1):
        for pooling in ("mean", "cls"):
            first, second = (
                model.encode([pair[side] for pair in PAIRS], layer=layer, pooling=pooling) for side in (0, 1)
            )
            cosines = (first * second).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)
            expected[layer, pooling] = spearman(LABELS, cosines)
    found = {(each["layer"], each["pooling"]): each["spearman"] for each in chosen["candidates"]}
    assert found == pytest.approx(expected)
    assert (chosen["layer"], chosen["pooling"]) == max(expected, key=expected.__getitem__)
    assert len(set(expected.values())) > 1
    # What the run sets is not chosen, and neither is what random weights have nothing to say of.
    fixed = choose_layer(run_of(folder, layer=-2), small_encoder(), task, examples, rows)
    assert fixed["layer"] == 1
    assert {each["layer"] for each in fixed["candidates"]} == {1}
    whole = choose_layer(run_of(None), small_encoder(), task, examples, rows)
    assert whole == {"layer": 2, "of_layers": 2, "pooling": "mean", "candidates": []}
    with pytest.raises(UserError, match="layer is 3: this model has layers 1 to 2"):
        choose_layer(run_of(folder, layer=3), small_encoder(), task, examples, rows)


def test_what_is_said_of_the_choice() -> None:
    scores = {(3, "mean"): 40.0, (3, "cls"): 45.0, (2, "mean"): 61.0}
    candidates = [{"layer": layer, "pooling": pooling, "mrr": score} for (layer, pooling), score in scores.items()]
    chosen = Chosen(layer=2, of_layers=3, pooling="mean", candidates=candidates)
    assert said(chosen, "mrr") == (
        "vectors: the mean of layer 2 of 3, the best on dev before training (mrr 61.00; the last layer 45.00)"
    )

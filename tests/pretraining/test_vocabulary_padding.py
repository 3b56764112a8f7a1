"""Rows that pad the table of words: never sampled, never predicted, not trained, and gone once pre-training is over."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

import electra_jax
from electra_jax.checkpoints.model_dir import write_model
from electra_jax.checkpoints.model_record import Description
from electra_jax.checkpoints.roles import VOCABULARY_ROWS
from electra_jax.model.electra import generator_config
from electra_jax.model.types import PyTree
from electra_jax.pretraining import corruption, evaluation, steps
from electra_jax.pretraining.masked_lm import MaskedLanguageModel
from electra_jax.pretraining.objective import Keys
from electra_jax.tasks.vocabulary import Vocabulary
from support.finetuned_model import TOKENS
from support.objectives import COMPILE_FAST, ONE_LAYER, VARIANTS, Variant
from support.tiny_model import MASKING, VOCAB_SIZE, random_batch

ROWS = 100
PADDED = dataclasses.replace(ONE_LAYER, pad_vocab_size_multiple=50)
# Every model that predicts words, and every way to sample them.
NAMES = (
    *("electra", "gdes", "tied_generator", "uniform_generator", "disallow_correct", "mlm", "lm"),
    *("replace_mlm", "all_tokens_mlm", "electric"),
)


def padded(name: str, **changes: Any) -> Variant:
    variant = VARIANTS[name]
    objective = dataclasses.replace(variant.objective, **changes)
    return dataclasses.replace(variant, objective=objective, encoder=PADDED)


def tempting(params: PyTree) -> PyTree:
    """Parameters with which the words of the rows beyond the vocabulary would be the likeliest by far."""
    leaves = {
        path: leaf.at[VOCAB_SIZE:].add(50.0) if path.endswith("output_bias") and leaf.shape == (ROWS,) else leaf
        for path, leaf in flatten_dict(params, sep="/").items()
    }
    return unflatten_dict(leaves, sep="/")


def compiled(function: Callable[..., Any], *arguments: Any) -> Any:
    return jax.jit(function, compiler_options=COMPILE_FAST)(*arguments)


def test_rows_are_the_next_multiple() -> None:
    sizes = {(30522, 64): 30528, (30528, 64): 30528, (30522, 1): 30522, (5, 8): 8}
    for (tokens, multiple), rows in sizes.items():
        found = dataclasses.replace(ONE_LAYER, vocab_size=tokens, pad_vocab_size_multiple=multiple)
        assert found.padded_vocab_size == rows
    assert (PADDED.vocab_size, PADDED.padded_vocab_size) == (VOCAB_SIZE, ROWS)


@pytest.mark.parametrize(
    "variant",
    [*(padded(name) for name in NAMES), padded("electra", sampler="gumbel"), padded("electra", temperature=3.0)],
    ids=[*NAMES, "gumbel", "temperature"],
)
def test_training_and_evaluation_give_no_probability_to_padding(variant: Variant) -> None:
    params = tempting(variant.params())
    batch = jax.tree.map(jnp.asarray, random_batch(8, 32))

    def step(params: PyTree) -> tuple[jax.Array, tuple[Any, Any]]:
        masked = steps.as_masked(jax.random.key(3), batch, MASKING)
        keys = Keys(corruption.row_keys(jax.random.key(7), 8), jax.random.key(7), jax.random.key(7))
        losses, outputs = variant.objective.losses(
            variant.model, params, masked, keys, masking=MASKING, deterministic=True
        )
        return sum(loss.sum / loss.weight for loss in losses.values()), (outputs, losses)

    (total, (outputs, losses)), gradient = compiled(jax.value_and_grad(step, has_aux=True), params)
    assert np.isfinite(total)
    assert all(np.isfinite(loss.sum) for loss in losses.values())
    if outputs.corrupted is not None:
        assert int(jnp.max(outputs.corrupted.sampled_ids_BK)) < VOCAB_SIZE
        assert int(jnp.max(outputs.corrupted.tokens.input_ids)) < VOCAB_SIZE
    shown = [outputs.generator_logits_BKV, outputs.prediction_logits_BKV]
    assert any(logits is not None for logits in shown)
    for logits_BKV in shown:
        if logits_BKV is not None:
            assert logits_BKV.shape[-1] == ROWS
            assert float(jnp.max(jax.nn.softmax(logits_BKV)[..., VOCAB_SIZE:])) == 0.0
            assert np.all(np.isfinite(logits_BKV[..., :VOCAB_SIZE]) | (logits_BKV[..., :VOCAB_SIZE] == -np.inf))
    tables = {path: leaf for path, leaf in flatten_dict(gradient, sep="/").items() if VOCABULARY_ROWS.search(path)}
    assert tables
    for path, leaf in tables.items():
        assert leaf.shape[0] == ROWS, path
        assert np.all(np.isfinite(leaf)), path
        assert not np.any(leaf[VOCAB_SIZE:]), path


def test_losses_are_those_of_a_table_without_padding() -> None:
    """The same weights without the rows; in the held-out evaluation, which draws no more than two uniform numbers."""
    with_rows = padded("electra")
    without = dataclasses.replace(with_rows, encoder=ONE_LAYER)
    params = tempting(with_rows.params())
    cut = {
        path: leaf[:VOCAB_SIZE] if VOCABULARY_ROWS.search(path) else leaf
        for path, leaf in flatten_dict(params, sep="/").items()
    }
    batch = jax.tree.map(jnp.asarray, random_batch(8, 32))
    sums = []
    for variant, values in ((with_rows, params), (without, unflatten_dict(cut, sep="/"))):

        def evaluate(values: PyTree, variant: Variant = variant) -> Any:
            return evaluation.evaluate_step(
                values,
                batch,
                jax.random.key(2),
                model=variant.model,
                objective=variant.objective,
                masking=MASKING,
                accumulation_steps=1,
                extra_metrics=None,
            )

        sums.append(compiled(evaluate, values))
    assert sums[0].keys() == sums[1].keys()
    for name, value in sums[0].items():
        np.testing.assert_allclose(value, sums[1][name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_zeros_at_the_end_are_never_drawn() -> None:
    """Whatever order a sum is taken in: also by the largest uniform number there is."""
    draw = np.random.default_rng(0)
    masses = draw.uniform(size=(64, 200)).astype(np.float32)
    masses[:, 150:] = 0
    last = jnp.full((64, 1), 1 - 2**-24, jnp.float32)
    assert int(jnp.max(corruption.passes(jnp.asarray(masses), last))) == 149
    # Where the total is no more than what comes before the zeros, by a rounding.
    assert int(jnp.max(corruption.passes(jnp.asarray(masses), jnp.ones_like(last)))) == 149


def test_a_loaded_model_predicts_tokens_alone(tmp_path: Path) -> None:
    generator = generator_config(PADDED, width_fraction=0.5, depth_fraction=1.0, embedding_size=PADDED.embedding_size)
    model = Variant(MaskedLanguageModel(1.0), kind="none", encoder=generator)
    params = tempting(model.params())
    towers = {"embeddings": params["embeddings"], "generator": {"encoder": params["discriminator"]["encoder"]}}
    towers["generator"]["head"] = params["generator"]["head"]
    description = Description("generator", None, generator, False, None, (), {})
    tmp_path = tmp_path / "model"
    tmp_path.mkdir()
    write_model(tmp_path, description, {"params": towers}, step=1, vocabulary=Vocabulary(TOKENS, True, True))
    loaded = electra_jax.load(tmp_path)
    assert loaded.description.encoder.padded_vocab_size == VOCAB_SIZE
    assert loaded.params["embeddings"]["word_embeddings"].shape[0] == VOCAB_SIZE
    assert loaded.generator_logits([[2, 4, 7, 3]]).shape == (1, 4, VOCAB_SIZE)
    (answer,) = loaded(["the [MASK] sat"])
    (filling,) = answer["fillings"]
    assert {one["token"] for one in filling["candidates"]} <= set(TOKENS)

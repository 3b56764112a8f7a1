"""Detection with correction: which candidates there are, the loss by hand, what it trains, and that it is learnt."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.model.types import Corrupted, Masked, Tokens
from electra_jax.pretraining import corruption, flops, metrics, steps
from electra_jax.pretraining.correction import CorrectedDetection
from electra_jax.pretraining.objective import Keys
from electra_jax.training.optimizer import make_optimizer
from electra_jax.training.state import TrainState
from support.objectives import COMPILE_FAST, CORRECTION, VARIANTS
from support.tiny_model import MASKING, VOCAB_SIZE, optimizer_config, random_batch

VARIANT = VARIANTS["correction"]
OBJECTIVE = CorrectedDetection(**CORRECTION)


def masked_at(originals: list[int]) -> Masked:
    """Rows of [CLS] x [SEP], of which x is masked."""
    ids_BL = jnp.asarray([[2, original, 3] for original in originals], jnp.int32)
    rows = len(originals)
    shown_BL = ids_BL.at[:, 1].set(4)
    tokens = Tokens(shown_BL, jnp.zeros_like(ids_BL), jnp.ones_like(ids_BL))
    positions_BK = jnp.ones((rows, 1), jnp.int32)
    return Masked(tokens, positions_BK, ids_BL[:, 1:2], jnp.ones((rows, 1), jnp.float32))


def candidates_of(
    masked: Masked, written: list[int], probabilities: dict[int, float], objective: CorrectedDetection = OBJECTIVE
) -> tuple[np.ndarray, np.ndarray]:
    """With a generator that says the same everywhere; [B, P] of the one position."""
    logits_V = np.full(VOCAB_SIZE, -np.inf, np.float32)
    for token, value in probabilities.items():
        logits_V[token] = np.log(value)
    rows = len(written)
    logits_BKV = jnp.tile(jnp.asarray(logits_V)[None, None], (rows, 1, 1))
    corrupted = corruption.replace(masked, jnp.asarray(written, jnp.int32)[:, None])
    keys_B = corruption.row_keys(jax.random.key(1), rows)
    ids_BKP, counted_BKP = objective.candidates(masked, corrupted, logits_BKV, keys_B)
    return np.asarray(ids_BKP)[:, 0], np.asarray(counted_BKP)[:, 0]


def test_the_original_is_first_then_what_was_written_and_a_token_counts_once() -> None:
    """The generator knows 9, 10 and 11: beside the original 9 three draws are of two tokens."""
    originals, written = [9, 9, 9] * 20, [9, 10, 11] * 20
    ids_BP, counted_BP = candidates_of(masked_at(originals), written, {9: 0.5, 10: 0.25, 11: 0.25})
    assert ids_BP.shape == (60, 4)
    assert (ids_BP[:, 0] == 9).all()
    # The original is drawn by no one else, however likely it is.
    assert set(ids_BP[:, 1:].ravel()) == {10, 11}
    read_B = np.array(written)
    np.testing.assert_array_equal(ids_BP[read_B != 9, 1], read_B[read_B != 9])
    for ids_P, counted_P in zip(ids_BP, counted_BP, strict=True):
        assert counted_P.tolist() == [token not in ids_P[:place] for place, token in enumerate(ids_P)]
    assert 1 < counted_BP.sum(1).mean() < 3


def test_other_candidates_are_drawn_from_the_generator() -> None:
    """20 : 30 : 50 without the original; at temperature 1/2 as 4 : 9 : 25."""
    rows = 4000
    masked, probabilities = masked_at([9] * rows), {9: 0.2, 10: 0.16, 11: 0.24, 12: 0.4}
    for objective, expected in (
        (OBJECTIVE, np.array([20, 30, 50])),
        (dataclasses.replace(OBJECTIVE, temperature=0.5), np.array([4, 9, 25])),
    ):
        ids_BP, _ = candidates_of(masked, [9] * rows, probabilities, objective)
        for place in (1, 2, 3):
            counts = np.bincount(ids_BP[:, place], minlength=13)[10:13]
            np.testing.assert_allclose(counts / rows, expected / expected.sum(), atol=0.03)
        # Draws of one position are independent of each other.
        again = np.mean(ids_BP[:, 1] == ids_BP[:, 2])
        np.testing.assert_allclose(again, np.sum((expected / expected.sum()) ** 2), atol=0.03)


def test_the_loss_and_its_metrics_by_hand() -> None:
    batch = jax.tree.map(jnp.asarray, random_batch(8, 32))
    masked, params = steps.as_masked(jax.random.key(3), batch, MASKING), VARIANT.params()
    key = jax.random.key(7)
    keys = Keys(corruption.row_keys(key, 8), key, key)

    def run(params: dict) -> tuple:
        return VARIANT.objective.losses(VARIANT.model, params, masked, keys, masking=MASKING, deterministic=True)

    terms, outputs = jax.jit(run, compiler_options=COMPILE_FAST)(params)
    corrupted: Corrupted = outputs.corrupted
    ids_BKP, counted_BKP = VARIANT.objective.candidates(masked, corrupted, outputs.generator_logits_BKV, keys.sample)
    (_, sown) = VARIANT.model.apply(
        {"params": params},
        corrupted.tokens,
        deterministic=True,
        method="discriminate",
        mutable="intermediates",
        capture_intermediates=lambda module, name: module.name == "encoder" and name == "__call__",
    )
    (hidden_BLD,) = sown["intermediates"]["discriminator"]["encoder"]["__call__"]
    head = jax.tree.map(np.asarray, params["discriminator"]["correction"])
    table_VE = np.asarray(params["embeddings"]["word_embeddings"])
    total, right, places = 0.0, 0.0, 0
    for row, slot in np.argwhere(np.asarray(masked.masked_weights) > 0):
        state_D = np.asarray(hidden_BLD[row, masked.masked_positions[row, slot]])
        inner_E = np.asarray(jax.nn.gelu(state_D @ head["dense"]["kernel"] + head["dense"]["bias"], approximate=False))
        scaled_E = (inner_E - inner_E.mean()) / np.sqrt(inner_E.var() + VARIANT.encoder.layer_norm_eps)
        scaled_E = scaled_E * head["layer_norm"]["scale"] + head["layer_norm"]["bias"]
        kept_P = np.asarray(counted_BKP[row, slot])
        logits_P = (table_VE[np.asarray(ids_BKP[row, slot])] @ scaled_E)[kept_P]
        total += np.log(np.exp(logits_P - logits_P[0]).sum())
        right += float(logits_P[0] == logits_P.max())
        places += 1
    np.testing.assert_allclose(terms["correction"].sum, total, rtol=1e-4)
    assert float(terms["correction"].weight) == places
    sums = jax.device_get(metrics.pretraining_sums(terms, masked, outputs))
    found = metrics.finish(sums, VARIANT.objective.loss_weights)
    assert found["correction_accuracy"] == pytest.approx(right / places)
    assert found["loss"] == pytest.approx(
        found["generator_loss"] + 50 * found["discriminator_loss"] + 20 * found["correction_loss"], rel=1e-5
    )
    # Detection is the published one: the same samples, labels and losses.
    plain = VARIANTS["electra"]
    without = {name: leaf for name, leaf in params["discriminator"].items() if name != "correction"}
    theirs, _ = plain.objective.losses(
        plain.model, params | {"discriminator": without}, masked, keys, masking=MASKING, deterministic=True
    )
    for name in ("generator", "discriminator"):
        np.testing.assert_allclose(terms[name].sum, theirs[name].sum, rtol=1e-5)


def test_a_step_pays_for_its_head() -> None:
    """By hand: 2 x 4 masked tokens x 8 x (16 + 4) forward, and twice that backward."""
    arguments = {"generator_kind": "small", "batch_size": 2, "sequence_length": 16, "max_predictions": 2}
    arguments |= {"generator": VARIANT.model.generator_config, "discriminator": VARIANT.encoder}
    encoder = VARIANT.encoder
    extra = 3 * 2 * 4 * encoder.embedding_size * (encoder.hidden_size + 4)
    plain = flops.step_flops(VARIANTS["electra"].objective, **arguments)
    assert flops.step_flops(VARIANT.objective, **arguments) == plain + extra
    alone = {"trained": "generator"}
    assert flops.step_flops(VARIANT.objective, **arguments, **alone) == flops.step_flops(
        VARIANTS["electra"].objective, **arguments, **alone
    )


def test_a_repeated_word_is_learnt() -> None:
    """Every row is one word, again and again: its neighbours say what stood at a masked position."""
    draw = np.random.default_rng(0)
    ids_BL = np.repeat(draw.integers(5, VOCAB_SIZE, (64, 1)), 32, axis=1).astype(np.int32)
    ids_BL[:, 0], ids_BL[:, -1] = MASKING.cls_id, MASKING.sep_id
    batch = {"input_ids": ids_BL, "token_type_ids": 0 * ids_BL, "attention_mask": 0 * ids_BL + 1}
    rule = make_optimizer(optimizer_config(learning_rate=5e-3, num_train_steps=1500, weight_decay_rate=0.0))
    params = VARIANT.params()
    step = functools.partial(
        steps.pretrain_step,
        model=VARIANT.model,
        objective=VARIANT.objective,
        masking=MASKING,
        optimizer=rule,
        accumulation_steps=1,
    )
    step = jax.jit(step, compiler_options=COMPILE_FAST)
    first, last = [], []
    # How soon it is learnt depends on the draws, and where these are unlucky on the rounding of a sum.
    for seed in (5, 6, 7):
        state = TrainState(
            jnp.zeros((), jnp.int32), params, rule.init(params), jax.random.key_data(jax.random.key(seed))
        )
        accuracies = []
        for _ in range(240):
            state, sums = step(state, batch)
            found = metrics.finish(jax.device_get(sums), VARIANT.objective.loss_weights)
            accuracies.append(found["correction_accuracy"])
        first.append(np.mean(accuracies[:5]))
        last.append(np.mean(accuracies[-10:]))
    # Of four candidates.
    assert np.median(first) < 0.5
    assert np.median(last) > 0.8

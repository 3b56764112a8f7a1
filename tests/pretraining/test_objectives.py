"""Every objective: accumulation, denominators, and which loss pulls at which parameters."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from electra_jax.model.types import Corrupted, Masked, PyTree, Tokens
from electra_jax.pretraining import corruption, electric, losses, metrics, steps
from electra_jax.pretraining.corruption import DistinctPositions, MaskingConfig, PositionRule
from electra_jax.pretraining.objective import Keys
from electra_jax.pretraining.original import RULES
from electra_jax.pretraining.replaced_token import ReplacedTokenDetection
from electra_jax.training.state import Batch, TrainState
from support.objectives import COMPILE_FAST, VARIANTS, Variant
from support.tiny_model import MASKING, VOCAB_SIZE, random_batch

# Those that differ in what they sum over; the others differ from these in sizes or in a constant.
SUMMED_APART = (
    *("electra", "electra_15", "tied_generator", "mlm", "replace_mlm", "all_tokens_mlm", "electric", "gdes"),
    "correction",
)


def batch(rows: int = 8) -> Batch:
    return jax.tree.map(jnp.asarray, random_batch(rows, 32))


def terms_of(
    variant: Variant, params: PyTree, masked: Masked, masking: MaskingConfig = MASKING
) -> tuple[dict[str, Any], Any]:
    key = jax.random.key(7)
    keys = Keys(corruption.row_keys(key, masked.masked_positions.shape[0]), key, key)
    return variant.objective.losses(variant.model, params, masked, keys, masking=masking, deterministic=True)


@functools.cache
def gradients(name: str) -> dict[str, dict[str, float]]:
    """Largest gradient of each loss in each part of the parameters, by path."""
    variant = VARIANTS[name]
    masked = steps.as_masked(jax.random.key(3), batch(), MASKING)

    def means(params: PyTree) -> jax.Array:
        terms, _ = terms_of(variant, params, masked)
        return jnp.stack([terms[loss].sum / terms[loss].weight for loss in variant.objective.loss_weights])

    rows = jax.jit(jax.jacrev(means), compiler_options=COMPILE_FAST)(variant.params())
    flat = flatten_dict(rows, sep="/")
    return {
        loss: {path: float(jnp.max(jnp.abs(leaf[row]))) for path, leaf in flat.items()}
        for row, loss in enumerate(variant.objective.loss_weights)
    }


def pull(name: str, loss: str, prefix: str) -> list[float]:
    """The largest gradients of a loss in the parameters under a prefix; key biases have none in exact arithmetic."""
    found = [v for path, v in gradients(name)[loss].items() if path.startswith(prefix) and "key_bias" not in path]
    assert found, f"{name} has no parameter under {prefix}"
    return found


@pytest.mark.parametrize("name", SUMMED_APART)
def test_accumulation_equals_the_full_batch(name: str) -> None:
    """Also where rows have different numbers of tokens and masks, which is where averages of averages go wrong."""
    variant, rule = VARIANTS[name], optax.sgd(1.0)
    params = variant.params()
    key_data = jax.random.key_data(jax.random.key(5))
    state = TrainState(jnp.zeros((), jnp.int32), params, rule.init(params), key_data)
    results = []
    for count in (1, 4):
        step = functools.partial(
            steps.pretrain_step,
            model=variant.model,
            objective=variant.objective,
            masking=MASKING,
            optimizer=rule,
            accumulation_steps=count,
        )
        results.append(jax.jit(step, compiler_options=COMPILE_FAST)(state, batch()))
    (one, one_sums), (four, four_sums) = results
    for before, whole, parts in zip(*map(jax.tree.leaves, (params, one.params, four.params)), strict=True):
        scale = float(jnp.max(jnp.abs(whole - before))) + 1e-3
        np.testing.assert_allclose(parts, whole, rtol=0, atol=2e-5 * scale + 1e-6)
    for sum_name in one_sums:
        np.testing.assert_allclose(four_sums[sum_name], one_sums[sum_name], rtol=2e-5, atol=1e-3, err_msg=sum_name)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("positions", [DistinctPositions(), RULES.positions])
def test_denominators_are_known_before_the_forward_pass_and_metrics_are_finite(
    name: str, positions: PositionRule
) -> None:
    variant = VARIANTS[name]
    masking = dataclasses.replace(MASKING, positions=positions)
    masked = steps.as_masked(jax.random.key(3), batch(), masking)
    forward = jax.jit(lambda params: terms_of(variant, params, masked, masking), compiler_options=COMPILE_FAST)
    terms, outputs = forward(variant.params())
    known = variant.objective.denominators(masked, masking)
    assert known.keys() == terms.keys() == variant.objective.loss_weights.keys()
    for loss, term in terms.items():
        assert float(term.weight) == float(known[loss]) > 0
    sums = jax.device_get(metrics.pretraining_sums(terms, masked, outputs))
    values = metrics.finish(sums, variant.objective.loss_weights)
    unfinished = {key for key, value in values.items() if not np.isfinite(value)}
    assert unfinished <= {"discriminator_precision"}  # nothing was flagged
    assert ("discriminator_auc" in values) == ("discriminator" in terms)


@pytest.mark.parametrize(
    "name", ["electra", "gdes", "nes", "untied_generator_embeddings", "electra_15", "disallow_correct"]
)
def test_each_tower_is_pulled_by_its_own_loss(name: str) -> None:
    assert max(pull(name, "discriminator", "generator")) == 0
    assert min(pull(name, "discriminator", "discriminator/encoder")) > 0
    assert max(pull(name, "generator", "discriminator")) == 0
    assert min(pull(name, "generator", "generator/encoder")) > 0


def test_shared_embeddings_are_pulled_by_both_losses() -> None:
    assert min(pull("electra", "discriminator", "embeddings")) > 0
    assert min(pull("electra", "generator", "embeddings")) > 0


@pytest.mark.parametrize(
    ("name", "main"),
    [
        ("gdes", "discriminator"),
        ("electric_gdes", "discriminator"),
        ("all_tokens_mlm_gdes", "prediction"),
        ("correction_gdes", "correction"),
    ],
)
def test_gradient_disentangled_embeddings(name: str, main: str) -> None:
    """The generator's loss alone moves the common tables; the other loss alone moves what it adds to them."""
    assert max(pull(name, main, "embeddings")) == 0
    assert min(pull(name, "generator", "embeddings")) > 0
    assert min(pull(name, main, "discriminator/embeddings")) > 0
    assert max(pull(name, "generator", "discriminator/embeddings")) == 0


@pytest.mark.parametrize("name", ["nes", "untied_generator_embeddings", "electric_untied"])
def test_embeddings_that_are_not_shared(name: str) -> None:
    own = [f"generator/{tower}" for tower in (("ltr/", "rtl/") if name.startswith("electric") else ("",))]
    assert max(pull(name, "generator", "embeddings")) == 0
    assert min(pull(name, "discriminator", "embeddings")) > 0
    for tower in own:
        assert min(pull(name, "generator", f"{tower}embeddings")) > 0
        assert max(pull(name, "discriminator", f"{tower}embeddings")) == 0


def test_disentangled_embeddings_start_as_the_shared_ones() -> None:
    shared, own = VARIANTS["electra"], VARIANTS["gdes"]
    tokens = Tokens(*(batch()[name] for name in ("input_ids", "token_type_ids", "attention_mask")))
    logits = [
        variant.model.apply({"params": variant.params()}, tokens, deterministic=True, method="discriminate")
        for variant in (shared, own)
    ]
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-6)


def test_a_tied_encoder_is_pulled_by_both_losses() -> None:
    for loss in ("generator", "discriminator"):
        assert min(pull("tied_generator", loss, "discriminator/encoder")) > 0
    assert max(pull("tied_generator", "discriminator", "generator/head")) == 0


def test_a_uniform_generator_has_no_parameters_and_a_constant_loss() -> None:
    variant = VARIANTS["uniform_generator"]
    params = variant.params()
    assert set(params) == {"embeddings", "discriminator"}
    masked = steps.as_masked(jax.random.key(3), batch(64), MASKING)
    terms, outputs = terms_of(variant, params, masked)
    np.testing.assert_allclose(terms["generator"].sum / terms["generator"].weight, np.log(VOCAB_SIZE), rtol=1e-6)
    drawn = outputs.corrupted.sampled_ids_BK[masked.masked_weights > 0]
    assert len(set(drawn.tolist())) > VOCAB_SIZE * 0.8


@pytest.mark.parametrize("name", ["replace_mlm", "all_tokens_mlm"])
def test_a_main_tower_that_predicts_words_does_not_train_the_generator(name: str) -> None:
    assert max(pull(name, "prediction", "generator")) == 0
    assert min(pull(name, "prediction", "discriminator")) > 0
    assert max(pull(name, "generator", "discriminator")) == 0


@pytest.mark.parametrize("name", ["correction", "correction_gdes"])
def test_the_choice_trains_the_discriminator_and_never_the_generator(name: str) -> None:
    assert max(pull(name, "correction", "generator")) == 0
    assert min(pull(name, "correction", "discriminator/encoder")) > 0
    assert min(pull(name, "correction", "discriminator/correction")) > 0
    # Each head has its own loss.
    assert max(pull(name, "correction", "discriminator/head")) == 0
    assert max(pull(name, "discriminator", "discriminator/correction")) == 0


def test_the_discriminator_of_electra_15_is_judged_at_masked_positions_only() -> None:
    masked = steps.as_masked(jax.random.key(3), batch(), MASKING)
    objective = VARIANTS["electra_15"].objective
    assert isinstance(objective, ReplacedTokenDetection)
    judged = np.asarray(objective.discriminated_positions(masked))
    for row in range(8):
        used = np.asarray(masked.masked_weights[row]) > 0
        assert set(np.flatnonzero(judged[row])) == set(np.asarray(masked.masked_positions[row])[used])


def test_disallow_correct_replaces_every_masked_token() -> None:
    masked = steps.as_masked(jax.random.key(3), batch(), MASKING)
    _, outputs = terms_of(VARIANTS["disallow_correct"], VARIANTS["disallow_correct"].params(), masked)
    np.testing.assert_array_equal(outputs.corrupted.labels_BL, corruption.selected(masked))


@pytest.mark.parametrize("name", ["electric", "electric_untied"])
def test_two_towers_see_every_token_but_the_one_they_predict(name: str) -> None:
    variant = VARIANTS[name]
    params = variant.params()
    ids_BL = jnp.asarray(np.random.default_rng(0).integers(5, VOCAB_SIZE, (1, 12)), jnp.int32)
    tokens = Tokens(ids_BL, jnp.zeros_like(ids_BL), jnp.ones_like(ids_BL))
    changed = tokens._replace(input_ids=ids_BL.at[0, 6].set((ids_BL[0, 6] + 1) % VOCAB_SIZE))
    before, after = (
        variant.model.apply({"params": params}, text, deterministic=True, method="cloze") for text in (tokens, changed)
    )
    moved = np.abs(np.asarray(before - after)).max(axis=(0, 2))
    assert moved[6] == 0
    assert (np.delete(moved, [0, 6, 11])).min() > 0


def predicted(text: Tokens) -> np.ndarray:
    """Of the language model, logits [B, L, V]."""
    variant = VARIANTS["lm"]
    return np.asarray(
        variant.model.apply({"params": variant.params()}, text, deterministic=True, method="predict_next")
    )


def test_a_language_model_sees_no_token_after_the_one_it_reads_nor_another_example() -> None:
    ids_BL = jnp.asarray(np.random.default_rng(0).integers(5, VOCAB_SIZE, (1, 12)), jnp.int32)
    ones_BL = jnp.ones_like(ids_BL)
    changed_BL = ids_BL.at[0, 6].set((ids_BL[0, 6] + 1) % VOCAB_SIZE)
    whole, packed = (
        np.abs(
            predicted(Tokens(changed_BL, 0 * ones_BL, ones_BL, examples))
            - predicted(Tokens(ids_BL, 0 * ones_BL, ones_BL, examples))
        ).max(axis=(0, 2))
        for examples in (None, jnp.asarray([[1] * 4 + [2] * 5 + [3] * 3]))
    )
    assert (whole[:6] == 0).all()
    assert whole[6:].min() > 0
    # The second example ends at 8.
    assert (packed[6:9] > 0).all()
    assert packed[[0, 1, 2, 3, 4, 5, 9, 10, 11]].max() == 0
    # Its tokens count from its own first one: alone, it is the same.
    alone = predicted(Tokens(ids_BL[:, 4:9], 0 * ones_BL[:, 4:9], ones_BL[:, 4:9]))
    examples = jnp.asarray([[1] * 4 + [2] * 5 + [3] * 3])
    np.testing.assert_allclose(
        predicted(Tokens(ids_BL, 0 * ones_BL, ones_BL, examples))[:, 4:9], alone, rtol=0, atol=1e-4
    )


def test_the_loss_of_a_language_model_by_hand() -> None:
    """Every real token but the first of each example, from the original text, whatever is masked."""
    text = batch(3)
    examples_BL = jnp.where(text["attention_mask"] > 0, 1 + text["token_type_ids"], 0)
    original = Tokens(text["input_ids"], text["token_type_ids"], text["attention_mask"], examples_BL)
    masked = steps.as_masked(jax.random.key(3), text | {"example_ids": examples_BL}, MASKING)
    assert (masked.tokens.input_ids != original.input_ids).any()
    terms, outputs = terms_of(VARIANTS["lm"], VARIANTS["lm"].params(), masked)
    logits_BLV = predicted(original)
    ids_BL, total, count = np.asarray(original.input_ids), 0.0, 0
    for row, place in np.ndindex(3, 31):
        if examples_BL[row, place] == examples_BL[row, place + 1] > 0:
            exact = logits_BLV[row, place].astype(np.float64)
            total += np.log(np.exp(exact - exact.max()).sum()) + exact.max() - exact[ids_BL[row, place + 1]]
            count += 1
    assert float(terms["prediction"].weight) == count
    assert count == sum(int(examples_BL[row].astype(bool).sum()) - int(examples_BL[row].max()) for row in range(3))
    np.testing.assert_allclose(terms["prediction"].sum, total, rtol=1e-5)
    # The accuracy is counted where a mask would be, from the token before it.
    row = int(np.argmax(masked.masked_weights[:, 0]))
    place = int(masked.masked_positions[row, 0])
    np.testing.assert_allclose(outputs.prediction_logits_BKV[row, 0], logits_BLV[row, place - 1], rtol=0, atol=1e-4)


def test_electric_is_the_energy_plus_log_noise_and_labels_every_sample() -> None:
    variant = VARIANTS["electric"]
    params = variant.params()
    masked = steps.as_masked(jax.random.key(3), batch(), MASKING)
    _, outputs = terms_of(variant, params, masked)
    np.testing.assert_array_equal(outputs.corrupted.labels_BL, corruption.selected(masked))
    energies = variant.model.apply(
        {"params": params}, outputs.corrupted.tokens, deterministic=True, method="discriminate"
    )
    original = masked.tokens._replace(input_ids=corruption.original_ids(masked))
    cloze = jax.nn.log_softmax(variant.model.apply({"params": params}, original, deterministic=True, method="cloze"))
    row, column = 2, 5
    log_q = cloze[row, column, int(outputs.corrupted.tokens.input_ids[row, column])]
    expected = energies[row, column] + log_q + np.log(0.15 / 0.85)
    np.testing.assert_allclose(outputs.discriminator_logits_BL[row, column], expected, atol=1e-5)
    assert max(pull("electric", "discriminator", "generator")) == 0


def test_electrics_share_of_noise_is_that_of_the_step() -> None:
    """Halfway from 30 to 10 % the odds of noise are 1 to 4; this generator draws any word."""
    masked = steps.as_masked(jax.random.key(3), batch(2), MASKING)
    corrupted = Corrupted(masked.tokens, jnp.zeros((2, 32)), masked.masked_ids)
    energies, cloze = jnp.ones((2, 32)), jnp.zeros((2, 32, VOCAB_SIZE))
    masking = dataclasses.replace(MASKING, mask_prob=((0.0, 0.3), (1.0, 0.1))).at(jnp.float32(0.5))
    logits, _ = VARIANTS["electric"].objective.logits_and_labels(masked, corrupted, energies, cloze, masking)
    np.testing.assert_allclose(logits, np.full((2, 32), 1 - np.log(VOCAB_SIZE) - np.log(4)), rtol=1e-6)


def test_pseudo_log_likelihoods_by_hand() -> None:
    """Minus the energies of ordinary tokens: not of [CLS], [SEP], [MASK] and padding."""
    ids_BL = jnp.asarray([[2, 9, 4, 7, 3, 0], [2, 5, 3, 0, 0, 0]])
    energies_BL = jnp.asarray([[8.0, 1.5, 8.0, 0.25, 8.0, 8.0], [8.0, -2.0, 8.0, 8.0, 8.0, 8.0]])
    tokens = Tokens(ids_BL, jnp.zeros_like(ids_BL), (ids_BL > 0).astype(jnp.int32))
    total_B, scores_BL = electric.pseudo_log_likelihoods(energies_BL, tokens, MASKING)
    np.testing.assert_array_equal(total_B, [-1.75, 2.0])
    np.testing.assert_array_equal(scores_BL, [[0, -1.5, 0, -0.25, 0, 0], [0, 2, 0, 0, 0, 0]])


def test_the_copy_gate_by_hand() -> None:
    logits = jnp.log(jnp.array([[[0.5, 0.25, 0.25]]]))
    gate = jnp.array([[np.log(3.0)]])  # D = 3/4
    read = jnp.array([[1]])
    np.testing.assert_allclose(
        jnp.exp(losses.copying_log_probs(logits, gate, read))[0, 0], [0.125, 0.75 + 0.0625, 0.0625], rtol=1e-6
    )
    loss = losses.copying_lm_loss(logits, gate, read, jnp.array([[1]]), jnp.array([[1]]))
    np.testing.assert_allclose(loss.sum, -np.log(0.8125), rtol=1e-6)

"""Compare masking with the original: numbers of positions, repeated positions, scatter, gather and sampling."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.model.layers import take_positions
from electra_jax.model.types import Masked, Tokens
from electra_jax.pretraining import corruption
from electra_jax.pretraining.corruption import MaskingConfig
from electra_jax.pretraining.original import RULES
from support.parity_case import discover

CLS, SEP, MASK, WORD = 101, 102, 103, 1000


def masking(mask_prob: float) -> MaskingConfig:
    return MaskingConfig(mask_prob, 0.85, positions=RULES.positions, cls_id=CLS, sep_id=SEP, mask_id=MASK)


def sentence_pairs(rows: int, real: int, length: int, num_candidates: int) -> Tokens:
    """Return rows of `real` tokens, `num_candidates` of which are ordinary."""
    ids = np.zeros(length, np.int32)
    ids[:real] = WORD + np.arange(real)
    ids[0], ids[real - 1] = CLS, SEP
    ids[1 : 1 + real - 2 - num_candidates] = SEP
    ids_BL = jnp.tile(jnp.asarray(ids), (rows, 1))
    mask_BL = jnp.tile((jnp.arange(length) < real).astype(jnp.int32), (rows, 1))
    return Tokens(ids_BL, jnp.zeros_like(ids_BL), mask_BL)


@pytest.mark.parametrize("path", discover("mask_stats/*.json"))
def test_how_many_are_predicted(path: Path) -> None:
    for name, table in json.loads(path.read_text())["num_to_predict"].items():
        length, mask_prob = name.removeprefix("L").split("_p")
        config = masking(float(mask_prob))
        assert config.max_predictions(int(length)) == table["max_predictions_per_seq"]
        real_B1 = np.array(table["seq_len"])[:, None]
        attention_mask_BL = jnp.asarray((np.arange(int(length))[None] < real_B1).astype(np.int32))
        np.testing.assert_array_equal(
            corruption.num_to_mask(attention_mask_BL, config), table["num_to_predict"], err_msg=name
        )


@pytest.mark.parametrize("path", discover("mask_stats/*.json"))
def test_distribution_with_replacement(path: Path) -> None:
    """Both sides are samples, so that means may differ by four standard errors."""
    for case in json.loads(path.read_text())["stats"]:
        config, rows = masking(case["mask_prob"]), 4096
        tokens = sentence_pairs(rows, case["seq_len"], case["L"], case["candidates"])
        masked = jax.device_get(corruption.mask(jax.random.key(7), tokens, config))
        assert masked.masked_positions.shape[1] == case["max_predictions_per_seq"]
        used = masked.masked_weights > 0
        assert sorted(set(used.sum(1).tolist())) == case["num_to_predict"]
        candidate = np.asarray(corruption.candidates(tokens.input_ids, tokens.attention_mask, config))
        assert np.take_along_axis(candidate, masked.masked_positions, 1)[used].all() == (
            case["non_candidate_draws"] == 0
        )
        times = np.zeros((rows, case["L"]), int)
        row_of_BK = np.broadcast_to(np.arange(rows)[:, None], used.shape)
        np.add.at(times, (row_of_BK[used], masked.masked_positions[used]), 1)
        distinct = (times > 0).sum(1)
        spread = max(distinct.std(), 1e-6)
        error = 4 * spread * np.sqrt(1 / rows + 1 / case["trials"])
        assert abs(distinct.mean() - case["mean_distinct"]) <= error + 1e-9, case["seq_len"]
        shown = masked.tokens.input_ids == MASK
        for multiplicity, share in case["replaced_given_multiplicity"].items():
            at = times == int(multiplicity)
            if at.sum() >= 200:
                assert shown[at].mean() == pytest.approx(share, abs=5 * np.sqrt(0.25 / at.sum())), multiplicity
                assert shown[at].mean() == pytest.approx(
                    1 - 0.15 ** int(multiplicity), abs=5 * np.sqrt(0.13 / at.sum())
                )
        assert shown.sum() / (rows * case["seq_len"]) == pytest.approx(case["fraction_of_real_tokens_MASKed"], rel=0.02)
        counts = times[:, candidate[0]].sum(0)
        expected = counts.mean()
        assert ((counts - expected) ** 2 / expected).sum() < 2 * max(len(counts) - 1, 1) + 20


def test_a_row_without_ordinary_tokens_is_left_alone() -> None:
    tokens = sentence_pairs(3, 4, 64, 0)
    masked = corruption.mask(jax.random.key(0), tokens, masking(0.15))
    assert float(masked.masked_weights.sum()) == 0
    np.testing.assert_array_equal(masked.tokens.input_ids, tokens.input_ids)


@pytest.mark.parametrize("path", discover("mask_stats/*.npz", holding="scatter_int"))
def test_scatter_gather_and_sampling_of_the_original(path: Path) -> None:
    with np.load(path) as file:
        arrays = {name: jnp.asarray(file[name]) for name in file.files}
    sequence_BL, positions_BK, updates_BK = arrays["seq_int"], arrays["positions"], arrays["updates_int"]
    written_BK = (positions_BK > 0).astype(jnp.float32)  # the original's scatter ignores position 0
    masked = Masked(Tokens(sequence_BL, sequence_BL, sequence_BL), positions_BK, updates_BK, written_BK)
    settled_BK = RULES.positions.settle(masked, updates_BK)
    scattered_BL = corruption.put_positions(sequence_BL, positions_BK, settled_BK, written_BK > 0)
    np.testing.assert_array_equal(scattered_BL, arrays["scatter_int"])
    np.testing.assert_array_equal(corruption.selected(masked), arrays["scatter_int_mask"])
    for kind in ("int", "float"):
        gathered = take_positions(arrays[f"seq_{kind}"], positions_BK)
        np.testing.assert_array_equal(gathered, arrays[f"gather_{kind}"])
    disallowed = jnp.argmax(arrays["disallow"], axis=-1)
    has_one = arrays["disallow"].max(-1, keepdims=True) > 0
    forbidden = jnp.where(has_one, corruption.forbid(arrays["logits"], disallowed), arrays["logits"])
    for number, logits in ((1, arrays["logits"]), (2, forbidden)):
        noise = -jnp.log(-jnp.log(arrays[f"u{number}"] + 1e-9) + 1e-9)
        sampled = corruption.sample(noise, logits, 1.0, "gumbel")
        np.testing.assert_array_equal(jax.nn.one_hot(sampled, logits.shape[-1]), arrays[f"sample{number}_onehot"])


def test_samples_at_one_position_are_averaged() -> None:
    positions = jnp.array([[3, 5, 3, 0]])
    masked = Masked(
        Tokens(*(jnp.zeros((1, 8), jnp.int32),) * 3), positions, positions, jnp.array([[1.0, 1.0, 1.0, 0.0]])
    )
    sampled = jnp.array([[10, 20, 13, 99]])
    assert RULES.positions.settle(masked, sampled)[0, :3].tolist() == [11, 20, 11]

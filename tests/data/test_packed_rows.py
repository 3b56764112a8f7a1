"""Packed rows: every example whole and once, rows full, and each example computed as if it had its row alone."""

import collections
import dataclasses
import functools
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from electra_jax.data.batches import Batch, BlockBatches, evaluation_batches
from electra_jax.data.blocks import TokenBlocks
from electra_jax.data.packed_rows import best_fit, pack_rows
from electra_jax.errors import UserError
from electra_jax.model.types import Loss, Masked, Tokens
from electra_jax.pretraining import corruption, steps
from electra_jax.pretraining.electric import TwoTowerDetection
from electra_jax.pretraining.objective import Keys, Outputs
from support.objectives import COMPILE_FAST, TWO, VARIANTS, Variant
from support.tiny_model import CLS, MASK, MASKING, OBJECTIVE, SEP, VOCAB_SIZE, modern_encoder

LENGTH = 24


def blocks_of(lengths: np.ndarray) -> TokenBlocks:
    """Examples of these lengths; the tokens count on from 1, so that each says which example it is of, and where."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.arange(1, offsets[-1] + 1, dtype=np.uint32)
    return TokenBlocks(tokens, offsets, (lengths + 1) // 2, len(tokens) + 1)


def random_blocks(seed: int, num_examples: int = 300) -> TokenBlocks:
    """Of up to a whole, half or third row, with some of one token and of a whole row among them."""
    lengths = np.random.default_rng(seed).integers(1, LENGTH // (1 + seed % 3) + 1, num_examples)
    lengths[:4] = 1, LENGTH, 1, LENGTH - 1
    return blocks_of(lengths)


def packed_batches(blocks: TokenBlocks, **changes: object) -> BlockBatches:
    options = {"batch_size": 8, "sequence_length": LENGTH, "seed": 5, "process_index": 0, "process_count": 1}
    return BlockBatches(blocks, packed=True, **options | changes)


def examples_of(batch: Batch) -> list[tuple[list[int], list[int]]]:
    """Ids and token types of each example of a batch, wherever its tokens stand; the order is that of the rows."""
    found = []
    for ids_L, types_L, mask_L, numbers_L in zip(*batch.values(), strict=True):
        np.testing.assert_array_equal(numbers_L > 0, mask_L == 1)
        assert not ids_L[mask_L == 0].any()
        assert not types_L[mask_L == 0].any()
        # Counted from 1, each a piece of the row, padding last.
        real_L = numbers_L[numbers_L > 0]
        assert [n for n, _ in itertools.groupby(numbers_L)][: real_L.max()] == list(range(1, real_L.max() + 1))
        assert not numbers_L[len(real_L) :].any()
        for number in range(1, real_L.max() + 1):
            found.append((ids_L[numbers_L == number].tolist(), types_L[numbers_L == number].tolist()))
    return found


@pytest.mark.parametrize("seed", range(3))
def test_every_example_is_whole_and_once_in_an_epoch(seed: int) -> None:
    blocks = random_blocks(seed)
    expected = []
    for first, end, second in zip(blocks.offsets, blocks.offsets[1:], blocks.second_starts, strict=False):
        length = int(end - first)
        types = [0] * int(second) + [1] * (length - int(second))
        expected.append((blocks.tokens[first:end].tolist(), types))
    num_rows = len(pack_rows(blocks, LENGTH, seed=5))
    batches = packed_batches(blocks, batch_size=num_rows)
    epochs = [examples_of(next(batches)) for _ in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == expected
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("row_length", [1, 7, 64])
def test_patterns_are_those_of_best_fit_decreasing_one_by_one(row_length: int) -> None:
    draw = np.random.default_rng(row_length)
    for _ in range(20):
        counts = draw.integers(0, 9, row_length + 1) * draw.integers(0, 2, row_length + 1)
        rooms: list[int] = []
        for length in itertools.chain.from_iterable([n] * counts[n] for n in range(row_length, 0, -1)):
            fitting = [place for place, room in enumerate(rooms) if room >= length]
            if fitting:
                rooms[min(fitting, key=rooms.__getitem__)] -= length
            else:
                rooms.append(row_length - length)
        patterns = best_fit(counts, row_length)
        found = collections.Counter()
        for rows, lengths in patterns:
            found[row_length - sum(lengths)] += rows
        assert found == collections.Counter(rooms)


def next_fit_share(lengths: np.ndarray, row_length: int) -> float:
    """Of real tokens, where an example begins a new row as soon as it does not fit."""
    rows, room = 0, 0
    for length in lengths.tolist():
        if length > room:
            rows, room = rows + 1, row_length
        room -= length
    return lengths.sum() / (rows * row_length)


@pytest.mark.parametrize("whole", [0.0, 0.5])
def test_rows_are_full(whole: float) -> None:
    """Short documents, and as many that fill a row."""
    draw = np.random.default_rng(0)
    lengths = np.clip(draw.lognormal(np.log(60), 0.6, 20_000).astype(np.int64), 3, 128)
    lengths[: int(whole * len(lengths))] = 128
    draw.shuffle(lengths)
    share = lengths.sum() / (128 * len(pack_rows(blocks_of(lengths), 128, seed=0)))
    assert share > 0.98
    assert share > next_fit_share(lengths, 128) + 0.1


def test_a_state_restores_in_the_middle_of_an_epoch_with_another_number_of_processes() -> None:
    blocks = dataclasses.replace(random_blocks(7), vocab_size=2**14)
    whole = packed_batches(blocks)
    expected = [next(whole) for _ in range(4)]
    state = json.loads(json.dumps(whole.state()))
    assert state == {"examples": 32, "step": 4}
    expected = [next(whole) for _ in range(20)]
    halves = [packed_batches(blocks, process_index=p, process_count=2) for p in (0, 1)]
    for half in halves:
        half.restore(state)
    for batch in expected:
        parts = [next(half) for half in halves]
        assert batch["example_ids"].max() > 1
        for name, values in batch.items():
            np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), values, err_msg=name)


def test_what_cannot_be_packed_is_refused_and_held_out_text_is_not_packed() -> None:
    short = blocks_of(np.full(9, LENGTH // 3))
    with pytest.raises(UserError, match="has 3 packed rows, fewer than a batch of 4: give more text, or lower BATCH"):
        packed_batches(short, batch_size=4)
    with pytest.raises(UserError, match="8 tokens, more than the sequence length of 7"):
        packed_batches(short, batch_size=1, sequence_length=7)
    options = {"batch_size": 3, "sequence_length": LENGTH, "process_index": 0, "process_count": 1}
    assert all("example_ids" not in batch for batch in evaluation_batches(short, **options))


# Lengths of the examples of a row of 24, of which two places stay empty.
SIZES = (9, 7, 6)
# In each example a masked place that shows [MASK] and one that keeps its token.
PLACES, SHOWN = ((1, 5), (2, 4), (1, 3)), ((1, 0), (1, 1), (0, 1))


def examples() -> list[Batch]:
    """[CLS] words [SEP] words [SEP], padded to a row each."""
    draw, made = np.random.default_rng(1), []
    for size in SIZES:
        ids_L, types_L = np.zeros(LENGTH, np.int32), np.zeros(LENGTH, np.int32)
        ids_L[:size] = draw.integers(MASK + 1, VOCAB_SIZE, size)
        ids_L[[0, size - 3, size - 1]] = CLS, SEP, SEP
        types_L[size - 2 : size] = 1
        made.append({"input_ids": ids_L, "token_type_ids": types_L})
    return made


def masked(tokens: Tokens, places_BK: list[list[int]], shown_BK: list[list[int]]) -> Masked:
    positions_BK, shown_BK = jnp.asarray(places_BK, jnp.int32), jnp.asarray(shown_BK, bool)
    return corruption.mask_at(tokens, positions_BK, jnp.ones_like(shown_BK), shown_BK, MASKING)


def alone() -> Masked:
    """A row for each example."""
    ids_BL, types_BL = (np.stack([one[name] for one in examples()]) for name in ("input_ids", "token_type_ids"))
    mask_BL = np.arange(LENGTH) < np.array(SIZES)[:, None]
    return masked(Tokens(*(jnp.asarray(a, jnp.int32) for a in (ids_BL, types_BL, mask_BL))), PLACES, SHOWN)


def together() -> Masked:
    """One row for all, as the host's packing lays it out."""
    rows = examples()
    tokens, types = (
        np.concatenate([one[name][:size] for one, size in zip(rows, SIZES, strict=True)])
        for name in ("input_ids", "token_type_ids")
    )
    offsets = np.concatenate([[0], np.cumsum(SIZES)])
    blocks = TokenBlocks(tokens, offsets, np.array(SIZES) - 2, VOCAB_SIZE)
    batch = pack_rows(blocks, LENGTH, seed=0).gather(np.array([0]), LENGTH)
    np.testing.assert_array_equal(batch["token_type_ids"][0, : len(types)], types)  # the longest first, as in SIZES
    row = steps.as_masked(jax.random.key(0), {name: jnp.asarray(rows) for name, rows in batch.items()}, MASKING)
    assert row.tokens.example_ids is not None
    original = row.tokens._replace(input_ids=corruption.original_ids(row))
    places = [first + place for first, own in zip(offsets, PLACES, strict=False) for place in own]
    return masked(original, [places], [list(itertools.chain(*SHOWN))])


def with_fused_attention(model: nn.Module) -> nn.Module:
    return model.clone(
        **{
            name: dataclasses.replace(getattr(model, name), attention="fused")
            for name in ("generator_config", "discriminator_config")
        }
    )


TWO_TOWERS = Variant(TwoTowerDetection(**TWO), kind="two_tower")
MODERN = dataclasses.replace(VARIANTS["gdes"], encoder=modern_encoder())
CASES = {
    "rotary positions and windows": (MODERN.objective, MODERN.model),
    "rotary positions and windows, fused": (MODERN.objective, with_fused_attention(MODERN.model)),
    "exact attention, tables of both towers": (VARIANTS["gdes"].objective, VARIANTS["gdes"].model),
    "fused attention": (OBJECTIVE, with_fused_attention(VARIANTS["electra"].model)),
    "a generator from each side": (TWO_TOWERS.objective, TWO_TOWERS.model),
}


@pytest.mark.parametrize("name", CASES)
def test_examples_of_a_row_are_as_rows_of_their_own(name: str) -> None:
    """Logits and losses of both towers, of a forward pass that samples the same words for the same masked places."""
    objective, model = CASES[name]
    shapes = jax.eval_shape(lambda: nn.unbox(steps.init_params(jax.random.key(0), model, LENGTH)))
    draw, key = np.random.default_rng(2), jax.random.key(0)
    # Larger than at the start, so that attention is uneven.
    params = jax.tree.map(lambda leaf: jnp.asarray(draw.normal(0, 0.3, leaf.shape), leaf.dtype), shapes)
    noise = jnp.asarray(draw.gumbel(size=(sum(map(len, PLACES)), VOCAB_SIZE)), jnp.float32)

    @functools.partial(jax.jit, compiler_options=COMPILE_FAST)
    def forward(text: Masked) -> tuple[dict[str, Loss], Outputs]:
        keys = Keys(noise.reshape(*text.masked_positions.shape, VOCAB_SIZE), key, key)
        return objective.losses(model, params, text, keys, masking=MASKING, deterministic=True)

    (expected, theirs), (found, ours) = forward(alone()), forward(together())
    for loss in expected:
        assert float(found[loss].weight) == float(expected[loss].weight) > 0
        np.testing.assert_allclose(found[loss].sum, expected[loss].sum, rtol=1e-5, err_msg=loss)
    np.testing.assert_allclose(
        ours.generator_logits_BKV.reshape(noise.shape), theirs.generator_logits_BKV.reshape(noise.shape), atol=1e-4
    )
    np.testing.assert_allclose(
        ours.discriminator_logits_BL[0, : sum(SIZES)],
        np.concatenate([row[:size] for row, size in zip(theirs.discriminator_logits_BL, SIZES, strict=True)]),
        atol=1e-4,
    )

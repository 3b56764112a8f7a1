"""Fine-tuning's losses by hand, its step on any padding and any mesh, and a toy task of each kind learnt wholly."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from electra_jax.data.buckets import Row, stack
from electra_jax.finetuning.steps import LossConfig, finetune_step, init_state, loss_of, tokens_of
from electra_jax.model.finetuned import FinetunedModel, head_outputs
from electra_jax.model.heads import HeadConfig, make_head
from electra_jax.model.types import PyTree, Tokens
from electra_jax.training import sharding
from electra_jax.training.optimizer import layerwise_multipliers, make_optimizer
from electra_jax.training.sharding import MeshConfig, to_device
from electra_jax.training.state import Batch, TrainState
from support.tiny_model import CLS, RULES, SEP, VOCAB_SIZE, head_config, optimizer_config, small_encoder

# One layer's program for both.
ENCODER = dataclasses.replace(small_encoder(), scan_unroll=1)
OPTIMIZER = optimizer_config(learning_rate=3e-3, num_train_steps=400)
LENGTH, LONGER = 12, 20
BATCH = 16
START, END = 5, 6  # tokens between which the toy answer lies
LOG_2, LOG_4, LOG_4_3 = math.log(2), math.log(4), math.log(4 / 3)


class Case(NamedTuple):
    """A kind of task, and the head that it is learnt with."""

    kind: str
    head: str
    num_labels: int
    mask_questions: bool = False
    answerable: str = "none"

    def head_config(self, *, dropout: float = 0.0, final_sep_answers: bool = False) -> HeadConfig:
        return head_config(
            self.head,
            num_labels=self.num_labels,
            dropout_prob=dropout,
            mask_questions=self.mask_questions,
            final_sep_answers=final_sep_answers,
            answerable=self.answerable,
            beam_size=3,
        )


CASES = {
    "classification": Case("classification", "sequence_classification", 2),
    "regression": Case("regression", "sequence_classification_reference", 1),
    "tagging": Case("tagging", "token_classification", 3),
    "joint": Case("question_answering", "joint_question_answering", 2, True, "start"),
    "independent": Case("question_answering", "question_answering", 2, True, "start"),
    "transformers": Case("question_answering", "question_answering", 2),
}
every_case = pytest.mark.parametrize("name", CASES)


class Setup(NamedTuple):
    """A small model with its compiled step and forward pass."""

    state: TrainState
    step: Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]
    predict: Callable[[PyTree, Batch], dict[str, jax.Array]]


def random_state(model: FinetunedModel, optimizer: optax.GradientTransformation) -> TrainState:
    """As `init_state` makes it, but drawn by numpy, which need not be compiled."""
    shapes = nn.unbox(
        jax.eval_shape(functools.partial(init_state, model=model, optimizer=optimizer), jax.random.key(0))
    )
    draw = np.random.default_rng(0)

    def filled(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if path[-1].key == "scale":
            return np.ones(leaf.shape, np.float32)
        deviation = 0.02 if path[-1].key.endswith(("bias", "embeddings")) else 0.2
        return draw.normal(0.0, deviation, leaf.shape).astype(np.float32)

    params = jax.tree_util.tree_map_with_path(filled, shapes.params)
    key_data = np.asarray(jax.random.key_data(jax.random.key(0)))
    return TrainState(np.zeros((), np.int32), params, optimizer.init(params), key_data)


def outputs_of(params: PyTree, batch: Batch, *, model: FinetunedModel) -> dict[str, jax.Array]:
    outputs = head_outputs(params, tokens_of(batch), model=model)
    return outputs if isinstance(outputs, dict) else {"logits": outputs}


@functools.cache
def setup(name: str) -> Setup:
    case = CASES[name]
    model = FinetunedModel(ENCODER, case.head_config())
    optimizer = make_optimizer(OPTIMIZER)
    step = functools.partial(
        finetune_step,
        model=model,
        loss=LossConfig(case.kind, 0.5, BATCH, None, 0.05),
        optimizer=optimizer,
        accumulation_steps=1,
    )
    return Setup(
        random_state(model, optimizer),
        jax.jit(step),
        jax.jit(functools.partial(outputs_of, model=model)),
    )


def toy_row(kind: str, draw: np.random.Generator) -> Row:
    """A row whose targets follow from its tokens: a question of two, then a context of at least five."""
    words = draw.integers(10, VOCAB_SIZE, draw.integers(7, LENGTH - 2))
    row = {"input_ids": np.array([CLS, *words[:2], SEP, *words[2:], SEP], np.int32)}
    ids, size = row["input_ids"], len(words) + 3
    row["token_type_ids"] = (np.arange(size) > 3).astype(np.int32)
    marked = bool(draw.integers(2))
    # About half of the context, and its first word.
    several = [4, *(5 + np.flatnonzero(draw.random(size - 6) < 0.5))]
    if kind == "classification":
        ids[several] = START if marked else END
        row["label"] = np.array(marked, np.int32)
    elif kind == "regression":
        third = int(draw.integers(3))
        ids[several] = START + third
        row["label"] = np.array(third / 2, np.float32)
    elif kind == "tagging":
        row["label_ids"] = (ids % 3).astype(np.int32)
        row["label_mask"] = np.array([0, *draw.integers(0, 2, size - 2), 0], np.float32)
    else:
        first = int(draw.integers(4, size - 2))
        last = int(draw.integers(first + 1, size - 1))
        if marked:
            ids[[first, last]] = START, END
        row["start_positions"] = np.array(first * marked, np.int32)
        row["end_positions"] = np.array(last * marked, np.int32)
        row["is_impossible"] = np.array(not marked, np.int32)
    return row


def toy_rows(name: str, count: int, *, seed: int) -> list[Row]:
    draw = np.random.default_rng(seed)
    return [toy_row(CASES[name].kind, draw) for _ in range(count)]


def assert_close(first: PyTree, second: PyTree) -> None:
    """Up to rounding, relative to the largest number of each array."""
    for (path, one), other in zip(jax.tree_util.tree_leaves_with_path(first), jax.tree.leaves(second), strict=True):
        atol = 1e-5 * max(1.0, float(np.abs(one).max()))
        np.testing.assert_allclose(one, other, rtol=0, atol=atol, err_msg=jax.tree_util.keystr(path))


# Of four places each has probability 1/4; with logit log 3 the first one has 3/6.
SPANS = {"start_logits": jnp.zeros((3, 4)), "end_logits": jnp.zeros((3, 4)).at[:, 0].set(math.log(3))}
SPAN_TARGETS = {"start_positions": [0, 2, 1], "end_positions": [0, 1, 1], "is_impossible": [1, 0, 0]}
SPAN_LOSSES = (LOG_4 + math.log(2)) / 2 + (LOG_4 + math.log(6)) / 2


class TestLossesByHand:
    """Of two classes with logits log 3 and 0 the likelier one has probability 3/4; equal logits make it 1/2."""

    WEIGHTS = jnp.array([1.0, 1.0, 0.0])

    def loss(self, kind: str, outputs: Any, *, answerable_weight: float = 0.5, **targets: Any) -> tuple[float, float]:
        batch = {"row_weight": self.WEIGHTS, "attention_mask": jnp.ones((3, 4), jnp.int32)}
        batch |= {name: jnp.asarray(values) for name, values in targets.items()}
        found = loss_of(LossConfig(kind, answerable_weight, 1.0, None, 0.05), outputs, batch)
        return float(found.sum), float(found.weight)

    def test_classification(self) -> None:
        logits = jnp.array([[0.0, 0.0], [math.log(3), 0.0], [-9.0, 9.0]])
        assert self.loss("classification", logits, label=[0, 0, 0]) == pytest.approx((LOG_2 + LOG_4_3, 2))

    def test_regression(self) -> None:
        outputs = jnp.array([[0.5], [0.25], [9.0]])
        assert self.loss("regression", outputs, label=[0.0, 1.0, 0.0]) == pytest.approx((0.25 + 0.5625, 2))

    def test_tagging_counts_words(self) -> None:
        """Two words of the first sentence, one of the second, none of the row that fills up."""
        logits = jnp.zeros((3, 4, 2)).at[0, 1, 0].set(math.log(3)).at[0, 3].set(50.0)
        labels = jnp.zeros((3, 4), jnp.int32).at[1, 0].set(1)
        mask = jnp.array([[1.0, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]])
        found = self.loss("tagging", logits, label_ids=labels, label_mask=mask)
        assert found == pytest.approx((LOG_2 + LOG_4_3 + LOG_2, 3))

    def test_question_answering(self) -> None:
        found = self.loss("question_answering", SPANS, **SPAN_TARGETS)
        assert found == pytest.approx((SPAN_LOSSES, 2))

    @pytest.mark.parametrize("weight", [0.5, 2.0])
    def test_answerability(self, weight: float) -> None:
        """The logit is of having no answer: log 3 says so with probability 3/4."""
        outputs = SPANS | {"answerable_logit": jnp.full(3, math.log(3))}
        found = self.loss("question_answering", outputs, answerable_weight=weight, **SPAN_TARGETS)
        assert found == pytest.approx((SPAN_LOSSES + weight * (LOG_4_3 + LOG_4), 2))


@every_case
class TestEveryHead:
    def test_padding_changes_no_output(self, name: str) -> None:
        state, _, predict = setup(name)
        rows = toy_rows(name, BATCH, seed=2)
        short, longer = (
            jax.device_get(predict(state.params, stack(rows, length=length, size=BATCH))) for length in (LENGTH, LONGER)
        )
        per_token = {"start_logits", "end_logits"} | ({"logits"} if name == "tagging" else set())
        assert short.keys() == longer.keys()
        for output in short:
            for row, one, other in zip(rows, short[output], longer[output], strict=True):
                size = len(row["input_ids"]) if output in per_token else None
                real = slice(size) if np.ndim(one) else ()
                np.testing.assert_allclose(one[real], other[real], rtol=0, atol=2e-5, err_msg=output)

    def test_what_fills_up_counts_nowhere(self, name: str) -> None:
        """Neither in the loss nor in the gradient, whatever it holds."""
        state, step, _ = setup(name)
        *rows, other = toy_rows(name, BATCH - 2, seed=3)
        filled = stack(rows, length=LENGTH, size=BATCH)
        assert filled["row_weight"].sum() == len(rows) == BATCH - 3
        changed = {field: values.copy() for field, values in filled.items()}
        for field, values in stack([other], length=LENGTH, size=1).items():
            changed[field][len(rows) :] = 0.0 if field == "row_weight" else values
        results = jax.device_get([step(state, batch) for batch in (filled, changed)])
        # The reduction over rows may add zeros in another order.
        assert_close(*results)
        sums = results[0][1]
        assert sums["examples"] == len(rows)
        assert sums["real"] == sum(len(row["input_ids"]) for row in rows)
        words = sum(row["label_mask"].sum() for row in rows) if name == "tagging" else len(rows)
        assert sums["loss_weight"] == words

    def test_a_toy_task_is_learnt_wholly(self, name: str) -> None:
        state, step, predict = setup(name)
        now = state
        for number in range(120):
            now, _ = step(now, stack(toy_rows(name, BATCH, seed=100 + number), length=LENGTH, size=BATCH))
        batch = stack(toy_rows(name, BATCH, seed=4), length=LENGTH, size=BATCH)
        outputs = jax.device_get(predict(now.params, batch))
        right = {
            "classification": lambda: outputs["logits"].argmax(-1) == batch["label"],
            "regression": lambda: np.abs(outputs["logits"][:, 0] - batch["label"]) < 0.25,
            "tagging": lambda: (outputs["logits"].argmax(-1) == batch["label_ids"])[batch["label_mask"] == 1],
            "question_answering": lambda: right_answers(outputs, batch),
        }[CASES[name].kind]()
        assert right.all(), right


@pytest.mark.parametrize("name", ["classification", "tagging", "joint", "transformers"])
def test_padding_changes_no_update(name: str) -> None:
    """A longer bucket gives the same loss, moments (the gradient's, linear and squared) and parameters."""
    state, step, _ = setup(name)
    rows = toy_rows(name, BATCH, seed=2)
    short, longer = (jax.device_get(step(state, stack(rows, length=size, size=BATCH))) for size in (LENGTH, LONGER))
    assert_close(short, longer)


def right_answers(outputs: dict[str, np.ndarray], batch: Batch) -> np.ndarray:
    """Of each row whether start, end and, with such a head, answerability are right; [CLS] is the answer of none."""
    if "start_top_index" in outputs:
        starts, ends = outputs["start_top_index"][:, 0], outputs["end_top_index"][:, 0, 0]
    else:
        real = np.where(batch["attention_mask"] == 1, 0.0, -np.inf)
        starts, ends = ((outputs[f"{end}_logits"] + real).argmax(-1) for end in ("start", "end"))
    right = (starts == batch["start_positions"]) & (ends == batch["end_positions"])
    if "answerable_logit" in outputs:
        right &= (outputs["answerable_logit"] > 0) == (batch["is_impossible"] == 1)
    return right


def test_the_sum_has_the_gradient_of_the_mean_times_the_rows() -> None:
    batch = stack(toy_rows("tagging", BATCH - 3, seed=5), length=LENGTH, size=BATCH)
    state, step, _ = setup("tagging")
    _, mean = step(state, batch)
    model, rule = FinetunedModel(ENCODER, CASES["tagging"].head_config()), optax.set_to_zero()
    summed = functools.partial(
        finetune_step,
        model=model,
        loss=LossConfig("tagging", 0.5, 1.0, None, 0.05),
        optimizer=rule,
        accumulation_steps=1,
    )
    _, total = jax.jit(summed)(state._replace(opt_state=rule.init(state.params)), batch)
    assert total["loss"] == pytest.approx(float(mean["loss"]))
    assert total["grad_norm"] == pytest.approx(BATCH * float(mean["grad_norm"]), rel=1e-5)


@pytest.mark.parametrize("name", ["joint", "independent"])
def test_the_final_separator_answers_only_if_asked(name: str) -> None:
    """[CLS] and the context may; the question, the separators and padding may not."""
    mask = jnp.array([[1, 1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1, 1]])
    types = jnp.array([[0, 0, 0, 1, 1, 1, 0], [0, 0, 0, 0, 1, 1, 1]])
    tokens = Tokens(jnp.zeros_like(mask), types, mask)
    hidden = jax.random.normal(jax.random.key(0), (2, 7, 16))
    targets = {"start_positions_B": jnp.array([3, 4])} if name == "joint" else {}
    allowed = {
        False: [[True, False, False, True, True, False, False], [True, False, False, False, True, True, False]],
        True: [[True, False, False, True, True, True, False], [True, False, False, False, True, True, True]],
    }
    for final_sep_answers, expected in allowed.items():
        head = make_head(CASES[name].head_config(final_sep_answers=final_sep_answers), ENCODER)
        outputs, _ = head.init_with_output(jax.random.key(1), hidden, tokens, deterministic=True, **targets)
        for end in ("start_logits", "end_logits"):
            np.testing.assert_array_equal(outputs[end] > -500, expected, err_msg=end)


@every_case
@pytest.mark.parametrize("top_exponent", [1, 2])
def test_layerwise_factors_cover_the_whole_tree(name: str, top_exponent: int) -> None:
    """Exponents grow by one from each layer to the one below, and to the embeddings; the head has 0."""
    model = FinetunedModel(ENCODER, CASES[name].head_config())
    optimizer = make_optimizer(optimizer_config())
    state = nn.unbox(jax.eval_shape(functools.partial(init_state, model=model, optimizer=optimizer), jax.random.key(0)))
    factors = layerwise_multipliers(state.params, decay=0.5, top_exponent=top_exponent)
    assert jax.tree.structure(factors) == jax.tree.structure(state.params)
    seen = set()
    for path, factor in jax.tree_util.tree_leaves_with_path(factors):
        top, *rest = (key.key for key in path)
        powers = np.ravel(-np.log2(factor)).tolist()
        if top == "head":
            expected = [0]
        elif "layers" in rest:
            expected, top = [top_exponent + 1, top_exponent], "layers"
        else:
            expected = [top_exponent + 2]
        assert powers == expected, path
        seen.add("/".join([top, *rest[:2]]) if top == "discriminator" else top)
    assert seen == {"embeddings", "discriminator/encoder/embeddings_project", "layers", "head"}


MESHES = [(8, 1, 1), (1, 8, 1), (2, 2, 2), (4, 1, 2)]
# In every run of the tests all four meshes, and every head on the one that has all three axes.
ALWAYS = [("classification", axes) for axes in MESHES] + [(name, (2, 2, 2)) for name in CASES]
LONG = [(name, axes) for name in CASES for axes in MESHES if (name, axes) not in ALWAYS]


@pytest.mark.parametrize(
    ("name", "axes"),
    [*dict.fromkeys(ALWAYS), *(pytest.param(*pair, marks=pytest.mark.long) for pair in LONG)],
)
def test_eight_devices_equal_one(name: str, axes: tuple[int, int, int]) -> None:
    """The last rows only fill up, so that the devices' weights differ."""
    state, step, _ = setup(name)
    batch = stack(toy_rows(name, BATCH - 3, seed=6), length=LENGTH, size=BATCH)
    config = MeshConfig(*axes, rules=RULES, deterministic=False)
    mesh = sharding.make_mesh(config, 8)
    model, optimizer = FinetunedModel(ENCODER, CASES[name].head_config()), make_optimizer(OPTIMIZER)
    init = functools.partial(init_state, model=model, optimizer=optimizer)
    places = sharding.abstract(init, jax.random.key(0), mesh, config)
    update = functools.partial(
        finetune_step,
        model=model,
        loss=LossConfig(CASES[name].kind, 0.5, BATCH, None, 0.05),
        optimizer=optimizer,
        accumulation_steps=1,
    )
    compiled = sharding.jit_update(update, places, mesh, config)
    on_mesh = compiled(sharding.shard_like(state, places), to_device(batch, sharding.batch_sharding(mesh)))
    table = on_mesh[0].params["embeddings"]["word_embeddings"]
    assert len({str(shard.index) for shard in table.addressable_shards}) == axes[1] * axes[2]
    assert_close(jax.device_get(step(state, batch)), jax.device_get(on_mesh))


@pytest.mark.parametrize("divisor", [1.0, 20.5])
def test_micro_batches_add_up(divisor: float) -> None:
    """Sentences of different lengths weigh differently in each micro-batch, and words alike in the batch."""
    case, draw = CASES["tagging"], np.random.default_rng(2)
    model = FinetunedModel(ENCODER, case.head_config())
    rule = optax.sgd(1.0)
    state = random_state(model, rule)
    batch = stack([toy_row("tagging", draw) for _ in range(7)], length=LENGTH, size=8)
    loss = LossConfig(case.kind, 0.5, divisor, None, 0.05)
    once, twice = (
        jax.jit(functools.partial(finetune_step, model=model, loss=loss, optimizer=rule, accumulation_steps=number))(
            state, batch
        )
        for number in (1, 4)
    )
    for one, other in zip(jax.tree.leaves(once[0].params), jax.tree.leaves(twice[0].params), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    assert {name: float(value) for name, value in once[1].items()} == pytest.approx(
        {name: float(value) for name, value in twice[1].items()}, rel=1e-4
    )

"""Compute the loss of each kind of task, and update a fine-tuned model.

A batch holds `input_ids`, `token_type_ids` and `attention_mask`, int32 [B, L], `row_weight`, float32 [B] (0 for a row
that only fills up the batch), optionally `example_weight`, float32 [B] (see `loss_weights.share_of_example`), and the
targets of its kind:

    classification      label int32 [B]
    multi_label_classification  labels float32 [B, C], 1 for each label that the text has
    regression          label float32 [B], from 0 to 1
    tagging             label_ids int32 [B, L]; label_mask float32 [B, L], 1 at the first piece of each word
    question_answering  start_positions, end_positions, is_impossible int32 [B]
    similarity          label float32 [B], from 0 to 1; as for retrieval, a row has two texts, with example_ids 1 and 2,
                        int32 [B, L]
    retrieval           first_id, second_id int32 [B]: the numbers of both texts, equal for the same text
    multiple_choice     label int32 [B]; the arrays of tokens are [B, C, L], a row for each choice; choice_mask float32
                        [B, C], 0 where an example has fewer choices
    prompt              label int32 [B]; the arrays of tokens are [B, C, L], a row for each label; word_mask float32
                        [B, C, L], 1 at the pieces of the label's word
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from electra_jax.model.finetuned import FinetunedModel, Trainable
from electra_jax.model.heads import MASKED_LOGIT, span_losses
from electra_jax.model.types import Loss, PyTree, Tokens
from electra_jax.pretraining.micro_batches import accumulate
from electra_jax.training.state import Batch, Sums, TrainState


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Select the loss that fine-tuning minimizes.

    Attributes:
        kind: "classification", "multi_label_classification" (the mean over the labels of their binary
            cross-entropies), "regression", "tagging", "question_answering", "similarity", "retrieval",
            "multiple_choice" or "prompt".
        answerable_weight: question answering: the weight of the answerability head's cross-entropy (0.5 as published).
        divisor: divides the sum of a batch's losses: the weight of the run's average batch, so that examples (tagging:
            words) weigh the same in every batch, however many are in it; or 1.0 for the sum, as in the original, whose
            gradients are larger by about the batch size, which clipping and Adam almost hide.
        class_weights: classification: the weight of the examples of each class, by its number; with several labels, the
            weight of having a label relative to not having it. None for 1.
        temperature: retrieval: divides the cosines.
    """

    kind: str
    answerable_weight: float
    divisor: float
    class_weights: tuple[float, ...] | None
    temperature: float


def init_state(key: jax.Array, model: Trainable, optimizer: optax.GradientTransformation) -> TrainState:
    """Return a new state at step 0, its parameters boxed with their logical axes."""
    params_key, base_key = jax.random.split(key)
    params = init_params(params_key, model)
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), jax.random.key_data(base_key))


def init_params(key: jax.Array, model: Trainable) -> PyTree:
    """Return newly drawn parameters, boxed with their logical axes."""
    ids_BL = jnp.zeros((1, 1), jnp.int32)
    return model.init(key, Tokens(ids_BL, ids_BL, ids_BL + 1), deterministic=True)["params"]


def tokens_of(batch: Batch) -> Tokens:
    """Return what the encoder reads of a batch; choices [B, C, L] become rows [B * C, L]."""
    tokens = Tokens(batch["input_ids"], batch["token_type_ids"], batch["attention_mask"], batch.get("example_ids"))
    return jax.tree.map(lambda array: array.reshape(-1, array.shape[-1]), tokens)


def loss_of(config: LossConfig, outputs: Any, batch: Batch) -> Loss:
    """Return the loss of a batch from the head's outputs in training; rows of weight 0 do not count."""
    weights_B = batch["row_weight"]
    if "example_weight" in batch:
        weights_B = weights_B * batch["example_weight"]
    if config.kind == "classification":
        losses_B = optax.softmax_cross_entropy_with_integer_labels(outputs, batch["label"])
        if config.class_weights is not None:
            weights_B = weights_B * jnp.asarray(config.class_weights, jnp.float32)[batch["label"]]
    elif config.kind == "multi_label_classification":
        losses_BC = optax.sigmoid_binary_cross_entropy(outputs, batch["labels"])
        if config.class_weights is not None:
            having_C = jnp.asarray(config.class_weights, jnp.float32)
            losses_BC = losses_BC * jnp.where(batch["labels"] > 0, having_C[None], 1.0)
        losses_B = jnp.mean(losses_BC, axis=-1)
    elif config.kind == "regression":
        losses_B = jnp.square(outputs[:, 0] - batch["label"])
    elif config.kind == "tagging":
        nll_BL = optax.softmax_cross_entropy_with_integer_labels(outputs, batch["label_ids"])
        words_BL = batch["label_mask"] * weights_B[:, None]
        return Loss(jnp.sum(nll_BL * words_BL), jnp.sum(words_BL))
    elif config.kind == "similarity":
        losses_B = jnp.square(jnp.sum(outputs[:, 0] * outputs[:, 1], axis=-1) - batch["label"])
    elif config.kind == "multiple_choice":
        there_BC = batch["choice_mask"] > 0
        logits_BC = jnp.where(there_BC, outputs.reshape(there_BC.shape), -jnp.inf)
        losses_B = optax.softmax_cross_entropy_with_integer_labels(logits_BC, batch["label"])
    elif config.kind == "prompt":
        losses_B = prompt_losses(outputs, batch)
    elif config.kind == "retrieval":
        losses_B = contrastive_losses(outputs, batch, temperature=config.temperature)
    else:
        losses_B = span_losses(
            without_padding(outputs, batch["attention_mask"]),
            batch["start_positions"],
            batch["end_positions"],
            batch["is_impossible"],
            answerable_weight=config.answerable_weight,
        )
    return Loss(jnp.sum(losses_B * weights_B), jnp.sum(weights_B))


def contrastive_losses(vectors_BPD: jax.Array, batch: Batch, *, temperature: float) -> jax.Array:
    """Return the cross-entropy of each first text's own second text among those of the whole batch, float32 [B].

    This is the loss of multiple negatives (Henderson et al., 2017, section 4.4; InfoNCE: van den Oord et al., 2018,
    equation 4) on cosines over a temperature. The second text of a pair that shares a text with this one is not among
    its negatives, because it is a match too, and neither is a row that only fills up the batch.

    Args:
        vectors_BPD: vectors of both texts of each pair, of length 1.
        batch: `first_id`, `second_id` and `row_weight`.
        temperature: divides the cosines.
    """
    scores_BB = jnp.einsum("BD,CD->BC", vectors_BPD[:, 0], vectors_BPD[:, 1]) / temperature
    shares_BB = jnp.zeros(scores_BB.shape, bool)
    for name in ("first_id", "second_id"):
        shares_BB |= batch[name][:, None] == batch[name][None, :]
    own_BB = jnp.eye(len(scores_BB), dtype=bool)
    counts_BB = own_BB | (~shares_BB & (batch["row_weight"] > 0)[None, :])
    log_probs_BB = jax.nn.log_softmax(jnp.where(counts_BB, scores_BB, -jnp.inf))
    return -jnp.diagonal(log_probs_BB)


def prompt_losses(logits: jax.Array, batch: Batch) -> jax.Array:
    """Return each example's binary cross-entropies, summed over its labels (Xia et al., 2022, section 3).

    The word of the right label is original, and every other is replaced. A word of several pieces has their mean loss.

    Args:
        logits: float32 [B * C, L], positive where a token looks replaced.
        batch: `label` and `word_mask`.

    Returns:
        float32 [B].
    """
    mask_BCL = batch["word_mask"]
    replaced_BC = 1.0 - jax.nn.one_hot(batch["label"], mask_BCL.shape[1])
    labels_BCL = jnp.broadcast_to(replaced_BC[:, :, None], mask_BCL.shape)
    nll_BCL = optax.sigmoid_binary_cross_entropy(logits.reshape(mask_BCL.shape), labels_BCL)
    means_BC = jnp.sum(nll_BCL * mask_BCL, axis=-1) / jnp.sum(mask_BCL, axis=-1)
    return jnp.sum(means_BC, axis=-1)


def without_padding(outputs: dict[str, jax.Array], attention_mask_BL: jax.Array) -> dict[str, jax.Array]:
    """Return the outputs with no probability for padding.

    The loss of a head that does not mask padding itself would otherwise depend on the length of the bucket.
    """
    padding_BL = MASKED_LOGIT * (attention_mask_BL.astype(jnp.float32) - 1.0)
    return outputs | {name: outputs[name] + padding_BL for name in ("start_logits", "end_logits")}


def training_loss(
    params: PyTree, batch: Batch, dropout_key: jax.Array | None, *, model: Trainable, loss: LossConfig
) -> tuple[jax.Array, Loss]:
    """Return the loss to differentiate, and its sum and weight; `dropout_key` is None for no dropout."""
    # Only the joint head reads a target: it learns the end of an answer given the true start.
    joint = isinstance(model, FinetunedModel) and model.head_config.kind == "joint_question_answering"
    targets = {"start_positions_B": batch["start_positions"]} if joint else {}
    rngs = None if dropout_key is None else {"dropout": dropout_key}
    outputs = model.apply({"params": params}, tokens_of(batch), deterministic=rngs is None, rngs=rngs, **targets)
    term = loss_of(loss, outputs, batch)
    return term.sum / loss.divisor, term


def finetune_step(
    state: TrainState,
    batch: Batch,
    *,
    model: Trainable,
    loss: LossConfig,
    optimizer: optax.GradientTransformation,
    accumulation_steps: int,
) -> tuple[TrainState, Sums]:
    """Update the state with one global batch.

    Every loss is divided by the same number, so that the gradients of micro-batches add up to that of the batch.

    Args:
        state: the state before.
        batch: arrays [B, ...].
        model: the encoder with its head.
        loss: what is minimized.
        optimizer: update rule of the state's `opt_state`.
        accumulation_steps: micro-batches that B is cut into.

    Returns:
        The new state, and float32 sums: `loss` and `loss_weight` (rows, or words), `examples`, `real` tokens, and
        the gradient's norm before clipping as `grad_norm`.
    """
    dropout_key = jax.random.fold_in(jax.random.wrap_key_data(state.key_data), state.step)
    if accumulation_steps == 1:
        objective = functools.partial(training_loss, batch=batch, dropout_key=dropout_key, model=model, loss=loss)
        grads, term = jax.grad(objective, has_aux=True)(state.params)
    else:
        grads, term = accumulated(state.params, batch, dropout_key, model, loss, accumulation_steps)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    weights_B = batch["row_weight"]
    real_BX = batch["attention_mask"].astype(jnp.float32).reshape(len(weights_B), -1)
    sums = {
        "loss": term.sum,
        "loss_weight": term.weight,
        "examples": jnp.sum(weights_B),
        "real": jnp.sum(real_BX * weights_B[:, None]),
        "grad_norm": optax.tree.norm(grads),
    }
    params = optax.apply_updates(state.params, updates)
    return TrainState(state.step + 1, params, opt_state, state.key_data), sums


def accumulated(
    params: PyTree,
    batch: Batch,
    dropout_key: jax.Array,
    model: Trainable,
    loss: LossConfig,
    accumulation_steps: int,
) -> tuple[PyTree, Loss]:
    """Return the gradient of a batch's loss, and the loss's sum and weight, from one micro-batch after the other."""

    def gradient(index: jax.Array, rows: Batch) -> tuple[PyTree, Loss]:
        key = jax.random.fold_in(dropout_key, index)
        objective = functools.partial(training_loss, batch=rows, dropout_key=key, model=model, loss=loss)
        return jax.grad(objective, has_aux=True)(params)

    return accumulate(gradient, (batch,), accumulation_steps)

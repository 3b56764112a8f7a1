"""Choose the layer of an encoder, and the pooling of its states, that make the best vectors for a task.

The last layer of a discriminator specializes in replaced tokens, and gives its worst vectors (Rep et al., 2024). All
layers are scored on the dev split before training, in one pass over it, and the layers beyond the best are left out:
they are neither trained nor kept.
"""

import functools
from collections.abc import Sequence
from typing import Any, TypedDict

import jax
import jax.numpy as jnp

from electra_jax.checkpoints import model_dir, warm_start
from electra_jax.checkpoints.sentence_encoder import checked_layer
from electra_jax.config.finetuning import FinetuningRun
from electra_jax.data.forward import RowRunner
from electra_jax.finetuning.results import rank
from electra_jax.model.config import EncoderConfig
from electra_jax.model.pooling import POOLINGS, layer_outputs, pooled
from electra_jax.model.precision import evaluation_precision
from electra_jax.model.types import PyTree, Tokens
from electra_jax.tasks.protocol import DownstreamTask, Row


class Chosen(TypedDict):
    """Declare what run.json, results.json and model.json record of the choice.

    Each of `candidates` has its `layer`, its `pooling` and its score, by its name; [] if there was no choice.
    """

    layer: int
    of_layers: int
    pooling: str
    candidates: list[dict[str, Any]]


def choose_layer(
    run: FinetuningRun, encoder: EncoderConfig, task: DownstreamTask, examples: Sequence[Any], rows: Sequence[Row]
) -> Chosen:
    """Return the layer and the pooling with the best score on the dev split, among those that the run leaves open.

    Ties go to the deepest layer, and to the mean. Random weights give nothing to choose by: the last layer is taken
    unless LAYER says otherwise.

    Args:
        run: the run.
        encoder: the encoder that it starts from.
        task: a task of vectors.
        examples, rows: the dev split, or the part of it that chooses.

    Raises:
        UserError: if LAYER is no layer of the encoder.
    """
    most, wanted = encoder.num_hidden_layers, run.heads.layer
    layers = [checked_layer(encoder, wanted)] if wanted is not None else [*range(most, 0, -1)]
    poolings = POOLINGS if run.heads.pooling is None else (run.heads.pooling,)
    if run.init_from is None or len(layers) * len(poolings) == 1:
        return Chosen(layer=layers[0], of_layers=most, pooling=poolings[0], candidates=[])
    found = vectors_of_layers(run, task, rows)
    candidates = []
    for layer in layers:
        for pooling in poolings:
            outputs = [{"logits": output[pooling][layer - 1]} for output in found]
            score = task.score(examples, task.predictions(examples, rows, outputs))[task.main_metric]
            candidates.append({"layer": layer, "pooling": pooling, task.main_metric: score})
    # Among equal scores, `max` takes the first: the deepest layer, and the mean.
    best = max(candidates, key=lambda candidate: rank(candidate[task.main_metric], task.main_metric))
    return Chosen(layer=best["layer"], of_layers=most, pooling=best["pooling"], candidates=candidates)


def vectors_of_layers(run: FinetuningRun, task: DownstreamTask, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return each row's vectors by pooling, float32 [N, D], from the weights that the run starts from."""
    assert run.init_from is not None
    config, params = warm_start.encoder_for_finetuning(model_dir.load(run.init_from))
    assert config is not None
    params = jax.device_put({"embeddings": params["embeddings"], "encoder": params["discriminator"]["encoder"]})
    forward = jax.jit(functools.partial(pooled_layers, config))

    def launch(batch: Row) -> dict[str, jax.Array]:
        return forward(params, Tokens(batch["input_ids"], batch["token_type_ids"], batch["attention_mask"]))

    buckets = [*(bucket for bucket in run.buckets if bucket < task.length), task.length]
    return RowRunner(launch, (), run.evaluation_batch_size, buckets)(rows)


def pooled_layers(config: EncoderConfig, params: PyTree, tokens: Tokens) -> dict[str, jax.Array]:
    """Return the vectors of every layer by pooling, float32 [B, N, D]."""
    states_NBLD = layer_outputs(config, params["embeddings"], params["encoder"], tokens)
    each = {pooling: functools.partial(pooled, tokens=tokens, pooling=pooling) for pooling in POOLINGS}
    with evaluation_precision():
        return {pooling: jnp.moveaxis(jax.vmap(pool)(states_NBLD), 0, 1) for pooling, pool in each.items()}


def said(chosen: Chosen, metric: str) -> str:
    """Return a sentence on what was chosen, and what the last layer would have given."""
    what = f"vectors: the {chosen['pooling']} of layer {chosen['layer']} of {chosen['of_layers']}"
    scores = {(each["layer"], each["pooling"]): each[metric] for each in chosen["candidates"]}
    if not scores:
        return what
    best = scores[chosen["layer"], chosen["pooling"]]
    of_last = [score for (layer, _), score in scores.items() if layer == chosen["of_layers"]]
    last = max(of_last, default=best, key=lambda score: rank(score, metric))
    return f"{what}, the best on dev before training ({metric} {best:.2f}; the last layer {last:.2f})"

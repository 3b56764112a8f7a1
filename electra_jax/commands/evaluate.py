"""`electra evaluate`: held-out metrics, passages and the report of a pre-training run."""

import argparse
import functools
import itertools
import math
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from rich.table import Table

from electra_jax.checkpoints.averages import read_average
from electra_jax.checkpoints.model_dir import vocabulary_of_run
from electra_jax.checkpoints.orbax_store import restore_latest
from electra_jax.config.data import share_data
from electra_jax.config.pretraining import PretrainingRun
from electra_jax.distributed import processes
from electra_jax.distributed.processes import print_on_leader
from electra_jax.errors import UserError
from electra_jax.files import NOT_WRITABLE, path_of, replace_file
from electra_jax.json_files import json_text
from electra_jax.model.types import Masked, PyTree
from electra_jax.monitoring.console import PlainConsole
from electra_jax.monitoring.watch import describe_run
from electra_jax.pretraining import corruption, evaluation
from electra_jax.pretraining.corruption import MaskingConfig
from electra_jax.pretraining.micro_batches import join, split
from electra_jax.pretraining.objective import Objective
from electra_jax.reports.pretraining import write_report
from electra_jax.run_directory import EVALUATION
from electra_jax.runtime import keep_compilations
from electra_jax.training import sharding
from electra_jax.training.sharding import to_device
from electra_jax.training.state import Batch

# Shorter passages show little, and longer ones are not read by anyone.
PASSAGE_TOKENS = (60, 130)


def run(configuration: PretrainingRun, options: argparse.Namespace) -> None:
    """Score the newest checkpoint on the whole held-out split, and write evaluation.json and report.html.

    Args:
        configuration: the run.
        options: `average` is the number of checkpoints whose mean is scored.

    Raises:
        UserError: if there is no checkpoint, there are fewer than `average`, they belong to another model, or no text
            is held out.
    """
    keep_compilations()
    mesh = sharding.make_mesh(configuration.mesh, len(jax.devices()))
    sharding.check_batch(configuration.batch_size, configuration.accumulation_steps, mesh)
    vocabulary = vocabulary_of_run(configuration)
    setup = configuration.setup(vocabulary)
    abstract = sharding.abstract(setup.init, jax.random.key(configuration.seed), mesh, configuration.mesh)
    restored = restore_latest(configuration.model_dir, abstract)
    data = share_data(configuration, vocabulary, mesh)
    params, steps = restored.state.params, (restored.step,)
    if options.average != 1:
        steps, averaged = read_average(path_of(configuration.model_dir), options.average)
        params = sharding.shard_like(averaged, params)
    extra_metrics = configuration.pretraining_rules.extra_metrics
    network = {
        "model": setup.model,
        "objective": setup.objective,
        "masking": setup.masking,
        "accumulation_steps": setup.accumulation_steps,
    }
    step = functools.partial(evaluation.evaluate_step, **network, extra_metrics=extra_metrics)
    sums = evaluation.held_out_sums(
        params,
        data.held_out(),
        step=sharding.jit_forward(step, mesh, configuration.mesh),
        sharding=sharding.batch_sharding(mesh),
        num_batches=None,
    )
    if not sums:
        raise UserError("no text is held out: set HELD_OUT_FRACTION, or name a CORPUS that has a validation split")
    values = evaluation.finish(sums, configuration.objective.loss_weights, extra_metrics)
    inspect = sharding.jit_forward(functools.partial(inspect_batch, **network), mesh, configuration.mesh)
    views = [
        jax.device_get(inspect(params, to_device(batch, sharding.batch_sharding(mesh)), jax.random.key(index)))
        for index, batch in enumerate(itertools.islice(data.held_out(), configuration.num_passages))
    ]
    if not processes.leader():
        return
    result = {
        "step": steps[0],
        "mean_of_steps": list(steps),
        **summary(configuration, sums, values, views, vocabulary.shown_tokens),
        **describe_run(configuration, params, corpus=data.name),
    }
    show(values, result)
    write(configuration, result)


def write(configuration: PretrainingRun, result: dict[str, Any]) -> None:
    """Write evaluation.json and report.html.

    Raises:
        UserError: if MODEL_DIR cannot be written.
    """
    path = path_of(configuration.model_dir) / EVALUATION
    try:
        replace_file(path, json_text(result))
        print_on_leader(f"evaluation: {path}")
        print_on_leader(f"report: {write_report(configuration.model_dir)}")
    except OSError as error:
        if error.errno not in NOT_WRITABLE:
            raise
        raise UserError(
            f"{configuration.model_dir} cannot be written ({error.strerror}): its metrics are printed above; evaluate "
            "a copy of it to have evaluation.json and the report"
        ) from error


def summary(
    configuration: PretrainingRun,
    sums: dict[str, np.ndarray],
    values: dict[str, float],
    views: list[dict[str, np.ndarray]],
    tokens: list[str],
) -> dict[str, Any]:
    """Return the contents of evaluation.json about the held-out text.

    Args:
        configuration: the run.
        sums, values: the results of `evaluation.held_out_sums` and `evaluation.finish`.
        views: the results of `inspect_batch`, on the host.
        tokens: the vocabulary's entries as they are displayed.
    """
    masked = np.concatenate([view["masked_ids"][view["masked_weights"] > 0] for view in views])
    # A two-tower generator never reads the token that it predicts.
    keeps = configuration.generator_kind != "two_tower"
    return {
        "metrics": {name: value if np.isfinite(value) else None for name, value in values.items()},
        "most_frequent_token": evaluation.most_frequent(masked, tokens),
        "num_examples": int(sums["examples"]),
        "kept_share": round(1.0 - configuration.mask_token_prob, 6) if keeps else 0.0,
        "passages": choose_passages(views, tokens, configuration.num_passages),
    }


def inspect_batch(
    params: PyTree,
    batch: Batch,
    key: jax.Array,
    *,
    model: nn.Module,
    objective: Objective,
    masking: MaskingConfig,
    accumulation_steps: int,
) -> dict[str, jax.Array]:
    """Return the parts of a forward pass that the report shows, arrays [B, ...]; see `evaluation.evaluate_step`."""
    drawn = evaluation.draw(batch, key, masking)

    def view(rows: tuple[Masked, jax.Array]) -> dict[str, jax.Array]:
        part = evaluation.Drawn(*rows, drawn.sample_key)
        _, outputs = evaluation.forward(params, part, model=model, objective=objective, masking=masking)
        found = {
            "originals_BL": corruption.original_ids(part.masked),
            "masked_positions": part.masked.masked_positions,
            "masked_ids": part.masked.masked_ids,
            "masked_weights": part.masked.masked_weights,
            "attention_mask_BL": part.masked.tokens.attention_mask,
        }
        if outputs.corrupted is not None and outputs.discriminator_logits_BL is not None:
            found |= {
                "corrupted_BL": outputs.corrupted.tokens.input_ids,
                "logits_BL": outputs.discriminator_logits_BL,
            }
        return found

    return join(jax.lax.map(view, split((drawn.masked, drawn.sample_keys_B), accumulation_steps)))


def choose_passages(views: list[dict[str, np.ndarray]], tokens: list[str], count: int) -> list[dict[str, Any]]:
    """Return passages of a readable length, spread over the batches; others only if there are too few of those.

    The list is empty if the objective has no discriminator.
    """
    if "logits_BL" not in views[0]:
        return []
    rows = [
        (not PASSAGE_TOKENS[0] <= int(view["attention_mask_BL"][row].sum()) <= PASSAGE_TOKENS[1], row, number)
        for number, view in enumerate(views)
        for row in range(len(view["attention_mask_BL"]))
        if view["attention_mask_BL"][row].any()
    ]
    chosen = []
    for _, row, number in sorted(rows)[:count]:
        view = {name: values[row : row + 1] for name, values in views[number].items()}
        chosen += evaluation.passages(
            view["originals_BL"],
            view["corrupted_BL"],
            view["masked_positions"],
            view["masked_weights"],
            view["logits_BL"],
            tokens=tokens,
            attention_mask_BL=view["attention_mask_BL"],
        )
    return chosen


def show(values: dict[str, float], result: dict[str, Any]) -> None:
    """Print the metrics as a table, each next to the score of a constant guess."""
    guess = result["most_frequent_token"]
    steps = ", ".join(map(str, result["mean_of_steps"]))
    beside = {
        "generator_accuracy": f"always {guess['token']!r}: {guess['rate']:.4f}",
        "discriminator_accuracy": f"always 'original': {values.get('unreplaced_share', math.nan):.4f}",
        "discriminator_auc": "chance: 0.5",
    }
    table = Table(
        "metric",
        "value",
        "beside",
        title=f"{'mean of steps' if ',' in steps else 'step'} {steps}, {result['num_examples']} held-out examples",
    )
    for name, value in values.items():
        table.add_row(name, f"{value:.4f}", beside.get(name, ""))
    PlainConsole().print(table)

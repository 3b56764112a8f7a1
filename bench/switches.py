"""Ablate the encoder's switches at equal FLOPs: python -m bench.switches --corpus novels.txt --vocabulary vocab.txt OUT

Every arm changes one switch of `gin/models/bert.gin`, or all of them, for masked language modelling and for
replaced-token detection; the arm "bert" changes none. Each arm's learning rate is chosen from the same grid by the
held-out loss of short runs, each with a complete schedule. The arm is then trained at several seeds, and its encoder is
frozen and probed for chunk tags as by `electra probe`. One line of JSON per run is added to OUT; runs that are already
in OUT are not repeated, so the same command resumes.

The lines of docs/efficiency/switches_*.jsonl have a `probe` instead, which commit e3b9393 measured: another probe, a
ridge regression, with the score of the layer that was best on 1,000 test sentences.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from electra_jax.commands.probe import ask_split
from electra_jax.config import gin_files
from electra_jax.config.budget import steps_within
from electra_jax.config.data import PretrainingData, open_data, vocabulary_for
from electra_jax.config.pretraining import PretrainingRun
from electra_jax.config.probing import ProbeRun
from electra_jax.finetuning import probes
from electra_jax.finetuning.start import Origin
from electra_jax.model.config import EncoderConfig
from electra_jax.model.types import PyTree
from electra_jax.pretraining import evaluation, metrics
from electra_jax.pretraining.steps import PretrainingSetup
from electra_jax.tasks.tagging.probing import SPLITS, Asked, draw_of, probe_sources
from electra_jax.tasks.vocabulary import Vocabulary
from electra_jax.training.optimizer import OptimizerConfig, make_optimizer
from electra_jax.training.state import Batch, Sums, TrainState

SHARED = "docs/efficiency/switches.gin"
_ROTARY = ('encoder.EncoderConfig.position_embedding_type = "rotary"',)
_PRE_NORM = ('encoder.EncoderConfig.norm_placement = "pre"',)
# Three kernels of 170 cost as much as two of 256.
_GATED = ("encoder.EncoderConfig.gated_mlp = True", "encoder.EncoderConfig.intermediate_size = 170")
_QK_NORM = ("encoder.EncoderConfig.qk_norm = True",)
_NO_BIASES = tuple(f"encoder.EncoderConfig.{part}_bias = False" for part in ("attention", "mlp", "norm", "classifier"))
ARMS = {
    "bert": (),
    "rotary": _ROTARY,
    "pre_norm": _PRE_NORM,
    "gated": _GATED,
    "qk_norm": _QK_NORM,
    "no_biases": _NO_BIASES,
    "all": (*_ROTARY, *_PRE_NORM, *_GATED, *_QK_NORM, *_NO_BIASES),
}
OBJECTIVES = ("mlm", "electra")
RATES = (2e-3, 4e-3, 8e-3)
WARMUP_SHARE = 0.1


class Arm(NamedTuple):
    """Hold an arm's run and its jitted steps, which take the learning rate and the number of steps as arguments."""

    run: PretrainingRun
    setup: PretrainingSetup
    init: Callable[[jax.Array], TrainState]
    update: Callable[[TrainState, Batch, jax.Array, jax.Array], tuple[TrainState, Sums]]
    evaluate: Callable[[PyTree, Batch, jax.Array], Sums]


def main() -> None:
    """Run every arm whose results are missing in OUT."""
    options = parse_arguments()
    if any("probe" in record for record in read_records(options.out)):
        raise SystemExit(f"{options.out} holds scores of another probe (commit e3b9393): name another OUT")
    for objective, name in itertools.product(options.objectives, options.arms):
        measure(objective, name, options)


def measure(objective: str, name: str, options: argparse.Namespace) -> None:
    """Choose an arm's learning rate, and train the arm with it at every seed."""
    arm = make_arm(objective, name, options)
    vocabulary = vocabulary_for(arm.run.cache, arm.run.encoder)
    asked = asked_of(arm, vocabulary, options.conll2000)
    probe = probe_settings(options.conll2000)
    done = read_records(options.out)

    def measured(rate: float, flops: float, seed: int) -> dict[str, Any]:
        key = {"objective": objective, "arm": name, "rate": rate, "flops": flops, "seed": seed}
        found = [record for record in done if key.items() <= record.items()]
        if found:
            return found[0]
        record = key | train(arm, vocabulary, asked, probe, rate=rate, flops=flops, seed=seed)
        with options.out.open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(json.dumps(record), flush=True)
        return record

    tuning = [measured(rate, options.flops * options.tuning_share, options.seed) for rate in RATES]
    best = min(tuning, key=lambda record: record["loss"] if np.isfinite(record["loss"]) else np.inf)
    for seed in range(options.seed, options.seed + options.seeds):
        measured(best["rate"], options.flops, seed)


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Ablates the encoder's switches at equal FLOPs.")
    parser.add_argument("out", type=Path, help="file of JSON lines")
    parser.add_argument("--corpus", required=True, help="as CORPUS of electra pretrain")
    parser.add_argument("--vocabulary", required=True, help="a vocab.txt of 2,048 entries")
    parser.add_argument("--conll2000", type=Path, required=True, help="folder with train.txt and test.txt")
    parser.add_argument("--flops", type=float, required=True, help="of each run at full length")
    parser.add_argument("--tuning_share", type=float, default=0.25, help="of these FLOPs for each rate of the grid")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=OBJECTIVES)
    return parser.parse_args()


def read_records(out: Path) -> list[dict[str, Any]]:
    """Return the records of the runs that are done."""
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def make_arm(objective: str, name: str, options: argparse.Namespace) -> Arm:
    """Build an arm's configuration, and jit its steps once for all rates, budgets and seeds."""
    files = [SHARED, *([f"gin/objectives/{objective}.gin"] if objective != "electra" else [])]
    bindings = [f"CORPUS = {options.corpus!r}", f"TOKENIZER = {options.vocabulary!r}", *ARMS[name]]
    with gin_files.isolated():
        run: PretrainingRun = gin_files.build(PretrainingRun, files, bindings, search_paths=[])
    vocabulary = vocabulary_for(run.cache, run.encoder)
    setup = dataclasses.replace(run.setup(vocabulary), optimizer=optimizer_of(run.optimizer, 1.0))

    def update(state: TrainState, batch: Batch, rate: jax.Array, num_steps: jax.Array) -> tuple[TrainState, Sums]:
        optimizer = optimizer_of(run.optimizer, rate_at(state.step, rate, num_steps))
        return dataclasses.replace(setup, optimizer=optimizer).update(state, batch)

    evaluate = functools.partial(
        evaluation.evaluate_step,
        model=setup.model,
        objective=setup.objective,
        masking=setup.masking,
        accumulation_steps=setup.accumulation_steps,
        extra_metrics=None,
    )
    return Arm(
        run,
        setup,
        jax.jit(lambda key: nn.unbox(setup.init(key))),
        jax.jit(update, donate_argnums=0),
        jax.jit(evaluate),
    )


def optimizer_of(config: OptimizerConfig, rate: jax.Array | float) -> optax.GradientTransformation:
    """Return the optimizer at one rate, which may be traced."""
    constant = dataclasses.replace(config, learning_rate=1.0, num_warmup_steps=0, lr_decay_power=0.0)
    return optax.chain(make_optimizer(constant), optax.scale(rate))


def rate_at(step: jax.Array, rate: jax.Array, num_steps: jax.Array) -> jax.Array:
    """Return the learning rate at an update: a linear warm-up times a linear decay to 0 at `num_steps`."""
    return rate * (1 - step / num_steps) * jnp.minimum(1, step / (WARMUP_SHARE * num_steps))


def train(
    arm: Arm,
    vocabulary: Vocabulary,
    asked: Mapping[str, Asked],
    probe: ProbeRun,
    *,
    rate: float,
    flops: float,
    seed: int,
) -> dict[str, Any]:
    """Train an arm from a seed for a budget of FLOPs, and return its held-out metrics and its probe's scores."""
    run = dataclasses.replace(arm.run, seed=seed)
    num_steps = steps_within(run, flops)
    data: PretrainingData = open_data(run, vocabulary, process_index=0, process_count=1)
    state = arm.init(jax.random.key(seed))
    started = time.perf_counter()
    for batch in itertools.islice(data.train, num_steps):
        state, sums = arm.update(state, batch, jnp.float32(rate), jnp.float32(num_steps))
    jax.block_until_ready(sums)
    seconds = time.perf_counter() - started
    held_out = evaluation.held_out_sums(
        state.params,
        data.held_out(),
        step=arm.evaluate,
        sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0]),
        num_batches=run.num_evaluation_examples // run.batch_size,
    )
    values = metrics.finish(held_out, run.objective.loss_weights)
    kept = {name: round(float(value), 5) for name, value in values.items()}
    found = probed(state.params, run.encoder, asked, probe)
    return {"steps": num_steps, "seconds": round(seconds, 1)} | found | kept


def asked_of(arm: Arm, vocabulary: Vocabulary, conll2000: Path) -> dict[str, Asked]:
    """Return the questions of the probe of chunk tags on each split, with the settings of gin/runs/probe.gin."""
    probe = probe_settings(conll2000)
    sources = probe_sources(probe.task)
    origin = Origin(arm.run.encoder, vocabulary, None, {})
    return {
        split: ask_split(
            probe, origin, split, sources.read(probe.task.task, split).examples, draw_of(probe.seed, split)
        )
        for split in SPLITS
    }


def probe_settings(conll2000: Path) -> ProbeRun:
    """Return the settings of the probe, which are the same for all arms and seeds."""
    given = {"MODEL_DIR": "switches", "INIT_FROM": None, "TASK": "chunk", "DATA_DIR": str(conll2000)}
    with gin_files.isolated():
        bindings = [f"{name}={value!r}" for name, value in given.items()]
        return gin_files.build(ProbeRun, ["gin/runs/probe.gin"], bindings, search_paths=[])


def probed(params: PyTree, encoder: EncoderConfig, asked: Mapping[str, Asked], probe: ProbeRun) -> dict[str, Any]:
    """Return the probe's scores of every layer, and those of the layer that is best on the dev split."""
    scores = probes.probe_layers(
        params,
        encoder,
        asked,
        left_to_right=False,
        penalty=probe.penalty,
        max_iterations=probe.max_iterations,
        batch_size=probe.batch_size,
    )
    best = probes.best_layer(scores)
    layers = [score._asdict() for score in scores]
    return {"chunk_accuracy": best.test, "chunk_dev_accuracy": best.dev, "best_layer": best.layer, "layers": layers}


if __name__ == "__main__":
    main()

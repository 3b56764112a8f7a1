"""Ablate the encoder's switches at equal FLOPs: python -m bench.switches --corpus novels.txt --vocabulary vocab.txt OUT

Every arm is one switch of `gin/models/bert.gin`, or all of them, for masked language modelling and for replaced-token
detection. Each arm's learning rate is chosen from the same grid by short runs with a schedule of their own, by held-out
loss; then it is trained at several seeds, and its encoder is frozen and probed: from every layer's hidden states a
linear map tells the chunk tag of each word of CoNLL-2000. One line of JSON per run is added to OUT; runs that stand
there are not repeated, so that the same command resumes.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import traverse_util

from electra_jax.config import gin_files
from electra_jax.config.budget import steps_within
from electra_jax.config.data import PretrainingData, open_data, vocabulary_for
from electra_jax.config.pretraining import PretrainingRun
from electra_jax.model.types import Masked, PyTree, Tokens
from electra_jax.pretraining import evaluation, metrics
from electra_jax.pretraining.steps import PretrainingSetup
from electra_jax.tasks.vocabulary import Vocabulary
from electra_jax.training.optimizer import OptimizerConfig, make_optimizer
from electra_jax.training.state import Batch, Sums, TrainState

SHARED = "docs/efficiency/switches.gin"
_ROTARY = ('encoder.EncoderConfig.position_embedding_type = "rotary"',)
_PRE_NORM = ('encoder.EncoderConfig.norm_placement = "pre"',)
# Three kernels of 170 cost what two of 256 do.
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
# Of the sentences of CoNLL-2000's own splits, from the start.
PROBE_TRAINING_SENTENCES, PROBE_TEST_SENTENCES, PROBE_LENGTH = 2000, 1000, 96


class Arm(NamedTuple):
    """An arm's run and its compiled steps, which take the schedule of the learning rate as arguments."""

    run: PretrainingRun
    setup: PretrainingSetup
    init: Callable[[jax.Array], TrainState]
    update: Callable[[TrainState, Batch, jax.Array, jax.Array], tuple[TrainState, Sums]]
    evaluate: Callable[[PyTree, Batch, jax.Array], Sums]
    hidden: Callable[[PyTree, Tokens], jax.Array]


# The words and chunk tags of a sentence, and the sentences of a training and a test split.
Sentence = list[tuple[str, str]]
Probe = tuple[list[Sentence], list[Sentence]]


def main() -> None:
    """Run what is missing in OUT."""
    options = parse_arguments()
    probe = read_probe(options.conll2000)
    for objective, name in itertools.product(options.objectives, options.arms):
        measure(objective, name, probe, options)


def measure(objective: str, name: str, probe: Probe, options: argparse.Namespace) -> None:
    """Choose an arm's learning rate, and train it at every seed with it."""
    arm = make_arm(objective, name, options)
    vocabulary = vocabulary_for(arm.run.cache, arm.run.encoder)
    words = probe_batches(probe, vocabulary)
    done = read_records(options.out)

    def measured(rate: float, flops: float, seed: int) -> dict[str, Any]:
        key = {"objective": objective, "arm": name, "rate": rate, "flops": flops, "seed": seed}
        found = [record for record in done if key.items() <= record.items()]
        if found:
            return found[0]
        record = key | train(arm, vocabulary, words, rate=rate, flops=flops, seed=seed)
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
    """Return the runs that are done."""
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
        jax.jit(functools.partial(hidden_states, model=setup.model)),
    )


def optimizer_of(config: OptimizerConfig, rate: jax.Array | float) -> optax.GradientTransformation:
    """Return the optimizer at one rate, which may be traced."""
    constant = dataclasses.replace(config, learning_rate=1.0, num_warmup_steps=0, lr_decay_power=0.0)
    return optax.chain(make_optimizer(constant), optax.scale(rate))


def rate_at(step: jax.Array, rate: jax.Array, num_steps: jax.Array) -> jax.Array:
    """Return the learning rate of an update: a linear warm-up, and a linear decay to 0 at `num_steps`."""
    return rate * (1 - step / num_steps) * jnp.minimum(1, step / (WARMUP_SHARE * num_steps))


def hidden_states(params: PyTree, tokens: Tokens, *, model: nn.Module) -> jax.Array:
    """Return the input of the encoder that is kept and each layer's hidden states, float32 [N + 1, B, L, D]."""
    if hasattr(model, "discriminate"):
        arguments, method = (tokens,), "discriminate"
    else:
        one_B1 = jnp.zeros((tokens.input_ids.shape[0], 1), jnp.int32)
        arguments, method = (Masked(tokens, one_B1, one_B1, one_B1.astype(jnp.float32)),), "generate"
    _, sown = model.apply({"params": params}, *arguments, deterministic=True, method=method, mutable="intermediates")
    found = {path[-1]: value for path, (value,) in traverse_util.flatten_dict(sown["intermediates"]).items()}
    return jnp.concatenate([found["embedded"][None], found["hidden"]]).astype(jnp.float32)


def train(
    arm: Arm,
    vocabulary: Vocabulary,
    words: Sequence[tuple[Tokens, np.ndarray, np.ndarray]],
    *,
    rate: float,
    flops: float,
    seed: int,
) -> dict[str, Any]:
    """Train an arm from a seed for a budget, and return its held-out metrics and its probe's scores."""
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
    probed = probe_layers(functools.partial(arm.hidden, state.params), words)
    return {"steps": num_steps, "seconds": round(seconds, 1), "probe": probed} | kept


def read_probe(folder: Path) -> Probe:
    """Return the words and chunk tags of CoNLL-2000's training and test sentences."""
    return tuple(
        list(itertools.islice(sentences_of(folder / f"{split}.txt"), count))
        for split, count in (("train", PROBE_TRAINING_SENTENCES), ("test", PROBE_TEST_SENTENCES))
    )


def sentences_of(path: Path) -> Iterator[Sentence]:
    """Yield sentences of a file with a word, its part of speech and its chunk tag on a line."""
    for paragraph in path.read_text(encoding="utf-8").split("\n\n"):
        rows = [line.split() for line in paragraph.splitlines() if line.strip()]
        if rows:
            yield [(word, tag) for word, _, tag in rows]


def probe_batches(probe: Probe, vocabulary: Vocabulary) -> list[tuple[Tokens, np.ndarray, np.ndarray]]:
    """Return, for training and test, the tokens, the places of each word's first piece in them, and the words' tags.

    A word whose first piece stands after the first `PROBE_LENGTH` tokens is left out.
    """
    names = sorted({tag for split in probe for sentence in split for _, tag in sentence})
    batches = []
    for split in probe:
        ids_BL = np.zeros((len(split), PROBE_LENGTH), np.int32)
        places, tags = [], []
        for row, sentence in enumerate(split):
            ids = [vocabulary.cls_id]
            for word, tag in sentence:
                if len(ids) < PROBE_LENGTH - 1:
                    places.append((row, len(ids)))
                    tags.append(names.index(tag))
                ids += vocabulary.encode(word)
            ids = [*ids[: PROBE_LENGTH - 1], vocabulary.sep_id]
            ids_BL[row, : len(ids)] = ids
        mask_BL = (ids_BL > 0).astype(np.int32)
        batches.append((Tokens(ids_BL, np.zeros_like(ids_BL), mask_BL), np.array(places), np.array(tags)))
    return batches


def probe_layers(
    hidden: Callable[[Tokens], jax.Array], words: Sequence[tuple[Tokens, np.ndarray, np.ndarray]]
) -> list[float]:
    """Return, for every layer from the embeddings up, the percentage of test words whose tag a linear map finds.

    The map is fitted by least squares, with features of unit variance and a ridge of 1.
    """
    features = []
    for tokens, places, _ in words:
        rows = np.array_split(np.arange(len(tokens.input_ids)), len(tokens.input_ids) // 100)
        states = np.concatenate([hidden(jax.tree.map(lambda x, r=r: x[r], tokens)) for r in rows], axis=1)
        features.append(states[:, places[:, 0], places[:, 1]])
    targets = [tags for _, _, tags in words]
    scores = []
    for trained, tested in zip(*features, strict=True):
        mean, deviation = trained.mean(0), trained.std(0) + 1e-6
        inputs, held_out = (
            np.hstack([(x - mean) / deviation, np.ones((len(x), 1))]).astype(np.float64) for x in (trained, tested)
        )
        one_hot = np.eye(targets[0].max() + 1)[targets[0]]
        weights = np.linalg.solve(inputs.T @ inputs + np.eye(inputs.shape[1]), inputs.T @ one_hot)
        scores.append(round(100 * float(np.mean((held_out @ weights).argmax(1) == targets[1])), 2))
    return scores


if __name__ == "__main__":
    main()

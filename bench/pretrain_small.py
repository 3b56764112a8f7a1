"""Pre-trains ELECTRA-Small on a bare machine: python -m bench.pretrain_small BLOCKS OUT [--hours=8] [--steps=1000000]

JAX, Flax, Optax and NumPy are enough. It reads blocks of `bench.pack_blocks`, and writes OUT/checkpoint.npz, all that
the same command goes on from, bit for bit; OUT/weights.npz, the parameters alone, a third of the size (either is for
`electra import` at home); and OUT/metrics.jsonl. Step, recipe, keys, order of the data and loop are those of
`electra pretrain`. See docs/one_gpu.md.
"""

import argparse
import dataclasses
import functools
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from bench import models
from bench.metric_lines import Lines
from electra_jax.data.batches import BlockBatches, Prefetch, evaluation_batches
from electra_jax.data.blocks import TokenBlocks, open_blocks
from electra_jax.errors import PREEMPTED, UserError
from electra_jax.interchange import carried
from electra_jax.model.layers import DROPOUT_GENERATORS
from electra_jax.monitoring.health_checks import Setting
from electra_jax.monitoring.watch import VOCABULARY_TOLERANCE, Watched
from electra_jax.pretraining import evaluation, metrics
from electra_jax.runtime import keep_compilations
from electra_jax.training import sharding
from electra_jax.training.loop import LoopConfig, train
from electra_jax.training.optimizer import learning_rate
from electra_jax.training.state import Batch, Sums, TrainState
from electra_jax.training.stop import Stop, handled_by

SPLITS = ("train", "validation")
VOCABULARY = "vocabulary.json"
CHECKPOINT, WEIGHTS = "checkpoint.npz", "weights.npz"
PUBLISHED_LENGTH, PUBLISHED_VOCABULARY = 128, 30522
EVALUATION_EXAMPLES = 2048
DISPATCHES_AHEAD = 4
ONE_DEVICE = sharding.MeshConfig(data=1, fsdp=1, tensor=1, rules=())


class Data(NamedTuple):
    """What BLOCKS holds."""

    train: TokenBlocks
    validation: TokenBlocks
    vocabulary: dict[str, Any]

    @property
    def facts(self) -> dict[str, Any]:
        """What a checkpoint's place in the data and its weights are of."""
        return {
            "data": {"examples": len(self.train), "tokens": len(self.train.tokens)},
            "vocabulary": self.vocabulary,
        }


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 2 for a mistake, said in one sentence; 75 where SIGTERM ended it; else 0."""
    started = time.monotonic()
    options = parse_arguments(arguments)
    try:
        return run(options, Until(math.inf if options.hours is None else started + 3600 * options.hours))
    except UserError as error:
        print(f"pretrain_small: {error}", file=sys.stderr)
        return 2


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Pre-trains on a bare machine; the same command goes on.")
    parser.add_argument("blocks", type=Path, help="a directory of bench.pack_blocks")
    parser.add_argument("out", type=Path, help="checkpoint, weights and metrics; what is there is gone on with")
    parser.add_argument("--model", choices=models.SIZES, default="small")
    parser.add_argument("--hours", type=float, help="saves and ends then, if the steps have not ended before")
    parser.add_argument("--steps", type=int, default=1_000_000, help="where the learning rate reaches zero")
    parser.add_argument("--warmup_steps", type=int, default=10_000)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--sequence_length", type=int, default=PUBLISHED_LENGTH, help="of the cache")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the products")
    parser.add_argument("--fused", action="store_true", help="attention by the backend's kernel, without its dropout")
    parser.add_argument("--prng", choices=DROPOUT_GENERATORS, default="threefry2x32", help="of dropout")
    parser.add_argument("--steps_per_dispatch", type=int, default=1, help="launched as one program")
    parser.add_argument("--log_every", type=int, default=100)
    parser.add_argument("--evaluate_every", type=int, default=5000)
    parser.add_argument("--save_every", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


@dataclasses.dataclass(frozen=True)
class Job:
    """The `TrainingJob` of this benchmark."""

    mesh: jax.sharding.Mesh
    update: Callable[[TrainState, Batch], tuple[TrainState, Sums]]
    finish: Callable[[dict[str, np.ndarray]], dict[str, float]]
    evaluate: Callable[[TrainState], dict[str, float]]
    learning_rate: Callable[[int], float]
    data_state: Callable[[], dict[str, Any]]


class Until(Stop):
    """Ends a run after the step under way, saved, also at a time."""

    def __init__(self, deadline: float) -> None:
        """`deadline` is of `time.monotonic`."""
        super().__init__()
        self._deadline = deadline

    def after_step(self) -> bool:
        """Whether to stop now."""
        if self.requested is None and time.monotonic() >= self._deadline:
            self.requested = "--hours"
        return super().after_step()


def run(options: argparse.Namespace, until: Until) -> int:
    """Trains until the last step or until told to stop; returns the exit code."""
    keep_compilations()
    data = open_data(options.blocks)
    recipe = recipe_for(options, data)
    run_facts = facts_of(options, recipe, data)
    train_batches = batches_of(options, data)
    config = loop_config(options)
    mesh = sharding.make_mesh(ONE_DEVICE, 1)
    file = File(options.out, run_facts)
    state, start = begin(options, recipe, file, train_batches, mesh)
    if start >= options.steps:
        print(f"{options.out} has had its {options.steps} steps: nothing left to do")
        return 0
    reporter = Lines(options.out, start=start, end=options.steps, curve=options.model == "small")
    with handled_by(until):
        with Prefetch(train_batches, depth=DISPATCHES_AHEAD * options.steps_per_dispatch) as batches:
            job = Job(
                mesh,
                update=sharding.jit_updates(recipe.update(), state, mesh, ONE_DEVICE),
                finish=functools.partial(metrics.finish, loss_weights=recipe.objective.loss_weights),
                evaluate=held_out_metrics(options, recipe, data, mesh),
                learning_rate=lambda step: float(learning_rate(recipe.optimizer, step)),
                data_state=batches.state,
            )
            state, reached = train(
                job,
                batches,
                state,
                loop=config,
                reporter=Watched(reporter, setting_of(options, recipe), reporter.rows),
                stop=until,
                checkpoints=file,
            )
        carried.write(options.out / WEIGHTS, {"params": state.params}, {**run_facts, "step": reached})
    if reached == options.steps:
        print(f"done: {reached} steps in {options.out}")
        return 0
    print(f"ended by {until.requested} at step {reached}, saved: the same command goes on from there")
    return PREEMPTED if until.requested == "SIGTERM" else 0


def batches_of(options: argparse.Namespace, data: Data) -> BlockBatches:
    """The training split in the order of `electra pretrain`.

    Raises:
        UserError: fewer examples than a batch, or longer ones than the rows.
    """
    return BlockBatches(
        data.train,
        batch_size=options.batch_size,
        sequence_length=options.sequence_length,
        seed=options.seed,
        process_index=0,
        process_count=1,
    )


def open_data(directory: Path) -> Data:
    """Maps the blocks and reads the vocabulary.

    Raises:
        UserError: they are not there, or do not go together.
    """
    try:
        vocabulary = json.loads((directory / VOCABULARY).read_text(encoding="utf-8"))
        data = Data(*(open_blocks(directory / f"{split}.blocks") for split in SPLITS), vocabulary)
        size = len(vocabulary["tokens"])
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise UserError(
            f"{directory} holds no blocks to train on ({error}): make them at home by "
            "`python -m bench.pack_blocks CACHE VOCAB_FILE BLOCKS`, and carry the whole directory over"
        ) from error
    if not len(data.validation):
        raise UserError(f"{directory} holds no held-out example: make a cache with more HELD_OUT_FRACTION")
    if max(data.train.vocab_size, data.validation.vocab_size) > size:
        raise UserError(f"the ids of {directory} go beyond the {size} entries of its {VOCABULARY}: make it anew")
    return data


def recipe_for(options: argparse.Namespace, data: Data) -> models.Recipe:
    """The published recipe with this vocabulary's size and special ids, and this run's steps.

    Raises:
        UserError: the vocabulary lacks a special token.
    """
    recipe = models.recipe(options.model, dtype=options.dtype, fused=options.fused, prng=options.prng)
    tokens = data.vocabulary["tokens"]
    try:
        special = {f"{name.lower()}_id": tokens.index(f"[{name}]") for name in ("CLS", "SEP", "MASK")}
    except ValueError as error:
        raise UserError(f"{options.blocks / VOCABULARY} lacks a special token ({error}): make it anew") from error
    generator, discriminator = (
        dataclasses.replace(config, vocab_size=len(tokens))
        for config in (recipe.model.generator_config, recipe.model.discriminator_config)
    )
    return recipe._replace(
        model=recipe.model.clone(generator_config=generator, discriminator_config=discriminator),
        masking=dataclasses.replace(recipe.masking, **special),
        optimizer=dataclasses.replace(
            recipe.optimizer, num_warmup_steps=options.warmup_steps, num_train_steps=options.steps
        ),
    )


def loop_config(options: argparse.Namespace) -> LoopConfig:
    """When the loop does what; raises UserError as `LoopConfig` does."""
    return LoopConfig(
        num_train_steps=options.steps,
        log_every=options.log_every,
        evaluate_every=options.evaluate_every,
        save_every=options.save_every,
        keep=1,
        steps_per_dispatch=options.steps_per_dispatch,
    )


def facts_of(options: argparse.Namespace, recipe: models.Recipe, data: Data) -> dict[str, Any]:
    """What a file says of its arrays, but the step and the place in the data."""
    settings = ("model", "steps", "warmup_steps", "batch_size", "sequence_length", "dtype", "fused", "prng", "seed")
    return {
        **data.facts,
        "discriminator": dataclasses.asdict(recipe.model.discriminator_config),
        "generator": dataclasses.asdict(recipe.model.generator_config),
        "settings": {name: getattr(options, name) for name in settings},
    }


class File:
    """OUT/checkpoint.npz, as the loop sees its checkpoints: the newest alone, whole at every moment."""

    def __init__(self, out: Path, facts: dict[str, Any]) -> None:
        """Makes the directory; raises UserError if that cannot be."""
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{out} cannot be made ({error.strerror}): name another OUT") from error
        self.path = out / CHECKPOINT
        self._facts = facts
        self._latest: int | None = None

    def save(self, step: int, state: TrainState, data_state: dict[str, Any]) -> None:
        """Writes it; raises UserError if it cannot be written, and the one before is still there."""
        carried.write(self.path, state, {**self._facts, "step": step, "place": dict(data_state)})
        self._latest = step

    def wait(self) -> None:
        """A save is over when `save` returns."""

    def latest_step(self) -> int | None:
        """Of the file, as far as this process wrote or read it."""
        return self._latest

    def restore(self, abstract: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """The state in `abstract`'s shapes and places, and the file's facts; None where there is no file.

        Raises:
            UserError: it is damaged, of another model, or its place is in other blocks.
        """
        if not self.path.exists():
            return None
        held = carried.read(self.path)
        for name, what in (("data", "other blocks"), ("vocabulary", "another vocabulary")):
            if held.facts.get(name) != self._facts[name]:
                raise UserError(f"{self.path} was trained on {what}: give the BLOCKS of that run, or name another OUT")
        state = sharding.shard_like(carried.filled(abstract, held.arrays, self.path), abstract)
        self._latest = held.facts["step"]
        changed = [
            f"{name} {value}, before {held.facts['settings'].get(name)}"
            for name, value in self._facts["settings"].items()
            if value != held.facts["settings"].get(name)
        ]
        print(f"going on from step {self._latest} of {self.path}{': ' if changed else ''}{'; '.join(changed)}")
        return state, held.facts


def begin(
    options: argparse.Namespace, recipe: models.Recipe, file: File, batches: BlockBatches, mesh: jax.sharding.Mesh
) -> tuple[TrainState, int]:
    """The file's state, its place in the data taken up; or a new one, as `electra pretrain` makes it of the seed."""
    init = recipe.init(options.sequence_length)
    key = jax.random.key(options.seed)
    restored = file.restore(sharding.abstract(init, key, mesh, ONE_DEVICE))
    if restored is None:
        return sharding.initialise(init, key, mesh, ONE_DEVICE), 0
    state, facts = restored
    batches.restore(facts["place"])
    return state, facts["step"]


def held_out_metrics(
    options: argparse.Namespace, recipe: models.Recipe, data: Data, mesh: jax.sharding.Mesh
) -> Callable[[TrainState], dict[str, float]]:
    """A function of a state: its metrics on the first held-out examples."""
    sums = functools.partial(
        evaluation.evaluate_step,
        model=recipe.model,
        objective=recipe.objective,
        masking=recipe.masking,
        extra_metrics=None,
    )
    step = sharding.jit_forward(sums, mesh, ONE_DEVICE)

    def evaluate(state: TrainState) -> dict[str, float]:
        found = evaluation.held_out_sums(
            state.params,
            evaluation_batches(
                data.validation,
                batch_size=options.batch_size,
                sequence_length=options.sequence_length,
                process_index=0,
                process_count=1,
            ),
            step=step,
            sharding=sharding.batch_sharding(mesh),
            num_batches=math.ceil(EVALUATION_EXAMPLES / options.batch_size),
        )
        return evaluation.finish(found, recipe.objective.loss_weights)

    return evaluate


def setting_of(options: argparse.Namespace, recipe: models.Recipe) -> Setting:
    """What the run's health is judged with."""
    vocab_size = recipe.model.discriminator_config.vocab_size
    same = {
        "the model's size": options.model == "small",
        "the vocabulary's size": abs(vocab_size / PUBLISHED_VOCABULARY - 1) <= VOCABULARY_TOLERANCE,
        "the length": options.sequence_length == PUBLISHED_LENGTH,
    }
    return Setting(
        vocab_size=vocab_size,
        batch_size=options.batch_size,
        generator_learns=True,
        judges_every_token=True,
        differences=tuple(what for what, holds in same.items() if not holds),
    )


if __name__ == "__main__":
    sys.exit(main())

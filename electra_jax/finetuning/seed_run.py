"""Fine-tune with one seed: from the pre-trained weights to the checkpoint that counts, and its scores."""

import dataclasses
import functools
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from electra_jax.checkpoints import model_dir
from electra_jax.checkpoints.model_record import MODEL_KINDS, Description, per_token_outputs, read_model_record
from electra_jax.checkpoints.orbax_store import Checkpoints
from electra_jax.config.finetuning import FinetuningRun
from electra_jax.data.buckets import TrainingBatches
from electra_jax.data.forward import RowRunner
from electra_jax.distributed import processes
from electra_jax.distributed.processes import print_on_leader
from electra_jax.files import replace_file
from electra_jax.finetuning import steps as finetuning
from electra_jax.finetuning.class_weights import weights_of_classes
from electra_jax.finetuning.layers import Chosen
from electra_jax.finetuning.loss_weights import mean_weight, weighted
from electra_jax.finetuning.patience import Patience
from electra_jax.finetuning.results import collapse
from electra_jax.finetuning.seed_result import SeedResult, result_of, scores_of
from electra_jax.finetuning.selection import Parts, keeps
from electra_jax.finetuning.start import Origin, take_weights
from electra_jax.json_files import json_text, read_json, with_nan
from electra_jax.model.finetuned import FinetunedModel, Trainable, head_outputs
from electra_jax.model.types import PyTree
from electra_jax.monitoring.reporter import NullReporter, RunReporter, closing_after
from electra_jax.run_directory import CHECKPOINTS, KEPT, SEED_RESULT
from electra_jax.tasks.answering import fitted, predict_rows
from electra_jax.tasks.long_texts import CutCount
from electra_jax.tasks.protocol import VECTOR_KINDS, DownstreamTask, Prediction, Row
from electra_jax.training import sharding
from electra_jax.training.freezing import freeze
from electra_jax.training.loop import LoopConfig, train
from electra_jax.training.optimizer import OptimizerConfig, learning_rate, make_optimizer
from electra_jax.training.sharding import local_rows, to_device
from electra_jax.training.state import Batch, Sums, TrainState
from electra_jax.training.stop import Stop

# Arrays of a row that only the host reads.
HOST_ONLY = ("example", "window", "answer_mask", "num_tokens", "num_cut", "question_length")


class Split(NamedTuple):
    """Hold a split's examples and rows, the numbers of examples left out, by reason, and the count of cut ones."""

    examples: Sequence[Any]
    rows: list[Row]
    skipped: Mapping[str, int]
    count: CutCount


class Evaluated(NamedTuple):
    """Hold predictions for a part of the examples, their scores, and the task with what was fitted to predictions."""

    predictions: list[Prediction]
    scores: dict[str, float]
    task: DownstreamTask


@dataclasses.dataclass(frozen=True)
class SeedContext:
    """Hold everything that the seeds of a run share, compiled programs included."""

    run: FinetuningRun
    task: DownstreamTask
    origin: Origin
    train: Split
    parts: Parts[Split]
    mesh: Mesh
    model: Trainable
    chosen: Chosen | None = None

    @property
    def loop(self) -> LoopConfig:
        """The number of steps, and how often the run reports, evaluates and saves."""
        per_epoch = -(-len(self.train.rows) // self.run.batch_size)
        steps = max(1, int(per_epoch * self.run.num_epochs))
        return LoopConfig(
            num_train_steps=steps,
            log_every=self.run.log_every,
            evaluate_every=self.run.evaluate_every or min(per_epoch, steps),
            save_every=self.run.save_every,
            keep=1,
            # Batches are of different lengths.
            steps_per_dispatch=1,
        )

    @functools.cached_property
    def loss(self) -> finetuning.LossConfig:
        """The loss that is minimized."""
        run, kind = self.run, self.task.kind
        weights = weights_of_classes(run.class_weights, self.task, self.train.examples)
        divisor = 1.0 if run.loss_reduction == "sum" else run.batch_size * mean_weight(kind, self.train.rows, weights)
        return finetuning.LossConfig(kind, run.answerable_weight, divisor, weights, run.temperature)

    @functools.cached_property
    def optimizer_config(self) -> OptimizerConfig:
        """The optimizer's configuration, with a schedule over the steps of the whole run."""
        steps = self.loop.num_train_steps
        return self.run.optimizer(num_train_steps=steps, num_warmup_steps=steps * self.run.warmup_fraction)

    @functools.cached_property
    def optimizer(self) -> optax.GradientTransformation:
        """The optimizer that `optimizer_config` describes, which leaves frozen layers as they are."""
        rule, frozen_layers = make_optimizer(self.optimizer_config), self.run.frozen_layers
        return rule if frozen_layers is None else freeze(rule, frozen_layers)

    @functools.cached_property
    def abstract_state(self) -> TrainState:
        """The shapes, dtypes and shardings of a state."""
        return sharding.abstract(self.init, jax.random.key(0), self.mesh, self.run.mesh)

    def init(self, key: jax.Array) -> TrainState:
        """Return a new state, boxed with the logical axes of its parameters."""
        return finetuning.init_state(key, self.model, self.optimizer)

    @functools.cached_property
    def update(self) -> Callable[..., tuple[TrainState, Sums]]:
        """The jitted update, compiled once for all seeds."""
        step = functools.partial(
            finetuning.finetune_step,
            model=self.model,
            loss=self.loss,
            optimizer=self.optimizer,
            accumulation_steps=self.run.accumulation_steps,
        )
        return sharding.jit_updates(step, self.abstract_state, self.mesh, self.run.mesh)

    @functools.cached_property
    def _forward(self) -> Callable[[PyTree, Batch], Any]:
        """The jitted forward pass, compiled once for all seeds."""

        def forward(params: PyTree, batch: Batch) -> Any:
            return head_outputs(params, finetuning.tokens_of(batch), model=self.model)

        return sharding.jit_forward(forward, self.mesh, self.run.mesh)

    def runner(self, params: PyTree) -> RowRunner:
        """Return the runner of rows through the model with these parameters, over the mesh."""

        def launch(batch: Batch) -> Any:
            return self._forward(params, to_device(local_rows(batch, self.mesh), sharding.batch_sharding(self.mesh)))

        per_token = per_token_outputs(MODEL_KINDS[self.task.kind])
        return RowRunner(launch, per_token, self.run.evaluation_batch_size, self.buckets(self.task.length))

    def buckets(self, longest: int) -> list[int]:
        """Return the lengths to pad to, up to the longest."""
        return [*(bucket for bucket in self.run.buckets if bucket < longest), longest]

    def describe(self, task: DownstreamTask, facts: dict[str, Any]) -> Description:
        """Return the description of the fine-tuned model, with further facts for its card."""
        return Description(
            kind=MODEL_KINDS[task.kind],
            # Rows to predict may have padding anywhere, and only few rows share a length.
            discriminator=dataclasses.replace(self.model.config, attention="exact", scan_unroll=1),
            generator=None,
            generator_embeddings=False,
            head=self.model.head_config if isinstance(self.model, FinetunedModel) else None,
            # The head of replaced tokens has no labels: the labels of prompts are the task's.
            labels=task.labels if isinstance(self.model, FinetunedModel) else (),
            facts={
                "made by": "electra finetune",
                "task": task.describe(),
                "init from": self.run.init_from,
                "epochs": self.run.num_epochs,
                "batch size": self.run.batch_size,
                "learning rate": self.optimizer_config.learning_rate,
                **self.origin.source,
                **({} if self.chosen is None else {"vectors": self.chosen}),
                **facts,
            },
        )


def evaluate(context: SeedContext, params: PyTree) -> Evaluated:
    """Predict and score the watched part; thresholds that Gin leaves open are fitted to the predictions."""
    examples = context.parts.watched.examples
    found = evaluate_part(context, params, context.parts.watched, context.task)
    task, predictions = fitted(context.task, examples, found.predictions)
    return Evaluated(predictions, task.score(examples, predictions), task)


def evaluate_scored(context: SeedContext, params: PyTree, watched: Evaluated) -> dict[str, Evaluated]:
    """Predict and score the parts that a kept checkpoint is scored on; return them by name.

    Args:
        context: the context of the run.
        params: the parameters of the checkpoint.
        watched: their evaluation on the watched part, including a threshold that was fitted to it.
    """
    parts = context.parts
    return {
        name: watched if part is parts.watched else evaluate_part(context, params, part, watched.task)
        for name, part in parts.scored.items()
    }


def evaluate_part(context: SeedContext, params: PyTree, part: Split, task: DownstreamTask) -> Evaluated:
    """Predict and score a part of the examples."""
    predictions = predict_rows(task, part.examples, part.rows, context.runner(params), labels=task.labels)
    return Evaluated(predictions, task.score(part.examples, predictions), task)


class Kept:
    """Keep the checkpoint that counts as a model directory of its own, `SEED_DIR/best`, with its scores."""

    def __init__(self, context: SeedContext, directory: Path, seed: int, patience: Patience) -> None:
        """Read the score of the checkpoint that an interrupted run kept; `patience` receives each new score."""
        self._context, self._directory, self._seed = context, directory / KEPT, seed
        self._patience = patience
        self._score: float | None = None
        if self._directory.exists():
            # Earlier versions chose on other examples, and did not name them.
            chosen_by = read_model_record(self._directory).facts.get("chosen by", {})
            self._score = chosen_by.get(context.parts.watched_name)

    def __call__(self, params: PyTree, step: int) -> dict[str, float]:
        """Score the parameters after a step on the watched part, and keep them if `selection.keeps` says so."""
        watched = evaluate(self._context, params)
        main = self._context.task.main_metric
        score = watched.scores[main]
        self._patience.add(score)
        # A seed that stops early has no later step.
        last_step = step if self._patience.exhausted else self._context.loop.num_train_steps
        selection = self._context.run.selection
        if keeps(selection, metric=main, score=score, best=self._score, step=step, last_step=last_step):
            self._save(params, step, watched)
            self._score = score
        return watched.scores

    def _save(self, params: PyTree, step: int, watched: Evaluated) -> None:
        """Write a new directory, then rename it over the old one, which is there until then."""
        context, parts = self._context, self._context.parts
        scored = evaluate_scored(context, params, watched)
        headline = scored[parts.headline]
        facts = {
            "seed": self._seed,
            "step": step,
            "selection": context.run.selection,
            "chosen by": {parts.watched_name: watched.scores[context.task.main_metric]},
            "scores": headline.scores,
            "scores by split": {name: found.scores for name, found in scored.items()},
            "failed": collapse(headline.task, parts.scored[parts.headline].examples, headline.predictions),
        }
        part = self._directory.with_suffix(".part")
        processes.on_leader(make_empty, part)
        model_dir.write_model(
            part,
            context.describe(headline.task, facts),
            {"params": params},
            step=step,
            vocabulary=context.origin.vocabulary,
        )
        processes.on_leader(replace_directory, part, self._directory)


class FinetuningJob:
    """The `TrainingJob` of one seed."""

    def __init__(self, context: SeedContext, batches: TrainingBatches, kept: Kept) -> None:
        """Set up training on `batches`, with every evaluated state handed to `kept`."""
        self.mesh = context.mesh
        self._context, self._batches, self._kept = context, batches, kept

    def update(self, state: TrainState, batches: Batch) -> tuple[TrainState, Sums]:
        """Update the state with each of the stacked batches."""
        return self._context.update(state, batches)

    def finish(self, sums: dict[str, np.ndarray]) -> dict[str, float]:
        """Return the mean loss."""
        return {"loss": float(sums["loss"] / sums["loss_weight"])}

    def evaluate(self, state: TrainState) -> dict[str, float]:
        """Return the scores on the watched part, and keep the state if `selection.keeps` says so."""
        return self._kept(state.params, int(jax.device_get(state.step)))

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of an update, counted from 0."""
        return float(learning_rate(self._context.optimizer_config, step))

    def data_state(self) -> dict[str, Any]:
        """Return the place in the data."""
        return {"batches": self._batches.step}


def make_empty(directory: Path) -> None:
    """Make an empty directory in place of whatever was there."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)


def replace_directory(source: Path, directory: Path) -> None:
    """Rename a directory to another path, replacing whatever was there."""
    shutil.rmtree(directory, ignore_errors=True)
    source.rename(directory)


def run_seed(context: SeedContext, seed: int, directory: Path, stop: Stop) -> dict[str, Any] | None:
    """Train with one seed, resuming where it was interrupted; a finished seed resumes only if the run is longer now.

    Returns:
        The record of `SEED_DIR/result.json`; None if the run was asked to stop before the end.
    """
    finished, loop = directory / SEED_RESULT, context.loop
    if finished.exists():
        result = with_nan(read_json(finished, SeedResult, remedy="remove it, and this seed is trained again"))
        # EPOCHS may have been raised since.
        if result["steps"] >= loop.num_train_steps or result.get("stopped_early"):
            return result
    directory.mkdir(parents=True, exist_ok=True)
    checkpoints = Checkpoints(directory, keep=loop.keep)
    state, done = begin(context, seed, checkpoints)
    batches = training_batches(context, seed, done)
    main = context.task.main_metric
    columns = {
        "loss": ("loss", ".4f"),
        main: (main, ".2f"),
        "examples_per_second": ("ex/s", ".0f"),
        "data_wait_share": ("data wait", ".1%"),
    }
    reporter = (
        RunReporter(directory, start_step=done, num_train_steps=loop.num_train_steps, columns=columns)
        if processes.leader()
        else NullReporter()
    )
    # The reporter has dropped what an interrupted run reported after its checkpoint.
    earlier = () if context.run.patience is None else scores_of(directory, main)
    patience = Patience(context.run.patience, main, earlier=earlier, stop=stop)
    reached = done
    with closing_after(reporter):
        # A run that was killed after it had stopped early has nothing left to train.
        if not patience.exhausted:
            _, reached = train(
                FinetuningJob(context, batches, Kept(context, directory, seed, patience)),
                (local_rows(batch, context.mesh) for batch in batches),
                state,
                loop=loop,
                reporter=reporter,
                stop=patience,
                checkpoints=checkpoints,
            )
    checkpoints.close()
    if reached < loop.num_train_steps and not patience.exhausted:
        return None
    result = None
    early = reached < loop.num_train_steps
    if early:
        print_on_leader(f"seed {seed}: stopped at step {reached}, PATIENCE = {context.run.patience}")
    if processes.leader():
        result = result_of(directory, reached, main) | {"stopped_early": early}
        replace_file(finished, json_text(result), durable=True)
        if not context.run.keep_state:
            shutil.rmtree(directory / CHECKPOINTS)
    return processes.gather(result)[0]


def training_batches(context: SeedContext, seed: int, step: int) -> TrainingBatches:
    """Return the batches of a seed from a step on, without the arrays that only the host reads."""
    run, kind = context.run, context.task.kind
    rows = [
        {name: value for name, value in row.items() if name not in HOST_ONLY}
        for row in weighted(kind, context.train.rows)
    ]
    # Two texts per row, each as long as the task's rows.
    longest = context.task.length * (2 if kind in VECTOR_KINDS else 1)
    return TrainingBatches(rows, run.batch_size, context.buckets(longest), run.pool_batches, seed, step)


def begin(context: SeedContext, seed: int, checkpoints: Checkpoints) -> tuple[TrainState, int]:
    """Return the state to train from, and its step: this seed's own checkpoint, else INIT_FROM with a new head."""
    restored = checkpoints.restore(context.abstract_state)
    if restored is not None:
        print_on_leader(f"seed {seed}: resuming from step {restored.step}")
        return restored.state, restored.step
    state = sharding.initialise(context.init, jax.random.key(seed), context.mesh, context.run.mesh)
    layers = None if context.chosen is None else context.chosen["layer"]
    params = take_weights(context.run.init_from, state.params, quiet=seed != context.run.seed, layers=layers)
    print_on_leader(f"seed {seed}: {context.loop.num_train_steps} steps of {context.run.batch_size} rows")
    return state._replace(params=params), 0

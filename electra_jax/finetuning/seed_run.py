"""One run of fine-tuning: from the pre-trained weights to the best checkpoint on the dev split."""

import dataclasses
import functools
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from electra_jax.checkpoints import model_dir
from electra_jax.checkpoints.model_record import Description, read_record
from electra_jax.checkpoints.orbax_store import Checkpoints
from electra_jax.config.finetuning import FinetuningRun
from electra_jax.data.buckets import TrainingBatches, in_order_of_length
from electra_jax.distributed import processes
from electra_jax.files import replace_file
from electra_jax.finetuning import steps as finetuning
from electra_jax.finetuning.results import collapse
from electra_jax.finetuning.start import Origin, take_weights
from electra_jax.model.types import PyTree
from electra_jax.monitoring.reporter import RunReporter, Silence, say
from electra_jax.tasks.protocol import DownstreamTask, Prediction, Row
from electra_jax.training import sharding
from electra_jax.training.loop import LoopConfig, train
from electra_jax.training.optimizer import OptimizerConfig, learning_rate, make_optimizer
from electra_jax.training.sharding import local_rows, to_device
from electra_jax.training.state import Batch, Sums, TrainState
from electra_jax.training.stop import Stop

# What a row says to the host alone.
HOST_ONLY = ("example", "window", "answer_mask")
KINDS_OF_MODEL = {
    "classification": "sequence_classification",
    "regression": "regression",
    "tagging": "token_classification",
    "question_answering": "question_answering",
}
RESULT = "result.json"
BEST = "best"


class Split(NamedTuple):
    """The examples of a split, their rows, and how many examples were left out, by reason."""

    examples: Sequence[Any]
    rows: list[Row]
    skipped: Mapping[str, int]


class Evaluated(NamedTuple):
    """What a model says of the dev split: predictions, scores, and the task with what was fitted to them."""

    predictions: list[Prediction]
    scores: dict[str, float]
    task: DownstreamTask


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all seeds of a run share."""

    run: FinetuningRun
    task: DownstreamTask
    origin: Origin
    train: Split
    dev: Split
    mesh: Mesh
    model: finetuning.FinetunedModel

    @property
    def loop(self) -> LoopConfig:
        """How long, and when what happens."""
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
    def optimizer_config(self) -> OptimizerConfig:
        """The update rule over the steps that the training split makes."""
        steps = self.loop.num_train_steps
        return self.run.optimizer(num_train_steps=steps, num_warmup_steps=steps * self.run.warmup_fraction)

    @functools.cached_property
    def optimizer(self) -> optax.GradientTransformation:
        """Made of `optimizer_config`."""
        return make_optimizer(self.optimizer_config)

    @functools.cached_property
    def abstract_state(self) -> TrainState:
        """Shapes, dtypes and shardings of a state."""
        return sharding.abstract(self.init, jax.random.key(0), self.mesh, self.run.mesh)

    def init(self, key: jax.Array) -> TrainState:
        """A new state, boxed."""
        return finetuning.init_state(key, self.model, self.optimizer)

    @functools.cached_property
    def update(self) -> Callable[..., tuple[TrainState, Sums]]:
        """The jitted update, compiled once for all seeds."""
        loss = finetuning.LossConfig(self.task.kind, self.run.answerable_weight, self.run.loss_reduction)
        step = functools.partial(finetuning.finetune_step, model=self.model, loss=loss, optimizer=self.optimizer)
        return sharding.jit_updates(step, self.abstract_state, self.mesh, self.run.mesh)

    @functools.cached_property
    def predict(self) -> Callable[..., dict[str, jax.Array]]:
        """The jitted forward pass, compiled once for all seeds."""
        step = functools.partial(finetuning.predict_step, model=self.model)
        return sharding.jit_forward(step, self.mesh, self.run.mesh)

    def buckets(self) -> list[int]:
        """Lengths to pad to, up to the task's own."""
        return [*(bucket for bucket in self.run.buckets if bucket < self.task.length), self.task.length]

    def describe(self, task: DownstreamTask, facts: dict[str, Any]) -> Description:
        """What the fine-tuned model is made of."""
        return Description(
            kind=KINDS_OF_MODEL[task.kind],
            # Rows to predict may have their padding anywhere.
            discriminator=dataclasses.replace(self.model.config, attention="exact"),
            generator=None,
            generator_embeddings=False,
            head=self.model.head_config,
            labels=task.labels,
            facts={
                "made by": "electra finetune",
                "task": task.describe(),
                "init from": self.run.init_from,
                "epochs": self.run.num_epochs,
                "batch size": self.run.batch_size,
                "learning rate": self.optimizer_config.learning_rate,
                **facts,
            },
        )


def outputs_of_rows(setting: Setting, params: PyTree, rows: Sequence[Row]) -> list[dict[str, np.ndarray]]:
    """The head's outputs for each row, cut to its length; every row is scored, also those of the last batch."""
    found: list[dict[str, np.ndarray]] = [{} for _ in rows]
    per_token = {"start_logits", "end_logits"} | ({"logits"} if setting.task.kind == "tagging" else set())
    read = [{name: row[name] for name in ("input_ids", "token_type_ids")} for row in rows]
    batches = in_order_of_length(read, batch_size=setting.run.evaluation_batch_size, buckets=setting.buckets())
    for numbers, batch in batches:
        placed = to_device(local_rows(batch, setting.mesh), sharding.batch_sharding(setting.mesh))
        outputs = jax.device_get(setting.predict(params, placed))
        for slot, number in enumerate(numbers):
            length = len(read[number]["input_ids"])
            found[number] = {
                name: values[slot][:length] if name in per_token else values[slot] for name, values in outputs.items()
            }
    return found


def evaluate(setting: Setting, params: PyTree) -> Evaluated:
    """Predicts and scores the dev split; what a task fits to it, as a threshold that Gin does not set, is first."""
    examples, rows, _ = setting.dev
    task = setting.task
    predictions = task.predictions(examples, rows, outputs_of_rows(setting, params, rows))
    if task.kind == "question_answering" and task.null_threshold is None:
        threshold = task.fit_threshold(examples, predictions)
        task = dataclasses.replace(task, null_threshold=threshold)
        predictions = [dataclasses.replace(prediction, null_threshold=threshold) for prediction in predictions]
    return Evaluated(predictions, task.score(examples, predictions), task)


class Best:
    """Keeps the best checkpoint on the dev split as a model directory of its own, `SEED_DIR/best`."""

    def __init__(self, setting: Setting, directory: Path, seed: int) -> None:
        """Takes up what an interrupted run kept."""
        self._setting, self._directory, self._seed = setting, directory / BEST, seed
        self._step = 0
        self._score: float | None = None
        if self._directory.exists():
            self._score = read_record(self._directory).facts["scores"][setting.task.main_metric]

    def __call__(self, params: PyTree, step: int) -> dict[str, float]:
        """Scores the parameters after a step, and keeps them if none were better before: of equals the later."""
        found = evaluate(self._setting, params)
        score = found.scores[self._setting.task.main_metric]
        if self._score is None or score >= self._score:
            self._save(params, step, found)
            self._score = score
        return found.scores

    def _save(self, params: PyTree, step: int, found: Evaluated) -> None:
        """Writes beside the place, then renames: what was best before is there until then."""
        gold = self._setting.dev.examples
        facts = {
            "seed": self._seed,
            "step": step,
            "scores": found.scores,
            "failed": collapse(found.task, gold, found.predictions),
        }
        part = self._directory.with_suffix(".part")
        processes.on_leader(make_empty, part)
        model_dir.write_model(
            part,
            self._setting.describe(found.task, facts),
            {"params": params},
            step=step,
            vocabulary=self._setting.origin.vocabulary,
        )
        processes.on_leader(replace_directory, part, self._directory)


class FinetuningJob:
    """One seed's `TrainingJob`."""

    def __init__(self, setting: Setting, batches: TrainingBatches, best: Best) -> None:
        """Trains on `batches`, and hands every evaluated state to `best`."""
        self.mesh = setting.mesh
        self._setting, self._batches, self._best = setting, batches, best

    def update(self, state: TrainState, batches: Batch) -> tuple[TrainState, Sums]:
        """Update the state by each of the stacked batches."""
        return self._setting.update(state, batches)

    def finish(self, sums: dict[str, np.ndarray]) -> dict[str, float]:
        """Return the mean loss."""
        return {"loss": float(sums["loss"] / sums["loss_weight"])}

    def evaluate(self, state: TrainState) -> dict[str, float]:
        """Return the scores of the dev split, and keep the state where it is the best so far."""
        return self._best(state.params, int(jax.device_get(state.step)))

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of an update, counted from 0."""
        return float(learning_rate(self._setting.optimizer_config, step))

    def data_state(self) -> dict[str, Any]:
        """Return the place in the data."""
        return {"batches": self._batches.step}


def make_empty(directory: Path) -> None:
    """A new directory, whatever stood there."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)


def replace_directory(source: Path, directory: Path) -> None:
    """Renames over what stood there."""
    shutil.rmtree(directory, ignore_errors=True)
    source.rename(directory)


def run_seed(setting: Setting, seed: int, directory: Path, stop: Stop) -> dict[str, Any] | None:
    """Trains with one seed, or goes on with it; what is finished is not done again.

    Returns:
        The record of `SEED_DIR/result.json`; None if asked to stop before the end.
    """
    finished = directory / RESULT
    if finished.exists():
        return json.loads(finished.read_text(encoding="utf-8"))
    directory.mkdir(parents=True, exist_ok=True)
    loop = setting.loop
    checkpoints = Checkpoints(directory, keep=loop.keep)
    state, done = begin(setting, seed, checkpoints)
    rows = [{name: value for name, value in row.items() if name not in HOST_ONLY} for row in setting.train.rows]
    batches = TrainingBatches(rows, setting.run.batch_size, setting.buckets(), seed, done)
    main = setting.task.main_metric
    columns = {
        "loss": ("loss", ".4f"),
        main: (main, ".2f"),
        "examples_per_second": ("ex/s", ".0f"),
        "data_wait_share": ("data wait", ".1%"),
    }
    reporter = (
        RunReporter(directory, start_step=done, num_train_steps=loop.num_train_steps, columns=columns)
        if processes.leader()
        else Silence()
    )
    try:
        _, reached = train(
            FinetuningJob(setting, batches, Best(setting, directory, seed)),
            (local_rows(batch, setting.mesh) for batch in batches),
            state,
            loop=loop,
            reporter=reporter,
            stop=stop,
            checkpoints=checkpoints,
        )
    finally:
        reporter.close()
    checkpoints.close()
    if reached < loop.num_train_steps:
        return None
    result = None
    if processes.leader():
        result = result_of(directory, reached, setting.task.main_metric)
        replace_file(finished, json.dumps(result, indent=1) + "\n")
        shutil.rmtree(directory / "checkpoints")
    return processes.gather(result)[0]


def begin(setting: Setting, seed: int, checkpoints: Checkpoints) -> tuple[TrainState, int]:
    """Where the weights come from: this seed's own checkpoint, else INIT_FROM with a head drawn from the seed."""
    restored = checkpoints.restore(setting.abstract_state)
    if restored is not None:
        say(f"seed {seed}: going on from step {restored.step}")
        return restored.state, restored.step
    state = sharding.initialise(setting.init, jax.random.key(seed), setting.mesh, setting.run.mesh)
    params = take_weights(setting.run.init_from, state.params, quiet=seed != setting.run.seed)
    say(f"seed {seed}: {setting.loop.num_train_steps} steps of {setting.run.batch_size} rows")
    return state._replace(params=params), 0


def result_of(directory: Path, steps: int, main_metric: str) -> dict[str, Any]:
    """What is reported of a seed: its best checkpoint, and the curve on the dev split."""
    facts = read_record(directory / BEST).facts
    lines = map(json.loads, (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    curve = [
        {name: value for name, value in line.items() if name != "split"}
        for line in lines
        if line["split"] == "validation"
    ]
    return {
        "seed": facts["seed"],
        "steps": steps,
        "best_step": facts["step"],
        "metrics": facts["scores"],
        "failed": facts["failed"],
        "curve": [{"step": point["step"], main_metric: point[main_metric]} for point in curve],
    }

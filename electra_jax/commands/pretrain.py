"""`electra pretrain`: opens the data and the checkpoints of a run, and hands them to the training loop."""

import functools
import math
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from electra_jax.checkpoints.model_dir import write_run_model
from electra_jax.checkpoints.run_record import write_run_record
from electra_jax.checkpoints.run_start import begin
from electra_jax.config import gin_files
from electra_jax.config.data import PretrainingData, share_data, vocabulary_for
from electra_jax.config.pretraining import PretrainingRun
from electra_jax.config.resuming import data_state
from electra_jax.data.batches import Prefetch
from electra_jax.distributed import processes
from electra_jax.distributed.owner import owning_model_dir
from electra_jax.distributed.processes import print_on_leader
from electra_jax.distributed.stop_signals import end_early, stop_signals
from electra_jax.files import path_of
from electra_jax.monitoring.watch import describe_run, open_reporter, warn_of_warmup
from electra_jax.pretraining import evaluation, metrics
from electra_jax.pretraining.steps import PretrainingSetup
from electra_jax.runtime import keep_compilations
from electra_jax.training import sharding
from electra_jax.training.loop import train
from electra_jax.training.optimizer import learning_rate
from electra_jax.training.state import Batch, Sums, TrainState

# The number of dispatches whose batches are read ahead of the device.
DISPATCHES_AHEAD = 4


@owning_model_dir("electra pretrain")
def run(configuration: PretrainingRun) -> None:
    """Train until the last step or until asked to stop; the same command resumes the run."""
    keep_compilations()
    mesh = sharding.make_mesh(configuration.mesh, len(jax.devices()))
    for stage in configuration.batch_shapes.stages:
        sharding.check_batch(stage.shape.batch_size, configuration.accumulation_steps, mesh)
    vocabulary = vocabulary_for(configuration.cache, configuration.encoder)
    setup = configuration.setup(vocabulary)
    sharding.check_model(jax.eval_shape(setup.init, jax.random.key(configuration.seed)), mesh, configuration.mesh)
    data = share_data(configuration, vocabulary, mesh)
    checkpoints, state, weights = begin(configuration, setup, mesh, data)
    model_dir, last_step = path_of(configuration.model_dir), configuration.loop.num_train_steps
    start_step = int(jax.device_get(state.step))
    if start_step >= last_step:
        print_on_leader(nothing_left(configuration, start_step))
        return
    if processes.leader():
        facts = describe_run(configuration, state.params, corpus=data.name)
        write_run_record(model_dir, gin_files.resolved(), facts, weights=weights)
        write_run_model(configuration, state.params, vocabulary)
        warn_of_warmup(configuration)
    ahead = DISPATCHES_AHEAD * configuration.loop.steps_per_dispatch
    with (
        stop_signals() as stop,
        Prefetch(data.train, depth=ahead) as batches,
        open_reporter(configuration, start_step, data.epochs) as reporter,
    ):
        _, reached = train(
            PretrainingJob(configuration, setup, state, mesh, data, batches),
            batches,
            state,
            loop=configuration.loop,
            shape_changes=configuration.batch_shapes.changes,
            reporter=reporter,
            stop=stop,
            checkpoints=checkpoints,
        )
        checkpoints.close()
    if reached < last_step:
        end_early(stop, f" at step {reached}")
    else:
        print_on_leader(f"done: {reached} steps in {model_dir}")


def nothing_left(configuration: PretrainingRun, step: int) -> str:
    """Return the message for a run that has completed all its steps: TRAIN_STEPS counts from the first start."""
    model_dir, last_step = configuration.model_dir, configuration.loop.num_train_steps
    if step == last_step:
        return f"{model_dir} has had its {last_step} steps: nothing left to do"
    return (
        f"{model_dir} has had {step} steps, and TRAIN_STEPS is {last_step}, which counts from its first one: nothing "
        f"left to do; for {last_step} more, set TRAIN_STEPS to {step + last_step}, or start again in another MODEL_DIR "
        f"with --gin.INIT_FROM='\"{model_dir}\"'"
    )


class PretrainingJob:
    """The `TrainingJob` of a pre-training run."""

    def __init__(
        self,
        configuration: PretrainingRun,
        setup: PretrainingSetup,
        state: TrainState,
        mesh: Mesh,
        data: PretrainingData,
        batches: Prefetch,
    ) -> None:
        """Jit the steps of the run; `state` gives shapes and shardings, `batches` are read ahead of the device."""
        self.mesh = mesh
        self._configuration, self._data, self._batches = configuration, data, batches
        self._update = sharding.jit_updates(setup.update, state, mesh, configuration.mesh)
        evaluate = functools.partial(
            evaluation.evaluate_step,
            model=setup.model,
            objective=setup.objective,
            masking=setup.masking,
            accumulation_steps=setup.accumulation_steps,
            extra_metrics=configuration.pretraining_rules.extra_metrics,
        )
        self._evaluate = sharding.jit_forward(evaluate, mesh, configuration.mesh)

    def update(self, state: TrainState, batches: Batch) -> tuple[TrainState, Sums]:
        """Update the state by each of the stacked batches (`pretraining.steps.pretrain_step`)."""
        return self._update(state, batches)

    def finish(self, sums: dict[str, np.ndarray]) -> dict[str, float]:
        """Return the training metrics of summed sums."""
        return metrics.finish(sums, self._configuration.objective.loss_weights)

    def evaluate(self, state: TrainState) -> dict[str, float]:
        """Return the metrics of the first `num_evaluation_examples` held-out examples; {} if no text is held out."""
        run = self._configuration
        sums = evaluation.held_out_sums(
            state.params,
            self._data.held_out(),
            step=self._evaluate,
            sharding=sharding.batch_sharding(self.mesh),
            num_batches=math.ceil(run.num_evaluation_examples / run.batch_size),
        )
        return evaluation.finish(sums, run.objective.loss_weights, run.pretraining_rules.extra_metrics) if sums else {}

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of an update, counted from 0."""
        return float(learning_rate(self._configuration.optimizer, step))

    def data_state(self) -> dict[str, Any]:
        """Return the place in the data, for a checkpoint."""
        return data_state(self._configuration, self._batches.state(), self._data)

"""`electra pretrain`: opens the data and the checkpoints of a run, and hands them to the training loop."""

import math
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from electra_jax.checkpoints.run_record import write_record
from electra_jax.config import gin_files
from electra_jax.config.data import PretrainingData, share_data, vocabulary_for
from electra_jax.config.pretraining import PretrainingRun
from electra_jax.data.batches import Prefetch, whole_state
from electra_jax.distributed import processes
from electra_jax.distributed.stop_signals import end_early, stop_signals
from electra_jax.files import path_of
from electra_jax.monitoring.reporter import say
from electra_jax.monitoring.watch import describe_run
from electra_jax.pretraining import evaluation, metrics
from electra_jax.pretraining.steps import PretrainingSetup
from electra_jax.runtime import keep_compilations
from electra_jax.tasks.vocabulary import WordPieceVocabulary
from electra_jax.training import sharding
from electra_jax.training.loop import train
from electra_jax.training.optimizer import learning_rate
from electra_jax.training.state import Batch, Sums, TrainState

# Batches of so many dispatches are read ahead of the device.
DISPATCHES_AHEAD = 4


def run(configuration: PretrainingRun) -> None:
    """Train until the last step or until asked to stop; the same command resumes the run."""
    keep_compilations()
    mesh = sharding.make_mesh(configuration.mesh, len(jax.devices()))
    sharding.check_batch(configuration.batch_size, configuration.accumulation_steps, mesh)
    vocabulary = vocabulary_for(configuration.cache, configuration.encoder)
    setup = configuration.setup(vocabulary)
    sharding.check_model(jax.eval_shape(setup.init, jax.random.key(configuration.seed)), mesh, configuration.mesh)
    data = share_data(configuration, vocabulary, mesh)
    checkpoints, state = begin(configuration, setup, mesh, data, vocabulary)
    model_dir, num_train_steps = path_of(configuration.model_dir), configuration.loop.num_train_steps
    if processes.leader():
        write_record(model_dir, gin_files.resolved(), describe_run(configuration, state.params, corpus=data.name))
    if int(jax.device_get(state.step)) >= num_train_steps:
        say(f"{model_dir} has had its {num_train_steps} steps: nothing left to do")
        return
    reporter = open_reporter(configuration, start_step=int(jax.device_get(state.step)))
    ahead = DISPATCHES_AHEAD * configuration.loop.steps_per_dispatch
    with stop_signals() as stop, Prefetch(data.train, depth=ahead) as batches:
        try:
            _, reached = train(
                PretrainingJob(configuration, setup, state, mesh, data, batches, vocabulary),
                batches,
                state,
                loop=configuration.loop,
                reporter=reporter,
                stop=stop,
                checkpoints=checkpoints,
            )
        finally:
            reporter.close()
        checkpoints.close()
    if reached < num_train_steps:
        end_early(stop, f" at step {reached}")
    else:
        say(f"done: {reached} steps in {model_dir}")


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
        vocabulary: WordPieceVocabulary,
    ) -> None:
        """Jit the steps of the run.

        Args:
            configuration: the run.
            setup: model, objective, masking and update rule.
            state: gives the shapes and shardings of the states to update.
            mesh: devices.
            data: held-out examples, and the kind of data for checkpoints.
            batches: training batches, read ahead.
            vocabulary: identified in checkpoints.
        """
        self.mesh = mesh
        self._configuration, self._data, self._batches, self._vocabulary = configuration, data, batches, vocabulary
        self._update = sharding.jit_updates(setup.update, state, mesh, configuration.mesh)
        self._evaluate = sharding.jit_forward(setup.evaluate, mesh, configuration.mesh)

    def update(self, state: TrainState, batches: Batch) -> tuple[TrainState, Sums]:
        """Update the state by each of the stacked batches (`pretraining.steps.pretrain_step`)."""
        return self._update(state, batches)

    def finish(self, sums: dict[str, np.ndarray]) -> dict[str, float]:
        """Return the training metrics of summed sums."""
        return metrics.finish(sums, self._configuration.objective.loss_weights)

    def evaluate(self, state: TrainState) -> dict[str, float]:
        """Return the metrics of the first `num_evaluation_examples` held-out examples."""
        run = self._configuration
        sums = evaluation.held_out_sums(
            state.params,
            self._data.held_out(),
            step=self._evaluate,
            sharding=sharding.batch_sharding(self.mesh),
            num_batches=math.ceil(run.num_evaluation_examples / run.batch_size),
        )
        return evaluation.finish(sums, run.objective.loss_weights)

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of an update, counted from 0."""
        return float(learning_rate(self._configuration.optimizer, step))

    def data_state(self) -> dict[str, Any]:
        """Return the place of all processes in the data, and what data and vocabulary it belongs to."""
        return {
            "batches": whole_state(processes.gather(self._batches.state())),
            "kind": self._data.kind,
            "vocabulary": self._vocabulary.fingerprint,
        }

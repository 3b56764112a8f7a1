"""`electra pretrain`: opens the data and the checkpoints of a run, and hands them to the training loop."""

import functools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from electra_jax.checkpoints.model_dir import write_run_model
from electra_jax.checkpoints.orbax_store import Checkpoints, complete_steps
from electra_jax.checkpoints.run_record import write_run_record
from electra_jax.checkpoints.warm_start import initialize_from
from electra_jax.config import gin_files
from electra_jax.config.data import PretrainingData, share_data, vocabulary_for
from electra_jax.config.pretraining import PretrainingRun
from electra_jax.config.resuming import data_state, resume_data
from electra_jax.data.batches import Prefetch
from electra_jax.distributed import processes
from electra_jax.distributed.owner import owning_model_dir
from electra_jax.distributed.processes import print_on_leader
from electra_jax.distributed.stop_signals import end_early, stop_signals
from electra_jax.files import path_of
from electra_jax.monitoring.metrics_file import read_rows
from electra_jax.monitoring.reporter import NullReporter, RunReporter, closing_after
from electra_jax.monitoring.watch import Watched, describe_run, setting_of
from electra_jax.pretraining import evaluation, metrics
from electra_jax.pretraining.steps import PretrainingSetup
from electra_jax.run_directory import CHECKPOINTS, METRICS
from electra_jax.runtime import keep_compilations
from electra_jax.training import sharding
from electra_jax.training.loop import train
from electra_jax.training.meter import Reporter
from electra_jax.training.optimizer import learning_rate
from electra_jax.training.state import Batch, Sums, TrainState

# Batches of so many dispatches are read ahead of the device.
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
        print_on_leader(f"{model_dir} has had its {last_step} steps: nothing left to do")
        return
    if processes.leader():
        facts = describe_run(configuration, state.params, corpus=data.name)
        write_run_record(model_dir, gin_files.resolved(), facts, weights=weights)
        write_run_model(configuration, state.params, vocabulary)
    ahead = DISPATCHES_AHEAD * configuration.loop.steps_per_dispatch
    with (
        stop_signals() as stop,
        Prefetch(data.train, depth=ahead) as batches,
        open_reporter(configuration, start_step) as reporter,
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


class Beginning(NamedTuple):
    """The checkpoints of a run, the state that training starts from, and where its weights were taken from, if so."""

    checkpoints: Checkpoints
    state: TrainState
    weights: dict[str, Any] | None


def begin(configuration: PretrainingRun, setup: PretrainingSetup, mesh: Mesh, data: PretrainingData) -> Beginning:
    """Open MODEL_DIR, and return its checkpoints and the state that training starts from.

    Raises:
        UserError: if the checkpoint belongs to another model, vocabulary or kind of data, or the weights of INIT_FROM
            cannot be used; MODEL_DIR is not created then.
    """
    # Where the weights come from:
    # 1. From the newest sound checkpoint in MODEL_DIR, with the optimizer, the step, the key and the place in the data.
    #    A pair that `electra import` wrote there has no place in the data yet, and starts at the beginning.
    # 2. Otherwise from one tower that `electra import` wrote there, or else from INIT_FROM, with a new optimizer and
    #    step 0. Weights that the source lacks are drawn from SEED.
    # 3. Otherwise from SEED.
    key = jax.random.key(configuration.seed)
    checkpoints, source = None, configuration.init_from
    if processes.gather(complete_steps(path_of(configuration.model_dir) / CHECKPOINTS))[0]:
        checkpoints, source = open_checkpoints(configuration), configuration.model_dir
        restored = checkpoints.restore(sharding.abstract(setup.init, key, mesh, configuration.mesh))
        if restored is not None:
            if restored.data_state:
                resume_data(configuration, data, restored.data_state, step=restored.step)
                print_on_leader(f"resuming from step {restored.step} of {source}")
            else:
                print_on_leader(f"starting from the weights that were imported into {source}")
            return Beginning(checkpoints, restored.state, None)
    state = sharding.initialise(setup.init, key, mesh, configuration.mesh)
    weights = None
    if source is not None:
        taken = initialize_from(
            state.params,
            path_of(source),
            data.vocabulary,
            encoder=configuration.encoder,
            map_vocabulary=configuration.map_vocabulary,
        )
        if configuration.phases_config.ready:
            taken.check_generator(configuration.embedding_sharing)
        print_on_leader(str(taken))
        state, weights = state._replace(params=taken.params), taken.record
    return Beginning(open_checkpoints(configuration) if checkpoints is None else checkpoints, state, weights)


def open_checkpoints(configuration: PretrainingRun) -> Checkpoints:
    """Create MODEL_DIR where there is none, check that all processes share it, and open its checkpoints."""
    model_dir = path_of(configuration.model_dir)
    if processes.leader():
        model_dir.mkdir(parents=True, exist_ok=True)
    processes.check_shared(model_dir)
    return Checkpoints(model_dir, keep=configuration.loop.keep)


@contextmanager
def open_reporter(configuration: PretrainingRun, start_step: int) -> Iterator[Reporter]:
    """Open the leader's reporter, which also watches the run's health; the other processes report nothing."""
    if not processes.leader():
        yield NullReporter()
        return
    model_dir = path_of(configuration.model_dir)
    reporter = RunReporter(model_dir, start_step=start_step, num_train_steps=configuration.loop.num_train_steps)
    # By now the reporter has dropped the lines of steps that will run again.
    lines = read_rows(model_dir / METRICS)
    with closing_after(reporter):
        yield Watched(reporter, setting_of(configuration), lines)


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
        """Return the metrics of the first `num_evaluation_examples` held-out examples; none where none is held out."""
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

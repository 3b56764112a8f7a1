"""Start a pre-training run: from its own checkpoint, from the weights of another model, or from SEED."""

from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from electra_jax.checkpoints.orbax_store import Checkpoints, complete_steps, has_place
from electra_jax.checkpoints.warm_start import initialize_from
from electra_jax.config.data import PretrainingData
from electra_jax.config.pretraining import PretrainingRun
from electra_jax.config.resuming import resume_data
from electra_jax.distributed import processes
from electra_jax.distributed.processes import print_on_leader
from electra_jax.files import path_of
from electra_jax.pretraining.steps import PretrainingSetup
from electra_jax.run_directory import CHECKPOINTS
from electra_jax.training import sharding
from electra_jax.training.state import TrainState


class Beginning(NamedTuple):
    """The checkpoints of a run, the state that training starts from, and where its weights are from, if anywhere."""

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
            if has_place(restored.data_state):
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
            extend_positions=configuration.extend_positions,
        )
        if configuration.phases_config.ready:
            taken.check_generator(configuration.embedding_sharing)
        print_on_leader(str(taken))
        state, weights = state._replace(params=taken.params), taken.record
    return Beginning(open_checkpoints(configuration) if checkpoints is None else checkpoints, state, weights)


def open_checkpoints(configuration: PretrainingRun) -> Checkpoints:
    """Create MODEL_DIR if there is none, check that all processes share it, and open its checkpoints."""
    model_dir = path_of(configuration.model_dir)
    if processes.leader():
        model_dir.mkdir(parents=True, exist_ok=True)
    processes.check_shared(model_dir)
    return Checkpoints(model_dir, keep=configuration.loop.keep)

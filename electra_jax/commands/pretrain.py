"""`electra pretrain`: builds the edges of a run and hands them to the loop."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import numpy as np
import optax
from etils import epath
from jax.sharding import Mesh

from electra_jax.checkpoints import model_dir as loading
from electra_jax.checkpoints.orbax_store import Checkpoints, complete_steps, named_shapes
from electra_jax.checkpoints.run_record import write_record
from electra_jax.config import gin_files
from electra_jax.config.data import PretrainingData, open_data, vocabulary_for
from electra_jax.config.pretraining import PretrainingRun
from electra_jax.data.batches import Prefetch, State, whole_state
from electra_jax.distributed import processes
from electra_jax.distributed.stop_signals import end_early, stop_signals
from electra_jax.errors import UserError
from electra_jax.files import path_of
from electra_jax.model.types import PyTree
from electra_jax.monitoring.reporter import RunReporter, Silence, say
from electra_jax.monitoring.watch import Watched, setting_of
from electra_jax.pretraining import evaluation, metrics, steps
from electra_jax.pretraining.corruption import MaskingConfig
from electra_jax.reports.page import parse_lines, read_if_there
from electra_jax.runtime import keep_compilations
from electra_jax.tasks.vocabulary import WordPieceVocabulary
from electra_jax.training import sharding
from electra_jax.training.loop import Reporter, train
from electra_jax.training.optimizer import learning_rate, make_optimizer

DISPATCHES_AHEAD = 4


class Start(NamedTuple):
    """Where a run begins: a state on the mesh, and the updates it has had."""

    state: steps.TrainState
    step: int


def run(configuration: PretrainingRun) -> None:
    """Trains until the last step, or until asked to stop; the same command goes on from there."""
    keep_compilations()
    mesh = sharding.make_mesh(configuration.mesh, len(jax.devices()))
    sharding.check_batch(configuration.batch_size, configuration.accumulation_steps, mesh)
    optimizer = make_optimizer(configuration.optimizer)
    init = init_of(configuration, optimizer)
    sharding.check_model(jax.eval_shape(init, jax.random.key(configuration.seed)), mesh, configuration.mesh)
    vocabulary = vocabulary_for(configuration.cache, configuration.encoder)
    masking = masking_for(configuration, vocabulary)
    data = share_data(configuration, vocabulary, mesh)
    model_dir = path_of(configuration.model_dir)
    checkpoints, start = begin(configuration, mesh, init, data, vocabulary)
    if processes.leader():
        write_record(model_dir, gin_files.resolved(), describe(start.state.params, data, configuration))
    if start.step >= configuration.loop.num_train_steps:
        say(f"{model_dir} has had its {configuration.loop.num_train_steps} steps: nothing left to do")
        return
    reporter = (
        RunReporter(model_dir, start_step=start.step, num_train_steps=configuration.loop.num_train_steps)
        if processes.leader()
        else Silence()
    )
    update = update_of(configuration, masking, optimizer)
    ahead = DISPATCHES_AHEAD * configuration.loop.steps_per_dispatch
    with stop_signals() as stop, Prefetch(data.train, depth=ahead) as batches:
        try:
            _, reached = train(
                start.state,
                start_step=start.step,
                step=sharding.jit_update(update, start.state, mesh, configuration.mesh),
                several=sharding.jit_updates(update, start.state, mesh, configuration.mesh),
                batches=batches,
                batch_sharding=sharding.batch_sharding(mesh),
                batch_size=configuration.batch_size,
                checkpoints=checkpoints,
                data_state=lambda: data_state(batches.state(), data, vocabulary),
                reporter=watched(reporter, configuration),
                finish=functools.partial(metrics.finish, loss_weights=configuration.objective.loss_weights),
                learning_rate=lambda count: float(learning_rate(configuration.optimizer, count)),
                evaluate=held_out_metrics(configuration, masking, data, mesh),
                config=configuration.loop,
                stop=stop,
            )
        finally:
            reporter.close()
        checkpoints.close()
    if reached < configuration.loop.num_train_steps:
        end_early(stop, f" at step {reached}")
    else:
        say(f"done: {reached} steps in {model_dir}")


def watched(reporter: RunReporter | Silence, configuration: PretrainingRun) -> Reporter:
    """The reporter, and where it speaks for the run, the run's health with it."""
    if isinstance(reporter, Silence):
        return reporter
    metrics_file = path_of(configuration.model_dir) / "metrics.jsonl"
    # Opening it, the reporter dropped the lines of steps that will be run again.
    return Watched(reporter, setting_of(configuration), parse_lines(read_if_there(metrics_file), metrics_file))


def update_of(
    configuration: PretrainingRun, masking: MaskingConfig, optimizer: optax.GradientTransformation
) -> Callable[[steps.TrainState, steps.Batch], tuple[steps.TrainState, metrics.Sums]]:
    """The update of a state by a batch."""
    return functools.partial(
        steps.pretrain_step,
        model=configuration.model,
        objective=configuration.objective,
        masking=masking,
        optimizer=optimizer,
        accumulation_steps=configuration.accumulation_steps,
        weight_schedule=configuration.weight_schedule,
    )


def init_of(
    configuration: PretrainingRun, optimizer: optax.GradientTransformation
) -> Callable[[jax.Array], steps.TrainState]:
    """Makes a new run's boxed state from a key."""
    return functools.partial(
        steps.init_state,
        model=configuration.model,
        optimizer=optimizer,
        sequence_length=configuration.cache.sequence_length,
    )


def share_data(configuration: PretrainingRun, vocabulary: WordPieceVocabulary, mesh: Mesh) -> PretrainingData:
    """What this process reads; a corpus is tokenised by process 0, unless another machine has its own caches.

    Raises:
        UserError: no such corpus, or the processes found different text or vocabularies under the same names.
    """
    index, count = sharding.process_share(mesh)
    with processes.leader_first():
        data = open_data(configuration, vocabulary, process_index=index, process_count=count)
    processes.agree(
        "the data", {"the vocabulary": vocabulary.fingerprint, "the kind": data.kind, "the text": data.fingerprint}
    )
    return data


def masking_for(configuration: PretrainingRun, vocabulary: WordPieceVocabulary) -> MaskingConfig:
    """The masking with the vocabulary's special ids."""
    return configuration.masking_config(cls_id=vocabulary.cls_id, sep_id=vocabulary.sep_id, mask_id=vocabulary.mask_id)


def begin(
    configuration: PretrainingRun,
    mesh: Mesh,
    init: Callable[[jax.Array], steps.TrainState],
    data: PretrainingData,
    vocabulary: WordPieceVocabulary,
) -> tuple[Checkpoints, Start]:
    """Opens MODEL_DIR, and decides where the weights come from.

    1. The newest sound checkpoint in MODEL_DIR: parameters, optimizer, step, key and the place in the data; the pair
       that `electra import` wrote there has no place in the data yet, and starts at its beginning.
    2. Otherwise the weights of one tower that `electra import` wrote there, or else those of INIT_FROM, with the
       optimizer and the step of a new run; what they lack is new, from the seed.
    3. Otherwise new weights from the seed.

    Raises:
        UserError: the checkpoint is of another model, vocabulary or kind of data; or INIT_FROM cannot be used, and then
            MODEL_DIR is not made.
    """
    key = jax.random.key(configuration.seed)

    def new(source: str | None) -> Start:
        state = sharding.initialise(init, key, mesh, configuration.mesh)
        return Start(state if source is None else warm(state, path_of(source), vocabulary), 0)

    if not processes.gather(complete_steps(path_of(configuration.model_dir) / "checkpoints"))[0]:
        start = new(configuration.init_from)
        return open_checkpoints(configuration), start
    checkpoints = open_checkpoints(configuration)
    restored = checkpoints.restore(sharding.abstract(init, key, mesh, configuration.mesh))
    if restored is None:
        return checkpoints, new(configuration.model_dir)
    start, held = Start(restored.state, restored.step), restored.data_state
    if not held:
        say(f"going on from the weights that were imported into {configuration.model_dir}")
        return checkpoints, start
    if held["vocabulary"] != vocabulary.fingerprint:
        raise UserError(
            f"the checkpoint of step {restored.step} in {configuration.model_dir} was trained with another vocabulary "
            f"than {configuration.cache.vocab_file}: name the one it was trained with, or use another MODEL_DIR"
        )
    if held["kind"] != data.kind:
        raise UserError(
            f"the checkpoint of step {restored.step} in {configuration.model_dir} read {held['kind']} and this run "
            f"reads {data.kind}, where its place means nothing: use the same CORPUS, MASKING and PACKING, or another "
            "MODEL_DIR"
        )
    data.train.restore(held["batches"])
    say(f"going on from step {restored.step} of {configuration.model_dir}")
    return checkpoints, start


def open_checkpoints(configuration: PretrainingRun) -> Checkpoints:
    """Makes MODEL_DIR where it is not there, sees that it is the same for all processes, and opens its checkpoints."""
    model_dir = path_of(configuration.model_dir)
    if processes.leader():
        model_dir.mkdir(parents=True, exist_ok=True)
    processes.check_shared(model_dir)
    return Checkpoints(model_dir, keep=configuration.loop.keep)


def warm(state: steps.TrainState, source: epath.Path, vocabulary: WordPieceVocabulary) -> steps.TrainState:
    """A new state with the weights of a model directory, as far as it has them; says what was taken.

    Raises:
        UserError: it is no model directory, is of other sizes, or has another vocabulary.
    """
    loading.check_directory(source)
    found = loading.read_vocabulary(source)
    if found is not None and found.tokens != vocabulary.tokens:
        raise UserError(f"{source} was trained with another vocabulary than VOCAB_FILE: name {source / 'vocab.txt'}")
    start = loading.start_from(source, state.params, folded=not loading.is_variant(source, state.params))
    taken = named_shapes(state.params).keys() - set(start.fresh)
    for what, names in (("taken", taken), ("new, not there", start.fresh), ("left, not needed", start.unused)):
        shown = ", ".join(covering(names, [*taken, *start.fresh, *start.unused]))
        say(f"weights of {source}, {what}: {shown or 'nothing'}")
    say("the optimizer and the step are new")
    return state._replace(params=start.params)


def covering(names: Iterable[str], every: Iterable[str]) -> list[str]:
    """The fewest paths that these names stand under, and no others of `every`: a whole tower, or one kernel."""
    chosen = set(names)
    others = [f"{name}/" for name in every if name not in chosen]
    paths = set()
    for name in chosen:
        parts = name.split("/")
        prefixes = ("/".join(parts[:count]) for count in range(1, len(parts) + 1))
        paths.add(next(prefix for prefix in prefixes if not any(other.startswith(f"{prefix}/") for other in others)))
    return sorted(paths)


def data_state(batches: State, data: PretrainingData, vocabulary: WordPieceVocabulary) -> dict[str, object]:
    """What a checkpoint holds beside arrays."""
    return {
        "batches": whole_state(processes.gather(batches)),
        "kind": data.kind,
        "vocabulary": vocabulary.fingerprint,
    }


def held_out_metrics(
    configuration: PretrainingRun, masking: MaskingConfig, data: PretrainingData, mesh: Mesh
) -> Callable[[PyTree], dict[str, float]]:
    """A function of parameters: their metrics on the first held-out examples."""
    sums = functools.partial(
        steps.evaluate_step,
        model=configuration.model,
        objective=configuration.objective,
        masking=masking,
        reference=configuration.reference_metrics,
    )
    step = sharding.jit_forward(sums, mesh, configuration.mesh)

    def evaluate(params: PyTree) -> dict[str, float]:
        sums = evaluation.held_out_sums(
            params,
            data.held_out(),
            step=step,
            sharding=sharding.batch_sharding(mesh),
            num_batches=math.ceil(configuration.num_evaluation_examples / configuration.batch_size),
        )
        return evaluation.finish(sums, configuration.objective.loss_weights)

    return evaluate


def describe(params: PyTree, data: PretrainingData, configuration: PretrainingRun) -> dict[str, object]:
    """What `run.json` says of the run beside its command."""
    sizes = {name: int(sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(tower))) for name, tower in params.items()}
    return {
        "parameters": sizes,
        "corpus": data.name,
        "vocab_file": configuration.cache.vocab_file,
        "setting": dataclasses.asdict(setting_of(configuration)),
    }

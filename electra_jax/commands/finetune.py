"""`electra finetune`: trains a task's head on a pre-trained encoder with every seed, and reports the scores."""

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from electra_jax.checkpoints import model_dir as loading
from electra_jax.checkpoints.run_record import read_run_record, write_run_record
from electra_jax.checkpoints.sentence_encoder import pooling_head
from electra_jax.config import gin_files
from electra_jax.config.finetuning import FinetuningRun
from electra_jax.config.selection import BEST, LAST, SELECTIONS
from electra_jax.distributed import processes
from electra_jax.distributed.owner import owned, owning_model_dir
from electra_jax.distributed.processes import print_on_leader
from electra_jax.distributed.stop_signals import end_early, stop_signals
from electra_jax.errors import UserError
from electra_jax.files import local, regular, replace_file, replacing, replacing_directory
from electra_jax.finetuning import results as finetune_results
from electra_jax.finetuning.class_weights import weights_of_classes
from electra_jax.finetuning.cross_validation import results_of_folds
from electra_jax.finetuning.identity import (
    BATCHES,
    EACH_BY_ITSELF,
    OVER_THE_RUN,
    adds_epochs,
    changes,
    data_identity,
)
from electra_jax.finetuning.layers import Chosen, choose_layer, said
from electra_jax.finetuning.seed_run import SeedContext, Split, evaluate, evaluate_scored, run_seed
from electra_jax.finetuning.selection import Parts, parts_of
from electra_jax.finetuning.start import Origin, resolve_init, warn_of_long_rows
from electra_jax.interchange.finetuned_task import head_problem
from electra_jax.json_files import json_text
from electra_jax.model.finetuned import FinetunedModel, PromptedModel, Trainable
from electra_jax.model.pooling import with_layers
from electra_jax.reports.finetuning import read_results, write_finetune_report
from electra_jax.run_directory import CHECKPOINTS, FOLDS, KEPT, PREDICTIONS, RESULTS, SEED_RESULT, SEEDS
from electra_jax.runtime import keep_compilations
from electra_jax.tasks.catalog import make_task
from electra_jax.tasks.long_texts import cut_count
from electra_jax.tasks.outputs import left_out
from electra_jax.tasks.parts import halves, has_gold, warn_of_few
from electra_jax.tasks.protocol import VECTOR_KINDS, DownstreamTask
from electra_jax.tasks.qa.task import QATask
from electra_jax.tasks.unknown import state_unknown, unknown_of_rows
from electra_jax.tasks.vocabulary import Vocabulary
from electra_jax.training import sharding

# The most labels that a note lists by name.
MOST_NAMED = 10


@owning_model_dir("electra finetune")
def run(configuration: FinetuningRun) -> None:
    """Fine-tune with each seed, and on each fold; the same command resumes a run that was stopped or killed."""
    local(configuration.model_dir, "the MODEL_DIR of fine-tuning")
    keep_compilations()
    if configuration.task.folds is not None and configuration.task.fold is None:
        cross_validate(configuration, configuration.task.folds)
    else:
        fine_tune(configuration)


def cross_validate(configuration: FinetuningRun, folds: int) -> None:
    """Fine-tune on all folds but one, for each fold in turn, and report the mean and spread of their scores.

    Raises:
        UserError: if the directory holds another run.
    """
    model_dir = Path(configuration.model_dir)
    if (model_dir / SEEDS).exists() or (model_dir / CHECKPOINTS).exists():
        raise UserError(f"{model_dir} holds a run that is no cross-validation: use another MODEL_DIR")
    directories = [f"{FOLDS}/{fold}" for fold in range(folds)]
    for fold, directory in enumerate(directories):
        print_on_leader(f"fold {fold}, of {folds}: {model_dir / directory}")
        place = str(model_dir / directory)
        own = dataclasses.replace(
            configuration, model_dir=place, task=dataclasses.replace(configuration.task, fold=fold)
        )
        # A fold records the command that trains this fold alone.
        with gin_files.varied([f"FOLD={fold}", f"MODEL_DIR={place!r}"]), owned(place, "electra finetune"):
            if not fine_tune(own):
                return
    if processes.leader():
        found = [read_results(model_dir / directory / RESULTS) for directory in directories]
        finish_folds(configuration, found, directories)


def fine_tune(configuration: FinetuningRun) -> bool:
    """Fine-tune with each seed, and return whether all of them have finished."""
    mesh = sharding.make_mesh(configuration.mesh, len(jax.devices()))
    sharding.check_batch(configuration.batch_size, configuration.accumulation_steps, mesh)
    sharding.check_batch(configuration.evaluation_batch_size, 1, mesh)
    begun = resolve_init(configuration)
    task = make_task(configuration.task, begun.vocabulary)
    if task.kind == "multi_label_classification":
        print_on_leader(f"labels: a text may have several, or none, of {listed(task.labels)}")
    train = read_split(task, "train", begun.vocabulary, allow_unknown=configuration.allow_unknown)
    parts = read_parts(task, configuration, begun.vocabulary)
    chosen = chosen_layer(configuration, task, begun, parts.watched)
    context = SeedContext(
        run=configuration,
        task=task,
        origin=begun,
        train=train,
        parts=parts,
        mesh=mesh,
        model=model_of(configuration, task, begun, chosen),
        chosen=chosen,
    )
    head = context.model.head_config if isinstance(context.model, FinetunedModel) else None
    problem = None if head is None else head_problem(head, modern=begun.encoder.norm_placement == "pre")
    if problem is not None:
        print_on_leader(f"note: {problem}")
    if processes.leader():
        splits = [context.train, *context.parts.by_name.values()]
        longest = max(row["input_ids"].shape[-1] for split in splits for row in split.rows)
        # Position ids restart at the second text of a pair.
        warn_of_long_rows(begun, min(longest, task.length))
        for name, part in context.parts.by_name.items():
            # The folds together score all examples.
            if configuration.task.folds is None:
                warn_of_few(len(part.examples), name)
    check_settings(configuration, context)
    # A mesh that does not divide the model is refused before anything is written.
    sharding.check_model(jax.eval_shape(context.init, jax.random.key(0)), mesh, configuration.mesh)
    model_dir = open_directory(configuration, context)
    with stop_signals() as stop:
        seeds = []
        for seed in configuration.seeds:
            result = run_seed(context, seed, model_dir / SEEDS / str(seed), stop)
            if result is None:
                end_early(stop, "")
                return False
            seeds.append(result)
    finish(context, model_dir, seeds)
    return True


def check_settings(configuration: FinetuningRun, context: SeedContext) -> None:
    """Check the settings that depend on the task or the encoder, before anything is written.

    Raises:
        UserError: if more layers are to be frozen than there are, or class weights do not fit the task.
    """
    layers = context.model.config.num_hidden_layers
    if (configuration.frozen_layers or 0) > layers:
        raise UserError(
            f"FROZEN_LAYERS is {configuration.frozen_layers}, and the encoder has {layers} layers: set {layers} or less"
        )
    weights_of_classes(configuration.class_weights, context.task, context.train.examples)


def listed(labels: Sequence[str]) -> str:
    """Return the number of labels and the names of the first ones."""
    rest = ", ..." if len(labels) > MOST_NAMED else ""
    return f"{len(labels)}: {', '.join(labels[:MOST_NAMED])}{rest}"


def chosen_layer(configuration: FinetuningRun, task: DownstreamTask, begun: Origin, watched: Split) -> Chosen | None:
    """Return the layer and pooling that make a task's vectors: those that MODEL_DIR records, or else a new choice.

    Args:
        configuration: the run.
        task: a task of any kind; the result is None for those that make no vectors.
        begun: the encoder and vocabulary that the run starts from.
        watched: the examples on which the choice is made.

    Raises:
        UserError: if LAYER is not a layer of the encoder.
    """
    if task.kind not in VECTOR_KINDS:
        return None
    # Existing checkpoints have the recorded number of layers, even if INIT_FROM has changed since.
    recorded = read_run_record(Path(configuration.model_dir)).get("finetuning", {}).get("vectors")
    chosen = recorded or choose_layer(configuration, begun.encoder, task, watched.examples, watched.rows)
    print_on_leader(said(chosen, task.main_metric))
    return chosen


def model_of(configuration: FinetuningRun, task: DownstreamTask, begun: Origin, chosen: Chosen | None) -> Trainable:
    """Return the encoder with the task's head, or, for prompts, with the pre-training head."""
    if task.kind == "prompt":
        return PromptedModel(begun.encoder)
    if chosen is not None:
        encoder = with_layers(begun.encoder, chosen["layer"])
        return FinetunedModel(encoder, pooling_head(encoder, chosen["pooling"], normalize=True))
    final_sep_answers = isinstance(task, QATask) and task.rules.final_sep_is_answerable
    head = configuration.heads.head_for(
        task.kind, encoder=begun.encoder, num_labels=len(task.labels), final_sep_answers=final_sep_answers
    )
    return FinetunedModel(begun.encoder, head)


def read_parts(task: DownstreamTask, configuration: FinetuningRun, vocabulary: Vocabulary) -> Parts[Split]:
    """Read the dev split and, if it exists and has labels, the test split; decide which one selects and which scores.

    Raises:
        UserError: as `read_split`; or if the dev split is to be divided and cannot be.
    """
    allow_unknown = configuration.allow_unknown
    dev = read_split(task, "dev", vocabulary, allow_unknown=allow_unknown)
    test = None
    if labelled_test(task):
        test = read_split(task, "test", vocabulary, allow_unknown=allow_unknown)
    divided = None
    if configuration.selection == BEST and test is None:
        first, second = (part_of(task, dev, examples) for examples in halves(dev.examples))
        divided = first, second
    return parts_of(configuration.selection, dev, test, divided)


def labelled_test(task: DownstreamTask) -> bool:
    """Return whether there is a test split that can be scored; a leaderboard's has no labels."""
    if not any(name == "test" or name.startswith("test_") for name in task.splits):
        return False
    return any(has_gold(example) for example in task.examples("test").examples)


def read_split(task: DownstreamTask, name: str, vocabulary: Vocabulary, *, allow_unknown: bool) -> Split:
    """Read the examples and rows of a split, and print how many there are, were left out or cut, and the [UNK] share.

    Raises:
        UserError: if nothing in the split can be used, the dev split has no labels, or more than a fifth of its tokens
            are [UNK] and that is not allowed.
    """
    found = task.examples(name)
    training = name == "train"
    rows = task.rows(found.examples, training=training)
    if not rows:
        raise UserError(f"the {name} split of {task.name} has nothing that can be {'learnt' if training else 'scored'}")
    windows = f" as {len(rows)} rows" if len(rows) != len(found.examples) else ""
    print_on_leader(f"{name}: {len(found.examples)} examples{windows}{left_out(found.skipped)}")
    count = cut_count(rows, task.length)
    if count.texts:
        print_on_leader(f"{name}: {count}")
    unknown = unknown_of_rows(rows, found.examples, vocabulary)
    print_on_leader(state_unknown(unknown, what=f"the {name} split", allow_unknown=allow_unknown))
    return Split(found.examples, rows, found.skipped, count)


def part_of(task: DownstreamTask, split: Split, examples: Sequence[Any]) -> Split:
    """Return some of a split's examples as a split of their own; skipped examples are counted as for the whole."""
    rows = task.rows(examples, training=False)
    return Split(examples, rows, split.skipped, cut_count(rows, task.length))


def open_directory(configuration: FinetuningRun, context: SeedContext) -> Path:
    """Make the run directory and write its record.

    Raises:
        UserError: if the directory holds another run.
    """
    model_dir = Path(configuration.model_dir)
    data = data_identity(context)
    asked, record = configuration.identity(context.optimizer_config) | data, read_run_record(model_dir)
    asked[BATCHES] = OVER_THE_RUN
    if context.chosen is not None:
        asked["vectors"] = context.chosen
    held = record.get("finetuning", {})
    if (model_dir / FOLDS).exists():
        raise UserError(f"{model_dir} holds a run with FOLDS: use another MODEL_DIR")
    if record and not held:
        raise UserError(f"{model_dir} holds a run of another kind: use another MODEL_DIR")
    # Earlier versions chose checkpoints on the dev split and reported the scores of the same split.
    known = {"selection": LAST, BATCHES: EACH_BY_ITSELF, **held} if held else {}
    results = [model_dir / SEEDS / str(seed) / SEED_RESULT for seed in configuration.seeds]
    if all(path.exists() for path in results) and known.get("epochs") == asked["epochs"]:
        # Nothing is left to train: the scores are those of the batches with which the seeds were trained.
        asked[BATCHES] = known[BATCHES]
    more_epochs = adds_epochs(known, asked)
    if more_epochs and any(path.exists() and not (path.parent / CHECKPOINTS).exists() for path in results):
        raise UserError(
            f"{model_dir} has finished {held['epochs']:g} epochs and kept no state to continue from to "
            f"{asked['epochs']:g}: use another MODEL_DIR, with KEEP_STATE = True if epochs may be added later"
        )
    different = [] if more_epochs else changes(known, asked)
    if different:
        raise UserError(
            f"{model_dir} holds another run ({'; '.join(different[:5])}): use another MODEL_DIR, or remove that one to "
            "train again"
        )
    if not record and (model_dir / CHECKPOINTS).exists() and not (model_dir / SEEDS).exists():
        raise UserError(f"{model_dir} holds another model: use another MODEL_DIR")
    processes.check_same_everywhere("the data", data)
    finished = all(path.exists() for path in results) and not more_epochs
    if processes.leader() and not (finished and asked.keys() <= held.keys()):
        model_dir.mkdir(parents=True, exist_ok=True)
        write_run_record(model_dir, gin_files.resolved(), {"finetuning": asked})
    processes.check_shared(model_dir)
    return model_dir


def finish(context: SeedContext, model_dir: Path, seeds: list[dict[str, Any]]) -> None:
    """Make the best seed's checkpoint the model of MODEL_DIR, and write the results and their report page."""
    task, parts = context.task, context.parts
    best = finetune_results.best_seed(seeds, task.main_metric)
    processes.on_leader(promote, model_dir / SEEDS / str(best) / KEPT, model_dir)
    params = sharding.shard_like(loading.load(model_dir).params, context.abstract_state.params)
    found = evaluate_scored(context, params, evaluate(context, params))[parts.headline]
    if not processes.leader():
        return
    finetune_results.write_predictions(model_dir, found.task, parts.scored[parts.headline].examples, found.predictions)
    splits = {"train": context.train, **parts.by_name}
    results = {
        "task": task.name,
        "kind": task.kind,
        "main_metric": task.main_metric,
        "split": parts.headline,
        "selection": finetune_results.selection_of_all(seeds),
        "init_from": context.run.init_from,
        "num_examples": {name: len(split.examples) for name, split in splits.items()},
        "skipped": {name: split.skipped for name, split in splits.items() if split.skipped},
        "cut": {name: split.count.to_json() for name, split in splits.items() if split.count.texts},
        "seeds": seeds,
        "summary": finetune_results.summary(seeds),
        "other_splits": {
            name: finetune_results.summary(finetune_results.on_split(seeds, name))
            for name in parts.scored
            if name != parts.headline and finetune_results.on_split(seeds, name)
        },
        "num_failed": sum(seed["failed"] is not None for seed in seeds),
        "best_seed": best,
        "null_threshold": getattr(found.task, "null_threshold", None),
        "vectors": context.chosen,
        "label_thresholds": label_thresholds(found.task),
        "predictions": PREDICTIONS,
    }
    path = model_dir / RESULTS
    replace_file(path, json_text(results), durable=True)
    finetune_results.show(results)
    print_on_leader(f"results: {path}")
    print_on_leader(f"report: {write_finetune_report(model_dir)}")
    print_on_leader(f"model: {model_dir} ({SELECTIONS[context.run.selection]} of seed {best})")


def finish_folds(configuration: FinetuningRun, found: Sequence[dict[str, Any]], directories: Sequence[str]) -> None:
    """Write the results of a cross-validation, and print them.

    Args:
        configuration: the run.
        found: the results.json of each fold.
        directories: the folds' directories, relative to MODEL_DIR.
    """
    model_dir = Path(configuration.model_dir)
    results = results_of_folds(found, directories)
    path, text = model_dir / RESULTS, json_text(results)
    if not path.exists() or regular(path).read_text(encoding="utf-8") != text:
        task = configuration.task
        write_run_record(
            model_dir, gin_files.resolved(), {"cross_validation": {"folds": task.folds, "fold_seed": task.fold_seed}}
        )
        replace_file(path, text, durable=True)
    finetune_results.show(results)
    print_on_leader(f"results: {path}")
    print_on_leader(
        f"models: {model_dir / directories[0]} to {model_dir / directories[-1]}, each trained without the examples of "
        "its fold"
    )


def label_thresholds(task: DownstreamTask) -> dict[str, float] | None:
    """Return the probability from which a text gets each label, if a text may have several; None for other tasks."""
    thresholds = getattr(task, "thresholds", None)
    return None if thresholds is None else dict(zip(task.labels, thresholds, strict=True))


def promote(source: Path, model_dir: Path) -> None:
    """Copy the model of a model directory into MODEL_DIR, replacing an earlier one, checkpoints last."""
    shutil.rmtree(model_dir / CHECKPOINTS, ignore_errors=True)
    for path in source.iterdir():
        if path.is_file():
            with replacing(model_dir / path.name) as copy:
                shutil.copy2(path, copy)
    with replacing_directory(model_dir / CHECKPOINTS) as part:
        shutil.copytree(source / CHECKPOINTS, part, dirs_exist_ok=True)
